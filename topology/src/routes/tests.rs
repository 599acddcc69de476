use std::num::NonZeroUsize;

use super::seeded::{Seeded, index_nodes, matrix};
use super::*;

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

fn ms(ms: u32) -> Cost {
    Cost::from_us(ms * 1000)
}

/// Entry 0, exit 1, relays 2 and up; both legs of relay k cost `relays[k] / 2`, its transit included.
fn star(direct: u32, relays: &[u32], places: &[(u32, u32)]) -> CostMatrix {
    let place = |index: usize| places.get(index).copied().unwrap_or((100, 100));
    let mut costs = CostMatrix::new(index_nodes(relays.len() + 2, place)).unwrap();
    costs.set(0, 1, ms(direct));
    for (index, cost) in relays.iter().enumerate() {
        costs.set(0, index + 2, Cost::from_us(cost * 500 - 1000));
        costs.set(index + 2, 1, Cost::from_us(cost * 500));
    }
    costs
}

fn relays(route: Option<Route>) -> Option<Vec<usize>> {
    route.map(|route| route.relays.to_vec())
}

#[test]
fn equal_costs_go_to_fewer_relays_then_to_the_lowest_ids() {
    let places = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)];
    let routes = best(star(100, &[100, 90, 90], &places), 3, one());
    assert_eq!(relays(routes.primary(0, 1)), Some(vec![3]));
    assert_eq!(relays(routes.backup(0, 1)), Some(vec![4]));
    let tied = best(star(90, &[90], &places), 3, one());
    assert_eq!(relays(tied.primary(0, 1)), Some(vec![]));
    assert_eq!(relays(tied.backup(0, 1)), Some(vec![2]));
}

#[test]
fn a_backup_pays_for_the_site_and_the_provider_of_the_primary() {
    // The second relay stands at the first one's site; the third is 300 ms longer, but elsewhere.
    let sites = [(0, 0), (1, 1), (2, 2), (2, 3), (3, 4)];
    let routes = best(star(2000, &[100, 110, 400], &sites), 3, one());
    assert_eq!(relays(routes.backup(0, 1)), Some(vec![4]));
    // Nothing else is worth leaving the site, where all else costs more than the penalty.
    let far = best(star(2000, &[100, 110], &sites), 3, one());
    assert_eq!(relays(far.backup(0, 1)), Some(vec![3]));
    // One provider at two sites: 20 ms.
    let providers = [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3)];
    let routes = best(star(2000, &[100, 110, 125], &providers), 3, one());
    assert_eq!(relays(routes.backup(0, 1)), Some(vec![4]));
    let routes = best(star(2000, &[100, 110, 135], &providers), 3, one());
    assert_eq!(relays(routes.backup(0, 1)), Some(vec![3]));
}

#[test]
fn there_may_be_no_path_and_no_backup_and_what_must_not_relay_still_ends_paths() {
    let alone = best(star(50, &[], &[]), 3, one());
    assert_eq!(relays(alone.primary(0, 1)), Some(vec![]));
    assert_eq!(alone.backup(0, 1), None);
    assert_eq!((alone.primary(1, 0), alone.primary(0, 0)), (None, None));
    let mut nodes = index_nodes(3, |_| (0, 0));
    nodes[2].transit = Cost::UNUSABLE;
    let mut costs = CostMatrix::new(nodes).unwrap();
    costs.set(0, 2, ms(10));
    costs.set(2, 1, ms(10));
    let routes = best(costs, 3, one());
    assert_eq!(routes.primary(0, 1), None);
    assert_eq!(relays(routes.primary(0, 2)), Some(vec![]));
}

#[test]
fn all_pairs_agree_with_the_enumeration_of_all_paths() {
    for seed in 0..400 {
        let costs = matrix(seed, 12);
        let max_relays = 1 + usize::try_from(seed % 3).unwrap();
        let routes = best(costs.clone(), max_relays, one());
        for from in 0..costs.len() {
            for to in (0..costs.len()).filter(|&to| to != from) {
                let what = format!("seed {seed}, {from} to {to}");
                for relays in 0..=max_relays {
                    let expected = oracle::all_paths(&costs, from, to, relays).into_iter().next();
                    assert_eq!(
                        routes.within(from, to, relays),
                        expected,
                        "{what}, {relays} relays"
                    );
                }
                let primary = routes.primary(from, to);
                let beside = primary.and_then(|route| oracle::beside(&costs, (from, to), &route.relays));
                assert_eq!(routes.backup(from, to), beside, "{what}, backup");
            }
        }
    }
}

#[test]
fn paths_come_in_the_order_in_which_they_are_chosen() {
    for seed in 0..60 {
        let costs = matrix(seed, 9);
        for to in 0..costs.len() {
            let rests = Rests::new(&costs, to, 3);
            for from in (0..costs.len()).filter(|&from| from != to) {
                let ranked: Vec<Route> = rests.ranked(from).collect();
                assert_eq!(
                    ranked,
                    oracle::all_paths(&costs, from, to, 3),
                    "seed {seed}, {from} to {to}"
                );
            }
        }
    }
}

#[test]
fn all_pairs_agree_with_the_oracle() {
    for seed in 0..300 {
        let routes = best(matrix(seed, 60), 3, one());
        oracle::check(&routes).unwrap_or_else(|mismatch| panic!("seed {seed}: {mismatch}"));
    }
}

#[test]
fn more_relays_cost_no_more_and_no_path_meets_itself_or_its_backup() {
    for seed in 0..40 {
        let routes = best(matrix(seed, 60), 3, one());
        let n = routes.costs().len();
        for (from, to) in (0..n).flat_map(|from| (0..n).map(move |to| (from, to))) {
            let cost = |route: &Option<Route>| route.as_ref().map_or(Cost::UNUSABLE, |route| route.cost);
            let paths: Vec<_> = (0..=3).map(|relays| routes.within(from, to, relays)).collect();
            assert!(
                paths.windows(2).all(|two| cost(&two[1]) <= cost(&two[0])),
                "seed {seed}"
            );
            let Some(primary) = routes.primary(from, to) else {
                continue;
            };
            let mut nodes: Vec<usize> = primary.relays.to_vec();
            nodes.extend([from, to]);
            if let Some(backup) = routes.backup(from, to) {
                assert_ne!(primary.relays, backup.relays, "seed {seed}");
                nodes.extend(backup.relays);
            }
            let passed = nodes.len();
            nodes.sort_unstable();
            nodes.dedup();
            assert_eq!(nodes.len(), passed, "seed {seed}: {from} to {to}");
        }
    }
}

#[test]
fn one_leg_changed_is_all_pairs_anew() {
    for seed in 0..120 {
        let mut random = Seeded::new(1_000 + seed);
        let costs = matrix(seed, 40);
        let n = u32::try_from(costs.len()).unwrap();
        if n < 2 {
            continue;
        }
        let mut routes = best(costs, 1 + usize::try_from(seed % 3).unwrap(), one());
        for change in 0..40 {
            let (from, to) = (random.below(n) as usize, random.below(n) as usize);
            let before = routes.costs().leg(from, to).us();
            let around = if before < Cost::UNUSABLE.us() { before } else { 50 };
            let cost = match random.below(4) {
                0 => Cost::UNUSABLE,
                1 => Cost::from_us(random.below(around + 1)),
                2 => Cost::from_us(around + random.below(around / 4 + 2)),
                _ => Cost::from_us(random.below(4)),
            };
            let changed = routes.set_leg(from, to, cost);
            let mut anew = routes.costs().clone();
            anew.set(from, to, cost);
            let anew = best(anew, routes.max_relays(), one());
            assert_eq!(
                routes, anew,
                "seed {seed}, change {change}: {from} to {to}, {changed} pairs"
            );
        }
    }
}
