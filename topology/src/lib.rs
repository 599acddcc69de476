//! Nodes, legs, quality estimators and path choice, without I/O, clock or threads of its own.
//!
//! ```text
//! samples -> LegEstimator -> LegStats -> cost -> CostMatrix -> routes -> Steering -> Change
//!            LossAlarm ----------------- Event -------------------------^
//! ```
//!
//! The estimator and the alarm run where a leg begins; [`Steering`] runs where all legs are known. Time is a
//! [`Millis`] that the caller passes in, so that a recording of the inputs replays to the same decisions.
#![forbid(unsafe_code)]

pub mod alarm;
pub mod cost;
pub mod estimate;
pub mod id;
pub mod matrix;
pub mod pops;
pub mod replay;
pub mod routes;
pub mod steering;

pub use alarm::{LossAlarm, Verdict};
pub use cost::{Cost, TrafficClass, Weights, cost};
pub use estimate::{LegEstimator, LegStats, Sample};
pub use id::{LegId, Millis, NodeId, PairId, PathId};
pub use matrix::{Matrix, MatrixError};
pub use routes::{CostMatrix, CostMatrixError, Relay, Route, Routes};
pub use steering::{Change, Config, Decision, Event, Input, Path, Recorded, Steering, Why, replay};
