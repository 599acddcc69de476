//! What was dropped, and when it was last seen.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kuafu_pipeline::map::{Counter, Drop};
use kuafu_pipeline::{Event, Reason};
use kuafu_proto::v1;

use super::{View, interface_name};
use crate::bpf::Maps;
use crate::error::Result;

/// One reason's counter, all CPUs together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Packets.
    pub packets: u64,
    /// Octets of their frames.
    pub octets: u64,
    /// When the last one was kept, in jiffies; 0: none was.
    pub last_seen: u64,
    /// The interface where that arrived.
    pub interface: u32,
    /// How it begins.
    pub start: Vec<u8>,
}

/// The counter of a reason.
///
/// # Errors
/// `Io`.
pub fn dropped(maps: &Maps, reason: Reason) -> Result<Dropped> {
    let of_cpus = maps.drops.get(reason as u32)?;
    Ok(sum(&of_cpus))
}

/// Sums the packets; the last one seen on any CPU stands for how they begin.
fn sum(of_cpus: &[Drop]) -> Dropped {
    let last = of_cpus.iter().max_by_key(|drop| drop.last_seen);
    let last = last.filter(|drop| drop.last_seen != 0);
    let start = last.map(|drop| {
        let kept = usize::try_from(drop.length).unwrap_or(usize::MAX);
        drop.start[..kept.min(drop.start.len())].to_vec()
    });
    Dropped {
        packets: of_cpus.iter().map(|drop| drop.packets).sum(),
        octets: of_cpus.iter().map(|drop| drop.octets).sum(),
        last_seen: last.map_or(0, |drop| drop.last_seen),
        interface: last.map_or(0, |drop| drop.interface),
        start: start.unwrap_or_default(),
    }
}

/// The counters of everything that was done and not dropped, all CPUs together.
///
/// # Errors
/// `Io`.
pub fn events(maps: &Maps) -> Result<BTreeMap<Event, Counter>> {
    let mut events = BTreeMap::new();
    for event in Event::ALL {
        let of_cpus = maps.events.get(*event as u32)?;
        let counter = Counter {
            packets: of_cpus.iter().map(|counter| counter.packets).sum(),
            octets: of_cpus.iter().map(|counter| counter.octets).sum(),
        };
        events.insert(*event, counter);
    }
    Ok(events)
}

/// Looks at the counters each second: says what is dropped in the log, and remembers when it saw a change.
#[derive(Debug, Default)]
pub struct DropWatch {
    seen: BTreeMap<Reason, Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    packets: u64,
    changed: Option<SystemTime>,
}

impl DropWatch {
    /// A watch that begins with what was counted before.
    ///
    /// # Errors
    /// `Io`.
    pub fn new(maps: &Maps) -> Result<Self> {
        let mut seen = BTreeMap::new();
        for reason in Reason::ALL {
            let packets = dropped(maps, *reason)?.packets;
            seen.insert(
                *reason,
                Seen {
                    packets,
                    changed: None,
                },
            );
        }
        Ok(Self { seen })
    }

    /// Looks again: at most one line in the log for each reason, with how many there were since the last look.
    ///
    /// # Errors
    /// `Io`.
    pub fn look(&mut self, maps: &Maps) -> Result<()> {
        for reason in Reason::ALL {
            let now = dropped(maps, *reason)?;
            let seen = self.seen.entry(*reason).or_default();
            let more = now.packets.saturating_sub(seen.packets);
            if more == 0 {
                seen.packets = now.packets;
                continue;
            }
            *seen = Seen {
                packets: now.packets,
                changed: Some(SystemTime::now()),
            };
            let interface = interface_name(now.interface);
            tracing::info!(
                reason = reason.word(),
                packets = more,
                total = now.packets,
                interface,
                "dropped"
            );
        }
        Ok(())
    }

    fn changed(&self, reason: Reason) -> Option<SystemTime> {
        self.seen.get(&reason)?.changed
    }
}

/// Every reason for which something was dropped.
///
/// # Errors
/// `Io`.
pub fn drops(view: &View<'_>) -> Result<v1::Drops> {
    let (jiffies, now) = (view.clock.jiffies()?, SystemTime::now());
    let mut drops = Vec::new();
    for reason in Reason::ALL {
        let drop = dropped(view.maps, *reason)?;
        if drop.packets == 0 {
            continue;
        }
        let by_record = (drop.last_seen != 0)
            .then(|| now.checked_sub(view.clock.duration(jiffies.saturating_sub(drop.last_seen))));
        let last_seen = by_record.flatten().or_else(|| view.drops.changed(*reason));
        drops.push(v1::Drop {
            node: view.node().to_owned(),
            reason: reason.word().to_owned(),
            count: drop.packets,
            interface: interface_name(drop.interface),
            last_seen_unix_ms: last_seen.map(unix_ms),
            first_bytes: drop.start,
        });
    }
    Ok(v1::Drops { drops })
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_packet_of_any_cpu_stands_for_all() {
        let drop = |packets, last_seen, interface, length| Drop {
            packets,
            octets: packets * 60,
            last_seen,
            interface,
            length,
            start: [u8::try_from(interface).unwrap(); 64],
        };
        let all = sum(&[drop(2, 700, 3, 60), drop(1, 900, 4, 1500), drop(0, 0, 0, 0)]);
        assert_eq!(
            all,
            Dropped {
                packets: 3,
                octets: 180,
                last_seen: 900,
                interface: 4,
                start: vec![4; 64]
            }
        );
        assert_eq!(sum(&[drop(1, 0, 0, 0)]).start, Vec::<u8>::new());
    }
}
