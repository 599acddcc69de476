//! From a service's ring to the next hop.

use crate::map::{NextHop, Service};
use crate::{Reason, Tables};

/// The target of the slot that a flow's hash falls on.
///
/// # Errors
/// `NoTarget` where the ring is empty or names a target that is not there.
#[inline(always)]
pub fn pick<'t, T: Tables>(tables: &'t T, service: &Service, hash: u32) -> Result<&'t NextHop, Reason> {
    if service.size == 0 {
        return Err(Reason::NoTarget);
    }
    let slot = service.first.wrapping_add(hash % service.size);
    let Some(target) = tables.ring(slot) else {
        return Err(Reason::NoTarget);
    };
    tables.target(target).ok_or(Reason::NoTarget)
}

/// The hash by which an exit reads its ring. The entry's ring sent only flows of some slots here, so that slots of the
/// same hash would not give each target its share of them.
#[inline(always)]
#[must_use]
pub const fn at_exit(hash: u32) -> u32 {
    hash.wrapping_mul(0x9e37_79b1)
}
