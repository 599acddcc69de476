//! The quality of one directed leg, from its probes and counters.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::id::Millis;

/// What was seen of a leg since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Packets sent, data and probes, whose fate is known.
    pub sent: u32,
    /// How many of them did not arrive.
    pub lost: u32,
    /// The round trip of a probe that came home, in µs.
    pub rtt_us: Option<u32>,
}

/// The quality of a directed leg, as its sender estimates it each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegStats {
    /// The round trip to rank by, in µs: max(ewma, (ewma + p90) / 2).
    pub rtt_us: u32,
    /// The median round trip of the last 30 s, in µs.
    pub p50_us: u32,
    /// The 90th percentile of the last 30 s, in µs.
    pub p90_us: u32,
    /// p90 − p50, in µs.
    pub jitter_us: u32,
    /// Lost in a million of what was sent in the last 30 s.
    pub loss_ppm: u32,
    /// Round trips behind it.
    pub samples: u32,
}

/// Estimates a leg from its samples.
///
/// - `ewma`: each second that saw a round trip moves it by a tenth towards that second's mean; the first one sets
///   it.
/// - `p50`, `p90`: by nearest rank over the round trips of the last 30 s; jitter J = p90 − p50.
/// - `r` = max(ewma, (ewma + p90) / 2): neither a median nor the last sample, both of which rank legs worse than
///   always taking the direct one.
/// - loss L = lost ÷ sent over the last 30 s, or since [`restart_loss`](Self::restart_loss).
///
/// The second under way counts in p50, p90 and L; in ewma only once it is over, unless it is the first.
#[derive(Clone, Debug)]
pub struct LegEstimator {
    step: f64,
    ewma_us: Option<f64>,
    second: Second,
    round_trips: VecDeque<(Millis, u32)>,
    counts: VecDeque<(Millis, u32, u32)>,
}

/// The second under way.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    sum_us: u64,
    count: u32,
}

const WINDOW_MS: u64 = 30_000;
/// How far a second moves `ewma`.
pub const STEP: f64 = 0.1;

impl Default for LegEstimator {
    fn default() -> Self {
        Self::with_step(STEP)
    }
}

impl LegEstimator {
    /// An estimator that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// One whose `ewma` a second moves by this share, of 0 to 1, instead of a tenth.
    pub fn with_step(step: f64) -> Self {
        Self {
            step,
            ewma_us: None,
            second: Second::default(),
            round_trips: VecDeque::new(),
            counts: VecDeque::new(),
        }
    }

    /// Takes in a sample. `now` never goes back.
    pub fn observe(&mut self, now: Millis, sample: Sample) {
        self.advance(now);
        if let Some(rtt_us) = sample.rtt_us {
            self.round_trips.push_back((now, rtt_us));
            self.second.sum_us += u64::from(rtt_us);
            self.second.count += 1;
        }
        if sample.sent > 0 {
            self.counts
                .push_back((now, sample.sent, sample.lost.min(sample.sent)));
        }
    }

    /// The leg's quality; `None` where no probe came home in the last 30 s: the leg is unusable.
    pub fn stats(&mut self, now: Millis) -> Option<LegStats> {
        self.advance(now);
        let mut sorted: Vec<u32> = self.round_trips.iter().map(|&(_, rtt_us)| rtt_us).collect();
        sorted.sort_unstable();
        let (p50_us, p90_us) = (nearest_rank(&sorted, 50)?, nearest_rank(&sorted, 90)?);
        let ewma_us = self.ewma_us.or_else(|| self.second.mean_us())?;
        let rtt_us = ewma_us.max(f64::midpoint(ewma_us, f64::from(p90_us)));
        Some(LegStats {
            rtt_us: crate::Cost::from_us_f64(rtt_us).us(),
            p50_us,
            p90_us,
            jitter_us: p90_us - p50_us,
            loss_ppm: self.loss_ppm(),
            samples: u32::try_from(sorted.len()).unwrap_or(u32::MAX),
        })
    }

    /// The smoothed round trip, in µs; `None` before the first.
    pub fn ewma_us(&self) -> Option<u32> {
        let ewma_us = self.ewma_us.or_else(|| self.second.mean_us())?;
        Some(crate::Cost::from_us_f64(ewma_us).us())
    }

    /// Forgets what was lost so far.
    pub fn restart_loss(&mut self) {
        self.counts.clear();
    }

    fn advance(&mut self, now: Millis) {
        let number = now.0 / 1000;
        if number != self.second.number {
            if let Some(mean) = self.second.mean_us() {
                let step = self.step;
                self.ewma_us = Some(self.ewma_us.map_or(mean, |ewma| ewma + step * (mean - ewma)));
            }
            self.second = Second {
                number,
                ..Second::default()
            };
        }
        let expired = |at: Millis| now.since(at) >= WINDOW_MS;
        while self.round_trips.front().is_some_and(|&(at, _)| expired(at)) {
            self.round_trips.pop_front();
        }
        while self.counts.front().is_some_and(|&(at, ..)| expired(at)) {
            self.counts.pop_front();
        }
    }

    /// Lost in a million of what was sent in the last 30 s, or since [`restart_loss`](Self::restart_loss).
    pub fn loss_ppm(&self) -> u32 {
        let total = self
            .counts
            .iter()
            .fold((0u64, 0u64), |(sent, lost), &(_, more_sent, more_lost)| {
                (sent + u64::from(more_sent), lost + u64::from(more_lost))
            });
        let ppm = (total.1 * 1_000_000).checked_div(total.0).unwrap_or(0);
        u32::try_from(ppm).unwrap_or(1_000_000)
    }
}

impl Second {
    fn mean_us(self) -> Option<f64> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "a second's sum of round trips is far below 2^53 µs"
        )]
        let sum_us = self.sum_us as f64;
        (self.count > 0).then(|| sum_us / f64::from(self.count))
    }
}

/// The least value that at least `percent` of the values do not exceed.
fn nearest_rank(sorted: &[u32], percent: usize) -> Option<u32> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(rtt_us: u32) -> Sample {
        Sample {
            sent: 1,
            lost: 0,
            rtt_us: Some(rtt_us),
        }
    }

    #[test]
    fn nothing_seen_is_no_quality() {
        let mut estimator = LegEstimator::new();
        assert_eq!(estimator.stats(Millis(0)), None);
        estimator.observe(
            Millis(1),
            Sample {
                sent: 9,
                lost: 9,
                rtt_us: None,
            },
        );
        assert_eq!(estimator.stats(Millis(2)), None);
        estimator.observe(Millis(3), probe(5));
        assert!(estimator.stats(Millis(30_002)).is_some());
        assert_eq!(estimator.stats(Millis(30_003)), None);
    }

    #[test]
    fn ten_round_trips_by_hand() {
        let mut estimator = LegEstimator::new();
        for (ms, rtt_us) in (0..10).zip((1..=10).map(|tenth| tenth * 10_000)) {
            estimator.observe(Millis(ms), probe(rtt_us));
        }
        // ewma 55 ms, p50 50, p90 90: r = (55 + 90) / 2.
        let stats = estimator.stats(Millis(10)).unwrap();
        let expected = LegStats {
            rtt_us: 72_500,
            p50_us: 50_000,
            p90_us: 90_000,
            jitter_us: 40_000,
            loss_ppm: 0,
            samples: 10,
        };
        assert_eq!(stats, expected);
    }

    #[test]
    fn a_second_moves_the_mean_by_a_tenth() {
        let mut estimator = LegEstimator::new();
        estimator.observe(Millis(100), probe(100_000));
        estimator.observe(Millis(1_100), probe(50_000));
        // The second under way is not in the mean yet: 100; p90 is 100.
        assert_eq!(estimator.stats(Millis(1_500)).unwrap().rtt_us, 100_000);
        // Once over it is: 95, and r = (95 + 100) / 2. Seconds without a probe change nothing.
        assert_eq!(estimator.stats(Millis(9_000)).unwrap().rtt_us, 97_500);
    }

    #[test]
    fn the_mean_stands_where_it_exceeds_the_percentile() {
        let mut estimator = LegEstimator::new();
        estimator.observe(Millis(0), probe(200_000));
        for second in 31..33 {
            estimator.observe(Millis(second * 1000), probe(100_000));
        }
        let stats = estimator.stats(Millis(33_000)).unwrap();
        assert_eq!((stats.rtt_us, stats.p90_us), (181_000, 100_000));
    }

    #[test]
    fn loss_is_of_thirty_seconds_or_since_the_restart() {
        let mut estimator = LegEstimator::new();
        estimator.observe(
            Millis(0),
            Sample {
                sent: 100,
                lost: 100,
                rtt_us: None,
            },
        );
        estimator.observe(
            Millis(20_000),
            Sample {
                sent: 300,
                lost: 0,
                rtt_us: Some(1),
            },
        );
        assert_eq!(estimator.stats(Millis(20_001)).unwrap().loss_ppm, 250_000);
        assert_eq!(estimator.clone().stats(Millis(30_000)).unwrap().loss_ppm, 0);
        estimator.restart_loss();
        assert_eq!(estimator.stats(Millis(20_002)).unwrap().loss_ppm, 0);
    }
}
