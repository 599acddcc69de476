//! Kuafu's kinds as validated types, and intent compiled to map contents.
#![forbid(unsafe_code)]

pub mod compile;
pub mod contents;
pub mod health;
pub mod kinds;
pub mod manifest;
pub mod runner;
pub mod state;

pub use state::HostState;
