//! Kuafu's kinds as validated types, and intent compiled to map contents.
#![forbid(unsafe_code)]

pub mod state;

pub use state::HostState;
