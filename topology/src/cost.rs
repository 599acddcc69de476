//! What a leg costs, and how costs add up.

use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Serialize};

use crate::estimate::LegStats;

/// A cost in µs of round trip. 2²⁹ is unusable; a sum that reaches it is unusable too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
pub struct Cost(u32);

impl Cost {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// No way through.
    pub const UNUSABLE: Self = Self(1 << 29);

    /// So many µs; unusable from 2²⁹ on.
    pub const fn from_us(us: u32) -> Self {
        if us < Self::UNUSABLE.0 {
            Self(us)
        } else {
            Self::UNUSABLE
        }
    }

    /// The nearest µs; what is negative is 0, what is not a number is unusable.
    pub fn from_us_f64(us: f64) -> Self {
        if us < f64::from(Self::UNUSABLE.0) {
            Self::from_us(nearest(us))
        } else {
            Self::UNUSABLE
        }
    }

    /// The µs.
    pub const fn us(self) -> u32 {
        self.0
    }

    /// The same in ms.
    pub fn ms(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// Whether there is a way through.
    pub const fn is_usable(self) -> bool {
        self.0 < Self::UNUSABLE.0
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the caller bounds it above, and `as` takes what is negative to 0"
)]
fn nearest(us: f64) -> u32 {
    us.round() as u32
}

impl From<u32> for Cost {
    fn from(us: u32) -> Self {
        Self::from_us(us)
    }
}

impl From<Cost> for u32 {
    fn from(cost: Cost) -> Self {
        cost.0
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::from_us(self.0 + other.0)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_usable() {
            write!(f, "{:.1} ms", self.ms())
        } else {
            f.write_str("unusable")
        }
    }
}

/// What a pair carries: it decides how jitter, loss and price weigh against latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrafficClass {
    /// Inputs and states, many small packets: the reference weights.
    #[default]
    Game,
    /// Speech: a play-out buffer pays for jitter, concealment forgives some loss.
    Voice,
    /// Volume: loss breaks throughput, price counts.
    Bulk,
}

impl TrafficClass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Game, Self::Voice, Self::Bulk];

    /// The class's default weights.
    pub const fn weights(self) -> Weights {
        match self {
            Self::Game => Weights {
                jitter: 2.0,
                loss_ms: 2000.0,
                ms_per_usd_per_gb: 0.0,
            },
            Self::Voice => Weights {
                jitter: 4.0,
                loss_ms: 1000.0,
                ms_per_usd_per_gb: 0.0,
            },
            Self::Bulk => Weights {
                jitter: 0.5,
                loss_ms: 4000.0,
                ms_per_usd_per_gb: 200.0,
            },
        }
    }

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Game => "game",
            Self::Voice => "voice",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for TrafficClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// How much each quality of a leg weighs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// ms of cost per ms of jitter.
    pub jitter: f64,
    /// ms of cost per unit of −ln(1 − loss): 2000 makes 1 % of loss about 20 ms.
    pub loss_ms: f64,
    /// ms of cost per US dollar a GB.
    pub ms_per_usd_per_gb: f64,
}

impl Weights {
    /// What losing so many packets of a million costs; unusable where none arrives.
    pub fn loss(self, loss_ppm: u32) -> Cost {
        if loss_ppm >= 1_000_000 {
            return Cost::UNUSABLE;
        }
        Cost::from_us_f64(1000.0 * self.loss_ms * -(-f64::from(loss_ppm) / 1e6).ln_1p())
    }
}

/// One way over a leg, with its quality and the price of what its sender emits.
#[derive(Clone, Copy, Debug)]
pub struct Direction<'a> {
    /// The leg's quality, as its sender measured it.
    pub stats: &'a LegStats,
    /// US dollars a GB.
    pub usd_per_gb: f64,
}

/// The cost of a leg that is used there and back: half of each direction's
/// `r + jitter·J + loss·(−ln(1 − L)) + ms_per_usd_per_gb·price`, rounded once to µs.
///
/// −ln(1 − L) makes loss additive along a path, since what survives multiplies. A leg that loses everything is
/// unusable.
pub fn cost(forward: Direction<'_>, reverse: Direction<'_>, weights: Weights) -> Cost {
    Cost::from_us_f64((terms(forward, weights).us() + terms(reverse, weights).us()) / 2.0)
}

/// What one way over a leg costs, by what it costs it for: the terms of [`cost`], each before it is halved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Its round trip, µs.
    pub rtt_us: f64,
    /// Its jitter, weighted, µs.
    pub jitter_us: f64,
    /// Its loss, weighted, ms; infinite where nothing arrives.
    pub loss_ms: f64,
    /// Its price, weighted, ms.
    pub price_ms: f64,
}

impl Terms {
    /// All of them, µs.
    pub fn us(self) -> f64 {
        self.rtt_us + self.jitter_us + 1000.0 * (self.loss_ms + self.price_ms)
    }
}

/// The terms of one way over a leg.
pub fn terms(direction: Direction<'_>, weights: Weights) -> Terms {
    let stats = direction.stats;
    let loss_ms = if stats.loss_ppm >= 1_000_000 {
        f64::INFINITY
    } else {
        weights.loss_ms * -(-f64::from(stats.loss_ppm) / 1e6).ln_1p()
    };
    Terms {
        rtt_us: f64::from(stats.rtt_us),
        jitter_us: weights.jitter * f64::from(stats.jitter_us),
        loss_ms,
        price_ms: weights.ms_per_usd_per_gb * direction.usd_per_gb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(rtt_us: u32, jitter_us: u32, loss_ppm: u32) -> LegStats {
        LegStats {
            rtt_us,
            jitter_us,
            loss_ppm,
            ..LegStats::default()
        }
    }

    fn both(stats: &LegStats, usd_per_gb: f64, weights: Weights) -> Cost {
        let direction = Direction { stats, usd_per_gb };
        cost(direction, direction, weights)
    }

    #[test]
    fn the_reference_weights_by_hand() {
        let game = TrafficClass::Game.weights();
        assert_eq!(both(&stats(100_000, 3_000, 0), 0.0, game).us(), 106_000);
        // 2000 ms · −ln 0.99 = 20.1007 ms.
        assert_eq!(both(&stats(100_000, 0, 10_000), 9.0, game).us(), 120_101);
        let bulk = TrafficClass::Bulk.weights();
        assert_eq!(both(&stats(100_000, 1_000, 0), 0.05, bulk).us(), 110_500);
    }

    #[test]
    fn half_forward_half_reverse() {
        let (there, back) = (stats(80_000, 0, 0), stats(100_001, 0, 0));
        let way = |stats| Direction {
            stats,
            usd_per_gb: 0.0,
        };
        let weights = TrafficClass::Game.weights();
        assert_eq!(cost(way(&there), way(&back), weights).us(), 90_001);
        assert_eq!(cost(way(&back), way(&there), weights).us(), 90_001);
    }

    #[test]
    fn loss_adds_up_along_a_path() {
        let weights = TrafficClass::Game.weights();
        let one = both(&stats(0, 0, 100_000), 0.0, weights);
        let two = both(&stats(0, 0, 190_000), 0.0, weights);
        assert!((one + one).us().abs_diff(two.us()) <= 2);
        assert!(!both(&stats(1, 0, 1_000_000), 0.0, weights).is_usable());
    }

    #[test]
    fn sums_saturate_to_unusable() {
        let half = Cost::from_us(1 << 28);
        assert_eq!(half + half, Cost::UNUSABLE);
        assert_eq!(Cost::UNUSABLE + Cost::UNUSABLE, Cost::UNUSABLE);
        assert_eq!(Cost::from_us(u32::MAX), Cost::UNUSABLE);
        assert_eq!(Cost::from_us_f64(f64::NAN), Cost::UNUSABLE);
        assert_eq!(Cost::from_us_f64(-3.0), Cost::ZERO);
        assert_eq!(Cost::from_us(1_500).to_string(), "1.5 ms");
    }
}
