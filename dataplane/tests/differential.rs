//! Kernel against model: random, mutated and truncated frames, each with the same verdict and octets, and the same
//! counters, connections, windows and numbers in the end.
//!
//! `KUAFU_DIFF_FRAMES` frames per program (100,000 unless it is set), drawn from `KUAFU_DIFF_SEED`. Needs root; says
//! that it was skipped elsewhere.
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

use common::case::{Done, Input, Program, corpus, counters, on_model};
use common::decode::decode;
use common::draw::Draw;
use common::state::state;
use common::world::{self, NOW, NOW_NS, World};
use kernel::{Kernel, namespace, stay_on_one_cpu};
use kuafu_model::runner::{Host, Verdict};
use kuafu_pipeline::map::{LimitState, Sample};

/// Frames after which both begin anew, so that no table becomes full.
const ROUND: u64 = 50_000;
/// Frames after which samples are taken out.
const SAMPLED: u64 = 4_096;
/// Connections, each direction for itself, that find room.
const CONNECTIONS: usize = 524_288;

/// A number from the environment.
fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn edge() {
    compare(Program::Edge, false, "edge");
}

#[test]
fn edge_frags() {
    compare(Program::Edge, true, "frags");
}

#[test]
fn shielded() {
    compare(Program::Edge, false, "shielded");
}

#[test]
fn shielded_frags() {
    compare(Program::Edge, true, "shielded-frags");
}

#[test]
fn shielded_v6() {
    compare(Program::Edge, false, "shielded-v6");
}

#[test]
fn shielded_v6_frags() {
    compare(Program::Edge, true, "shielded-v6-frags");
}

#[test]
fn port() {
    compare(Program::Port, false, "port");
}

#[test]
fn underlay() {
    compare(Program::Underlay, false, "underlay");
}

/// All of them, longer.
#[test]
#[ignore = "many minutes: cargo xtask soak diff"]
fn soak_diff() {
    let frames = setting("KUAFU_SOAK_FRAMES", 10_000_000);
    compare_over(frames, Program::Edge, false, "edge");
    compare_over(frames, Program::Edge, true, "frags");
    compare_over(frames, Program::Port, false, "port");
    compare_over(frames, Program::Underlay, false, "underlay");
}

fn compare(program: Program, frags: bool, name: &str) {
    compare_over(setting("KUAFU_DIFF_FRAMES", 100_000), program, frags, name);
}

fn compare_over(frames: u64, program: Program, frags: bool, name: &str) {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let seed = setting("KUAFU_DIFF_SEED", 1);
    let namespace = namespace(name);
    let done = namespace.run(|| {
        stay_on_one_cpu();
        let world = World {
            connections: CONNECTIONS,
            // Rates go by the clock, which is each runner's own.
            shields: name.starts_with("shielded").then_some(false),
            ..world::named(if name.starts_with("shielded-v6") {
                "shielded-v6"
            } else {
                "host"
            })
        };
        let mut run = Differential {
            kernel: Kernel::new(&world, frags),
            corpus: corpus(program),
            draw: Draw(seed),
            world,
            program,
        };
        let mut left = frames;
        while left > 0 {
            let round = left.min(ROUND);
            run.round(round);
            left -= round;
        }
    });
    done.expect("the namespace");
    println!("{name}: {frames} frames, seed {seed}, no divergence");
}

/// Both runners and where frames come from.
struct Differential {
    kernel: Kernel,
    world: World,
    program: Program,
    corpus: Vec<Input>,
    draw: Draw,
}

impl Differential {
    fn round(&mut self, frames: u64) {
        self.kernel.begin_anew(&self.world);
        let mut model = self.world.model();
        let (counted, start) = (self.kernel.counters(), self.draw.0);
        for at in 1..=frames {
            let before = self.draw.0;
            let input = self.draw.input(self.program, &self.corpus);
            // A jiffy a frame: the model's bucket for answers is always full, and so the kernel's is made.
            model.set_clock(NOW + at, NOW_NS + at * 1_000);
            // An accelerator's is full before each frame: then the frame's size alone decides.
            self.refill(&mut model);
            let (verdict, due) = on_model(&mut model, &input);
            if matches!(verdict, Verdict::Transmit | Verdict::Redirect(_)) {
                self.kernel.allow_answers();
            }
            let done = self.kernel.run(&input);
            assert!(
                same(&due, &done, verdict),
                "{}",
                report(before, &input, &due, &done)
            );
            if at % SAMPLED == 0 {
                self.compare_samples(&mut model);
                // Both clocks go on at their own pace: neither may forget one by its age.
                self.kernel.forget_fragments();
                model.forget_fragments();
                self.kernel.forget_marks();
                model.forget_marks();
            }
        }
        self.compare_samples(&mut model);
        self.compare_ends(&model, &counted, start);
    }

    fn refill(&self, model: &mut Host) {
        let limits: Vec<u32> = model.contents().limits.keys().copied().collect();
        for number in limits {
            model.set_limit_state(number, LimitState::default());
            self.kernel.refill(number);
        }
    }

    fn compare_samples(&self, model: &mut Host) {
        let (due, samples) = (model.take_samples(), self.kernel.samples());
        assert_eq!(untimed(&due), untimed(&samples), "samples");
    }

    fn compare_ends(&self, model: &Host, counted: &kernel::Counters, start: u64) {
        let counts: kernel::Counters = self
            .kernel
            .counters()
            .into_iter()
            .map(|(word, (packets, octets))| {
                let (packets_before, octets_before) = counted[&word];
                (word, (packets - packets_before, octets - octets_before))
            })
            .collect();
        assert_eq!(
            counts,
            counters(model),
            "counters, of the round that begins at {start}"
        );
        let (due, is) = (state(model), self.kernel.state());
        for key in due.keys().chain(is.keys()) {
            assert_eq!(
                due.get(key),
                is.get(key),
                "{key}, of the round that begins at {start}"
            );
        }
    }
}

/// The same verdict, and the same octets unless nobody will see them. Where octets say when, they need only say that
/// they do: the texts of both are then the same.
fn same(due: &Done, done: &Done, verdict: Verdict) -> bool {
    if due.code != done.code {
        return false;
    }
    if verdict == Verdict::Drop || due.octets == done.octets {
        return true;
    }
    let text = decode(&due.octets);
    if text.contains(" probe |") {
        return timeless(&due.octets) == timeless(&done.octets);
    }
    (text.contains(" time 1") || text.contains(" times ")) && text == decode(&done.octets)
}

/// A probe on the backbone without its times, and without the tag, which covers them.
fn timeless(octets: &[u8]) -> Vec<u8> {
    let mut octets = octets.to_vec();
    for times in [62..74, 106..114, 118..126, 130..138] {
        octets[times].fill(0);
    }
    octets
}

fn report(seed: u64, input: &Input, due: &Done, done: &Done) -> String {
    format!(
        "KUAFU_DIFF_SEED={seed}: interface {}, mark {}\n in: {}\n    {}\n due: {} {}\n     {}\n is: {} {}\n    {}",
        input.interface,
        input.mark,
        decode(&input.octets),
        common::text::hex(&input.octets),
        due.code,
        decode(&due.octets),
        common::text::hex(&due.octets),
        done.code,
        decode(&done.octets),
        common::text::hex(&done.octets),
    )
}

/// Samples without the times of this host's clock.
fn untimed(samples: &[Sample]) -> Vec<Sample> {
    let untimed = |sample: &Sample| Sample {
        received: 0,
        ..*sample
    };
    samples.iter().map(untimed).collect()
}
