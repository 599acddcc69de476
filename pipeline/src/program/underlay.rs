//! VXLAN that arrives.

use crate::stage::{decapsulate, served};
use crate::{Frame, Next, Outcome, Tables};

/// Takes in VXLAN for this host; everything else is the host's own, also what a port of this host answers to a check.
///
/// # Errors
/// Those of [`decapsulate`].
#[inline(always)]
pub fn run<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32) -> Outcome {
    let Some(node) = tables.node() else {
        return Ok(Next::Pass);
    };
    if !decapsulate::is_ours(frame, node) {
        return Ok(if served::is_for_host(frame) {
            Next::Host
        } else {
            Next::Pass
        });
    }
    decapsulate::receive(frame, tables, interface)
}
