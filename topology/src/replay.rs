//! What another policy would have done with what was measured.
//!
//! Specification:
//! - A recording is what the controller recorded ([`crate::Recorded`], one JSON object a line, from its start on), or
//!   measurements: CSV with the header `tick,src,dst,rtt_ms`, a line for each leg in each tick, ticks rising by one;
//!   an empty `rtt_ms` was lost. A tick is a second. Legs are those of the first tick, and each tick has all of
//!   them; lines from a place to itself are passed over. What has a gap is refused.
//! - [`Steering`] decides each tick by what ticks before it measured. The pairs of measurements are their legs, of
//!   class game; a round trip counts as one probe sent in the middle of its tick, a lost one as one that did not
//!   return, and there are no alarms. A leg without a round trip in what its estimate looks back on is unusable.
//! - A pair's *realised* round trip in a tick is the sum of that tick's legs on the path in force, row to column,
//!   plus each relay's transit; a lost leg counts as `clip_ms`. Before the first decision the path is direct. The
//!   *oracle* takes each tick's own best path over at most `max_relays` relays, also those that a pair must not use.
//! - Of a controller's recording a tick's legs are the medians that the next tick was told (of the last 30 s, so
//!   milder than single packets); one that it was not told is lost. A tick that an event made, less than half a
//!   second after the last, decides and is not counted.

mod engine;
mod leg;
mod measurements;
mod policy;
mod recording;
mod report;
mod tally;
#[cfg(test)]
mod tests;

#[cfg(doc)]
use crate::steering::Steering;

pub use engine::{Refused, run};
pub use measurements::Measurements;
pub use policy::{Estimator, Policy, PolicyError};
pub use recording::{Recording, RecordingError, Wrong};
pub use report::{Difference, PairReport, Report, differences};
