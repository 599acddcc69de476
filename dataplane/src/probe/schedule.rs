//! When each path is probed, and by which silence it may be judged. No clock, no socket.

use std::collections::BTreeMap;
use std::time::Duration;

use kuafu_pipeline::map::watch;

/// Bits of a probe's IP packet on the backbone.
pub(crate) const PROBE_BITS: u64 = 148 * 8;
/// Bits a second for the probes of all paths that carry nothing.
pub(crate) const IDLE_BITS: u64 = 1_000_000;

/// Between two probes of a path.
const IDLE: Duration = Duration::from_secs(1);
const IN_USE: Duration = Duration::from_millis(50);
/// Of a path that is down or doubted, and of a leg in use: fifty a second tell a loss of 5 % in three seconds.
const CLOSE: Duration = Duration::from_millis(20);
/// Of a path that is new, for so long.
const NEW: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Intervals without an echo after which a path is stale.
const STALE: u32 = 5;
/// Intervals without a probe after which nobody is judged.
const SILENT: u32 = 3;
/// Parts of an interval by which departures are spread at random: a tenth to either side.
const SPREAD: u32 = 5;

/// How a path is used, as the maps say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    /// A pair over it carried a packet lately.
    pub(super) in_use: bool,
    /// And wants to know soon when it dies.
    pub(super) premium: bool,
    /// It was found stale, and waits for returns.
    pub(super) down: bool,
    /// Probes that left.
    pub(super) departed: u64,
    /// Probes that came home in a row.
    pub(super) returns: u64,
    /// The number of the last of them.
    pub(super) last_return: u64,
    /// How closely the agent wants it watched: one of [`watch`].
    pub(super) watch: u64,
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
    /// Stalls of the prober, for each of which it is given as much more time until a probe of at least this number has
    /// come home.
    spared: Vec<(u64, Duration)>,
    /// Since when it is known, or since a probe came home for the first time: the other end may have joined only then.
    since: Duration,
    /// One came home for the first time since the last look.
    is_answered: bool,
}

/// Between two probes of what carries nothing, so that all of it keeps to [`IDLE_BITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Paces {
    idle: Duration,
    /// For what is doubted or new.
    close: Duration,
}

impl Paces {
    /// Of so many paths that carry nothing, and of so many of these that are doubted or new: those share what an even
    /// pace of all leaves, a fifth at least.
    fn new(all: u64, close: u64) -> Self {
        let bits = |count: u64| count * PROBE_BITS * 1_000;
        let idle = IDLE.max(Duration::from_millis(bits(all) / (IDLE_BITS / 5 * 4)));
        let left = IDLE_BITS.saturating_sub(bits(all) / milliseconds(idle));
        let close = Duration::from_millis(bits(close).div_ceil(left.max(1)));
        Self {
            idle,
            close: close.clamp(CLOSE, idle),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Schedule {
    /// Learns which paths there are and how they are used. What is returned must be written before the next probe
    /// leaves: a path that is new here is not judged before a probe came home, whoever probed it before; but while a
    /// pair sends over it, for two seconds at most.
    pub(super) fn follow(&mut self, now: Duration, uses: &BTreeMap<u32, Use>) -> Vec<Judgement> {
        let mut judgements = Vec::new();
        self.paths.retain(|index, _| uses.contains_key(index));
        for index in uses.keys() {
            let share = draw(&mut self.random);
            self.paths.entry(*index).or_insert_with(|| {
                judgements.push((*index, None));
                Path::new(now, share)
            });
        }
        for path in self.paths.values_mut().filter(|path| path.is_answered) {
            (path.since, path.is_answered) = (now, false);
        }
        let paces = self.paces(now, uses);
        for (index, usage) in uses {
            if let Some(path) = self.paths.get_mut(index) {
                let pace = path.pace(now, &paces, usage);
                judgements.extend(path.follow(now, pace, usage).map(|limits| (*index, limits)));
            }
        }
        judgements
    }

    fn paces(&self, now: Duration, uses: &BTreeMap<u32, Use>) -> Paces {
        let (mut all, mut close) = (0, 0);
        for (index, usage) in uses.iter().filter(|(_, usage)| usage.carries_nothing()) {
            all += 1;
            let new = self.paths.get(index).is_some_and(|path| path.is_new(now));
            close += u64::from(new || usage.watch == watch::DOUBTED);
        }
        Paces::new(all, close)
    }

    /// Notes what came home. What is returned is to be written.
    pub(super) fn confirm(&mut self, index: u32, usage: &Use) -> Option<Judgement> {
        let path = self.paths.get_mut(&index)?;
        let stalls = path.spared.len();
        path.spared.retain(|(number, _)| usage.last_return < *number);
        if path.spared.len() < stalls {
            return Some((index, path.limits()));
        }
        let (interval, number) = path.wanted?;
        if usage.returns == 0 || usage.last_return < number {
            return None;
        }
        path.wanted = None;
        path.is_answered |= path.judged.is_none();
        path.judged = Some(interval);
        path.spared.clear();
        Some((index, path.limits()))
    }

    /// Paths that wait for a return.
    pub(super) fn waiting(&self) -> Vec<u32> {
        let waits = |path: &Path| path.wanted.is_some() || !path.spared.is_empty();
        let waiting = self.paths.iter().filter(|(_, path)| waits(path));
        waiting.map(|(index, _)| *index).collect()
    }

    /// After a stall of the prober no echo is there yet, for as long as a round trip takes, though one probe has just
    /// left: paths are given as much more time, and for one stall after the other the sum. What is returned must be
    /// written before a probe leaves.
    pub(super) fn spare(&mut self, now: Duration, departed: impl Fn(u32) -> u64) -> Vec<Judgement> {
        let mut judgements = Vec::new();
        for (index, path) in &mut self.paths {
            let late = now.saturating_sub(path.due);
            if path.judged.is_some_and(|judged| late >= judged) {
                path.spared.push((departed(*index), late));
                judgements.push((*index, path.limits()));
            }
        }
        judgements
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
}

impl Use {
    /// Whether it is not probed at all.
    pub(super) fn rests(&self) -> bool {
        self.watch == watch::RESTING && !self.in_use && !self.down
    }

    fn carries_nothing(&self) -> bool {
        !self.in_use && !self.down && self.watch != watch::IN_USE
    }
}

impl Path {
    /// The first probe leaves within the interval of a new path.
    fn new(now: Duration, share: f64) -> Self {
        Self {
            interval: NEW.0,
            due: now + NEW.0.mul_f64(share),
            judged: None,
            wanted: None,
            spared: Vec::new(),
            since: now,
            is_answered: false,
        }
    }

    /// By which it is judged now.
    fn limits(&self) -> Option<Limits> {
        let more: Duration = self.spared.iter().map(|(_, late)| *late).sum();
        self.judged.map(limits).map(|limits| Limits {
            stale: limits.stale + more,
            ..limits
        })
    }

    fn is_new(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) < NEW.1
    }

    /// The interval at which it is probed, and that by which it is judged.
    fn pace(&self, now: Duration, paces: &Paces, usage: &Use) -> (Duration, Duration) {
        let judging = match (usage.in_use || usage.down, usage.premium, usage.watch) {
            (true, true, _) => CLOSE,
            (true, false, _) | (false, _, watch::IN_USE) => IN_USE,
            (false, _, watch::DOUBTED) => paces.close.max(IN_USE),
            (false, ..) => paces.idle,
        };
        let sending = if usage.down || usage.watch == watch::IN_USE {
            CLOSE
        } else if usage.watch == watch::DOUBTED {
            paces.close
        } else if self.is_new(now) {
            paces.close.max(NEW.0)
        } else {
            judging
        };
        (sending.min(judging), judging)
    }

    fn follow(
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
                self.spared.clear();
                self.judged = Some(judging);
                Some(Some(limits(judging)))
            }
            // Packets go where nothing ever came back from: it is taken for alive only while it is new.
            None if usage.in_use && !self.is_new(now) => {
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
    fn a_path_in_use_that_never_answers_is_judged_when_it_is_new_no_more() {
        let mut schedule = Schedule::default();
        let usage = Use {
            in_use: true,
            ..Use::default()
        };
        assert_eq!(schedule.follow(S, &uses(usage)), [(5, None)]);
        assert!(schedule.follow(2 * S, &uses(usage)).is_empty());
        assert_eq!(schedule.follow(3 * S, &uses(usage)), [(5, Some(limits(IN_USE)))]);
        assert!(schedule.follow(4 * S, &uses(usage)).is_empty());
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
    fn a_new_path_is_probed_quickly_for_two_seconds() {
        let mut schedule = Schedule::default();
        let mut interval = |ms, index: u32| {
            let uses = (5..=index).map(|index| (index, Use::default())).collect();
            schedule.follow(Duration::from_millis(ms), &uses);
            schedule.paths[&index].interval
        };
        assert_eq!(interval(0, 5), NEW.0);
        assert_eq!(interval(1_000, 5), NEW.0);
        assert_eq!(interval(2_000, 5), IDLE);
        assert_eq!(interval(2_500, 6), NEW.0, "and so is the next");
        assert_eq!(interval(2_600, 5), IDLE);
    }

    #[test]
    fn a_path_that_is_answered_for_the_first_time_is_as_a_new_one() {
        let mut schedule = Schedule::default();
        schedule.follow(S, &uses(Use::default()));
        schedule.follow(100 * S, &uses(Use::default()));
        assert_eq!(schedule.paths[&5].interval, IDLE);
        let home = Use {
            departed: 99,
            returns: 1,
            last_return: 98,
            ..Use::default()
        };
        schedule.confirm(5, &home);
        schedule.follow(101 * S, &uses(home));
        assert_eq!(schedule.paths[&5].interval, NEW.0);
        schedule.follow(103 * S, &uses(home));
        assert_eq!(schedule.paths[&5].interval, IDLE);
    }

    #[test]
    fn what_the_agent_wants_watched_is_probed_closely_and_judged_as_what_is_in_use() {
        let mut schedule = Schedule::default();
        let mut intervals = |s: u32, watch, in_use| {
            let usage = Use {
                in_use,
                watch,
                returns: 1,
                ..Use::default()
            };
            schedule.follow(s * S, &uses(usage));
            schedule.confirm(5, &usage);
            (schedule.paths[&5].interval, schedule.paths[&5].judged)
        };
        assert_eq!(intervals(10, watch::AS_USED, false), (NEW.0, Some(IDLE)));
        assert_eq!(intervals(20, watch::DOUBTED, false), (CLOSE, Some(IN_USE)));
        assert_eq!(intervals(30, watch::IN_USE, false), (CLOSE, Some(IN_USE)));
        assert_eq!(intervals(40, watch::DOUBTED, true), (CLOSE, Some(IN_USE)));
        assert_eq!(intervals(50, watch::AS_USED, true), (IN_USE, Some(IN_USE)));
        assert_eq!(intervals(60, watch::AS_USED, false), (IDLE, Some(IDLE)));
    }

    #[test]
    fn a_premium_path_is_judged_after_a_hundred_ms() {
        let mut schedule = Schedule::default();
        let usage = Use {
            in_use: true,
            premium: true,
            returns: 1,
            ..Use::default()
        };
        schedule.follow(S, &uses(usage));
        assert_eq!(schedule.paths[&5].interval, CLOSE);
        let limits = schedule.confirm(5, &usage).unwrap().1.unwrap();
        let ms = Duration::from_millis;
        assert_eq!((limits.stale, limits.silent), (ms(100), ms(60)));
    }

    #[test]
    fn what_carries_nothing_keeps_to_its_budget() {
        let ms = |idle, close| Paces {
            idle: Duration::from_millis(idle),
            close: Duration::from_millis(close),
        };
        assert_eq!(Paces::new(9, 0), ms(1_000, 20));
        assert_eq!(Paces::new(9, 9), ms(1_000, 20));
        assert_eq!(Paces::new(20, 20), ms(1_000, 25));
        assert_eq!(Paces::new(675, 3), ms(1_000, 20));
        assert_eq!(
            Paces::new(1_000, 1_000),
            ms(1_480, 1_480),
            "a rack of them is lost"
        );
        for (all, close) in [(5, 5), (40, 40), (300, 20), (4_000, 3), (4_000, 2_000)] {
            let paces = Paces::new(all, close);
            let bits = |count: u64, pace: Duration| count * PROBE_BITS * 1_000 / milliseconds(pace);
            let taken = bits(all - close, paces.idle) + bits(close, paces.close);
            println!("{all} paths, {close} of them doubted: {taken} b/s, {paces:?}");
            assert!(taken <= IDLE_BITS);
        }
    }

    #[test]
    fn a_stall_of_the_prober_spares_its_paths_until_an_echo_returns() {
        let mut schedule = Schedule::default();
        let mut usage = Use {
            in_use: true,
            returns: 9,
            last_return: 9,
            ..Use::default()
        };
        schedule.follow(S, &uses(usage));
        schedule.confirm(5, &usage);
        let departed = |_| 10;
        schedule.due(2 * S);
        assert_eq!(schedule.spare(2 * S + IN_USE / 2, departed), [], "hardly late");
        let late = 2 * S + IN_USE * 8;
        let spared = schedule.spare(late, departed).remove(0).1.unwrap();
        assert!(spared.stale > IN_USE * 10 && spared.silent == IN_USE * SILENT);
        assert_eq!(schedule.waiting(), [5]);
        schedule.due(late);
        let again = late + IN_USE * 3;
        let more = schedule.spare(again, |_| 20).remove(0).1.unwrap().stale - spared.stale;
        assert!(more > IN_USE, "stalled again before the echo: {more:?}");
        assert_eq!(schedule.confirm(5, &usage), None, "that one left before");
        usage.last_return = 10;
        let second = schedule.confirm(5, &usage).unwrap().1.unwrap();
        assert_eq!(second.stale, limits(IN_USE).stale + more);
        usage.last_return = 20;
        assert_eq!(schedule.confirm(5, &usage), Some((5, Some(limits(IN_USE)))));
        assert!(schedule.waiting().is_empty());
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
