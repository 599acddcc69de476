//! Signs of how targets are, for the agent, which asks those that seem not to serve. What a flow's usual packet does is
//! none.

use crate::Tables;
use crate::map::Sign;

/// Counts one of a target's; of number 0 nothing.
#[inline(always)]
pub fn count<T: Tables>(tables: &T, target: u32, sign: Sign) {
    if target == 0 {
        return;
    }
    if let Some(signs) = tables.target_signs(target) {
        signs.count(tables, tables.cpu(), sign);
    }
}
