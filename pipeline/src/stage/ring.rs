//! From a ring to a target.

use crate::Tables;

/// No target's number. It stands where an option would be carried far: the verifier refuses to read what an option
/// without a value holds.
pub const NOBODY: u32 = u32::MAX;

/// The target's number in the slot of a ring (its first slot and size) on which a hash falls; `None` where it is empty.
#[inline(always)]
pub fn number<T: Tables>(tables: &T, (first, size): (u32, u32), hash: u32) -> Option<u32> {
    if size == 0 {
        return None;
    }
    tables.ring(first.wrapping_add(hash % size))
}

/// The hash by which an exit reads its ring. The entry's ring sent only flows of some slots here, so that slots of the
/// same hash would not give each target its share of them.
#[inline(always)]
#[must_use]
pub const fn at_exit(hash: u32) -> u32 {
    hash.wrapping_mul(0x9e37_79b1)
}
