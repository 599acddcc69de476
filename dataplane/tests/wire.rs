//! The hostile wire: what is forged, replayed, mutated, from wrong neighbours or turned into something else is dropped
//! for its reason and moves nothing; what only comes in another order arrives, once.
//!
//! The host under test is relay, exit and entry; its neighbours' packets are recorded first. Each frame runs in
//! userland and, as root, by the real programs over the real maps. `KUAFU_WIRE_FRAMES` hostile frames (100,000 unless
//! it is set), drawn from `KUAFU_WIRE_SEED`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; numbers are small; what tests share is used in parts"
)]

#[path = "../../model/tests/common/mod.rs"]
mod common;
#[path = "wire/host.rs"]
mod host;
#[path = "wire/hostile.rs"]
mod hostile;
#[path = "cases/kernel.rs"]
mod kernel;
#[path = "wire/senders.rs"]
mod senders;

use std::collections::BTreeMap;

use common::decode::decode;
use common::draw::Draw;
use host::{End, Host, Look};
use hostile::{Hostile, KINDS, Recorded, Way};
use kernel::{namespace, stay_on_one_cpu};
use kuafu_model::runner::Verdict;
use kuafu_pipeline::map::LANES;
use senders::{Authentic, Carries, Senders};

/// Authentic packets that are recorded, and then delivered, at a time.
const PACKETS: usize = 1_500;
/// Hostile frames between them.
const FRAMES: u64 = 2_500;
/// How often that is done until all begins anew.
const STEPS: u64 = 8;
/// The step before which lanes jump, so that windows move on; and that before which senders lose their maps again.
const JUMP: u64 = 4;
const REBOOT: u64 = 6;
/// By how much they jump.
const AHEAD: u64 = 50_000;
/// The first incarnation of the senders.
const FIRST: u32 = 14;
/// Packets a lane whose order is changed.
const REORDERED: usize = 3_000;
/// Numbers that a window surely remembers.
const WINDOW: usize = 2_000;
/// By how much packets are displaced.
const DISPLACED: usize = 1_000;

/// A number from the environment.
fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn hostile_frames_move_nothing_in_userland() {
    attack(setting("KUAFU_WIRE_FRAMES", 100_000), false);
}

#[test]
fn hostile_frames_move_nothing_in_the_kernel() {
    in_kernel("wire", || attack(setting("KUAFU_WIRE_FRAMES", 100_000), true));
}

#[test]
fn reordered_packets_arrive_once_in_userland() {
    reorder(false);
}

#[test]
fn reordered_packets_arrive_once_in_the_kernel() {
    in_kernel("order", || reorder(true));
}

/// All of it, longer.
#[test]
#[ignore = "many minutes: cargo xtask soak wire"]
fn soak_wire() {
    in_kernel("soak", || {
        attack(setting("KUAFU_SOAK_FRAMES", 10_000_000), true);
        reorder(true);
    });
}

fn in_kernel(name: &str, run: impl FnOnce() + Send) {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let done = namespace(name).run(|| {
        stay_on_one_cpu();
        run();
    });
    done.expect("the namespace");
}

/// By kind and reason, how many frames ended so.
type Table = BTreeMap<(usize, &'static str), u64>;

fn attack(frames: u64, in_kernel: bool) {
    let mut draw = Draw(setting("KUAFU_WIRE_SEED", 1));
    let (mut wire, mut table, mut left) = (Wire::new(in_kernel), Table::new(), frames);
    let (mut rounds, mut authentic) = (0, 0);
    while left > 0 {
        let (seed, round) = (draw.number(), left.min(FRAMES * STEPS));
        let (counted, delivered) = wire.round(seed, round, FRAMES).unwrap_or_else(|wrong| {
            // Again, and looked at after each frame.
            let frame = wire.round(seed, round, 1).err().unwrap_or_default();
            panic!("in the round of seed {seed}: {wrong}\n{frame}")
        });
        counted
            .into_iter()
            .for_each(|(key, times)| *table.entry(key).or_default() += times);
        authentic += delivered;
        left -= round;
        rounds += 1;
    }
    print(&table, frames);
    println!("authentic packets between them: {authentic} in {rounds} rounds, each taken in once");
}

fn print(table: &Table, frames: u64) {
    println!("{:<28} {:>9} {:>9}  ends", "hostile", "frames", "accepted");
    for (number, kind) in KINDS.iter().enumerate() {
        let ends: Vec<_> = table.iter().filter(|((of, _), _)| *of == number).collect();
        let sum: u64 = ends.iter().map(|(_, times)| **times).sum();
        let words: Vec<_> = ends
            .iter()
            .map(|((_, word), times)| format!("{word} {times}"))
            .collect();
        println!("{:<28} {sum:>9} {:>9}  {}", kind.name, 0, words.join(", "));
    }
    println!("{:<28} {frames:>9} {:>9}", "all", 0);
}

/// The host under test, and the exit behind it where it is a relay.
struct Wire {
    here: Host,
    right: Host,
}

impl Wire {
    fn new(in_kernel: bool) -> Self {
        Self {
            here: Host::new(senders::here(), in_kernel),
            right: Host::new(senders::right(), in_kernel),
        }
    }

    /// Frames from a seed, compared each `batch`; the table, and how many authentic packets arrived.
    fn round(&mut self, seed: u64, frames: u64, batch: u64) -> Result<(Table, u64), String> {
        let (mut draw, mut table) = (Draw(seed), Table::new());
        let (mut recorded, mut delivered) = (Recorded::default(), 0);
        self.begin_anew();
        let mut senders = Senders::new(FIRST, 0);
        delivered += self.deliver(&mut recorded, record(&mut senders, &mut draw, PACKETS));
        recorded.old.append(&mut recorded.taken);
        // Numbers go round soon.
        senders = Senders::new(FIRST + 1, (1 << 32) - 40);
        delivered += self.deliver(&mut recorded, record(&mut senders, &mut draw, PACKETS));
        let mut left = frames;
        for step in 0..STEPS {
            let reboots = step == REBOOT;
            if reboots {
                senders = Senders::new(FIRST + 2, 0);
            } else if step == JUMP {
                senders.number_from(AHEAD);
            }
            recorded.pending = record(&mut senders, &mut draw, PACKETS);
            let hostile = left.min(FRAMES);
            for at in (0..hostile).step_by(batch as usize) {
                self.batch(&recorded, &mut draw, batch.min(hostile - at), &mut table)?;
            }
            left -= hostile;
            if reboots {
                recorded.old.append(&mut recorded.taken);
            }
            let pending = std::mem::take(&mut recorded.pending);
            delivered += self.deliver(&mut recorded, pending);
        }
        let untouched = self.here.is_untouched_beyond() && self.right.is_untouched_beyond();
        assert!(untouched, "numbers that lead nowhere");
        Ok((table, delivered))
    }

    fn begin_anew(&mut self) {
        self.here.begin_anew();
        self.right.begin_anew();
    }

    /// Delivers what was recorded: each is taken in.
    fn deliver(&mut self, recorded: &mut Recorded, packets: Vec<Authentic>) -> u64 {
        let delivered = packets.len() as u64;
        for packet in &packets {
            self.accept(packet);
        }
        recorded.taken.extend(packets);
        self.here.take_samples();
        self.right.take_samples();
        delivered
    }

    fn accept(&mut self, packet: &Authentic) {
        let mut end = self.here.run(&packet.octets);
        if packet.carries == Carries::Relayed && end.reason.is_none() {
            end = self.right.run(&end.octets);
        }
        let taken = end.reason.is_none() && end.verdict != Verdict::Pass;
        assert!(taken, "lost, {:?}: {}", end.reason, decode(&packet.octets));
    }

    /// Hostile frames after which nothing has moved but the counters of their reasons.
    fn batch(
        &mut self,
        recorded: &Recorded,
        draw: &mut Draw,
        frames: u64,
        table: &mut Table,
    ) -> Result<(), String> {
        let before = [self.here.look(), self.right.look()];
        let (mut due, mut last) = ([BTreeMap::new(), BTreeMap::new()], String::new());
        for _ in 0..frames {
            let hostile = recorded.hostile(draw);
            let word = self.refuse(&hostile, &mut due)?;
            *table.entry((hostile.kind, word)).or_default() += 1;
            last = told(&hostile);
        }
        let after = [self.here.look(), self.right.look()];
        let samples = [self.here.take_samples(), self.right.take_samples()].concat();
        if samples.iter().any(|samples| *samples > 0) {
            return Err(format!("a measurement came home; the last frame: {last}"));
        }
        for ((before, after), due) in before.iter().zip(&after).zip(&due) {
            if let Some(wrong) = differ(before, after, due) {
                return Err(format!("{wrong}; the last frame: {last}"));
            }
        }
        Ok(())
    }

    /// Runs a hostile frame; how it ended, in a word.
    fn refuse(
        &mut self,
        hostile: &Hostile,
        [due_here, due_right]: &mut [BTreeMap<String, u64>; 2],
    ) -> Result<&'static str, String> {
        let (host, due) = match hostile.way {
            Way::Right => (&mut self.right, &mut *due_right),
            Way::Here | Way::Through => (&mut self.here, &mut *due_here),
        };
        let mut end = host.run(&hostile.octets);
        let mut count = due;
        if hostile.way == Way::Through && end.reason.is_none() {
            *count.entry("relayed".into()).or_default() += 1;
            end = self.right.run(&end.octets);
            count = due_right;
        }
        let word = judge(hostile, &end).ok_or_else(|| {
            format!(
                "accepted, or for a wrong reason ({:?}, {:?}): {}",
                end.verdict,
                end.reason,
                told(hostile)
            )
        })?;
        if end.reason.is_some() {
            *count.entry(word.into()).or_default() += 1;
        }
        Ok(word)
    }
}

/// The word for an end that the frame's kind may have.
fn judge(hostile: &Hostile, end: &End) -> Option<&'static str> {
    let kind = &KINDS[hostile.kind];
    match (end.verdict, end.reason) {
        (Verdict::Drop, Some(reason)) if kind.due.contains(&reason) => Some(reason.word()),
        (Verdict::Pass, None) if kind.passes && end.octets == hostile.octets => Some("passed on"),
        _ => None,
    }
}

fn told(hostile: &Hostile) -> String {
    let hex = common::text::hex(&hostile.octets);
    format!("{}: {}\n{hex}", KINDS[hostile.kind].name, decode(&hostile.octets))
}

fn differ(before: &[Look], after: &[Look], due: &BTreeMap<String, u64>) -> Option<String> {
    let runners = ["userland", "kernel"].iter().zip(before.iter().zip(after));
    let mut wrong = runners.filter_map(|(runner, (before, after))| {
        let wrong = after.differs(before, due)?;
        Some(format!("{runner}: {wrong}"))
    });
    wrong.next()
}

fn record(senders: &mut Senders, draw: &mut Draw, packets: usize) -> Vec<Authentic> {
    (0..packets).map(|_| senders.packet(draw)).collect()
}

/// By how many packets of its lane a packet is delayed.
type Delay<'d> = &'d dyn Fn(&mut Draw) -> usize;

/// Streams of all lanes, whose numbers go round, in two other orders; then all of it again.
fn reorder(in_kernel: bool) {
    let mut draw = Draw(setting("KUAFU_WIRE_SEED", 1));
    let mut wire = Wire::new(in_kernel);
    let shuffled = |draw: &mut Draw| draw.below(WINDOW);
    let displaced = |draw: &mut Draw| if draw.below(10) == 0 { DISPLACED } else { 0 };
    let orders: [(&str, Delay<'_>); 2] = [
        ("shuffled within the window", &shuffled),
        ("displaced by 1,000", &displaced),
    ];
    for (name, delay) in orders {
        wire.begin_anew();
        let mut stream = stream(&mut draw, delay);
        for (_, packet) in &stream {
            wire.accept(packet);
        }
        let before = wire.here.look();
        stream.sort_by_cached_key(|_| draw.number());
        let mut refused = BTreeMap::new();
        for (_, packet) in &stream {
            let end = wire.here.run(&packet.octets);
            let reason = end.reason.expect("a copy is refused").word();
            *refused.entry(reason.to_owned()).or_default() += 1;
        }
        let wrong = differ(&before, &wire.here.look(), &refused);
        assert_eq!(wrong, None, "{name}");
        println!(
            "{name}: {} packets on {LANES} lanes, 0 lost; their copies: {refused:?}",
            stream.len()
        );
    }
}

/// Packets of all lanes, in the order in which they arrive when each is delayed by so many of its lane's.
fn stream(draw: &mut Draw, delay: Delay<'_>) -> Vec<(usize, Authentic)> {
    let mut senders = Senders::new(FIRST, (1 << 32) - REORDERED as u64 / 2);
    let mut stream = Vec::new();
    for at in 0..REORDERED {
        for lane in 0..LANES {
            let packet = senders.data(draw, lane as u32, 7000);
            stream.push((at + delay(draw), packet));
        }
    }
    stream.sort_by_key(|(at, _)| *at);
    stream
}
