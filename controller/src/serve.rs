//! The shell around the core: sockets, clocks, files.

mod agents;
mod api;
mod enrolment;
mod hook;
mod identity;
mod listen;
mod metrics;
mod reflector;
mod run;
mod shell;

pub use agents::hear;
pub use run::{Error, Options, Running, run, start};
