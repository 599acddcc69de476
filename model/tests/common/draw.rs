//! Frames that nobody wrote: drawn, mutated and truncated, from a seed.

use kuafu_pipeline::stage::check;

use super::case::{Input, Program};
use super::text::{key, tag, under_tag};
use super::world::{PORTS, UNDERLAY};

/// Labels of the world `host`, with the number of the key of the leg that ends there.
const SLOTS: [(u32, u8); 5] = [(5, 1), (8, 1), (6, 3), (10, 5), (11, 3)];
/// Octets in the longest frame.
const LONGEST: usize = 1514;
/// Octets in the shortest frame that the kernel takes for a test run, and one.
const SHORTEST: usize = 15;
/// Where headers are.
const HEADERS: usize = 128;

/// A source of numbers (SplitMix64, Steele et al. 2014).
pub struct Draw(pub u64);

impl Draw {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    /// One of these.
    pub fn one<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }

    fn octet(&mut self) -> u8 {
        self.number() as u8
    }

    /// A frame for `program`, from those of the cases.
    pub fn input(&mut self, program: Program, corpus: &[Input]) -> Input {
        let mut input = match self.below(10) {
            0 => self.noise(program),
            _ => self.one(corpus).clone(),
        };
        match self.below(8) {
            0 => {}
            1 | 2 => self.flip(&mut input.octets),
            3 => self.cut(&mut input.octets),
            4 => self.flow(&mut input.octets),
            5 => self.word(&mut input.octets),
            _ => self.number_anew(&mut input.octets),
        }
        if self.below(4) == 0 {
            self.flip(&mut input.octets);
        }
        if self.below(2) == 0 {
            mend(&mut input.octets);
        }
        if program == Program::Port && self.below(8) == 0 {
            input.interface = self.one(&PORTS).0;
            input.mark = match self.below(10) as u32 {
                path @ 0..5 => path,
                // The targets that are reached directly, and one that is not there.
                other => check::MARK | (other + 2),
            };
        }
        if program != Program::Edge {
            lengthen(&mut input.octets);
        }
        input
    }

    /// Random octets, with the start of a header that some program reads on.
    fn noise(&mut self, program: Program) -> Input {
        let length = SHORTEST + self.below(LONGEST - SHORTEST);
        let mut octets: Vec<u8> = (0..length).map(|_| self.octet()).collect();
        match self.below(4) {
            0 | 1 if length >= 24 => {
                octets[12..15].copy_from_slice(&[8, 0, 0x45]);
                octets[23] = *self.one(&[1, 6, 17]);
            }
            2 if length >= 24 => {
                octets[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                octets[20] = *self.one(&[6, 17, 44, 58]);
            }
            _ => {}
        }
        Input {
            program,
            interface: if program == Program::Port {
                PORTS[0].0
            } else {
                UNDERLAY
            },
            mark: 0,
            segment: 0,
            octets,
        }
    }

    fn flip(&mut self, octets: &mut [u8]) {
        for _ in 0..=self.below(3) {
            let at = self.below(octets.len().min(HEADERS));
            octets[at] ^= 1 << self.below(8);
        }
    }

    fn word(&mut self, octets: &mut [u8]) {
        let at = self.below(octets.len().min(HEADERS) / 2) * 2;
        let values = [0, 0xff, self.octet()];
        octets[at] = *self.one(&values);
        octets[at + 1] = *self.one(&values);
    }

    fn cut(&mut self, octets: &mut Vec<u8>) {
        let longest = if self.below(3) == 0 {
            LONGEST
        } else {
            octets.len() + 8
        };
        let length = SHORTEST + self.below(longest - SHORTEST);
        octets.resize(length, 0);
    }

    /// Another client, or another port: flows that were not there before.
    fn flow(&mut self, octets: &mut [u8]) {
        let at = if octets.len() >= 114 && octets[36..38] == [0x17, 0xc1] {
            74
        } else {
            14
        };
        if octets.len() < at + 24 {
            return;
        }
        octets[at + 15] = self.octet();
        octets[at + 20..at + 22].copy_from_slice(&(self.below(2048) as u16 + 4000).to_be_bytes());
        checksum(&mut octets[at..at + 20]);
        self.number_anew(octets);
    }

    /// A backbone packet under another sequence number, lane or label, tagged for its leg.
    fn number_anew(&mut self, octets: &mut [u8]) {
        if octets.len() < 75 || octets[36..38] != [0x17, 0xc1] {
            return;
        }
        let (label, number) = match self.below(4) {
            0 => *self.one(&SLOTS),
            _ => {
                let word = u32::from_be_bytes([0, octets[54], octets[55], octets[56]]) >> 4;
                *SLOTS
                    .iter()
                    .find(|(label, _)| *label == word)
                    .unwrap_or(&SLOTS[0])
            }
        };
        let (lane, incarnation, flags) = (
            self.below(16) as u32,
            if self.below(64) == 0 {
                self.below(16) as u32
            } else {
                0
            },
            u32::from(octets[57] & 3) ^ u32::from(self.below(8) == 0) << 1,
        );
        let word = label << 12 | lane << 8 | incarnation << 4 | 1 << 2 | flags;
        octets[54..58].copy_from_slice(&word.to_be_bytes());
        let spread = *self.one(&[64, 4096, 1 << 20]);
        octets[58..62].copy_from_slice(&(self.below(spread) as u32).to_be_bytes());
        let tag = tag(key(number), &under_tag(&octets[42..]));
        octets[66..74].copy_from_slice(&tag.to_le_bytes());
        if label == 10 {
            octets[29] = 3;
        } else {
            octets[29] = 2;
        }
        checksum(&mut octets[14..34]);
    }
}

/// A test run of a tcx program refuses a frame that ends within the IP header which its EtherType announces.
fn lengthen(octets: &mut Vec<u8>) {
    let shortest = match octets[12..14] {
        [0x08, 0x00] => 34,
        [0x86, 0xdd] => 54,
        _ => SHORTEST,
    };
    if octets.len() < shortest {
        octets.resize(shortest, 0);
    }
}

/// Makes the outer IPv4 header's checksum right.
pub fn mend(octets: &mut [u8]) {
    if octets.len() >= 34 && octets[12..15] == [8, 0, 0x45] {
        checksum(&mut octets[14..34]);
    }
}

/// Writes the checksum of an IPv4 header without options.
fn checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(header);
    header[10..12].copy_from_slice(&sum.ones_complement().to_be().to_be_bytes());
}
