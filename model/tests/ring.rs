//! What a ring owes: exact shares, the same for everyone, and few flows moved.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use kuafu_model::contents::ring::{Identity, Member, fill, size};
use proptest::prelude::*;

/// The ring's size for 41 to 655 targets.
const SLOTS: u32 = 65_537;

/// Next hops as identities spell them: neighbours in one subnet.
fn identity(draw: u32, number: u32) -> Identity {
    [3 << 32, u64::from(draw << 16 | number) << 16 | 80, 0, 0]
}

fn equal(draw: u32, count: u32) -> Vec<Member> {
    weighted(draw, &vec![1; count as usize])
}

fn weighted(draw: u32, weights: &[u64]) -> Vec<Member> {
    let member = |(number, weight): (u32, &u64)| Member {
        identity: identity(draw, number),
        weight: *weight,
        number,
    };
    (1..).zip(weights).map(member).collect()
}

#[test]
fn who_has_a_weight_has_a_slot() {
    let members = weighted(1, &[1, 1000, 1, 1000]);
    let ring = fill(&members, 251);
    assert_eq!(loads(&ring, &members), [1, 125, 1, 124]);
    assert_eq!(
        [656, 1000, 1310, 1311].map(size),
        [131_071, 131_071, 131_071, 655_373].map(Some)
    );
}

/// The members without some, by their numbers.
fn without(members: &[Member], gone: &[u32]) -> Vec<Member> {
    let stays = |member: &&Member| !gone.contains(&member.number);
    members.iter().filter(stays).copied().collect()
}

/// How many slots each of these members has.
fn loads(ring: &[u32], members: &[Member]) -> Vec<u64> {
    let load = |member: &Member| ring.iter().filter(|slot| **slot == member.number).count() as u64;
    members.iter().map(load).collect()
}

/// Of the slots that were not those of `gone`, how many of a million move when these leave.
fn moved_ppm(members: &[Member], ring: &[u32], gone: &[u32]) -> u64 {
    let after = fill(&without(members, gone), SLOTS);
    assert!(after.iter().all(|slot| !gone.contains(slot)));
    let others = || {
        ring.iter()
            .zip(&after)
            .filter(|(before, _)| !gone.contains(before))
    };
    let moved = others().filter(|(before, after)| before != after).count();
    moved as u64 * 1_000_000 / others().count() as u64
}

/// Ten of the numbers 1 to 100.
fn ten(seed: u64) -> Vec<u32> {
    let mut state = seed;
    let mut drawn = Vec::new();
    while drawn.len() < 10 {
        // Knuth's MMIX generator.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let number = 1 + u32::try_from((state >> 33) % 100).unwrap();
        if !drawn.contains(&number) {
            drawn.push(number);
        }
    }
    drawn
}

fn mean(values: &[u64]) -> u64 {
    values.iter().sum::<u64>() / values.len() as u64
}

#[test]
fn who_leaves_moves_few_flows_of_the_others() {
    for draw in 0..2 {
        let members = equal(draw, 100);
        let ring = fill(&members, SLOTS);
        let one: Vec<u64> = (1..=100)
            .map(|gone| moved_ppm(&members, &ring, &[gone]))
            .collect();
        let ten: Vec<u64> = (0..10)
            .map(|seed| moved_ppm(&members, &ring, &ten(seed)))
            .collect();
        assert!(
            mean(&one) <= 5_700,
            "draw {draw}: {} ppm for one of 100",
            mean(&one)
        );
        assert!(
            mean(&ten) <= 10_400,
            "draw {draw}: {} ppm for ten of 100",
            mean(&ten)
        );
    }
}

#[test]
fn who_leaves_moves_few_flows_whatever_the_weights() {
    let weights: Vec<u64> = (0..100).map(|number| 1 + number % 7).collect();
    let members = weighted(1, &weights);
    let ring = fill(&members, SLOTS);
    let one: Vec<u64> = (1..=100)
        .step_by(5)
        .map(|gone| moved_ppm(&members, &ring, &[gone]))
        .collect();
    assert!(mean(&one) <= 5_700, "{} ppm", mean(&one));
}

#[test]
fn equal_targets_have_equal_shares() {
    for draw in 0..5 {
        let members = equal(draw, 100);
        let loads = loads(&fill(&members, SLOTS), &members);
        assert!(
            loads.iter().all(|load| (655..=656).contains(load)),
            "draw {draw}: {loads:?}"
        );
    }
}

/// Who has a thousandth of the others' weight has a slot or two.
#[test]
fn weights_may_be_far_apart() {
    let mut weights = vec![1_000; 60];
    weights.extend([1_000_000; 40]);
    let members = weighted(3, &weights);
    let loads = loads(&fill(&members, SLOTS), &members);
    assert!(loads[..60].iter().all(|load| (1..=2).contains(load)), "{loads:?}");
    assert!(
        loads[60..].iter().all(|load| (1635..=1637).contains(load)),
        "{loads:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        rng_seed: prop::test_runner::RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn shares_are_exact_and_the_order_does_not_count(
        draw in 0u32..1000,
        (weights, order) in prop::collection::vec(1u64..=100, 1..120)
            .prop_flat_map(|weights| {
                let numbers: Vec<usize> = (0..weights.len()).collect();
                (Just(weights), Just(numbers).prop_shuffle())
            }),
    ) {
        let members = weighted(draw, &weights);
        let slots = size(members.len()).unwrap();
        let ring = fill(&members, slots);
        let shuffled: Vec<Member> = order.into_iter().map(|at| members[at]).collect();
        prop_assert_eq!(&fill(&shuffled, slots), &ring);
        let all: u64 = weights.iter().sum();
        for (load, weight) in loads(&ring, &members).into_iter().zip(&weights) {
            let fair = u64::from(slots) * weight;
            prop_assert!((fair / all..=fair.div_ceil(all)).contains(&load), "{load} of {fair}/{all}");
        }
    }

    /// Weights within 1 %, where a slot is less than that.
    #[test]
    fn weights_are_kept(draw in 0u32..1000, weights in prop::collection::vec(1u64..=4, 41..=100)) {
        let members = weighted(draw, &weights);
        let all: u64 = weights.iter().sum();
        for (load, weight) in loads(&fill(&members, SLOTS), &members).into_iter().zip(&weights) {
            let fair = u64::from(SLOTS) * weight / all;
            prop_assert!(load.abs_diff(fair) * 100 <= fair, "{load} for {fair}");
        }
    }
}
