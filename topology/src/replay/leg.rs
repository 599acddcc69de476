//! What a policy knows of a leg.

use std::collections::VecDeque;

use super::policy::{Estimator, Policy};
use crate::estimate::{LegEstimator, LegStats, Sample};
use crate::id::Millis;

/// What is known of a leg.
pub(super) struct LegState {
    policy: (Estimator, bool),
    estimator: LegEstimator,
    /// The last ticks, as far as a mean looks back.
    window: VecDeque<Option<u32>>,
}

impl LegState {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            policy: (policy.estimator, policy.guard),
            estimator: match policy.estimator {
                Estimator::Ewma { alpha } => LegEstimator::with_step(alpha),
                Estimator::Mean { .. } => LegEstimator::new(),
            },
            window: VecDeque::new(),
        }
    }

    /// Takes in a round trip; `None` was lost.
    pub(super) fn observe(&mut self, now: Millis, rtt_us: Option<u32>) {
        let lost = u32::from(rtt_us.is_none());
        self.estimator.observe(
            now,
            Sample {
                sent: 1,
                lost,
                rtt_us,
            },
        );
        if let Estimator::Mean { window } = self.policy.0 {
            self.window.truncate(window - 1);
            self.window.push_front(rtt_us);
        }
    }

    /// What steering is told; `None`: the leg is unusable.
    pub(super) fn stats(&mut self, now: Millis) -> Option<LegStats> {
        let stats = self.estimator.stats(now)?;
        let rtt_us = match self.policy {
            (Estimator::Ewma { .. }, true) => stats.rtt_us,
            (Estimator::Ewma { .. }, false) => self.estimator.ewma_us()?,
            (Estimator::Mean { .. }, false) => self.mean_us()?,
            (Estimator::Mean { .. }, true) => guarded(self.mean_us()?, stats.p90_us),
        };
        Some(LegStats { rtt_us, ..stats })
    }

    fn mean_us(&self) -> Option<u32> {
        let home = || self.window.iter().flatten();
        let sum: u64 = home().map(|&us| u64::from(us)).sum();
        let count = home().count() as u64;
        u32::try_from((sum + count / 2).checked_div(count)?).ok()
    }
}

/// At least halfway to the 90th percentile.
fn guarded(us: u32, p90_us: u32) -> u32 {
    us.max(u32::midpoint(us, p90_us))
}
