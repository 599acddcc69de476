//! The specification of `routes`, as slow and plain as it reads: what the fast search is compared with.

use thiserror::Error;

use super::{CostMatrix, MAX_RELAYS, Relays, Route, Routes};
use crate::cost::Cost;

/// The least costs of paths from a node to all others with exactly as many legs, from one on, by a dynamic programme
/// over the last leg (Bellman 1958): `paths[relays][to]` in µs, some of which may pass a node twice.
fn programme(costs: &CostMatrix, from: usize) -> [Vec<u64>; MAX_RELAYS + 1] {
    let n = costs.len();
    let unusable = u64::from(Cost::UNUSABLE.us());
    let mut paths = std::array::from_fn(|_| vec![unusable; n]);
    for to in 0..n {
        paths[0][to] = costs.leg(from, to).us().into();
    }
    for relays in 1..=MAX_RELAYS {
        for last in (0..n).filter(|&last| last != from) {
            let so_far = paths[relays - 1][last] + u64::from(costs.relays()[last].transit.us());
            for to in 0..n {
                let path = so_far + u64::from(costs.leg(last, to).us());
                paths[relays][to] = paths[relays][to].min(path);
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
        let sum = found.as_ref().map(|route| costs_of(routes, from, &route.relays, to));
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

/// The backup beside a primary: every path listed, sorted by (score, relays, relay), the first one taken.
pub(super) fn beside(costs: &CostMatrix, (from, to): (usize, usize), primary: &[usize]) -> Option<Route> {
    let relays = (0..costs.len()).filter(|relay| ![from, to].contains(relay) && !primary.contains(relay));
    let straight = (!primary.is_empty()).then(Relays::new);
    let over = relays.map(|relay| Relays::from_iter([relay]));
    let scored = straight.into_iter().chain(over).map(|relays| {
        let cost = costs.path(from, &relays, to);
        let shared = |is_shared: fn((u32, u32), (u32, u32)) -> bool| {
            let place = |relay: usize| (costs.relays()[relay].site, costs.relays()[relay].provider);
            relays.iter().any(|&backup| {
                let mut primary = primary.iter();
                primary.any(|&relay| is_shared(place(relay), place(backup)))
            })
        };
        let site = if shared(|a, b| a.0 == b.0) { 1_000_000 } else { 0 };
        let provider = if shared(|a, b| a.1 == b.1) { 20_000 } else { 0 };
        (u64::from(cost.us()) + site + provider, relays.len(), relays, cost)
    });
    let usable = scored.filter(|(score, ..)| *score < u64::from(Cost::UNUSABLE.us()));
    usable.min().map(|(_, _, relays, cost)| Route { relays, cost })
}
