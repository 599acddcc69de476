//! What the wire does with frames, without the sockets that they come from and go to, and without a clock: which line
//! a frame takes, when it leaves, what is lost, and what happens by schedule. Times are in ns since the wire started.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::Ipv4Addr;

use super::line::{Entry, Line, saturating_ns};
use super::log::WireLog;
use super::{Change, Counters, SiteId, WanConfig};

/// The most frames under way; about 400 MB at 1500 bytes.
const MOST_UNDER_WAY: usize = 1 << 18;
/// Buffers kept for the next frames.
const SPARE_BUFFERS: usize = 4_096;

/// A frame under way.
pub(crate) struct Held {
    pub(super) leaves_ns: u64,
    pub(super) entry_ns: u64,
    /// Keeps the order of frames that leave at one time.
    number: u64,
    line: usize,
    pub(crate) frame: Vec<u8>,
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

/// The lines between sites, and what is under way on them.
pub(crate) struct Carrier {
    alive: Vec<bool>,
    routes: HashMap<Ipv4Addr, SiteId>,
    lines: Vec<Line>,
    under_way: BinaryHeap<Reverse<Held>>,
    number: u64,
    events: VecDeque<(u64, Change)>,
    spare: Vec<Vec<u8>>,
    pub(crate) counters: Counters,
    log: WireLog,
}

impl Carrier {
    pub(crate) fn new(config: &WanConfig) -> Self {
        let sites = config.sockets.len();
        let routes = (0..).zip(&config.sockets).flat_map(|(index, socket)| {
            let here = move |&address| (address, SiteId::new(index));
            socket.addresses.iter().map(here)
        });
        let line = |(index, line): (usize, _)| Line::new(line, config.seed.named(&format!("loss {index}")));
        let mut events: Vec<_> = config
            .events
            .iter()
            .map(|&(at, change)| (saturating_ns(at), change))
            .collect();
        events.sort_by_key(|&(at, _)| at);
        Self {
            alive: vec![true; sites],
            routes: routes.collect(),
            lines: config.lines.iter().copied().enumerate().map(line).collect(),
            under_way: BinaryHeap::new(),
            number: 0,
            events: events.into(),
            spare: Vec::new(),
            counters: Counters::default(),
            log: WireLog::new(sites),
        }
    }

    /// Where an address is.
    pub(crate) fn site_of(&self, address: Ipv4Addr) -> Option<SiteId> {
        self.routes.get(&address).copied()
    }

    /// Whether a site sends and receives.
    pub(crate) fn is_alive(&self, site: usize) -> bool {
        self.alive[site]
    }

    /// The delays that were applied.
    pub(crate) fn log(&self) -> &WireLog {
        &self.log
    }

    /// How long what enters the line between two sites now is under way.
    pub(crate) fn delay_ns(&mut self, from: usize, to: SiteId, now_ns: u64) -> u64 {
        let line = self.line(from, to);
        self.lines[line].delay_ns(now_ns)
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Kill(site) => self.alive[site.index()] = false,
            Change::Heal(site) => self.alive[site.index()] = true,
            Change::Loss { from, to, share } => self.line_mut(from, to).set_loss(share),
            Change::DataLoss { from, to, share } => self.line_mut(from, to).set_data_loss(share),
            Change::ExtraDelay { from, to, extra } => self.line_mut(from, to).set_extra_delay(extra),
            Change::Rate { from, to, bps } => self.line_mut(from, to).set_rate(bps),
        }
    }

    pub(crate) fn let_events_happen(&mut self, now_ns: u64) {
        while let Some((_, change)) = self.events.pop_front_if(|&mut (at_ns, _)| at_ns <= now_ns) {
            self.apply(change);
        }
    }

    /// When the next frame is due, or the next event.
    pub(crate) fn next(&self) -> Option<u64> {
        let next = self.under_way.peek().map(|Reverse(held)| held.leaves_ns);
        let event = self.events.front().map(|&(at_ns, _)| at_ns);
        [next, event].into_iter().flatten().min()
    }

    /// Takes a frame that entered at `entry_ns`.
    pub(crate) fn carry(&mut self, from: usize, to: SiteId, bytes: &[u8], entry_ns: u64) {
        self.counters.entered += 1;
        if self.under_way.len() >= MOST_UNDER_WAY {
            self.counters.overflow += 1;
            return;
        }
        let line = self.line(from, to);
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

    /// The next frame whose time has come, and where it arrives. Sites that were killed get none.
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<(usize, Held)> {
        let is_due = |held: &Reverse<Held>| held.0.leaves_ns <= now_ns;
        while self.under_way.peek().is_some_and(is_due) {
            let Reverse(held) = self.under_way.pop()?;
            let to = held.line % self.alive.len();
            if self.alive[to] {
                return Some((to, held));
            }
            self.counters.killed += 1;
            self.recycle(held);
        }
        None
    }

    /// Notes that a frame was handed out.
    pub(crate) fn delivered(&mut self, held: &Held, now_ns: u64) {
        self.counters.delivered += 1;
        self.log
            .record(held.line, held.entry_ns, now_ns.saturating_sub(held.entry_ns));
    }

    /// Keeps a frame's room for another.
    pub(crate) fn recycle(&mut self, held: Held) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(held.frame);
        }
    }

    fn line(&self, from: usize, to: SiteId) -> usize {
        from * self.alive.len() + to.index()
    }

    fn line_mut(&mut self, from: SiteId, to: SiteId) -> &mut Line {
        let line = self.line(from.index(), to);
        &mut self.lines[line]
    }
}
