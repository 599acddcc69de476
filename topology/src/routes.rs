//! The exact choice of a primary and a backup path.
//!
//! Specification, for one pair of nodes:
//! - A path is direct or goes over relays, each node once; it costs the sum of its legs plus the transit of each
//!   relay. A sum of 2²⁹ µs or more is no path.
//! - The *primary* is the cheapest path with at most three relays, or fewer where fewer are asked for; of equal ones
//!   that with fewer relays, then that whose first relay has the lowest id, then the second, then the third.
//! - The *backup* is another path, direct or over one relay, that shares no relay with the primary: the one with the
//!   least of its cost, plus 1000 ms where its relay stands at the site of one of the primary's, plus 20 ms where it
//!   is of the provider of one. Every relay is examined, ties fall as above, and there may be none.
//!
//! [`best`] answers for all pairs at once, and [`Routes::set_leg`] when one leg has changed; [`Rests`] and
//! [`backup`] answer for one pair. [`oracle`] is the same specification, as slow and plain as it reads.

mod all_pairs;
mod backup;
mod change;
mod costs;
mod min_plus;
pub mod oracle;
mod rests;
#[cfg(test)]
pub(crate) mod seeded;
#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;

use crate::cost::Cost;

pub use all_pairs::{Routes, best};
pub use backup::backup;
pub use costs::{CostMatrix, CostMatrixError, Relay};
pub use rests::{Ranked, Rests};

/// The most relays of a path.
pub const MAX_RELAYS: usize = 3;
/// What a backup costs more for a relay at the site of one of the primary's.
pub const SHARED_SITE: Cost = Cost::from_us(1_000_000);
/// What a backup costs more for a relay of the provider of one of the primary's.
pub const SHARED_PROVIDER: Cost = Cost::from_us(20_000);

/// The indices of a path's relays, in order; none is direct.
pub type Relays = ArrayVec<usize, MAX_RELAYS>;

/// A path of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it passes.
    pub relays: Relays,
    /// The path's cost, without any penalty.
    pub cost: Cost,
}
