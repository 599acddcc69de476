//! What an attacker makes of packets that were on the wire, or of none.
//!
//! Each kind is a function from packets that were recorded to a frame, and says for which reasons alone that may be
//! dropped.

use kuafu_pipeline::Reason::{
    self, BadChecksum, BadGeneve, BadLength, BadProbe, BadTag, Duplicate, Fragment, Late, NoPath,
    OldIncarnation, Truncated, WrongSource,
};

use super::senders::{Authentic, Carries, EPOCHS, NEWER};
use crate::common::draw::{Draw, mend};
use crate::common::text::{key, tag, under_tag};

/// Offsets on the backbone.
const IP_LENGTH: usize = 16;
const SOURCE: usize = 26;
const DESTINATION: usize = 30;
const UDP_LENGTH: usize = 38;
const GENEVE: usize = 42;
const WORD: usize = 54;
const TAG: usize = 66;
const INNER: usize = 74;
/// Where that ends which the tag covers.
const COVERED: usize = 114;
/// The control bit, and the octet that holds it.
const CONTROL: (usize, u8) = (GENEVE + 1, 0x80);
/// The shortest frame that the kernel takes for a test run, and one.
const SHORTEST: usize = 15;
/// Numbers of all keys of the cluster: the older ones, below their newer ones.
const KEYS: [u8; 7] = [1, 2, 3, 4, 5, 6, 9];
/// Labels that mean something somewhere, or nothing.
const LABELS: [u32; 10] = [5, 6, 8, 9, 10, 11, 20, 21, 0, 65_536];

/// Whom a frame is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The host under test.
    Here,
    /// Its neighbour.
    Right,
    /// That neighbour, by the host under test as a relay: a relay keeps no window, the exit refuses what it sees again.
    Through,
}

/// A frame that nobody may take in.
#[derive(Clone, Debug)]
pub struct Hostile {
    /// Which of [`KINDS`].
    pub kind: usize,
    /// Whom it is sent to.
    pub way: Way,
    /// The frame.
    pub octets: Vec<u8>,
}

/// A kind of hostile frame.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// Why it may be dropped.
    pub due: &'static [Reason],
    /// Whether it may also be none of Kuafu's, and be passed on unchanged.
    pub passes: bool,
    make: fn(&mut Draw, &Recorded) -> (Way, Vec<u8>),
}

/// What was on the wire.
#[derive(Default)]
pub struct Recorded {
    /// Not yet delivered: it must still be taken in after all that was made of it.
    pub pending: Vec<Authentic>,
    /// Taken in.
    pub taken: Vec<Authentic>,
    /// Taken in before its sender lost its maps.
    pub old: Vec<Authentic>,
}

const fn kind(
    name: &'static str,
    due: &'static [Reason],
    make: fn(&mut Draw, &Recorded) -> (Way, Vec<u8>),
) -> Kind {
    Kind {
        name,
        due,
        passes: false,
        make,
    }
}

const fn or_passes(kind: Kind) -> Kind {
    Kind { passes: true, ..kind }
}

/// All of them.
pub const KINDS: &[Kind] = &[
    kind("replayed", &[Duplicate, Late], replayed),
    kind("replayed by a relay", &[Duplicate, Late], replayed_by_a_relay),
    kind("of an old incarnation", &[OldIncarnation], of_an_old_incarnation),
    kind("forged: random tag", &[BadTag], random_tag),
    kind("forged: another leg's key", &[BadTag], other_key),
    kind("forged: epoch not valid", &[BadTag], other_epoch),
    kind("forged: keys swapped", &[BadTag], swapped_keys),
    kind(
        "mutated: one bit",
        &[BadTag, BadGeneve, NoPath, WrongSource],
        one_bit,
    ),
    kind(
        "mutated: several bits",
        &[BadTag, BadGeneve, NoPath, WrongSource],
        several_bits,
    ),
    kind("mutated: lengths", &[BadLength], lengths),
    kind("mutated: outer checksum", &[BadChecksum], outer_checksum),
    or_passes(kind("mutated: options, fragment", &[Fragment], options)),
    or_passes(kind("cut short", &[Truncated, BadLength], cut)),
    kind(
        "cut or lengthened, mended",
        &[BadTag, BadLength, BadProbe],
        other_length,
    ),
    kind("from a wrong neighbour", &[WrongSource], wrong_source),
    kind("to a wrong label", &[BadTag, NoPath, WrongSource], wrong_label),
    or_passes(kind("to a wrong node", &[NoPath, BadTag], wrong_node)),
    kind("data as probe", &[BadTag], data_as_probe),
    kind("probe as data", &[BadTag], probe_as_data),
    kind("data as probe, tagged anew", &[BadProbe], tagged_as_probe),
    kind("data to a probe's port", &[BadTag], port_of_probes),
    kind("direction turned round", &[BadTag], turned_round),
];

impl Recorded {
    /// A frame of a drawn kind.
    pub fn hostile(&self, draw: &mut Draw) -> Hostile {
        let kind = draw.below(KINDS.len());
        let (way, octets) = (KINDS[kind].make)(draw, self);
        Hostile { kind, way, octets }
    }

    /// Any packet of the senders that still send.
    fn any<'r>(&'r self, draw: &mut Draw) -> &'r Authentic {
        let from = if draw.below(2) == 0 {
            &self.pending
        } else {
            &self.taken
        };
        draw.one(from)
    }

    fn any_that<'r>(&'r self, draw: &mut Draw, fits: fn(&Authentic) -> bool) -> &'r Authentic {
        loop {
            let packet = self.any(draw);
            if fits(packet) {
                return packet;
            }
        }
    }
}

impl Authentic {
    /// Whom it is for.
    fn way(&self) -> Way {
        match self.carries {
            Carries::Relayed => Way::Through,
            Carries::Data | Carries::Probe => Way::Here,
        }
    }
}

fn is_data(packet: &Authentic) -> bool {
    packet.carries != Carries::Probe
}

fn is_probe(packet: &Authentic) -> bool {
    packet.carries == Carries::Probe
}

/// Writes the tag under the key of that number.
fn retag(octets: &mut [u8], number: u8) {
    let tag = tag(key(number), &under_tag(&octets[GENEVE..]));
    octets[TAG..INNER].copy_from_slice(&tag.to_le_bytes());
}

fn set_epoch(octets: &mut [u8], epoch: u32) {
    octets[WORD + 3] = octets[WORD + 3] & !0b1100 | (epoch as u8) << 2;
}

fn replayed(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    loop {
        let packet = draw.one(&recorded.taken);
        if packet.carries != Carries::Relayed {
            return (Way::Here, packet.octets.clone());
        }
    }
}

fn replayed_by_a_relay(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    loop {
        let packet = draw.one(&recorded.taken);
        if packet.carries == Carries::Relayed {
            return (Way::Through, packet.octets.clone());
        }
    }
}

fn of_an_old_incarnation(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let packet = draw.one(&recorded.old);
    (packet.way(), packet.octets.clone())
}

fn random_tag(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    octets[TAG..INNER].copy_from_slice(&draw.number().to_be_bytes());
    (Way::Here, octets)
}

fn other_key(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let packet = recorded.any(draw);
    let mut octets = packet.octets.clone();
    let newer = draw.below(2) as u8 * NEWER;
    let number = loop {
        let number = *draw.one(&KEYS) + newer;
        if number != packet.key {
            break number;
        }
    };
    retag(&mut octets, number);
    (Way::Here, octets)
}

fn other_epoch(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let packet = recorded.any(draw);
    let mut octets = packet.octets.clone();
    set_epoch(&mut octets, *draw.one(&[0, 3]));
    retag(&mut octets, packet.key - draw.below(2) as u8 * NEWER);
    (Way::Here, octets)
}

fn swapped_keys(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let packet = recorded.any(draw);
    let mut octets = packet.octets.clone();
    let newer = draw.below(2);
    set_epoch(&mut octets, EPOCHS[newer]);
    retag(&mut octets, packet.key - newer as u8 * NEWER);
    (Way::Here, octets)
}

/// Flips so many different bits from Geneve's header to the end of what the tag covers.
fn flip(draw: &mut Draw, octets: &mut [u8], bits: usize) {
    let mut flipped = Vec::new();
    while flipped.len() < bits {
        let bit = draw.below((octets.len().min(COVERED) - GENEVE) * 8);
        if !flipped.contains(&bit) {
            octets[GENEVE + bit / 8] ^= 1 << (bit % 8);
            flipped.push(bit);
        }
    }
}

fn one_bit(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    flip(draw, &mut octets, 1);
    (Way::Here, octets)
}

fn several_bits(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    let bits = 2 + draw.below(15);
    flip(draw, &mut octets, bits);
    (Way::Here, octets)
}

fn lengths(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    let change = draw.number() as u16 | 1;
    for at in [[IP_LENGTH].as_slice(), &[UDP_LENGTH], &[IP_LENGTH, UDP_LENGTH]][draw.below(3)] {
        let length = u16::from_be_bytes([octets[*at], octets[at + 1]]) ^ change;
        octets[*at..at + 2].copy_from_slice(&length.to_be_bytes());
    }
    mend(&mut octets);
    (Way::Here, octets)
}

fn outer_checksum(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    // TOS, identification, TTL, the sum itself.
    let at = *draw.one(&[15, 18, 19, 22, 24, 25]);
    octets[at] ^= 1 << draw.below(8);
    (Way::Here, octets)
}

fn options(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    match draw.below(3) {
        0 => octets[14] ^= 1 + draw.below(15) as u8,
        1 => octets[20] ^= 0x20,
        _ => octets[21] = 1 + draw.below(255) as u8,
    }
    mend(&mut octets);
    (Way::Here, octets)
}

fn cut(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    octets.truncate(SHORTEST + draw.below(octets.len() - SHORTEST));
    (Way::Here, octets)
}

/// Octets are missing or too many, and the outer headers say so. A relay does not look so far.
fn other_length(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let packet = recorded.any(draw);
    let mut octets = packet.octets.clone();
    if draw.below(2) == 0 {
        octets.truncate(INNER + 1 + draw.below(octets.len() - INNER - 1));
    } else {
        let (more, filler) = (1 + draw.below(64), *draw.one(&[0, 0xff]));
        octets.resize(octets.len() + more, filler);
    }
    let length = octets.len() as u16;
    octets[IP_LENGTH..IP_LENGTH + 2].copy_from_slice(&(length - 14).to_be_bytes());
    octets[UDP_LENGTH..UDP_LENGTH + 2].copy_from_slice(&(length - 34).to_be_bytes());
    mend(&mut octets);
    (packet.way(), octets)
}

fn wrong_source(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    let from = octets[SOURCE + 3];
    octets[SOURCE + 3] = *draw.one(&[1, 2 + u8::from(from == 2), 80, 254]);
    if draw.below(4) == 0 {
        octets[SOURCE..SOURCE + 4].copy_from_slice(&(draw.number() as u32 | 1 << 31 | 1 << 30).to_be_bytes());
        octets[SOURCE] |= 1;
    }
    mend(&mut octets);
    (Way::Here, octets)
}

fn wrong_label(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    let word = u32::from_be_bytes([octets[WORD], octets[WORD + 1], octets[WORD + 2], octets[WORD + 3]]);
    let label = loop {
        let label = match draw.below(4) {
            0 => draw.below(1 << 20) as u32,
            _ => *draw.one(&LABELS),
        };
        if label != word >> 12 {
            break label;
        }
    };
    octets[WORD..WORD + 4].copy_from_slice(&(word & 0xfff | label << 12).to_be_bytes());
    (Way::Here, octets)
}

fn wrong_node(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    let (way, to) = *draw.one(&[(Way::Right, 3), (Way::Here, 7)]);
    octets[DESTINATION + 3] = to;
    mend(&mut octets);
    (way, octets)
}

fn data_as_probe(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any_that(draw, is_data).octets.clone();
    octets[CONTROL.0] ^= CONTROL.1;
    (Way::Here, octets)
}

fn probe_as_data(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any_that(draw, is_probe).octets.clone();
    octets[CONTROL.0] ^= CONTROL.1;
    (Way::Here, octets)
}

/// By somebody who has the key: what it carries is still no probe.
fn tagged_as_probe(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let packet = recorded.any_that(draw, |packet| packet.carries == Carries::Data);
    let mut octets = packet.octets.clone();
    octets[CONTROL.0] ^= CONTROL.1;
    if draw.below(2) == 0 {
        // The system VPC's, and to a probe's port.
        octets[GENEVE + 4..GENEVE + 7].copy_from_slice(&[0, 0, 1]);
        octets[INNER + 22..INNER + 24].copy_from_slice(&862u16.to_be_bytes());
    }
    retag(&mut octets, packet.key);
    (Way::Here, octets)
}

fn port_of_probes(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any_that(draw, is_data).octets.clone();
    let at = INNER + 20 + 2 * draw.below(2);
    octets[at..at + 2].copy_from_slice(&862u16.to_be_bytes());
    if draw.below(2) == 0 {
        octets[CONTROL.0] ^= CONTROL.1;
    }
    (Way::Here, octets)
}

fn turned_round(draw: &mut Draw, recorded: &Recorded) -> (Way, Vec<u8>) {
    let mut octets = recorded.any(draw).octets.clone();
    octets[WORD + 3] ^= draw.one(&[1, 2, 3]);
    (Way::Here, octets)
}
