//! The agent on each host: loads and pins the programs, programs the maps that `model` computed, probes, and reads
//! what the programs count.

mod admit;
pub mod agent;
pub mod announce;
pub mod balancer;
pub mod bpf;
pub mod capture;
mod error;
pub mod explain;
mod family;
pub mod health;
pub mod host;
mod listeners;
pub mod live;
mod noise;
pub mod probe;
pub mod quality;
pub mod read;
mod sys;
mod uninstall;

pub use error::{Error, Result};
pub use sys::clock_is_synchronised;
pub use uninstall::uninstall;
