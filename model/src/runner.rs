//! The pipeline in userland: the same programs as in the kernel, over plain octets and hash maps.
//!
//! [`Host`] holds what the maps of one host hold. A program runs over a [`VecFrame`] and returns a [`Walk`]: what
//! became of the packet, as the kernel's verdict would be, and, where asked, each look-up on the way. Clock, CPU,
//! neighbours and routes are set from outside, so that a run is a function of its inputs.

mod arrays;
mod frame;
mod host;
mod state;
mod tables;
mod trace;
mod verdict;

pub use frame::VecFrame;
pub use host::Host;
pub use trace::Step;
pub use verdict::{Hook, Verdict};

use kuafu_pipeline::{Outcome, Reason};

/// What one packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How the program ended.
    pub outcome: Outcome,
    /// What the kernel does with the packet.
    pub verdict: Verdict,
    /// The look-ups, in their order; empty unless the host [traces](Host::set_tracing).
    pub steps: Vec<Step>,
}

impl Walk {
    /// Why the packet was dropped, where it was (an answer may have gone back).
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self.outcome {
            Ok(kuafu_pipeline::Next::Answer(_, reason)) | Err(reason) => Some(reason),
            Ok(_) => None,
        }
    }
}
