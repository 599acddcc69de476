//! What a limit lets pass, whatever arrives when.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::Cell;

use kuafu_pipeline::map::{Atomics, Bucket, JIFFY, Limit, Shared, SingleThreaded};
use proptest::prelude::*;

/// The largest packet that is drawn.
const LARGEST: u32 = 1500;

/// A limit by its rate, its burst in octets, and jiffies a second.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    mbps: u64,
    burst: u64,
    hz: u64,
}

impl Drawn {
    fn limit(self) -> Limit {
        Limit::new(7, self.mbps * 125_000, self.burst, self.hz)
    }

    /// Octets that so many jiffies bring.
    fn brought(self, jiffies: u64) -> u64 {
        jiffies * self.mbps * 125_000 / self.hz
    }
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let rates = prop_oneof![1u64..=20, 1u64..=100_000];
    (rates, prop::sample::select(&[100, 250, 300, 1000][..])).prop_map(|(mbps, hz)| Drawn {
        mbps,
        burst: (mbps * 6_250).max(15_000),
        hz,
    })
}

/// Where jiffies begin: as a host's do, and where a bucket's times go round.
fn beginnings() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just((1u64 << 32) - 75_000),
        Just((1u64 << 36) - 100),
        any::<u32>().prop_map(u64::from)
    ]
}

/// A bucket that was used long ago.
fn used_before(begin: u64) -> Bucket {
    let bucket = Bucket::new();
    let long_ago = begin.wrapping_sub(20_000);
    assert!(bucket.take(&SingleThreaded, long_ago, JIFFY, JIFFY));
    bucket
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: prop::test_runner::RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_more_passes_than_the_rate_and_a_burst(
        drawn in drawn(),
        begin in beginnings(),
        arrivals in prop::collection::vec((0u64..20, 20..=LARGEST, 1u32..500), 1..60),
    ) {
        let (limit, bucket) = (drawn.limit(), used_before(begin));
        let (mut now, mut passed) = (begin, Vec::new());
        for (pause, octets, packets) in arrivals {
            now = now.wrapping_add(pause);
            let takes = |_: &u32| bucket.take(&SingleThreaded, now, limit.cost_of(octets), limit.depth);
            let count = (0..packets).filter(takes).count() as u64;
            passed.push((now, count * u64::from(octets), count));
        }
        for from in 0..passed.len() {
            let (mut octets, mut packets) = (0, 0);
            for to in from..passed.len() {
                octets += passed[to].1;
                packets += passed[to].2;
                let most = drawn.brought(passed[to].0 - passed[from].0) + drawn.burst;
                // What a packet takes is rounded: by less than half an octet at the highest rate.
                prop_assert!(octets <= most + 1 + packets / 2, "{octets} of {most} octets");
            }
        }
    }

    #[test]
    fn below_the_rate_nothing_is_lost(
        drawn in drawn(),
        begin in beginnings(),
        sizes in prop::collection::vec(20..=LARGEST, 1..2_000),
    ) {
        let (limit, bucket) = (drawn.limit(), used_before(begin));
        // The sender's clock is finer than jiffies: octets of the rate that have gone by.
        let mut gone = 0u64;
        for octets in sizes {
            let now = begin.wrapping_add(gone * drawn.hz / (drawn.mbps * 125_000));
            prop_assert!(bucket.take(&SingleThreaded, now, limit.cost_of(octets), limit.depth));
            gone += u64::from(octets) + u64::from(octets).div_ceil(1000);
        }
    }
}

/// Another CPU takes between this one's look and its change.
struct Raced<'b> {
    bucket: &'b Bucket,
    now: u64,
    raced: Cell<bool>,
}

impl Raced<'_> {
    fn race(&self) {
        if !self.raced.replace(true) {
            assert!(take(self.bucket, &SingleThreaded, self.now));
        }
    }
}

impl Atomics for Raced<'_> {
    fn add(&self, number: &Shared, more: u64) -> u64 {
        self.race();
        SingleThreaded.add(number, more)
    }

    fn exchange(&self, number: &Shared, from: u64, to: u64) -> bool {
        self.race();
        SingleThreaded.exchange(number, from, to)
    }
}

/// Takes one of four, which a jiffy brings each.
fn take(bucket: &Bucket, atomics: &impl Atomics, now: u64) -> bool {
    bucket.take(atomics, now, JIFFY, 4 * JIFFY)
}

/// Two take at once; whether the later one may.
fn two_take(bucket: &Bucket, now: u64) -> bool {
    let raced = Raced {
        bucket,
        now,
        raced: Cell::new(false),
    };
    take(bucket, &raced, now)
}

/// Takes what is left; how often.
fn left(bucket: &Bucket, now: u64) -> usize {
    (0..10).filter(|_| take(bucket, &SingleThreaded, now)).count()
}

#[test]
fn what_two_cpus_take_at_once_is_taken_twice() {
    let bucket = Bucket::new();
    for now in [1_000, 1_100] {
        assert!(two_take(&bucket, now), "of four");
        assert_eq!(left(&bucket, now), 2);
        assert!(two_take(&bucket, now + 2), "of two");
        assert_eq!(left(&bucket, now + 2), 0);
    }
}

#[test]
fn what_one_cpu_takes_too_much_is_missing_afterwards() {
    let bucket = Bucket::new();
    assert!((0..3).all(|_| take(&bucket, &SingleThreaded, 1_000)));
    assert!(two_take(&bucket, 1_000), "both saw the last one");
    assert_eq!(left(&bucket, 1_001), 0, "five are missing, one has come back");
    assert_eq!(left(&bucket, 1_002), 1);
}
