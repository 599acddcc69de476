use std::num::NonZeroUsize;

use super::seeded::{Seeded, index_nodes, matrix};
use super::*;

fn one() -> NonZeroUsize {
    NonZeroUsize::MIN
}

fn ms(ms: u32) -> Cost {
    Cost::from_us(ms * 1000)
}

fn any(_: Option<usize>) -> bool {
    true
}

/// Every path of a pair with at most so many relays, as it is chosen: the definition, spelt out.
fn enumerate(costs: &CostMatrix, from: usize, to: usize, max_relays: usize) -> Vec<Route> {
    let mut found = Vec::new();
    let mut begun = vec![Relays::new()];
    while let Some(relays) = begun.pop() {
        let cost = costs.path(from, &relays, to);
        if cost.is_usable() {
            found.push(Route {
                relays: relays.clone(),
                cost,
            });
        }
        if relays.len() < max_relays {
            let free = |relay: &usize| *relay != from && *relay != to && !relays.contains(relay);
            for relay in (0..costs.len()).filter(free) {
                begun.push(relays.iter().copied().chain([relay]).collect());
            }
        }
    }
    found.sort_by_key(|route| (route.cost, route.relays.len(), route.relays.clone()));
    found
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
                    let expected = enumerate(&costs, from, to, relays).into_iter().next();
                    assert_eq!(routes.within(from, to, relays), expected, "{what}, {relays} relays");
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
                assert_eq!(ranked, enumerate(&costs, from, to, 3), "seed {seed}, {from} to {to}");
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
            assert_eq!(routes, anew, "seed {seed}, change {change}: {from} to {to}, {changed} pairs");
        }
    }
}

/// `cargo test --release -p kuafu-topology -- --ignored --nocapture thousand`
#[test]
#[ignore = "a measurement, for release builds"]
fn a_thousand_nodes_dense() {
    for (name, sites, providers) in [("own", 1000, 1000), ("300 sites, 20 providers", 300, 20)] {
        let mut random = Seeded::new(1);
        let place = |index: usize| {
            let index = u32::try_from(index).unwrap();
            (index % sites, index % providers)
        };
        let mut costs = CostMatrix::new(index_nodes(1000, place)).unwrap();
        let points: Vec<_> = (0..1000)
            .map(|_| (random.below(200_000), random.below(100_000)))
            .collect();
        for from in 0..1000 {
            for to in 0..1000 {
                let (a, b) = (points[from], points[to]);
                let distance = f64::from(a.0.abs_diff(b.0)).hypot(f64::from(a.1.abs_diff(b.1)));
                let noise = 1.0 + f64::from(random.below(700)) / 1000.0;
                costs.set(from, to, Cost::from_us_f64(5_000.0 + distance * noise));
            }
        }
        for threads in [1, 2] {
            for _ in 0..5 {
                let costs = costs.clone();
                let start = std::time::Instant::now();
                let before = on_cpu_ms();
                let routes = best(costs, 3, NonZeroUsize::new(threads).unwrap());
                let took = on_cpu_ms() - before;
                println!("{name}, {threads}: {took} {:?} {:?}", start.elapsed(), routes.primary(0, 999));
            }
        }
    }
}

/// ms that this thread has run, whatever else the machine does.
fn on_cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}
