//! A world on one machine: namespace hosts and a WAN from a measured matrix.
//!
//! A host is a network [`Namespace`]; programs run in it as [`Process`]es that cannot outlive the lab. What
//! was built goes away with the values that stand for it; what a killed run left is found by [`leftovers`]
//! and removed by [`sweep()`].
//!
//! Everything here needs root on Linux, and `ip` (iproute2); [`unavailable`] says what is missing. Only
//! [`virtual_time`], the same world without a kernel, needs nothing.

#[cfg(not(target_os = "linux"))]
compile_error!("the lab is made of Linux network namespaces");

pub mod decapsulator;
pub mod error;
pub mod guest;
mod interrupt;
pub mod link;
mod netns;
mod process;
pub mod stream;
mod sweep;
mod sys;
pub mod virtual_time;
pub mod wan;
pub mod world;
mod xdp;

pub use error::{Error, Result};
pub use interrupt::clean_on_interrupt;
pub use netns::Namespace;
pub use nix::sys::signal::Signal;
pub use process::Process;
pub use sweep::{Leftovers, leftovers, sweep};
pub use xdp::{Reflector, XdpMode};

/// Why no lab can be built here, if so: the words that a skipped test prints.
pub fn unavailable() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("the lab needs root");
    }
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    if !found("ip") {
        return Some("the lab needs `ip` (apt-get install iproute2)");
    }
    if !found("nft") {
        return Some("the lab needs `nft` (apt-get install nftables)");
    }
    None
}

/// Says that a test did not run, and why: to standard error itself, which the harness does not capture, so that
/// `cargo test` shows it and `cargo xtask test` counts it.
pub fn skip(why: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
