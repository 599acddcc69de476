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

use super::{be16, be32, le32, le64, put_le64, put32, view};
use crate::siphash::{self, Key};

/// Option length of 6 words and the critical bit; the O bit (0x80 of the second octet) is left out.
const BASE: u16 = 0x0640;
/// "This is a control packet", the mark of probes.
const CONTROL: u16 = 0x0080;
/// An experimental option class (RFC 8926 §7.3), type 1 with the critical bit, five words long.
const OPTION: u32 = 0xff4b_8105;

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

    /// The same for the next leg.
    #[inline(always)]
    #[must_use]
    pub const fn onward(self, label: u32, epoch: u32) -> Self {
        Self(self.0 & 0xff3 | label << 12 | (epoch & 3) << 2)
    }
}

impl Geneve<'_> {
    /// Whether this is a header of ours: version, lengths, flags and option as we send them.
    #[inline(always)]
    #[must_use]
    pub fn is_ours(&self) -> bool {
        be16::<0, 32>(self.0) & !CONTROL == BASE && self.0[7] == 0 && be32::<8, 32>(self.0) == OPTION
    }

    /// Whether it carries a probe.
    #[inline(always)]
    #[must_use]
    pub fn is_probe(&self) -> bool {
        be16::<0, 32>(self.0) & CONTROL != 0
    }

    /// Ethertype of the inner packet.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u16 {
        be16::<2, 32>(self.0)
    }

    /// Accelerator or VPC.
    #[inline(always)]
    #[must_use]
    pub fn vni(&self) -> u32 {
        be32::<4, 32>(self.0) >> 8
    }

    /// The option's first word.
    #[inline(always)]
    #[must_use]
    pub fn word(&self) -> Word {
        Word(be32::<12, 32>(self.0))
    }

    /// The sequence number.
    #[inline(always)]
    #[must_use]
    pub fn sequence(&self) -> u32 {
        be32::<16, 32>(self.0)
    }

    /// When the entry sent it (µs of its boot clock, low 32 bits), or 0.
    #[inline(always)]
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        be32::<20, 32>(self.0)
    }

    /// The tag, in the order of its octets.
    #[inline(always)]
    #[must_use]
    pub fn tag(&self) -> u64 {
        le64::<24, 32>(self.0)
    }

    /// The tag that belongs here: SipHash-2-4 over Geneve's header, the option up to the tag, and the first 40
    /// octets of the inner packet.
    #[inline(always)]
    #[must_use]
    pub fn tag_under(&self, key: Key, inner: &Inner) -> u64 {
        let joint = u64::from(le32::<20, 32>(self.0)) | u64::from(inner.first) << 32;
        let [a, b, c, d] = inner.middle;
        siphash::hash(
            key,
            [le64::<0, 32>(self.0), le64::<12, 32>(self.0), joint, a, b, c, d],
            inner.last,
        )
    }

    /// Writes the first word for the next leg and the tag under its key.
    #[inline(always)]
    pub fn retag(&mut self, word: Word, key: Key, inner: &Inner) {
        put32::<12, 32>(self.0, word.0);
        let tag = self.tag_under(key, inner);
        put_le64::<24, 32>(self.0, tag);
    }

    /// Writes everything but the first word and the tag, which [`retag`](Self::retag) writes.
    #[inline(always)]
    pub fn write(&mut self, probe: bool, vni: u32, sequence: u32, timestamp: u32) {
        let flags = if probe { BASE | CONTROL } else { BASE };
        put32::<0, 32>(self.0, (flags as u32) << 16 | super::ethernet::IPV4 as u32);
        put32::<4, 32>(self.0, vni << 8);
        put32::<8, 32>(self.0, OPTION);
        self.set_sequence(sequence, timestamp);
    }

    /// Writes sequence number and timestamp.
    #[inline(always)]
    pub fn set_sequence(&mut self, sequence: u32, timestamp: u32) {
        put32::<16, 32>(self.0, sequence);
        put32::<20, 32>(self.0, timestamp);
    }
}

/// The first 40 octets of the inner packet, as words of the tag.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    first: u32,
    middle: [u64; 4],
    last: u32,
}

impl Inner {
    /// From the octets as five little-endian words.
    #[inline(always)]
    #[must_use]
    pub const fn new(words: [u64; 5]) -> Self {
        let [a, b, c, d, e] = words;
        Self {
            first: a as u32,
            middle: [join(a, b), join(b, c), join(c, d), join(d, e)],
            last: (e >> 32) as u32,
        }
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
        let onward = word.onward(0x54321, 1);
        assert_eq!(onward, Word::new(0x54321, 9, 14, 1, true));
    }

    #[test]
    fn what_we_write_is_ours() {
        let mut octets = [0xaa; 32];
        let mut geneve = Geneve::at::<0, 32>(&mut octets);
        geneve.write(true, 7, 1, 2);
        assert!(geneve.is_ours() && geneve.is_probe());
        assert_eq!((geneve.vni(), geneve.sequence(), geneve.timestamp()), (7, 1, 2));
    }
}
