//! The specification of `routes`, as slow and plain as it reads.

use super::{CostMatrix, Route};

/// Primary and backup of a pair: every path listed, sorted by (score, relays, relay), the first one taken.
pub(super) fn choose(costs: &CostMatrix, from: usize, to: usize) -> (Option<Route>, Option<Route>) {
    if from == to {
        return (None, None);
    }
    let relays = (0..costs.len()).filter(|&k| k != from && k != to).map(Some);
    let paths: Vec<Option<usize>> = std::iter::once(None).chain(relays).collect();
    let cost = |relay: Option<usize>| costs.path(from, relay, to);
    let route = |(_, relay): (u64, Option<usize>)| Route {
        relay,
        cost: cost(relay),
    };

    let scored = paths.iter().map(|&relay| (u64::from(cost(relay).us()), relay));
    let Some(primary) = scored.filter(usable).min() else {
        return (None, None);
    };
    let score = |relay: Option<usize>| {
        let mut score = u64::from(cost(relay).us());
        if let (Some(first), Some(second)) = (primary.1, relay) {
            let (first, second) = (costs.relays()[first], costs.relays()[second]);
            score += if first.site == second.site { 1_000_000 } else { 0 };
            score += if first.provider == second.provider {
                20_000
            } else {
                0
            };
        }
        score
    };
    let others = paths
        .iter()
        .filter(|&&relay| relay != primary.1)
        .map(|&relay| (score(relay), relay));
    (Some(route(primary)), others.filter(usable).min().map(route))
}

fn usable(&(score, _): &(u64, Option<usize>)) -> bool {
    score < 1 << 29
}
