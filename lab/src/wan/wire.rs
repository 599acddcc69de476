//! The wire's thread: frames in, a queue ordered by time, frames out.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::ffi::c_int;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;

use super::frame::{Wanted, arp_reply, set_addresses, wanted};
use super::line::{Entry, Line, saturating_ns};
use super::log::WireLog;
use super::{Change, Counters, Lateness, Report, SiteId, Socket, WanConfig};
use crate::error::{Error, Result};
use crate::sys::{BATCH, Buffers, PacketSocket, Received, schedule_fifo};

/// Room in the kernel for what arrives while the wire is busy, and for what it sends.
const SOCKET_BUFFER: c_int = 8 << 20;
/// The most frames under way; about 400 MB at 1500 bytes.
const MOST_UNDER_WAY: usize = 1 << 18;
/// Batches read from one site before the others have their turn.
const BATCHES_IN_TURN: usize = 4;
/// Buffers kept for the next frames.
const SPARE_BUFFERS: usize = 4_096;
/// An older stamp than this was not taken by the clock that is read now: the clock was set meanwhile.
const OLDEST_STAMP: Duration = Duration::from_secs(1);
/// The bounds of the lateness histogram: 1 ns to 10 s, three digits.
const LATEST_NS: u64 = 10_000_000_000;

/// What the handle asks of the thread.
pub(super) enum Request {
    Change(Change, Sender<Duration>),
    Attach(SiteId, Sender<Result<()>>),
    Counters(Sender<Counters>),
    Report(Sender<Report>),
    Stop,
}

/// A frame under way.
struct Held {
    leaves_ns: u64,
    entry_ns: u64,
    /// Keeps the order of frames that leave at one time.
    number: u64,
    line: usize,
    frame: Vec<u8>,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.leaves_ns, self.number).cmp(&(other.leaves_ns, other.number))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Held {}

/// A site as the thread sees it.
struct Site {
    plug: Socket,
    socket: Option<PacketSocket>,
    alive: bool,
    /// What is due, until it is sent in one go.
    due: Vec<Held>,
}

pub(super) struct Wire {
    started: Instant,
    longest: usize,
    sites: Vec<Site>,
    routes: HashMap<Ipv4Addr, SiteId>,
    lines: Vec<Line>,
    under_way: BinaryHeap<Reverse<Held>>,
    number: u64,
    events: VecDeque<(u64, Change)>,
    buffers: Buffers,
    spare: Vec<Vec<u8>>,
    counters: Counters,
    lateness: Histogram<u64>,
    log: WireLog,
}

impl Wire {
    /// Opens every device in the calling thread's namespace.
    pub(super) fn open(config: WanConfig, started: Instant) -> Result<Self> {
        let count = config.sockets.len();
        let mut routes = HashMap::new();
        for (index, socket) in (0..).zip(&config.sockets) {
            routes.extend(
                socket
                    .addresses
                    .iter()
                    .map(|&address| (address, SiteId::new(index))),
            );
        }
        let open = |plug: Socket| {
            let socket = open_device(&plug.device)?;
            Ok(Site {
                plug,
                socket: Some(socket),
                alive: true,
                due: Vec::new(),
            })
        };
        let line = |(index, line)| Line::new(line, config.seed.named(&format!("loss {index}")));
        let mut events: Vec<_> = config
            .events
            .into_iter()
            .map(|(at, change)| (saturating_ns(at), change))
            .collect();
        events.sort_by_key(|&(at, _)| at);
        let longest = usize::try_from(config.mtu)
            .unwrap_or(usize::MAX)
            .saturating_add(14);
        let lateness = Histogram::new_with_bounds(1, LATEST_NS, 3);
        Ok(Self {
            started,
            longest,
            sites: config.sockets.into_iter().map(open).collect::<Result<_>>()?,
            routes,
            lines: config.lines.into_iter().enumerate().map(line).collect(),
            under_way: BinaryHeap::new(),
            number: 0,
            events: events.into(),
            buffers: Buffers::new(longest),
            spare: Vec::new(),
            counters: Counters::default(),
            lateness: lateness.map_err(|error| Error::io("make a histogram")(io::Error::other(error)))?,
            log: WireLog::new(count),
        })
    }

    /// Carries frames until it is told to stop, or the handle is gone.
    pub(super) fn run(mut self, inbox: &Receiver<Request>, bell: &EventFd) {
        punctual();
        let mut ready = Vec::new();
        loop {
            if self.obey(inbox).is_none() {
                return;
            }
            self.let_events_happen();
            self.deliver_due();
            self.await_work(bell, &mut ready);
            for &site in &ready {
                self.read_site(site);
            }
        }
    }

    fn now_ns(&self) -> u64 {
        saturating_ns(self.started.elapsed())
    }

    /// Does what was asked; `None` when the wire shall stop.
    fn obey(&mut self, inbox: &Receiver<Request>) -> Option<()> {
        loop {
            // An answer that nobody waits for any more is no fault.
            match inbox.try_recv() {
                Ok(Request::Change(change, answer)) => {
                    self.apply(change);
                    let _ = answer.send(self.started.elapsed());
                }
                Ok(Request::Attach(site, answer)) => {
                    let _ = answer.send(self.attach(site));
                }
                Ok(Request::Counters(answer)) => {
                    let _ = answer.send(self.counters());
                }
                Ok(Request::Report(answer)) => {
                    let _ = answer.send(self.report());
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => return Some(()),
                Ok(Request::Stop) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return None,
            }
        }
    }

    fn apply(&mut self, change: Change) {
        let sites = self.sites.len();
        let line = |from: SiteId, to: SiteId| from.index() * sites + to.index();
        match change {
            Change::Kill(site) => self.sites[site.index()].alive = false,
            Change::Heal(site) => self.sites[site.index()].alive = true,
            Change::Loss { from, to, share } => self.lines[line(from, to)].set_loss(share),
            Change::DataLoss { from, to, share } => self.lines[line(from, to)].set_data_loss(share),
            Change::ExtraDelay { from, to, extra } => self.lines[line(from, to)].set_extra_delay(extra),
            Change::Rate { from, to, bps } => self.lines[line(from, to)].set_rate(bps),
        }
    }

    fn attach(&mut self, site: SiteId) -> Result<()> {
        let site = &mut self.sites[site.index()];
        site.socket = Some(open_device(&site.plug.device)?);
        Ok(())
    }

    fn counters(&mut self) -> Counters {
        let sockets = self.sites.iter().filter_map(|site| site.socket.as_ref());
        self.counters.overrun += sockets
            .filter_map(|socket| socket.take_overruns().ok())
            .sum::<u64>();
        self.counters
    }

    fn report(&mut self) -> Report {
        Report {
            elapsed: self.started.elapsed(),
            counters: self.counters(),
            lateness: Lateness(self.lateness.clone()),
            log: self.log.clone(),
        }
    }

    fn let_events_happen(&mut self) {
        let now_ns = self.now_ns();
        while let Some((_, change)) = self.events.pop_front_if(|&mut (at_ns, _)| at_ns <= now_ns) {
            self.apply(change);
        }
    }

    /// Sleeps until a frame is due, an event happens, the bell rings or a site has sent something; `ready`
    /// is then the list of those sites.
    fn await_work(&self, bell: &EventFd, ready: &mut Vec<usize>) {
        let next = self.under_way.peek().map(|Reverse(held)| held.leaves_ns);
        let event = self.events.front().map(|&(at_ns, _)| at_ns);
        let wake = [next, event].into_iter().flatten().min();
        let sleep = wake.map(|wake| TimeSpec::from(Duration::from_nanos(wake.saturating_sub(self.now_ns()))));
        let (indices, mut watched): (Vec<_>, Vec<_>) = self
            .sites
            .iter()
            .enumerate()
            .filter_map(|(index, site)| Some((index, site.socket.as_ref()?)))
            .map(|(index, socket)| (index, PollFd::new(socket.as_fd(), PollFlags::POLLIN)))
            .unzip();
        watched.push(PollFd::new(bell.as_fd(), PollFlags::POLLIN));
        ready.clear();
        // An interrupted sleep is a short one.
        if ppoll(&mut watched, sleep, None).unwrap_or(0) > 0 {
            let _ = bell.read();
            let spoke = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
            ready.extend(
                indices
                    .into_iter()
                    .zip(&watched)
                    .filter(|(_, fd)| spoke(fd))
                    .map(|(index, _)| index),
            );
        }
    }

    fn read_site(&mut self, from: usize) {
        for _ in 0..BATCHES_IN_TURN {
            let Some(socket) = &self.sites[from].socket else {
                return;
            };
            let count = match socket.receive(&mut self.buffers) {
                Ok(count) => count,
                Err(error) => return self.unplug(from, &error),
            };
            let (now_ns, clock) = (self.now_ns(), SystemTime::now());
            for index in 0..count {
                self.take(from, index, now_ns, clock);
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// The device is gone, or down for good: a site's end was removed.
    fn unplug(&mut self, site: usize, error: &io::Error) {
        let site = &mut self.sites[site];
        tracing::debug!(device = site.plug.device, %error, "unplugged");
        site.socket = None;
    }

    /// Takes frame `index` of the last batch, which came from site `from`.
    fn take(&mut self, from: usize, index: usize, now_ns: u64, clock: SystemTime) {
        let (frame, received) = self.buffers.frame(index);
        match wanted(frame) {
            _ if !self.sites[from].alive => self.counters.killed += 1,
            _ if received.length > self.longest => self.counters.too_big += 1,
            Wanted::Nothing => self.counters.ignored += 1,
            Wanted::Resolve => {
                let site = &self.sites[from];
                let reply = arp_reply(frame, site.plug.mac);
                let sent = site.socket.as_ref().map(|socket| socket.send(&[&reply]));
                match sent {
                    Some(Ok(1)) => self.counters.resolved += 1,
                    _ => self.counters.refused += 1,
                }
            }
            Wanted::Carry(_) if received.partial_checksum => self.counters.open_checksum += 1,
            Wanted::Carry(address) => match self.routes.get(&address) {
                None => self.counters.no_route += 1,
                Some(&to) => self.carry(from, to, index, entry_ns(received, now_ns, clock)),
            },
        }
    }

    fn carry(&mut self, from: usize, to: SiteId, index: usize, entry_ns: u64) {
        self.counters.entered += 1;
        if self.under_way.len() >= MOST_UNDER_WAY {
            self.counters.overflow += 1;
            return;
        }
        let line = from * self.sites.len() + to.index();
        let (bytes, _) = self.buffers.frame(index);
        match self.lines[line].enter(entry_ns, bytes) {
            Entry::Lost => self.counters.lost += 1,
            Entry::RateLimited => self.counters.rate_limited += 1,
            Entry::Leaves(leaves_ns) => {
                let mut frame = self.spare.pop().unwrap_or_default();
                frame.clear();
                frame.extend_from_slice(bytes);
                self.number += 1;
                let number = self.number;
                self.under_way.push(Reverse(Held {
                    leaves_ns,
                    entry_ns,
                    number,
                    line,
                    frame,
                }));
            }
        }
    }

    /// Hands out every frame whose time has come.
    fn deliver_due(&mut self) {
        let now_ns = self.now_ns();
        let is_due = |held: &Reverse<Held>| held.0.leaves_ns <= now_ns;
        while self.under_way.peek().is_some_and(is_due) {
            let Some(Reverse(mut held)) = self.under_way.pop() else {
                break;
            };
            let to = held.line % self.sites.len();
            let site = &mut self.sites[to];
            if !site.alive {
                self.counters.killed += 1;
                recycle(&mut self.spare, held.frame);
                continue;
            }
            set_addresses(&mut held.frame, site.plug.peer, site.plug.mac);
            site.due.push(held);
            if site.due.len() == BATCH {
                self.flush(to);
            }
        }
        for to in 0..self.sites.len() {
            self.flush(to);
        }
    }

    /// Sends what is due at one site.
    fn flush(&mut self, to: usize) {
        let mut due = std::mem::take(&mut self.sites[to].due);
        let mut rest = due.as_slice();
        while !rest.is_empty() {
            let sent = match &self.sites[to].socket {
                Some(socket) => send(socket, rest),
                None => 0,
            };
            self.account(&rest[..sent]);
            // The device refused the first of what is left; those behind it have their own chance.
            let refused = usize::from(sent < rest.len());
            self.counters.refused += refused as u64;
            rest = &rest[sent + refused..];
        }
        for held in due.drain(..) {
            recycle(&mut self.spare, held.frame);
        }
        self.sites[to].due = due;
    }

    fn account(&mut self, delivered: &[Held]) {
        let now_ns = self.now_ns();
        for held in delivered {
            self.counters.delivered += 1;
            self.lateness
                .saturating_record(now_ns.saturating_sub(held.leaves_ns));
            self.log
                .record(held.line, held.entry_ns, now_ns.saturating_sub(held.entry_ns));
        }
    }
}

/// Sends the first of `frames` and returns how many the device took; an error is one that it did not.
fn send(socket: &PacketSocket, frames: &[Held]) -> usize {
    let mut batch: [&[u8]; BATCH] = [&[]; BATCH];
    for (slot, held) in batch.iter_mut().zip(frames) {
        *slot = &held.frame;
    }
    socket.send(&batch[..frames.len().min(BATCH)]).unwrap_or(0)
}

fn recycle(spare: &mut Vec<Vec<u8>>, frame: Vec<u8>) {
    if spare.len() < SPARE_BUFFERS {
        spare.push(frame);
    }
}

/// When the device delivered a frame that was read at `now_ns`, which is `clock` on the real-time clock
/// that stamps frames: what the wire's thread slept through is no delay of the line.
fn entry_ns(received: Received, now_ns: u64, clock: SystemTime) -> u64 {
    let stamp = received
        .stamp
        .and_then(|stamp| SystemTime::UNIX_EPOCH.checked_add(stamp));
    let age = stamp
        .and_then(|stamp| clock.duration_since(stamp).ok())
        .filter(|age| *age < OLDEST_STAMP);
    now_ns.saturating_sub(age.map_or(0, saturating_ns))
}

fn open_device(device: &str) -> Result<PacketSocket> {
    let index = if_nametoindex(device).map_err(Error::errno(format!("find device {device}")))?;
    PacketSocket::open(index, SOCKET_BUFFER).map_err(Error::io(format!("open device {device}")))
}

/// Asks for sleeps that end on time. Where the kernel refuses, the wire runs as well as it can, and its
/// lateness says how well that is.
fn punctual() {
    if let Err(error) = set_timerslack(1) {
        tracing::warn!(%error, "the wire's timers keep their slack");
    }
    if let Err(error) = schedule_fifo() {
        tracing::warn!(%error, "the wire has no real-time priority");
    }
}
