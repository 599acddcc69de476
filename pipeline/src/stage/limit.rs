//! An accelerator's limit, where its packets get onto the backbone.

use crate::{Reason, Tables};

/// Lets a packet of so many octets pass, an answer or a client's, within the limit of its accelerator on this host.
/// `limit` is its number and the accelerator.
///
/// # Errors
/// `OverLimit`.
#[inline(always)]
pub fn admit<T: Tables>(
    tables: &T,
    (number, vni): (u32, u32),
    reply: bool,
    octets: u32,
) -> Result<(), Reason> {
    let Some(limit) = tables.limit(number).filter(|limit| limit.cost != 0) else {
        return Ok(());
    };
    let Some(state) = tables.limit_state(number).filter(|_| limit.vni == vni) else {
        return Ok(());
    };
    let bucket = if reply { &state.answers } else { &state.clients };
    if bucket.take(tables, tables.jiffies(), limit.cost_of(octets), limit.depth) {
        Ok(())
    } else {
        Err(Reason::OverLimit)
    }
}
