//! Which of a pair's two paths a packet takes.

use crate::map::{NO_PATH, Pair, PathState};
use crate::{Event, Reason, Tables};

/// The primary path unless it is down or stale; then the backup if that is fresh; then the primary if it is at
/// least not stale; otherwise the path that was in use: nothing fresh moves nothing (fail static).
///
/// A stale primary with a fresh backup is marked *down*, which stays until the agent clears it: the pair does not
/// flap at the speed of packets.
///
/// # Errors
/// `NoPath` where the pair has no primary path.
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, pair: &Pair, now: u64, octets: u32) -> Result<u32, Reason> {
    let Some(primary) = tables.path_state(pair.primary) else {
        return Err(Reason::NoPath);
    };
    if primary.is_fresh(now) {
        return Ok(pair.primary);
    }
    let backup = if pair.backup == NO_PATH {
        None
    } else {
        tables.path_state(pair.backup)
    };
    if backup.is_some_and(|backup| backup.is_fresh(now)) {
        leave(tables, primary, octets);
        return Ok(pair.backup);
    }
    let was_left = primary.down.get() != 0;
    if was_left && primary.is_stale(now) && backup.is_some() {
        Ok(pair.backup)
    } else {
        Ok(pair.primary)
    }
}

#[inline(always)]
fn leave<T: Tables>(tables: &T, primary: &PathState, octets: u32) {
    if primary.down.get() == 0 {
        primary.down.set(1);
        primary.returns.set(0);
        tables.count(Event::FailedOver, octets);
    }
}
