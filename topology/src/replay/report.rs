//! What came of a policy.

use serde::Serialize;

use super::tally::{PairTally, Tally};
use crate::cost::TrafficClass;
use crate::id::{NodeId, PairId};

/// What a policy came to, over all pairs and ticks that count. Times are realised round trips.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The mean.
    pub mean_ms: f64,
    /// The median. Percentiles are by nearest rank.
    pub p50_ms: f64,
    /// The 95th percentile.
    pub p95_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// Changes of the path in force, per pair in 100 ticks.
    pub switches_per_100: f64,
    /// The mean of direct.
    pub direct_mean_ms: f64,
    /// The mean of each tick's own best path.
    pub oracle_mean_ms: f64,
    /// Pairs whose mean is less than direct's.
    pub pairs_helped: usize,
    /// Pairs whose mean is more.
    pub pairs_harmed: usize,
    /// How many pairs there are.
    pub pairs: usize,
    /// How many ticks count.
    pub ticks: u64,
    /// Each pair.
    #[serde(skip)]
    pub by_pair: Vec<PairReport>,
}

/// What a policy came to for a pair.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairReport {
    /// The pair.
    #[serde(skip)]
    pub id: PairId,
    /// Where packets enter.
    pub entry: String,
    /// Where they leave.
    pub exit: String,
    /// What they are.
    pub class: TrafficClass,
    /// The mean.
    pub mean_ms: f64,
    /// The mean of direct.
    pub direct_mean_ms: f64,
    /// Changes of the path.
    pub switches: u64,
    /// The path at the end.
    pub path: Vec<String>,
}

/// A pair under two policies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Where packets enter.
    pub entry: String,
    /// Where they leave.
    pub exit: String,
    /// What they are.
    pub class: TrafficClass,
    /// The first policy's mean.
    pub from_ms: f64,
    /// The second's.
    pub to_ms: f64,
    /// What the second gains; negative where it loses.
    pub gain_ms: f64,
    /// The path at the end, under the second.
    pub path: Vec<String>,
}

impl Report {
    pub(super) fn new(mut tally: Tally, name: impl Fn(NodeId) -> String) -> Self {
        tally.realised.sort_unstable();
        let pairs: Vec<&PairTally> = tally.pairs.values().filter(|pair| pair.ticks > 0).collect();
        let sum = |of: fn(&PairTally) -> u64| pairs.iter().map(|pair| of(pair)).sum::<u64>();
        let looks = sum(|pair| pair.ticks);
        let mean_ms = |of: fn(&PairTally) -> u64| ratio(sum(of), looks) / 1000.0;
        let percentile_ms = |percent: usize| {
            let rank = (tally.realised.len() * percent).div_ceil(100).max(1);
            tally
                .realised
                .get(rank - 1)
                .map_or(0.0, |&us| f64::from(us) / 1000.0)
        };
        Self {
            mean_ms: mean_ms(|pair| pair.used_us),
            p50_ms: percentile_ms(50),
            p95_ms: percentile_ms(95),
            p99_ms: percentile_ms(99),
            switches_per_100: 100.0 * ratio(sum(|pair| pair.switches), looks),
            direct_mean_ms: mean_ms(|pair| pair.direct_us),
            oracle_mean_ms: mean_ms(|pair| pair.oracle_us),
            pairs_helped: pairs.iter().filter(|pair| pair.used_us < pair.direct_us).count(),
            pairs_harmed: pairs.iter().filter(|pair| pair.used_us > pair.direct_us).count(),
            pairs: pairs.len(),
            ticks: tally.ticks,
            by_pair: pairs.iter().map(|pair| of_pair(pair, &name)).collect(),
        }
    }

    /// Each pair against its own direct path, those that gain most first.
    pub fn against_direct(&self) -> Vec<Difference> {
        let pairs = self.by_pair.iter();
        sorted(pairs.map(|pair| difference(pair.direct_mean_ms, pair)))
    }
}

/// Each pair under a second policy, those that gain most first.
pub fn differences(first: &Report, second: &Report) -> Vec<Difference> {
    let of_first = |id: PairId| first.by_pair.iter().find(|pair| pair.id == id);
    let both = second
        .by_pair
        .iter()
        .filter_map(|pair| Some((of_first(pair.id)?, pair)));
    sorted(both.map(|(first, second)| difference(first.mean_ms, second)))
}

fn difference(from_ms: f64, pair: &PairReport) -> Difference {
    Difference {
        entry: pair.entry.clone(),
        exit: pair.exit.clone(),
        class: pair.class,
        from_ms,
        to_ms: pair.mean_ms,
        gain_ms: from_ms - pair.mean_ms,
        path: pair.path.clone(),
    }
}

fn sorted(differences: impl Iterator<Item = Difference>) -> Vec<Difference> {
    let mut all: Vec<Difference> = differences.collect();
    all.sort_by(|a, b| b.gain_ms.total_cmp(&a.gain_ms));
    all
}

fn of_pair(tally: &PairTally, name: impl Fn(NodeId) -> String) -> PairReport {
    PairReport {
        id: tally.pair.id,
        entry: name(tally.pair.entry),
        exit: name(tally.pair.exit),
        class: tally.pair.class,
        mean_ms: ratio(tally.used_us, tally.ticks) / 1000.0,
        direct_mean_ms: ratio(tally.direct_us, tally.ticks) / 1000.0,
        switches: tally.switches,
        path: tally.path.nodes().iter().map(|&node| name(node)).collect(),
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "sums of µs of any recording are far below 2^53"
)]
fn ratio(sum: u64, count: u64) -> f64 {
    sum as f64 / count.max(1) as f64
}
