//! When each path is probed, and by which silence it may be judged. No clock, no socket.

use std::collections::BTreeMap;
use std::time::Duration;

/// Between two probes of a path.
const IDLE: Duration = Duration::from_secs(1);
const IN_USE: Duration = Duration::from_millis(50);
const DOWN: Duration = Duration::from_millis(20);
/// Intervals without an echo after which a path is stale.
const STALE: u32 = 5;
/// Intervals without a probe after which nobody is judged.
const SILENT: u32 = 3;
/// Without a return for so long a path has fallen silent; six probes of an idle path would raise its loss alarm.
const SILENCE: Duration = Duration::from_secs(3);
/// A path that fell silent is probed quickly for so long, and for as long again when it returns.
const PURSUIT: Duration = Duration::from_secs(600);
/// Returns in a row that end that: the loss alarm needs 168 to fall.
const CALM: u64 = 500;
/// Parts of an interval by which departures are spread at random: a tenth to either side.
const SPREAD: u32 = 5;

/// How a path is used, as the maps say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// A pair over it carried a packet lately.
    pub(super) in_use: bool,
    /// It was found stale, and waits for returns.
    pub(super) down: bool,
    /// Probes that left.
    pub(super) departed: u64,
    /// Probes that came home in a row.
    pub(super) returns: u64,
    /// The number of the last of them.
    pub(super) last_return: u64,
}

/// The silences by which a path is judged; `None`: it is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Without an echo for longer, the path is stale.
    pub(super) stale: Duration,
    /// Without a probe for longer, the prober is no judge.
    pub(super) silent: Duration,
}

/// What is to be written for a path.
pub(super) type Judgement = (u32, Option<Limits>);

/// Departures of every path, in time since the prober's start.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    paths: BTreeMap<u32, Path>,
    random: u64,
}

#[derive(Debug)]
struct Path {
    interval: Duration,
    due: Duration,
    /// The interval by which it is judged.
    judged: Option<Duration>,
    /// A shorter one, from when a probe of at least this number has come home.
    wanted: Option<(Duration, u64)>,
    /// The number of the last return, and when it was new.
    heard: (u64, Duration),
    lost: Option<Lost>,
}

/// A path that fell silent, and has not been calm since.
#[derive(Clone, Copy, Debug)]
struct Lost {
    silent: bool,
    since: Duration,
}

impl Schedule {
    /// Learns which paths there are and how they are used. What is returned must be written before the next probe
    /// leaves: a path that is new here is not judged before a probe came home, whoever probed it before.
    pub(super) fn follow(&mut self, now: Duration, uses: &BTreeMap<u32, Use>) -> Vec<Judgement> {
        let mut judgements = Vec::new();
        self.paths.retain(|index, _| uses.contains_key(index));
        for (index, usage) in uses {
            let judging = if usage.down || usage.in_use { IN_USE } else { IDLE };
            let share = self.share();
            let path = self.paths.entry(*index).or_insert_with(|| {
                judgements.push((*index, None));
                Path {
                    interval: judging,
                    due: now + judging.mul_f64(share),
                    judged: None,
                    wanted: None,
                    heard: (usage.last_return, now),
                    lost: None,
                }
            });
            let pursued = path.is_pursued(now, usage);
            let sending = if usage.down || pursued { DOWN } else { judging };
            judgements.extend(
                path.pace(now, (sending, judging), usage)
                    .map(|limits| (*index, limits)),
            );
        }
        judgements
    }

    /// Notes what came home. What is returned is to be written.
    pub(super) fn confirm(&mut self, index: u32, usage: &Use) -> Option<Judgement> {
        let path = self.paths.get_mut(&index)?;
        let (interval, number) = path.wanted?;
        if usage.returns == 0 || usage.last_return < number {
            return None;
        }
        path.wanted = None;
        path.judged = Some(interval);
        Some((index, Some(limits(interval))))
    }

    /// Paths that wait for a return.
    pub(super) fn waiting(&self) -> Vec<u32> {
        let waiting = self.paths.iter().filter(|(_, path)| path.wanted.is_some());
        waiting.map(|(index, _)| *index).collect()
    }

    /// The paths whose probes leave now. A late one does not make up for what it missed.
    pub(super) fn due(&mut self, now: Duration) -> Vec<u32> {
        let mut due = Vec::new();
        let mut random = self.random;
        for (index, path) in &mut self.paths {
            if path.due > now {
                continue;
            }
            due.push(*index);
            let spread = 1.0 + (draw(&mut random) - 0.5) / f64::from(SPREAD);
            path.due = (path.due + path.interval.mul_f64(spread)).max(now);
        }
        self.random = random;
        due
    }

    /// When the next one leaves.
    pub(super) fn next(&self) -> Option<Duration> {
        self.paths.values().map(|path| path.due).min()
    }

    /// All paths.
    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.paths.keys().copied()
    }

    fn share(&mut self) -> f64 {
        draw(&mut self.random)
    }
}

impl Path {
    /// Whether it is probed quickly because it fell silent after it had returned probes: at the pace of an idle path
    /// its loss alarm would stand for minutes after it is whole again.
    fn is_pursued(&mut self, now: Duration, usage: &Use) -> bool {
        if usage.last_return != self.heard.0 {
            self.heard = (usage.last_return, now);
        }
        let silent = usage.last_return != 0 && now.saturating_sub(self.heard.1) >= SILENCE;
        self.lost = match self.lost {
            None => silent.then_some(Lost { silent, since: now }),
            Some(lost) if lost.silent != silent => Some(Lost { silent, since: now }),
            Some(_) if !silent && usage.returns >= CALM => None,
            lost => lost,
        };
        self.lost
            .is_some_and(|lost| now.saturating_sub(lost.since) < PURSUIT)
    }

    fn pace(
        &mut self,
        now: Duration,
        (sending, judging): (Duration, Duration),
        usage: &Use,
    ) -> Option<Option<Limits>> {
        if sending != self.interval {
            self.interval = sending;
            self.due = self.due.min(now + sending);
        }
        match self.judged {
            Some(judged) if judged == judging => {
                self.wanted = None;
                None
            }
            // Longer: allowed first, then sent more slowly.
            Some(judged) if judged < judging => {
                self.wanted = None;
                self.judged = Some(judging);
                Some(Some(limits(judging)))
            }
            // Shorter: from the first return of a probe that left at the new pace.
            _ => {
                if self.wanted.is_none_or(|(interval, _)| interval != judging) {
                    self.wanted = Some((judging, usage.departed));
                }
                None
            }
        }
    }
}

fn limits(interval: Duration) -> Limits {
    Limits {
        stale: interval * STALE,
        silent: interval * SILENT,
    }
}

/// A number from 0 to 1 (SplitMix64, Steele et al. 2014).
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let high = u32::try_from((mixed ^ mixed >> 31) >> 32).unwrap_or(u32::MAX);
    f64::from(high) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn uses(usage: Use) -> BTreeMap<u32, Use> {
        BTreeMap::from([(5, usage)])
    }

    #[test]
    fn a_new_path_is_judged_from_its_first_return_on() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.follow(S, &uses(Use::default())), [(5, None)]);
        assert_eq!(schedule.waiting(), [5]);
        assert_eq!(schedule.confirm(5, &Use::default()), None);
        let home = Use {
            returns: 1,
            ..Use::default()
        };
        let judged = schedule.confirm(5, &home).unwrap();
        assert_eq!(judged, (5, Some(limits(IDLE))));
        assert!(schedule.waiting().is_empty());
    }

    #[test]
    fn shortening_waits_for_a_quick_probe_and_lengthening_does_not() {
        let mut schedule = Schedule::default();
        schedule.follow(S, &uses(Use::default()));
        schedule.confirm(
            5,
            &Use {
                returns: 1,
                ..Use::default()
            },
        );
        let mut quick = Use {
            in_use: true,
            departed: 9,
            returns: 8,
            last_return: 8,
            ..Use::default()
        };
        assert!(schedule.follow(2 * S, &uses(quick)).is_empty());
        assert!(schedule.next().unwrap() <= 2 * S + IN_USE);
        assert_eq!(schedule.confirm(5, &quick), None, "that one left before");
        quick.last_return = 9;
        assert_eq!(schedule.confirm(5, &quick), Some((5, Some(limits(IN_USE)))));
        let idle = Use {
            in_use: false,
            ..quick
        };
        assert_eq!(schedule.follow(3 * S, &uses(idle)), [(5, Some(limits(IDLE)))]);
    }

    #[test]
    fn a_path_that_fell_silent_is_pursued_until_it_is_calm() {
        let mut schedule = Schedule::default();
        let home = |last_return, returns| Use {
            returns,
            last_return,
            ..Use::default()
        };
        let mut interval = |s: u32, usage| {
            schedule.follow(s * S, &uses(usage));
            schedule.paths[&5].interval
        };
        assert_eq!(interval(1, home(1, 1)), IDLE);
        assert_eq!(interval(3, home(1, 1)), IDLE);
        assert_eq!(interval(4, home(1, 1)), DOWN);
        assert_eq!(interval(700, home(1, 1)), IDLE, "it has been gone too long");
        assert_eq!(interval(701, home(900, 1)), DOWN, "back, but for how long?");
        assert_eq!(interval(706, home(1_100, 200)), DOWN);
        assert_eq!(interval(712, home(1_400, 500)), IDLE);
        assert_eq!(interval(800, home(1_400, 500)), DOWN);

        let mut schedule = Schedule::default();
        schedule.follow(S, &uses(Use::default()));
        schedule.follow(100 * S, &uses(Use::default()));
        assert_eq!(schedule.paths[&5].interval, IDLE, "it never was there");
    }

    #[test]
    fn departures_keep_their_rate_and_a_stall_is_not_made_up_for() {
        let mut schedule = Schedule::default();
        schedule.follow(
            Duration::ZERO,
            &uses(Use {
                in_use: true,
                ..Use::default()
            }),
        );
        let mut sent = 0;
        for ms in 0..10_000 {
            sent += schedule.due(Duration::from_millis(ms)).len();
        }
        assert!((190..=215).contains(&sent), "{sent}");
        assert_eq!(schedule.due(100 * S).len(), 1);
        assert!(schedule.due(100 * S).len() <= 1);
    }
}
