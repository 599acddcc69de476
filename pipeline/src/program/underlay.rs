//! VXLAN that arrives.

use crate::stage::decapsulate;
use crate::{Frame, Next, Outcome, Tables};

/// Takes in VXLAN for this host; everything else is the host's own.
///
/// # Errors
/// Those of [`decapsulate`].
#[inline(always)]
pub fn run<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32) -> Outcome {
    let Some(node) = tables.node() else {
        return Ok(Next::Pass);
    };
    if !decapsulate::is_ours(frame, node) {
        return Ok(Next::Pass);
    }
    decapsulate::receive(frame, tables, interface)
}
