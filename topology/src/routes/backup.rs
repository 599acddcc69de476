//! The backup of one pair.

use super::{CostMatrix, Relays, Route};
use crate::cost::Cost;

/// The backup beside a primary over these relays, among the paths (direct, or over one relay) that `allowed` takes;
/// see the module above for the specification.
pub fn backup(
    costs: &CostMatrix,
    from: usize,
    to: usize,
    primary: &[usize],
    allowed: impl Fn(Option<usize>) -> bool,
) -> Option<Route> {
    let direct = costs.leg(from, to);
    let straight = !primary.is_empty() && direct.is_usable() && from != to && allowed(None);
    let mut bound = if straight { direct } else { Cost::UNUSABLE };
    let mut found = straight.then(|| Route {
        relays: Relays::new(),
        cost: direct,
    });
    let legs = costs.row(from).iter().zip(costs.column(to)).zip(costs.transits());
    for (relay, ((&first, &second), &transit)) in legs.enumerate() {
        let path = first + second + transit;
        if path >= bound.us() || primary.contains(&relay) {
            continue;
        }
        let score = Cost::from_us(path) + costs.penalty(primary, relay);
        if score < bound && from != to && allowed(Some(relay)) {
            bound = score;
            found = Some(Route {
                relays: std::iter::once(relay).collect(),
                cost: Cost::from_us(path),
            });
        }
    }
    found
}
