//! The wire's thread: frames in, a queue ordered by time, frames out.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;

use super::carrier::{Carrier, Held};
use super::frame::{Wanted, arp_reply, set_addresses, wanted};
use super::line::saturating_ns;
use super::{Change, Counters, Lateness, Report, SiteId, Socket, WanConfig};
use crate::error::{Error, Result};
use crate::sys::{BATCH, Buffers, PacketSocket, Received, schedule_fifo};

/// Room in the kernel for what arrives while the wire is busy, and for what it sends.
const SOCKET_BUFFER: c_int = 8 << 20;
/// Batches read from one site before the others have their turn.
const BATCHES_IN_TURN: usize = 4;
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

/// A site as the thread sees it.
struct Site {
    plug: Socket,
    socket: Option<PacketSocket>,
    /// What is due, until it is sent in one go.
    due: Vec<Held>,
}

pub(super) struct Wire {
    started: Instant,
    longest: usize,
    sites: Vec<Site>,
    carrier: Carrier,
    buffers: Buffers,
    lateness: Histogram<u64>,
}

impl Wire {
    /// Opens every device in the calling thread's namespace.
    pub(super) fn open(config: WanConfig, started: Instant) -> Result<Self> {
        let carrier = Carrier::new(&config);
        let open = |plug: Socket| {
            let socket = open_device(&plug.device)?;
            Ok(Site {
                plug,
                socket: Some(socket),
                due: Vec::new(),
            })
        };
        let longest = longest(config.mtu);
        let lateness = Histogram::new_with_bounds(1, LATEST_NS, 3);
        Ok(Self {
            started,
            longest,
            sites: config.sockets.into_iter().map(open).collect::<Result<_>>()?,
            carrier,
            buffers: Buffers::new(longest),
            lateness: lateness.map_err(|error| Error::io("make a histogram")(io::Error::other(error)))?,
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
            self.carrier.let_events_happen(self.now_ns());
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
                    self.carrier.apply(change);
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

    fn attach(&mut self, site: SiteId) -> Result<()> {
        let site = &mut self.sites[site.index()];
        site.socket = Some(open_device(&site.plug.device)?);
        Ok(())
    }

    fn counters(&mut self) -> Counters {
        let sockets = self.sites.iter().filter_map(|site| site.socket.as_ref());
        self.carrier.counters.overrun += sockets
            .filter_map(|socket| socket.take_overruns().ok())
            .sum::<u64>();
        self.carrier.counters
    }

    fn report(&mut self) -> Report {
        Report {
            elapsed: self.started.elapsed(),
            counters: self.counters(),
            lateness: Lateness(self.lateness.clone()),
            log: self.carrier.log().clone(),
        }
    }

    /// Sleeps until a frame is due, an event happens, the bell rings or a site has sent something; `ready`
    /// is then the list of those sites.
    fn await_work(&self, bell: &EventFd, ready: &mut Vec<usize>) {
        let wake = self.carrier.next();
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
        let alive = self.carrier.is_alive(from);
        let counters = &mut self.carrier.counters;
        match wanted(frame) {
            _ if !alive => counters.killed += 1,
            _ if received.length > self.longest => counters.too_big += 1,
            Wanted::Nothing => counters.ignored += 1,
            Wanted::Resolve => {
                let site = &self.sites[from];
                let reply = arp_reply(frame, site.plug.mac);
                let sent = site.socket.as_ref().map(|socket| socket.send(&[&reply]));
                match sent {
                    Some(Ok(1)) => counters.resolved += 1,
                    _ => counters.refused += 1,
                }
            }
            Wanted::Carry(_) if received.partial_checksum => counters.open_checksum += 1,
            Wanted::Carry(address) => match self.carrier.site_of(address) {
                None => self.carrier.counters.no_route += 1,
                Some(to) => self
                    .carrier
                    .carry(from, to, frame, entry_ns(received, now_ns, clock)),
            },
        }
    }

    /// Hands out every frame whose time has come.
    fn deliver_due(&mut self) {
        let now_ns = self.now_ns();
        while let Some((to, mut held)) = self.carrier.due(now_ns) {
            let site = &mut self.sites[to];
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
            self.carrier.counters.refused += refused as u64;
            rest = &rest[sent + refused..];
        }
        for held in due.drain(..) {
            self.carrier.recycle(held);
        }
        self.sites[to].due = due;
    }

    fn account(&mut self, delivered: &[Held]) {
        let now_ns = self.now_ns();
        for held in delivered {
            self.lateness
                .saturating_record(now_ns.saturating_sub(held.leaves_ns));
            self.carrier.delivered(held, now_ns);
        }
    }
}

/// Octets of the longest frame.
pub(crate) fn longest(mtu: u32) -> usize {
    usize::try_from(mtu).unwrap_or(usize::MAX).saturating_add(14)
}

/// Sends the first of `frames` and returns how many the device took; an error is one that it did not.
fn send(socket: &PacketSocket, frames: &[Held]) -> usize {
    let mut batch: [&[u8]; BATCH] = [&[]; BATCH];
    for (slot, held) in batch.iter_mut().zip(frames) {
        *slot = &held.frame;
    }
    socket.send(&batch[..frames.len().min(BATCH)]).unwrap_or(0)
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
