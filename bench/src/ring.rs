//! A service's ring, built as Kuafu builds it, against Maglev's table and a table of rendezvous: whose flows move when
//! targets leave, how equal shares are, and what building takes.

mod peers;

use std::time::Instant;

use anyhow::Result;
use kuafu_model::contents::ring::{Member, fill};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::report::{Limit, Report, Row};
use crate::rounds::{Rounds, median};
use crate::{Common, memory};

/// The ring's size for 41 to 655 targets.
const SLOTS: u32 = 65_537;
/// The ring's size for 656 to 1,310 targets.
const MORE_SLOTS: u32 = 131_071;
/// How many sets of ten are removed in a round.
const SETS: usize = 10;
/// How often a ring is built in a round.
const BUILDS: usize = 5;

/// A ring of these members, of so many slots.
type Construction = fn(&[Member], u32) -> Vec<u32>;

/// Measures ours and each peer in turns, each round with members of its own draw.
pub(crate) fn run(common: &Common) -> Result<Report> {
    let rounds = common.rounds(5);
    let mut rows = Vec::new();
    for (name, peer) in [
        ("Maglev", peers::maglev as Construction),
        ("rendezvous", peers::rendezvous),
    ] {
        for (what, unit, limit, measure) in measures() {
            let of = |ring: Construction| {
                let mut seeds = 0..;
                move || measure(ring, seeds.next().unwrap_or_default())
            };
            let rounds = Rounds::interleaved(rounds, of(peer), of(fill))?;
            rows.push(Row::new(what, unit, name, rounds, limit));
        }
    }
    Ok(Report {
        benchmark: "ring",
        conditions: vec![
            format!("targets of equal weight, drawn anew in each round; {SLOTS} slots unless said"),
            "moved: of the flows whose target stays, equally many a slot; the mean of each of 100 removed, of ten \
             sets of 10"
                .to_owned(),
        ],
        rows,
    })
}

/// What is compared: its name, unit, limit, and how a construction is measured with a seed.
type Measure = (
    &'static str,
    &'static str,
    Option<Limit>,
    fn(Construction, u64) -> Result<f64>,
);

fn measures() -> [Measure; 7] {
    let at_most = |limit| Some(Limit::OursAtMost(limit));
    [
        (
            "1,000 targets, 131,071 slots: peak memory of the process",
            "MiB",
            None,
            |ring, seed| {
                let members = members(1000, seed);
                memory::peak_mib(|| ring(&members, MORE_SLOTS))
            },
        ),
        (
            "100 targets, 1 leaves: others' flows moved",
            "%",
            at_most(0.57),
            |ring, seed| {
                let gone: Vec<Vec<u32>> = (1..=100).map(|number| vec![number]).collect();
                Ok(moved(ring, &members(100, seed), &gone))
            },
        ),
        (
            "100 targets, 10 leave: others' flows moved",
            "%",
            at_most(1.04),
            |ring, seed| Ok(moved(ring, &members(100, seed), &tens(seed))),
        ),
        (
            "100 targets: largest share above the mean",
            "%",
            at_most(0.1),
            |ring, seed| Ok(excess(&ring(&members(100, seed), SLOTS), 100)),
        ),
        ("100 targets: building", "ms", None, |ring, seed| {
            Ok(build_ms(ring, 100, SLOTS, seed))
        }),
        ("1,000 targets: building", "ms", at_most(20.0), |ring, seed| {
            Ok(build_ms(ring, 1000, SLOTS, seed))
        }),
        (
            "1,000 targets, 131,071 slots: building",
            "ms",
            at_most(20.0),
            |ring, seed| Ok(build_ms(ring, 1000, MORE_SLOTS, seed)),
        ),
    ]
}

/// Members of equal weight, numbered from 1.
fn members(count: u32, seed: u64) -> Vec<Member> {
    let mut random = StdRng::seed_from_u64(seed);
    (1..=count)
        .map(|number| Member {
            identity: random.random(),
            weight: 1,
            number,
        })
        .collect()
}

/// Sets of ten of the numbers 1 to 100.
fn tens(seed: u64) -> Vec<Vec<u32>> {
    let mut random = StdRng::seed_from_u64(seed);
    let all: Vec<u32> = (1..=100).collect();
    (0..SETS)
        .map(|_| all.sample(&mut random, 10).copied().collect())
        .collect()
}

/// The mean part of the others' slots that moves when a set of members leaves, in per cent.
fn moved(ring: Construction, members: &[Member], sets: &[Vec<u32>]) -> f64 {
    let before = ring(members, SLOTS);
    let part = |gone: &Vec<u32>| {
        let stays = |number: &u32| !gone.contains(number);
        let rest: Vec<Member> = members
            .iter()
            .filter(|member| stays(&member.number))
            .copied()
            .collect();
        let after = ring(&rest, SLOTS);
        let others = before.iter().zip(&after).filter(|(number, _)| stays(number));
        let (mut all, mut moved) = (0u32, 0u32);
        for (before, after) in others {
            all += 1;
            moved += u32::from(before != after);
        }
        f64::from(moved) / f64::from(all)
    };
    let sum: f64 = sets.iter().map(part).sum();
    100.0 * sum / sets.len() as f64
}

/// By how much the largest share exceeds the mean, in per cent.
fn excess(ring: &[u32], members: u32) -> f64 {
    let share = |number| ring.iter().filter(|slot| **slot == number).count();
    let most = (1..=members).map(share).max().unwrap_or_default();
    100.0 * (most as f64 * f64::from(members) / ring.len() as f64 - 1.0)
}

/// The median time of a build.
fn build_ms(ring: Construction, count: u32, size: u32, seed: u64) -> f64 {
    let members = members(count, seed);
    let times: Vec<f64> = (0..BUILDS)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(ring(&members, size));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    median(&times).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_of_the_others() {
        let shifts: Construction = |members, size| (0..size).map(|_| members[0].number).collect();
        let members = members(3, 1);
        assert!((moved(shifts, &members, &[vec![2], vec![3]]) - 0.0).abs() < f64::EPSILON);
        let turns: Construction = |members, size| {
            (0..size)
                .map(|slot| members[slot as usize % members.len()].number)
                .collect()
        };
        assert!((excess(&turns(&members, 300), 3) - 0.0).abs() < f64::EPSILON);
        let half = moved(turns, &members, &[vec![3]]);
        assert!((half - 50.0).abs() < 0.1, "{half}");
    }
}
