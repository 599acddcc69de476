//! Kuafu's packet logic, written once for the kernel and for userland.
//!
//! A *program* ([`program`]) is a list of *stages* ([`stage`]). A stage reads and rewrites a [`Frame`] and looks
//! things up in [`Tables`]; it ends in `Result<Next, Reason>`: what becomes of the packet, or the named reason
//! why it is dropped. Who implements the two traits decides where it runs: `ebpf` in the kernel, `model` over
//! plain bytes and hash maps.
//!
//! ```text
//!             Frame (bytes)          Tables (look-ups, clock, counters)
//!                  \                    /
//!   header views -> stages -> programs: edge (XDP), port and underlay (tcx)
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "header fields are narrower than the registers that compute them; what must fit is checked where it enters"
)]

pub mod checksum;
pub mod cut;
pub mod frame;
pub mod header;
pub mod map;
pub mod program;
pub mod reason;
pub mod siphash;
pub mod stage;
pub mod tables;

pub use frame::{Frame, Shim};
pub use map::MapType;
pub use reason::{Event, Reason};
pub use tables::{Insertion, Route, Tables};

/// What becomes of a packet that is not dropped.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The host's own stack takes it, unchanged.
    Pass,
    /// The host's own stack takes it as it is now, whichever Ethernet address it is for.
    Host,
    /// Taken in once more, as if it had arrived on this interface.
    Arrive(u32),
    /// Sent out of this interface.
    Transmit(u32),
    /// Handed to the port behind this host-side interface, as if it had arrived there.
    Deliver(u32),
    /// Taken in by Kuafu itself: it has done its work.
    Consumed,
    /// Dropped for this reason, and the frame now holds an answer that says so, to be sent out of this interface.
    Answer(u32, Reason),
}

/// How a stage or a program ends.
pub type Outcome = Result<Next, Reason>;
