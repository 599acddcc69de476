//! The controller: keeps what is declared, compiles it to a state for each host, and streams that to the agents.
//!
//! ```text
//! store <- Core (decides; no sockets, no clock) -> serve (TLS, gRPC, /metrics)
//!           authority (the cluster's own CA)
//! ```
//!
//! [`core`] has all decisions as `handle_…(now, …)` that return commands; [`serve`] carries them out. A decision is
//! in the [`store`] before anyone hears of it.
#![forbid(unsafe_code)]

pub mod authority;
pub mod backup;
pub mod core;
pub mod serve;
pub mod store;

pub use core::HISTORY_BYTES;
pub use serve::{Error, Options, Running, run, start};
