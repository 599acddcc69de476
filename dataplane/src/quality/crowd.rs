//! Agent's and prober's cores together, on a host with hundreds of legs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kuafu_pipeline::map::{Pair, PathState};

use super::tests::{path, state};
use super::*;
use crate::probe::{IDLE_BITS, PROBE_BITS, Rounds};

/// The round trip of every leg.
const RTT_MS: u64 = 40;
const STEP_MS: u64 = 10;
/// Each leg has its turn within this.
const PERIOD_MS: u64 = 300_000;

/// The tables of a host whose probes come home but for those over `dead` legs.
struct Tables {
    paths: BTreeMap<u32, PathState>,
    home: Vec<(u64, Sample)>,
    now_ms: u64,
    dead: BTreeSet<u32>,
    /// When probes of each path left.
    left: BTreeMap<u32, Vec<u64>>,
}

impl Tables {
    fn new(state: &HostState) -> Self {
        Self {
            paths: state
                .paths
                .iter()
                .map(|path| (path.index, PathState::new()))
                .collect(),
            home: Vec::new(),
            now_ms: 0,
            dead: BTreeSet::new(),
            left: BTreeMap::new(),
        }
    }

    fn probe(&mut self, index: u32) {
        self.left.entry(index).or_default().push(self.now_ms);
        let path = &self.paths[&index];
        let number = path.departed.get();
        path.departed.set(number + 1);
        path.last_probe.set(self.now_ms);
        if !self.dead.contains(&index) {
            let sample = Sample {
                path: index,
                sequence: u32::try_from(number).unwrap(),
                received: RTT_MS * 1_000_000,
                ..Sample::default()
            };
            self.home.push((self.now_ms + RTT_MS, sample));
        }
    }
}

impl Live for Tables {
    fn jiffies(&self) -> Result<u64> {
        Ok(self.now_ms)
    }

    fn ticks(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_millis()).unwrap()
    }

    fn samples(&mut self) -> Vec<Sample> {
        let now = self.now_ms;
        let home = self
            .home
            .extract_if(.., |(at, _)| *at <= now)
            .map(|(_, sample)| sample);
        let home: Vec<Sample> = home.collect();
        for sample in &home {
            let path = &self.paths[&sample.path];
            path.last_echo.set(now);
            path.returns.set(path.returns.get() + 1);
            path.last_return.set(u64::from(sample.sequence));
        }
        home
    }

    fn read<T>(&self, path: u32, read: impl FnOnce(&PathState) -> T) -> T {
        read(&self.paths[&path])
    }

    fn set(&self, path: u32, word: Word, value: u64) {
        let path = &self.paths[&path];
        match word {
            Word::Down => path.down.set(value),
            Word::Watch => path.watch.set(value),
            Word::SilentAfter => path.silent_after.set(value),
            Word::StaleAfter => path.stale_after.set(value),
        }
    }

    fn carrying(&self, _since: u64) -> Result<BTreeSet<u32>> {
        Ok(BTreeSet::new())
    }

    fn rounds(&self) -> Result<u64> {
        Ok(0)
    }

    fn pairs(&self) -> Result<Vec<(u32, Pair)>> {
        Ok(Vec::new())
    }

    fn installed(&self) -> Result<Vec<u32>> {
        Ok(self.paths.keys().copied().collect())
    }

    fn is_installed(&self, path: u32) -> Result<bool> {
        Ok(self.paths.contains_key(&path))
    }
}

/// A host with legs to so many others, of which the first `near` are of its region; and a path of a pair whose first
/// leg is the last of them.
fn host(others: u32, near: u32) -> HostState {
    let leg = |index: u32| {
        let mut leg = path(index, u64::from(index), &["a", &format!("n{index}")]);
        leg.near = index <= near;
        leg
    };
    let relay = format!("n{others}");
    let mut paths: Vec<_> = (1..=others).map(leg).collect();
    paths.push(path(others + 1, u64::from(others + 1), &["a", &relay, "n1"]));
    state(paths)
}

/// A host, its agent and its prober.
struct Crowd {
    tables: Tables,
    quality: Quality,
    rounds: Rounds,
    /// The last report of each path.
    reports: BTreeMap<u64, v1::LegReport>,
    alarms: Vec<v1::Alarm>,
}

impl Crowd {
    fn new(state: &HostState) -> Self {
        let mut quality = Quality::default();
        quality.follow(state);
        Self {
            tables: Tables::new(state),
            quality,
            rounds: Rounds::default(),
            reports: BTreeMap::new(),
            alarms: Vec::new(),
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.tables.now_ms + ms;
        while self.tables.now_ms < end {
            let now = self.tables.now_ms;
            for index in self.rounds.due(Duration::from_millis(now), &self.tables).unwrap() {
                self.tables.probe(index);
            }
            if now.is_multiple_of(100) {
                let news = self.quality.drain(Millis(now), &mut self.tables).unwrap();
                self.alarms.extend(news.alarms);
            }
            if now.is_multiple_of(1_000) {
                let reports = self.quality.reports(Millis(now), &self.tables).unwrap().reports;
                self.reports
                    .extend(reports.into_iter().map(|report| (report.path_id, report)));
            }
            self.tables.now_ms += STEP_MS;
        }
    }

    /// The most bits of probes that left in any second from then on.
    fn most_bits(&self, from_ms: u64) -> u64 {
        let mut seconds: BTreeMap<u64, u64> = BTreeMap::new();
        for at in self.tables.left.values().flatten().filter(|at| **at >= from_ms) {
            *seconds.entry(at / 1_000).or_default() += PROBE_BITS;
        }
        seconds.values().copied().max().unwrap_or(0)
    }

    /// The longest time without a probe of a path, from then on.
    fn longest_rest(&self, index: u32, from_ms: u64) -> u64 {
        let left = self.tables.left[&index]
            .iter()
            .copied()
            .filter(|at| *at >= from_ms);
        let mut times = vec![from_ms];
        times.extend(left);
        times.push(self.tables.now_ms);
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }
}

#[test]
fn each_leg_has_its_turn_within_the_period_and_the_budget_is_kept() {
    for (others, near) in [(99, 9), (499, 30)] {
        let mut crowd = Crowd::new(&host(others, near));
        crowd.run(PERIOD_MS + 60_000);
        assert!(crowd.alarms.is_empty(), "{:?}", crowd.alarms);
        let (from, bits) = (30_000, crowd.most_bits(0));
        assert!(bits <= IDLE_BITS, "{others}: {bits} b/s");
        let rests: Vec<u64> = (1..=others)
            .map(|index| crowd.longest_rest(index, from))
            .collect();
        let (always, turns): (Vec<(u32, u64)>, Vec<_>) = (1..)
            .zip(rests)
            .partition(|(index, _)| *index <= near || *index == others);
        assert!(always.iter().all(|(_, rest)| *rest <= 1_500), "{always:?}");
        let longest = turns.iter().map(|(_, rest)| *rest).max().unwrap();
        assert!((20_000..=PERIOD_MS).contains(&longest), "{longest}");
        let probes = crowd.tables.left.values().map(Vec::len).sum::<usize>() as u64;
        println!(
            "{} nodes: {bits} b/s at most, {} in the mean, a leg rests for {longest} ms at most",
            others + 1,
            probes * PROBE_BITS * 1_000 / crowd.tables.now_ms
        );
        let aged = |index: u32| crowd.reports[&u64::from(index)].age_ms > 0;
        assert!(
            !(1..=near).any(aged) && !aged(others),
            "what is probed always is known"
        );
        let resting = (near + 1..others).filter(|index| aged(*index)).count();
        assert!(resting + 66 >= others as usize, "{resting} are said to rest");
    }
}

#[test]
fn up_to_64_nodes_nothing_rests() {
    let mut crowd = Crowd::new(&host(63, 5));
    crowd.run(60_000);
    assert!((1..=63).all(|index| crowd.longest_rest(index, 3_000) <= 1_500));
    assert!(crowd.reports.values().all(|report| report.age_ms == 0));
}

#[test]
fn a_leg_that_died_while_it_rested_is_found_in_its_turn_and_keeps_it() {
    let mut crowd = Crowd::new(&host(99, 9));
    crowd.run(60_000);
    let resting = crowd.reports.values().find(|report| report.age_ms > 0).unwrap();
    let index = u32::try_from(resting.path_id).unwrap();
    crowd.tables.dead.insert(index);
    crowd.run(PERIOD_MS);
    let said: Vec<_> = crowd
        .alarms
        .iter()
        .map(|alarm| (alarm.path_id, alarm.kind()))
        .collect();
    assert_eq!(
        said.first(),
        Some(&(u64::from(index), v1::alarm::Kind::Loss)),
        "{said:?}"
    );
    assert!(crowd.alarms.iter().all(|alarm| alarm.path_id == u64::from(index)));
    assert!(crowd.alarms[0].loss > 0.05, "{:?}", crowd.alarms);
    let now = crowd.tables.now_ms;
    assert!(
        crowd.tables.left[&index]
            .last()
            .is_some_and(|at| now - at < 2_000)
    );
}
