//! `kuafu probe`: sends the probes of every path that begins here, and sets by which silence each is judged.
//!
//! A process of its own, with no channel to anybody: it knows the pinned maps alone. Programs judge by
//! the words of `path_states` that it writes; when it is killed, its silence makes nothing stale. Probes leave by
//! `kuafu0`, whose port program numbers, stamps and tags them; those that come home are consumed by the edge. A second
//! thread fragments what is too large for the backbone.

mod fragment;
mod rounds;
mod schedule;
mod socket;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use self::fragment::Slow;
pub use self::fragment::pieces;
pub use self::rounds::Rounds;
pub(crate) use self::schedule::{IDLE_BITS, PROBE_BITS};
pub use self::socket::PAYLOAD;
use self::socket::Socket;
use crate::bpf::{Clock, Maps, Pins};
use crate::error::Result;
use crate::live::{Kernel, Opened};

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
            Some((prober, slow)) => prober.probe(&slow, stop)?,
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
    opened: Opened,
    socket: Socket,
    rounds: Rounds,
    start: Instant,
}

impl<'a> Prober<'a> {
    /// `None` while the agent has not made the host a node.
    fn open(pins: &'a Pins, clock: &'a Clock) -> Result<Option<(Self, Slow<'a>)>> {
        let Some(inode) = inode(pins) else {
            return Ok(None);
        };
        // The agent pins one map after the other, and fills them later.
        let Ok(maps) = Maps::open(pins) else {
            return Ok(None);
        };
        let overlay = maps.node.get(&0)?.unwrap_or_default().overlay.get();
        let socket = if overlay == 0 { None } else { Socket::open(overlay) };
        let (Some(socket), Some(slow)) = (socket, Slow::open(&maps, clock)?) else {
            return Ok(None);
        };
        tracing::info!(overlay = %std::net::Ipv4Addr::from(overlay), "probing");
        let prober = Self {
            pins,
            clock,
            opened: Opened::without_samples(&maps)?,
            maps,
            inode,
            socket,
            rounds: Rounds::default(),
            start: Instant::now(),
        };
        Ok(Some((prober, slow)))
    }

    /// Until it is stopped, or maps or sockets are no longer what they were.
    fn probe(mut self, slow: &Slow<'_>, stop: &AtomicBool) -> Result<()> {
        let ended = AtomicBool::new(false);
        let stop = || stop.load(Relaxed) || ended.load(Relaxed);
        thread::scope(|scope| {
            let fragmenting = scope.spawn(|| {
                let done = slow.run(stop);
                ended.store(true, Relaxed);
                done
            });
            let probed = self.send_probes(stop);
            ended.store(true, Relaxed);
            probed.and(fragmenting.join().unwrap_or(Ok(())))
        })
    }

    fn send_probes(&mut self, stop: impl Fn() -> bool) -> Result<()> {
        while !stop() {
            let now = self.start.elapsed();
            if self.rounds.refreshes(now) && inode(self.pins) != Some(self.inode) {
                return Ok(());
            }
            let live = Kernel {
                maps: &self.maps,
                clock: self.clock,
                opened: &mut self.opened,
            };
            for path in self.rounds.due(now, &live)? {
                if !self.socket.send(path) {
                    return Ok(());
                }
            }
            let next = self.rounds.next();
            thread::sleep(next.saturating_sub(self.start.elapsed()).min(NAP));
        }
        self.rounds.end(&Kernel {
            maps: &self.maps,
            clock: self.clock,
            opened: &mut self.opened,
        });
        Ok(())
    }
}

fn inode(pins: &Pins) -> Option<u64> {
    fs::metadata(pins.map("node")).ok().map(|metadata| metadata.ino())
}
