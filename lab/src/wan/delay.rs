//! How long a frame is under way: a seeded function of time for each direction.

use std::time::Duration;

use super::seed::Seed;

/// z(0.9) of the standard normal law: the distance from p50 to p90 in standard deviations.
const Z90: f64 = 1.2816;
/// The share of the median below which no draw goes: light is not faster on a good day.
const FLOOR: f64 = 0.7;
/// The time in which a new value is reached.
const RAMP_NS: i64 = 500_000_000;
/// The most by which a value exceeds the floor, so that the way back down takes a slope above −0.9.
const REACH_NS: i64 = 450_000_000;

const SECOND_NS: u64 = 1_000_000_000;

/// The law of one direction's delay.
///
/// Each second `k` has a value, drawn from the lognormal law with the median and p90 of half the measured
/// round trip, not below 0.7 × median. The delay goes straight from the value of `k − 1` to that of `k` in
/// the first half of second `k` and stays there in the other. It is a function of time and not a draw for
/// each frame, and falls slower than time passes: frames keep their order, and the median of what they see
/// is the law's.
#[derive(Debug, Clone, Copy)]
pub struct DelayLaw {
    median_ns: f64,
    sigma: f64,
    seed: Seed,
}

impl DelayLaw {
    /// The law of one direction of a round trip measured at `p50_ms` and `p90_ms`.
    pub fn of_round_trip(p50_ms: f64, p90_ms: f64, seed: Seed) -> Self {
        let spread = if p50_ms > 0.0 {
            (p90_ms / p50_ms).max(1.0).ln() / Z90
        } else {
            0.0
        };
        Self {
            median_ns: p50_ms.max(0.0) * 1e6 / 2.0,
            sigma: spread,
            seed,
        }
    }

    /// The law that always says zero: both ends are in one place.
    pub fn none() -> Self {
        Self {
            median_ns: 0.0,
            sigma: 0.0,
            seed: Seed::new(0),
        }
    }

    /// The median of one direction.
    pub fn median(&self) -> Duration {
        Duration::from_nanos(nanoseconds(self.median_ns).unsigned_abs())
    }

    /// The value that second `second` holds.
    pub fn held(&self, second: u64) -> Duration {
        Duration::from_nanos(self.value_ns(second).unsigned_abs())
    }

    fn value_ns(&self, second: u64) -> i64 {
        let floor = nanoseconds(self.median_ns * FLOOR);
        let draw = nanoseconds(self.median_ns * (self.sigma * self.seed.normal(second)).exp());
        draw.clamp(floor, floor + REACH_NS)
    }
}

/// A law being followed: the values of the second that was asked about last are kept.
#[derive(Debug, Clone)]
pub(crate) struct Follower {
    law: DelayLaw,
    second: u64,
    from_ns: i64,
    to_ns: i64,
}

impl Follower {
    pub(crate) fn new(law: DelayLaw) -> Self {
        let first = law.value_ns(0);
        Self {
            law,
            second: 0,
            from_ns: first,
            to_ns: first,
        }
    }

    /// The delay in ns of a frame that starts `now_ns` after the wire did.
    pub(crate) fn at(&mut self, now_ns: u64) -> u64 {
        let second = now_ns / SECOND_NS;
        if second != self.second {
            self.from_ns = self.law.value_ns(second.saturating_sub(1));
            self.to_ns = self.law.value_ns(second);
            self.second = second;
        }
        let into = i64::try_from(now_ns % SECOND_NS).unwrap_or(RAMP_NS).min(RAMP_NS);
        // In ms of the ramp, so that the product stays far from the limits of i64.
        let delay = self.from_ns + (self.to_ns - self.from_ns) * (into / 1_000) / (RAMP_NS / 1_000);
        delay.unsigned_abs()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "delays of minutes fit, and the cast saturates"
)]
fn nanoseconds(value: f64) -> i64 {
    value.round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(p50_ms: f64, p90_ms: f64) -> DelayLaw {
        DelayLaw::of_round_trip(p50_ms, p90_ms, Seed::new(42).named("a>b"))
    }

    #[test]
    fn held_values_have_the_median_and_the_p90_of_the_law() {
        let law = law(200.0, 260.0);
        let mut held: Vec<_> = (0..10_000)
            .map(|second| law.held(second).as_secs_f64() * 1e3)
            .collect();
        held.sort_by(f64::total_cmp);
        assert!((held[5_000] - 100.0).abs() < 1.0, "{}", held[5_000]);
        assert!((held[9_000] - 130.0).abs() < 1.5, "{}", held[9_000]);
        assert!(held[0] >= 70.0 - 1e-6);
    }

    #[test]
    fn a_frame_that_starts_later_never_arrives_earlier() {
        for (p50, p90) in [(400.0, 1_600.0), (3.0, 30.0), (374.0, 380.0)] {
            let mut follower = Follower::new(law(p50, p90));
            let arrivals: Vec<_> = (0..200_000)
                .map(|step| step * 500_000)
                .map(|now| now + follower.at(now))
                .collect();
            assert!(
                arrivals.is_sorted_by(|earlier, later| earlier < later),
                "{p50} {p90}"
            );
        }
    }

    #[test]
    fn the_second_half_of_a_second_holds_its_value() {
        let law = law(200.0, 260.0);
        let mut follower = Follower::new(law);
        for second in [0, 1, 17, 3_600] {
            for part in [500_000_000, 750_000_000, 999_999_999] {
                let delay = follower.at(second * SECOND_NS + part);
                assert_eq!(Duration::from_nanos(delay), law.held(second));
            }
        }
    }

    #[test]
    fn no_distance_is_no_delay() {
        assert_eq!(Follower::new(DelayLaw::none()).at(5_123_456_789), 0);
        assert_eq!(law(0.0, 0.0).held(3), Duration::ZERO);
    }
}
