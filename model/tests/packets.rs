//! Packet cases on the model: every packet's verdict, octets and complete change of the counters.
//!
//! `KUAFU_BLESS=1` writes what the model does into the files of `tests/cases`; read the difference before you
//! believe it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;

use common::case::{Case, changes, counters, on_model, verdict_text};
use common::decode::decode;
use common::encode::encode;
use common::world;
use kuafu_pipeline::{Event, Reason};

/// How often a packet is sent at most until its answer is limited.
const PATIENCE: usize = 10_000;

#[test]
fn packets_meet_what_their_cases_say() {
    let bless = std::env::var_os("KUAFU_BLESS").is_some();
    let mut wrong = String::new();
    for (path, mut cases) in common::case::all() {
        for case in &mut cases {
            let complaints = run(case);
            if !complaints.is_empty() {
                writeln!(wrong, "{}: {}\n{complaints}", path.display(), case.name).expect("memory");
            }
        }
        if bless {
            std::fs::write(&path, print(&cases)).expect("a file that can be written");
        }
    }
    assert!(bless || wrong.is_empty(), "\n{wrong}");
}

/// Runs a case and returns what is wrong with it; the case then says what was done.
fn run(case: &mut Case) -> String {
    let mut host = world::named(&case.world).model();
    let mut complaints = String::new();
    let inputs = case.inputs();
    for (packet, input) in case.packets.iter_mut().zip(&inputs) {
        let mut tries = 0;
        let (verdict, done, counts) = loop {
            let before = counters(&host);
            let (verdict, done) = on_model(&mut host, input);
            let counts = changes(&before, &counters(&host));
            tries += 1;
            if !packet.until_limited || counts.contains_key("icmp_limited") || tries == PATIENCE {
                break (verdict_text(verdict), done, counts);
            }
        };
        complaints += &packet.judge(input, &done, &counts);
        if verdict != packet.verdict {
            writeln!(complaints, "  verdict: {verdict} instead of {}", packet.verdict).expect("memory");
        }
        let says = verdict != "drop" && (verdict != "pass" || done.octets != input.octets);
        packet.out = says.then(|| decode(&done.octets));
        (packet.verdict, packet.counts) = (verdict, counts);
    }
    complaints
}

/// Cases as their files have them.
fn print(cases: &[Case]) -> String {
    let mut text = String::new();
    for case in cases {
        writeln!(text, "- name: {}", case.name).expect("memory");
        if case.world != "host" {
            writeln!(text, "  world: {}", case.world).expect("memory");
        }
        text += "  packets:\n";
        for packet in &case.packets {
            writeln!(text, "    - program: {}", packet.program.name()).expect("memory");
            if packet.interface != world::UNDERLAY {
                writeln!(text, "      interface: {}", packet.interface).expect("memory");
            }
            for (name, value) in [("mark", packet.mark), ("segment", packet.segment)] {
                if value != 0 {
                    writeln!(text, "      {name}: {value}").expect("memory");
                }
            }
            if packet.until_limited {
                text += "      until_limited: true\n";
            }
            writeln!(text, "      in: {}", packet.input).expect("memory");
            writeln!(text, "      verdict: {}", packet.verdict).expect("memory");
            if let Some(out) = &packet.out {
                writeln!(text, "      out: {out}").expect("memory");
            }
            if !packet.counts.is_empty() {
                let counts: Vec<_> = packet
                    .counts
                    .iter()
                    .map(|(word, count)| format!("{word}: {count}"))
                    .collect();
                writeln!(text, "      counts: {{{}}}", counts.join(", ")).expect("memory");
            }
        }
    }
    text
}

#[test]
fn every_reason_and_event_has_a_case() {
    let cases = common::case::all();
    let packets = cases
        .iter()
        .flat_map(|(_, cases)| cases)
        .flat_map(|case| &case.packets);
    let reached: BTreeSet<String> = packets.flat_map(|packet| packet.counts.keys().cloned()).collect();
    let words = Reason::ALL.iter().map(|reason| reason.word());
    let missing: Vec<_> = words
        .chain(Event::ALL.iter().map(|event| event.word()))
        .filter(|word| !reached.contains(*word))
        .collect();
    assert!(missing.is_empty(), "no case reaches {missing:?}");
}

#[test]
fn every_world_has_a_case() {
    let cases = common::case::all();
    let used: BTreeSet<_> = cases
        .iter()
        .flat_map(|(_, cases)| cases)
        .map(|case| &*case.world)
        .collect();
    assert_eq!(used, world::NAMES.into());
}

/// The builder and the decoder agree: the text of a frame builds the same frame.
#[test]
fn text_and_octets_say_the_same() {
    for (_, cases) in common::case::all() {
        let packets = cases.iter().flat_map(|case| &case.packets);
        for out in packets.filter_map(|packet| packet.out.as_ref()) {
            if !out.contains("times") && !out.contains("time 1") {
                assert_eq!(decode(&encode(out)), *out);
            }
        }
    }
}
