//! Packet cases in the kernel: the same data as on the model, over the object as it is installed.
//!
//! Needs root; says that it was skipped elsewhere.
#![allow(
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; what tests share is used in parts"
)]

#[path = "../../model/tests/common/mod.rs"]
mod common;
#[path = "cases/kernel.rs"]
mod kernel;

use std::collections::BTreeMap;
use std::fmt::Write;

use common::case::{Case, Input, Packet, Program, changes};
use common::world;
use kernel::{Kernel, namespace, stay_on_one_cpu};

/// How often a packet is sent at most until its answer is limited.
const PATIENCE: usize = 100_000;

#[test]
fn packets_meet_what_their_cases_say() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let namespace = namespace("cases");
    let wrong = namespace.run(|| {
        stay_on_one_cpu();
        let cases: Vec<Case> = common::case::all()
            .into_iter()
            .flat_map(|(_, cases)| cases)
            .collect();
        let runs = world::NAMES
            .iter()
            .flat_map(|name| [(*name, false), (*name, true)]);
        runs.map(|(name, frags)| in_world(name, frags, &cases))
            .collect::<String>()
    });
    let wrong = wrong.expect("the namespace");
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Runs the cases of a world; returns what is wrong.
fn in_world(name: &str, frags: bool, cases: &[Case]) -> String {
    let world = world::named(name);
    let kernel = Kernel::new(&world, frags);
    let mut wrong = String::new();
    for case in cases.iter().filter(|case| case.world == name) {
        kernel.begin_anew(&world);
        for (packet, input) in case.packets.iter().zip(case.inputs()) {
            if frags && input.program != Program::Edge {
                continue;
            }
            let complaints = one(&kernel, packet, &input);
            if !complaints.is_empty() {
                let edge = if frags { ", frags" } else { "" };
                writeln!(
                    wrong,
                    "{} ({name}{edge}): {}\n{complaints}",
                    case.name, packet.input
                )
                .expect("memory");
            }
        }
    }
    wrong
}

fn one(kernel: &Kernel, packet: &Packet, input: &Input) -> String {
    let before = kernel.counters();
    let mut done = kernel.run(input);
    if packet.until_limited {
        let mut tries = 1;
        while kernel.limited() == before["icmp_limited"].0 && tries < PATIENCE {
            done = kernel.run(input);
            tries += 1;
        }
    } else {
        kernel.allow_answers();
    }
    let mut counts: BTreeMap<String, u64> = changes(&before, &kernel.counters());
    if packet.until_limited {
        // Answers before the bucket was empty.
        counts.remove("too_big");
    }
    packet.judge(input, &done, &counts)
}
