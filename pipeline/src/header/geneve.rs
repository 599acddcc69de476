//! Geneve (RFC 8926) with Kuafu's one critical option.
//!
//! ```text
//!  0                   1                   2                   3
//! +---+-----------+-+-+-----------+-------------------------------+
//! |Ver|  Opt Len=6|O|C|    Rsvd.  |        Protocol Type          |  octet 0
//! +---+-----------+-+-+-----------+---------------+---------------+
//! |                      VNI                      |   Reserved    |
//! +-------------------------------+-+-------------+-----+---------+
//! |   Option class 0xff4b         |1|  Type 1     | Rsv | Len = 5 |  octet 8
//! +-------------------------------+-+-----+-------+---+-+---------+
//! |            Label (20)                 | Lane  | Inc.  |Ep.|D|R|  octet 12
//! +---------------------------------------+-------+-------+---+-+-+
//! |                            Sequence                           |
//! +---------------------------------------------------------------+
//! |                        Timestamp (µs)                         |
//! +---------------------------------------------------------------+
//! |                           Tag (64)                            |  octet 24
//! +---------------------------------------------------------------+
//! ```

use super::{be32, ethernet, le32, le64, put_le64, put32, view};
use crate::siphash::{self, Key};

/// Option length of 6 words and the critical bit; the O bit (0x80 of the second octet) is left out.
const BASE: u16 = 0x0640;
/// "This is a control packet", the mark of probes.
const CONTROL: u16 = 0x0080;
/// An experimental option class (RFC 8926 §7.3), type 1 with the critical bit, five words long.
const OPTION: u32 = 0xff4b_8105;
/// Geneve's own header as it must be, but for the VNI and the control bit: raw, as a little-endian load gives it.
const FIXED_RAW: u64 = ((BASE as u64) << 48 | (ethernet::IPV4 as u64) << 32).to_be();
/// The bits that this is about.
const FIXED_MASK_RAW: u64 = (!((CONTROL as u64) << 48) & 0xffff_ffff_0000_00ff).to_be();
/// The control bit, likewise raw.
const CONTROL_RAW: u64 = ((CONTROL as u64) << 48).to_be();

view! {
    /// Geneve's header, the option's header and the option.
    Geneve, 32
}

/// The option's first word, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word(pub u32);

impl Word {
    /// From its fields; each is cut to its width.
    #[inline(always)]
    #[must_use]
    pub const fn new(label: u32, lane: u32, incarnation: u32, epoch: u32, reply: bool) -> Self {
        Self(label << 12 | (lane & 15) << 8 | (incarnation & 15) << 4 | (epoch & 3) << 2 | reply as u32)
    }

    /// The slot of the node that receives it.
    #[inline(always)]
    #[must_use]
    pub const fn label(self) -> u32 {
        self.0 >> 12
    }

    /// The counter that gave the sequence number.
    #[inline(always)]
    #[must_use]
    pub const fn lane(self) -> u32 {
        self.0 >> 8 & 15
    }

    /// How often, modulo 16, the entry has lost its maps.
    #[inline(always)]
    #[must_use]
    pub const fn incarnation(self) -> u32 {
        self.0 >> 4 & 15
    }

    /// Which of the leg's keys made the tag.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.0 >> 2 & 3
    }

    /// Whether this is an endpoint's answer on its way to the client.
    #[inline(always)]
    #[must_use]
    pub const fn is_reply(self) -> bool {
        self.0 & 1 != 0
    }

    /// The same, as one of two copies that take both paths of the pair.
    #[inline(always)]
    #[must_use]
    pub const fn duplicated(self) -> Self {
        Self(self.0 | 2)
    }

    /// Whether the other path of the pair brings a copy.
    #[inline(always)]
    #[must_use]
    pub const fn is_duplicated(self) -> bool {
        self.0 & 2 != 0
    }

    /// The same for the next leg.
    #[inline(always)]
    #[must_use]
    pub const fn onward(self, label: u32, epoch: u32) -> Self {
        Self(self.0 & 0xff3 | label << 12 | (epoch & 3) << 2)
    }
}

/// What the tag covers of Geneve's header and the option, in registers: read once, changed and hashed without going
/// back to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Geneve's own header: octets 0 to 7, as a little-endian load gives them.
    base: u64,
    /// The option's first word and the sequence number: octets 12 to 19, likewise.
    option: u64,
    /// Octets 20 to 23, likewise.
    timestamp: u32,
}

impl Header {
    /// From its fields. A time of 0 is none.
    #[inline(always)]
    #[must_use]
    pub const fn new(probe: bool, vni: u32, word: Word, sequence: u32, timestamp: u32) -> Self {
        let flags = if probe { BASE | CONTROL } else { BASE };
        let first = (flags as u64) << 48 | (ethernet::IPV4 as u64) << 32;
        Self {
            base: (first | (vni << 8) as u64).to_be(),
            option: ((word.0 as u64) << 32 | sequence as u64).to_be(),
            timestamp: timestamp.to_be(),
        }
    }

    /// Whether it carries a probe.
    #[inline(always)]
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.base & CONTROL_RAW != 0
    }

    /// Accelerator or VPC.
    #[inline(always)]
    #[must_use]
    pub const fn vni(&self) -> u32 {
        (u64::from_be(self.base) as u32) >> 8
    }

    /// The option's first word.
    #[inline(always)]
    #[must_use]
    pub const fn word(&self) -> Word {
        Word((u64::from_be(self.option) >> 32) as u32)
    }

    /// The sequence number.
    #[inline(always)]
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        u64::from_be(self.option) as u32
    }

    /// When the entry sent it (µs of its boot clock, low 32 bits), or 0.
    #[inline(always)]
    #[must_use]
    pub const fn timestamp(&self) -> u32 {
        u32::from_be(self.timestamp)
    }

    /// The same with another first word.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, word: Word) -> Self {
        let rest = self.option & !(u32::MAX as u64);
        Self {
            option: rest | word.0.to_be() as u64,
            ..self
        }
    }
}

impl Geneve<'_> {
    /// The header, where it is one of ours: version, lengths, flags, protocol and option as we send them.
    #[inline(always)]
    #[must_use]
    pub fn read(&self) -> Option<Header> {
        let base = le64::<0, 32>(self.0);
        if base & FIXED_MASK_RAW != FIXED_RAW || be32::<8, 32>(self.0) != OPTION {
            return None;
        }
        Some(Header {
            base,
            option: le64::<12, 32>(self.0),
            timestamp: le32::<20, 32>(self.0),
        })
    }

    /// The tag, in the order of its octets.
    #[inline(always)]
    #[must_use]
    pub fn tag(&self) -> u64 {
        le64::<24, 32>(self.0)
    }

    /// Writes everything.
    #[inline(always)]
    pub fn write(&mut self, header: &Header, tag: u64) {
        put_le64::<0, 32>(self.0, header.base);
        put32::<8, 32>(self.0, OPTION);
        put_le64::<12, 32>(self.0, header.option);
        put32::<20, 32>(self.0, header.timestamp());
        put_le64::<24, 32>(self.0, tag);
    }

    /// Writes what a relay changes: the first word, and the tag.
    #[inline(always)]
    pub fn relabel(&mut self, header: &Header, tag: u64) {
        put32::<12, 32>(self.0, header.word().0);
        put_le64::<24, 32>(self.0, tag);
    }
}

/// What a tag covers: Geneve's header, the option up to the tag, and the first 40 octets of the inner packet.
#[derive(Debug)]
pub struct Covered([u64; 8]);

impl Covered {
    /// From a header and the inner octets as five little-endian words.
    #[inline(always)]
    #[must_use]
    pub const fn new(header: &Header, [a, b, c, d, e]: [u64; 5]) -> Self {
        Self([
            header.base,
            header.option,
            header.timestamp as u64 | a << 32,
            join(a, b),
            join(b, c),
            join(c, d),
            join(d, e),
            e >> 32 | siphash::LAST,
        ])
    }

    /// The same under a header with another first word.
    #[inline(always)]
    pub const fn relabel(&mut self, header: &Header) {
        self.0[1] = header.option;
    }

    /// The tag: SipHash-2-4.
    #[inline(always)]
    #[must_use]
    pub fn tag(&self, key: Key) -> u64 {
        siphash::hash(key, &self.0)
    }
}

/// The upper half of one word and the lower half of the next.
#[inline(always)]
const fn join(low: u64, high: u64) -> u64 {
    low >> 32 | high << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_keeps_its_fields_apart() {
        let word = Word::new(0xfffff, 0, 0, 0, false);
        assert_eq!((word.label(), word.0), (0xfffff, 0xffff_f000));
        let word = Word::new(0x12345, 9, 14, 2, true);
        assert_eq!(word.label(), 0x12345);
        assert_eq!(
            (word.lane(), word.incarnation(), word.epoch(), word.is_reply()),
            (9, 14, 2, true)
        );
        assert!(!word.is_duplicated());
        let onward = word.onward(0x54321, 1);
        assert_eq!(onward, Word::new(0x54321, 9, 14, 1, true));
        let copy = word.duplicated();
        assert!(copy.is_duplicated() && copy.is_reply());
        assert_eq!(copy.onward(0x54321, 1), onward.duplicated());
    }

    #[test]
    fn what_we_write_is_ours() {
        let mut octets = [0xaa; 32];
        let header = Header::new(true, 7, Word::new(9, 1, 2, 3, true), 1, 2);
        Geneve::at::<0, 32>(&mut octets).write(&header, 5);
        let read = Geneve::at::<0, 32>(&mut octets).read();
        assert_eq!(read, Some(header));
        assert!(header.is_probe());
        assert_eq!((header.vni(), header.sequence(), header.timestamp()), (7, 1, 2));
        assert_eq!(header.word(), Word::new(9, 1, 2, 3, true));
        assert_eq!(octets[..8], [0x06, 0xc0, 0x08, 0x00, 0, 0, 7, 0], "RFC 8926 §3.4");
    }

    #[test]
    fn another_word_changes_nothing_else() {
        let header = Header::new(false, 7, Word::new(9, 1, 2, 3, true), 0xffff_fff0, 2);
        let with = header.with(Word::new(1, 1, 2, 0, true));
        assert_eq!(
            with,
            Header::new(false, 7, Word::new(1, 1, 2, 0, true), 0xffff_fff0, 2)
        );
    }

    #[test]
    fn a_foreign_header_is_refused() {
        for (octet, bit) in [
            (0, 0x40),
            (0, 1),
            (1, 0x40),
            (1, 1),
            (2, 1),
            (7, 1),
            (8, 1),
            (11, 1),
        ] {
            let mut octets = [0; 32];
            let header = Header::new(false, 7, Word(0), 1, 2);
            Geneve::at::<0, 32>(&mut octets).write(&header, 5);
            octets[octet] ^= bit;
            assert_eq!(Geneve::at::<0, 32>(&mut octets).read(), None, "octet {octet}");
        }
    }
}
