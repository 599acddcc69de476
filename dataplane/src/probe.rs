//! `kuafu probe`: sends the probes of every path that begins here, and sets by which silence each is judged.
//!
//! A process of its own, with one thread and no channel to anybody: it knows the pinned maps alone. Programs judge by
//! the words of `path_states` that it writes; when it is killed, its silence makes nothing stale. Probes leave by
//! `kuafu0`, whose port program numbers, stamps and tags them; those that come home are consumed by the edge.

mod schedule;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::offset_of;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use kuafu_pipeline::map::PathState;

pub(crate) use self::schedule::{IDLE_BITS, PROBE_BITS};
use self::schedule::{Judgement, Schedule, Use};
use self::socket::Socket;
use crate::bpf::{Clock, Maps, Pins, Words};
use crate::error::Result;

/// Between two looks at which paths there are and which pairs carry packets.
const REFRESH: Duration = Duration::from_secs(1);
/// A pair is in use so long after its last packet.
pub(crate) const IN_USE: Duration = Duration::from_secs(30);
/// While there is no agent's work to probe for.
const PATIENCE: Duration = Duration::from_millis(200);
/// The longest sleep, so that a stop is seen.
const NAP: Duration = Duration::from_millis(50);

/// Probes until `stop` is true; then no path is judged any more. Waits where the agent has not pinned its maps yet,
/// and begins anew where it has pinned others.
///
/// # Errors
/// `Io`.
pub fn run(pins: &Pins, stop: &AtomicBool) -> Result<()> {
    let clock = Clock::new()?;
    while !stop.load(Relaxed) {
        match Prober::open(pins, &clock)? {
            Some(prober) => prober.probe(stop)?,
            None => thread::sleep(PATIENCE),
        }
    }
    Ok(())
}

/// A prober over one set of maps.
struct Prober<'a> {
    pins: &'a Pins,
    clock: &'a Clock,
    maps: Maps,
    /// Which maps these are.
    inode: u64,
    states: Words,
    socket: Socket,
    schedule: Schedule,
    start: Instant,
}

impl<'a> Prober<'a> {
    /// `None` while the agent has not made the host a node.
    fn open(pins: &'a Pins, clock: &'a Clock) -> Result<Option<Self>> {
        let Some(inode) = inode(pins) else {
            return Ok(None);
        };
        // The agent pins one map after the other, and fills them later.
        let Ok(maps) = Maps::open(pins) else {
            return Ok(None);
        };
        let overlay = maps.node.get(&0)?.unwrap_or_default().overlay.get();
        let socket = if overlay == 0 { None } else { Socket::open(overlay) };
        let Some(socket) = socket else {
            return Ok(None);
        };
        tracing::info!(overlay = %std::net::Ipv4Addr::from(overlay), "probing");
        Ok(Some(Self {
            pins,
            clock,
            states: maps.path_states.words()?,
            maps,
            inode,
            socket,
            schedule: Schedule::default(),
            start: Instant::now(),
        }))
    }

    /// Until it is stopped, or maps or socket are no longer what they were.
    fn probe(mut self, stop: &AtomicBool) -> Result<()> {
        let mut refresh = Duration::ZERO;
        while !stop.load(Relaxed) {
            let now = self.start.elapsed();
            if now >= refresh {
                if inode(self.pins) != Some(self.inode) {
                    return Ok(());
                }
                let uses = self.uses()?;
                let judgements = self.schedule.follow(now, &uses);
                self.write(&judgements);
                refresh = now + REFRESH;
            }
            self.confirm();
            let departed = |index| word(&self.states, index, offset_of!(PathState, departed));
            let spared = self.schedule.spare(now, departed);
            self.write(&spared);
            for path in self.schedule.due(now) {
                if self.is_installed(path)? && !self.socket.send(path) {
                    return Ok(());
                }
            }
            let next = self.schedule.next().unwrap_or(refresh).min(refresh);
            thread::sleep(next.saturating_sub(self.start.elapsed()).min(NAP));
        }
        let all: Vec<Judgement> = self.schedule.indices().map(|index| (index, None)).collect();
        self.write(&all);
        Ok(())
    }

    /// A path may have been removed since paths were looked at.
    fn is_installed(&self, index: u32) -> Result<bool> {
        let path = self.maps.paths.get(&index)?;
        Ok(path.is_some_and(|path| path.leg.label != 0))
    }

    fn confirm(&mut self) {
        let mut judgements = Vec::new();
        for index in self.schedule.waiting() {
            let usage = self.usage(index, None);
            judgements.extend(self.schedule.confirm(index, &usage));
        }
        self.write(&judgements);
    }

    /// The installed paths, and how they are used.
    fn uses(&self) -> Result<BTreeMap<u32, Use>> {
        let since = self.clock.jiffies()?.saturating_sub(self.clock.ticks(IN_USE));
        let mut carrying = BTreeSet::new();
        self.maps.pair_states.for_each(|index, state| {
            let last_packet = state.last_packet.get();
            if last_packet != 0 && last_packet >= since {
                carrying.insert(index);
            }
        })?;
        let mut busy = BTreeMap::new();
        self.maps.pairs.for_each(|index, pair| {
            if carrying.contains(&index) {
                for path in [pair.primary, pair.backup] {
                    busy.insert(path, pair.premium != 0);
                }
            }
        })?;
        let mut installed = Vec::new();
        self.maps.paths.for_each(|index, path| {
            if path.leg.label != 0 {
                installed.push(index);
            }
        })?;
        let usage = |index| (index, self.usage(index, busy.get(&index).copied()));
        Ok(installed.into_iter().map(usage).collect())
    }

    /// `in_use`: whether the pair that uses it is premium.
    fn usage(&self, index: u32, in_use: Option<bool>) -> Use {
        let word = |offset| word(&self.states, index, offset);
        Use {
            in_use: in_use.is_some(),
            premium: in_use == Some(true),
            down: word(offset_of!(PathState, down)) != 0,
            departed: word(offset_of!(PathState, departed)),
            returns: word(offset_of!(PathState, returns)),
            last_return: word(offset_of!(PathState, last_return)),
            watch: word(offset_of!(PathState, watch)),
        }
    }

    /// `silent_after` first: a path is judged from when `stale_after` is there.
    fn write(&self, judgements: &[Judgement]) {
        for (index, limits) in judgements {
            let ticks = |duration| self.clock.ticks(duration);
            let (stale, silent) = limits.map_or((0, 0), |limits| (ticks(limits.stale), ticks(limits.silent)));
            let set = |offset, value| {
                if let Some(word) = self.states.word(*index, offset) {
                    word.store(value, Relaxed);
                }
            };
            set(offset_of!(PathState, silent_after), silent);
            set(offset_of!(PathState, stale_after), stale);
        }
    }
}

fn word(states: &Words, index: u32, offset: usize) -> u64 {
    let word = states.word(index, offset);
    word.map_or(0, |word| word.load(Relaxed))
}

fn inode(pins: &Pins) -> Option<u64> {
    fs::metadata(pins.map("node")).ok().map(|metadata| metadata.ino())
}
