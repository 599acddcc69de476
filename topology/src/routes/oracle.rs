//! The specification of `routes`, as slow and plain as it reads: what the fast search is compared with.

use thiserror::Error;

use super::{CostMatrix, MAX_RELAYS, Relays, Route, Routes};
use crate::cost::Cost;

/// The least costs of paths from a node to all others with exactly as many legs, from one on, by a dynamic programme
/// over the last leg (Bellman 1958): `paths[relays][to]` in µs, some of which may pass a node twice.
fn programme(costs: &CostMatrix, from: usize) -> [Vec<u64>; MAX_RELAYS + 1] {
    let n = costs.len();
    let leg = |from: usize, to: usize| u64::from(costs.leg(from, to).us());
    let mut paths = std::array::from_fn(|_| vec![u64::from(Cost::UNUSABLE.us()); n]);
    paths[0] = (0..n).map(|to| leg(from, to)).collect();
    for relays in 1..=MAX_RELAYS {
        for last in (0..n).filter(|&last| last != from) {
            let so_far = paths[relays - 1][last] + u64::from(costs.relays()[last].transit.us());
            for (to, path) in paths[relays].iter_mut().enumerate() {
                *path = (*path).min(so_far + leg(last, to));
            }
        }
    }
    paths
}

/// A pair for which the search and the oracle differ.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{from} to {to}, {what}: found {found}, the oracle has {expected}")]
pub struct Mismatch {
    /// The index where the path begins.
    pub from: usize,
    /// The index where it ends.
    pub to: usize,
    /// What differs.
    pub what: String,
    /// What the search found.
    pub found: String,
    /// What it should have found.
    pub expected: String,
}

/// Compares the costs of all pairs' paths, by the number of relays at most, and of their backups; and each path that
/// was found with the sum of its legs. Answers how many pairs were compared.
///
/// # Errors
/// The first pair that differs.
pub fn check(routes: &Routes) -> Result<usize, Mismatch> {
    let costs = routes.costs();
    let mut pairs = 0;
    for from in 0..costs.len() {
        let paths = programme(costs, from);
        for to in (0..costs.len()).filter(|&to| to != from) {
            check_pair(routes, (from, to), &paths)?;
            pairs += 1;
        }
    }
    Ok(pairs)
}

fn check_pair(
    routes: &Routes,
    (from, to): (usize, usize),
    paths: &[Vec<u64>; MAX_RELAYS + 1],
) -> Result<(), Mismatch> {
    let differ = |what: String, found: Option<&Route>, expected: Option<u64>| Mismatch {
        from,
        to,
        what,
        found: found.map_or("no path".to_owned(), |route| {
            format!("{} over {:?}", route.cost, route.relays)
        }),
        expected: expected.map_or("no path".to_owned(), |us| format!("{us} us")),
    };
    let unusable = u64::from(Cost::UNUSABLE.us());
    for relays in 0..=routes.max_relays() {
        let least = paths[..=relays].iter().map(|paths| paths[to]).min();
        let expected = least.filter(|&us| us < unusable);
        let found = routes.within(from, to, relays);
        let cost = found.as_ref().map(|route| u64::from(route.cost.us()));
        let sum = found
            .as_ref()
            .map(|route| costs_of(routes, from, &route.relays, to));
        if cost != expected || cost != sum {
            let what = format!("at most {relays} relays");
            return Err(differ(what, found.as_ref(), expected));
        }
    }
    let found = routes.backup(from, to);
    let primary = routes.primary(from, to);
    let expected = primary.and_then(|primary| beside(routes.costs(), (from, to), &primary.relays));
    if found != expected {
        let expected = expected.map(|route| route.cost.us().into());
        return Err(differ("backup".to_owned(), found.as_ref(), expected));
    }
    Ok(())
}

fn costs_of(routes: &Routes, from: usize, relays: &Relays, to: usize) -> u64 {
    routes.costs().path(from, relays, to).us().into()
}

/// Every path of a pair with at most so many relays, in the order in which they are chosen.
pub fn all_paths(costs: &CostMatrix, from: usize, to: usize, max_relays: usize) -> Vec<Route> {
    let mut found = Vec::new();
    let mut begun = vec![Relays::new()];
    while let Some(relays) = begun.pop() {
        let cost = costs.path(from, &relays, to);
        if relays.len() < max_relays {
            let free = |relay: &usize| ![from, to].contains(relay) && !relays.contains(relay);
            for relay in (0..costs.len()).filter(free) {
                begun.push(relays.iter().copied().chain([relay]).collect());
            }
        }
        if cost.is_usable() {
            found.push(Route { relays, cost });
        }
    }
    found.sort_by_key(|route| (route.cost, route.relays.len(), route.relays.clone()));
    found
}

/// The backup beside a primary: every path listed, the least (score, relay) taken, where direct comes before relays.
pub(super) fn beside(costs: &CostMatrix, (from, to): (usize, usize), primary: &[usize]) -> Option<Route> {
    let leg = |from: usize, to: usize| u64::from(costs.leg(from, to).us());
    let straight = (!primary.is_empty()).then(|| (leg(from, to), None));
    let free = |relay: &usize| ![from, to].contains(relay) && !primary.contains(relay);
    let over = (0..costs.len()).filter(free).map(|relay| {
        let node = &costs.relays()[relay];
        let others = || primary.iter().map(|&relay| &costs.relays()[relay]);
        let mut score = leg(from, relay) + u64::from(node.transit.us()) + leg(relay, to);
        if others().any(|other| other.site == node.site) {
            score += 1_000_000;
        }
        if others().any(|other| other.provider == node.provider) {
            score += 20_000;
        }
        (score, Some(relay))
    });
    let usable = |(score, _): &(u64, Option<usize>)| *score < u64::from(Cost::UNUSABLE.us());
    let (_, relay) = straight.into_iter().chain(over).filter(usable).min()?;
    let relays: Relays = relay.into_iter().collect();
    Some(Route {
        cost: costs.path(from, &relays, to),
        relays,
    })
}
