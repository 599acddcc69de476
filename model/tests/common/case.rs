//! Packet cases: data that every runner of the pipeline must fulfil.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use kuafu_model::runner::{Hook, Host, VecFrame, Verdict};
use kuafu_pipeline::{Event, Reason};
use serde::Deserialize;

use super::decode::decode;
use super::encode::encode;
use super::world;

/// One case: packets that follow each other in one world.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What is shown.
    pub name: String,
    /// The world that it begins in.
    #[serde(default = "usual_world")]
    pub world: String,
    /// The packets.
    pub packets: Vec<Packet>,
}

/// One packet, and all that it does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    /// `edge`, `port` or `underlay`.
    pub program: Program,
    /// The interface's number; the underlay's unless it is said.
    #[serde(default = "underlay")]
    pub interface: u32,
    /// The socket mark.
    #[serde(default)]
    pub mark: u32,
    /// Octets of payload a segment, of an offload packet.
    #[serde(default)]
    pub segment: u32,
    /// The frame, or `again`: that of the packet before.
    #[serde(rename = "in")]
    pub input: String,
    /// What becomes of it.
    pub verdict: String,
    /// The frame afterwards, where it is not dropped.
    #[serde(default)]
    pub out: Option<String>,
    /// All counters that change, by how many packets.
    #[serde(default)]
    pub counts: BTreeMap<String, u64>,
    /// It is sent again and again until its reason is `icmp_limited`: how often that takes depends on the clock.
    #[serde(default)]
    pub until_limited: bool,
}

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Program {
    /// XDP on the underlay.
    Edge,
    /// tcx on a port.
    Port,
    /// tcx on the underlay.
    Underlay,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Edge, Self::Port, Self::Underlay];

    /// Where it is attached.
    pub const fn hook(self) -> Hook {
        match self {
            Self::Edge => Hook::Xdp,
            Self::Port | Self::Underlay => Hook::Tcx,
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Port => "port",
            Self::Underlay => "underlay",
        }
    }
}

fn usual_world() -> String {
    "host".into()
}

const fn underlay() -> u32 {
    world::UNDERLAY
}

/// A frame as a program meets it.
#[derive(Clone, Debug)]
pub struct Input {
    /// The program.
    pub program: Program,
    /// The interface.
    pub interface: u32,
    /// The socket mark.
    pub mark: u32,
    /// Payload of a segment; 0: no offload packet.
    pub segment: u32,
    /// The octets.
    pub octets: Vec<u8>,
}

/// What a program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What it returned.
    pub code: i32,
    /// The octets afterwards.
    pub octets: Vec<u8>,
}

/// Runs a frame through the model.
pub fn on_model(host: &mut Host, input: &Input) -> (Verdict, Done) {
    let mut frame = VecFrame::new(input.octets.clone())
        .segmented(input.segment)
        .copied();
    let walk = match input.program {
        Program::Edge => host.edge(&mut frame, input.interface),
        Program::Port => host.port(&mut frame, input.interface, input.mark),
        Program::Underlay => host.underlay(&mut frame, input.interface),
    };
    let done = Done {
        code: walk.verdict.code(input.program.hook()),
        octets: frame.into_octets(),
    };
    (walk.verdict, done)
}

/// All counters of a host, in packets and octets.
pub fn counters(host: &Host) -> BTreeMap<String, (u64, u64)> {
    let reasons = Reason::ALL.iter().map(|reason| {
        let drop = host.drops(*reason);
        (reason.word().to_owned(), (drop.packets, drop.octets))
    });
    let events = Event::ALL.iter().map(|event| {
        let counter = host.counter(*event);
        (event.word().to_owned(), (counter.packets, counter.octets))
    });
    reasons.chain(events).collect()
}

/// The counters that changed, by how many packets.
pub fn changes(
    before: &BTreeMap<String, (u64, u64)>,
    after: &BTreeMap<String, (u64, u64)>,
) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(word, (packets, _))| (word.clone(), packets - before[word].0))
        .filter(|(_, packets)| *packets != 0)
        .collect()
}

/// A verdict as cases say it.
pub fn verdict_text(verdict: Verdict) -> String {
    match verdict {
        Verdict::Pass => "pass".into(),
        Verdict::Drop => "drop".into(),
        Verdict::Transmit => "transmit".into(),
        Verdict::Redirect(to) => format!("redirect {to}"),
        Verdict::RedirectIngress(at) => format!("arrive {at}"),
        Verdict::RedirectPeer(to) => format!("deliver {to}"),
    }
}

/// The code that a program returns for a verdict's text.
pub fn code(verdict: &str, hook: Hook) -> i32 {
    let verdict = match verdict.split(' ').next().expect("a word") {
        "pass" => Verdict::Pass,
        "drop" => Verdict::Drop,
        "transmit" => Verdict::Transmit,
        "redirect" => Verdict::Redirect(0),
        "arrive" => Verdict::RedirectIngress(0),
        "deliver" => Verdict::RedirectPeer(0),
        other => panic!("no verdict is called {other}"),
    };
    verdict.code(hook)
}

/// Where the data are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/cases")
}

/// All cases, by their files.
pub fn all() -> Vec<(PathBuf, Vec<Case>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a file");
            let cases = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            (path, cases)
        })
        .collect()
}

impl Case {
    /// Its frames as the programs meet them.
    pub fn inputs(&self) -> Vec<Input> {
        let mut inputs: Vec<Input> = Vec::new();
        for packet in &self.packets {
            let octets = if packet.input == "again" {
                inputs.last().expect("a packet before").octets.clone()
            } else {
                encode(&packet.input)
            };
            inputs.push(Input {
                program: packet.program,
                interface: packet.interface,
                mark: packet.mark,
                segment: packet.segment,
                octets,
            });
        }
        inputs
    }
}

impl Packet {
    /// What is wrong with what was done, compared with what the case says; empty: nothing.
    pub fn judge(&self, input: &Input, done: &Done, counts: &BTreeMap<String, u64>) -> String {
        let mut wrong = String::new();
        let due = code(&self.verdict, input.program.hook());
        if done.code != due {
            writeln!(
                wrong,
                "  verdict: {} instead of {due} ({})",
                done.code, self.verdict
            )
            .expect("memory");
        }
        if *counts != self.counts {
            writeln!(wrong, "  counts: {counts:?} instead of {:?}", self.counts).expect("memory");
        }
        match (&*self.verdict, &self.out) {
            ("drop", _) => {}
            ("pass", None) if done.octets == input.octets => {}
            ("pass", None) => wrong.push_str("  passed on, but changed\n"),
            (_, None) => wrong.push_str("  the case does not say what comes out\n"),
            (_, Some(due)) => {
                let out = decode(&done.octets);
                if out != *due {
                    writeln!(wrong, "  out: {out}\n  due: {due}").expect("memory");
                }
            }
        }
        wrong
    }
}

/// The frames of all cases for a program.
pub fn corpus(program: Program) -> Vec<Input> {
    let cases = all().into_iter().flat_map(|(_, cases)| cases);
    let inputs = cases.flat_map(|case| case.inputs());
    inputs.filter(|input| input.program == program).collect()
}
