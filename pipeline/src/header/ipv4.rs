//! IPv4 (RFC 791).

use super::{be16, be32, le32, put_le32, put16, put32, view};
use crate::checksum::{self, Change};

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of an IPv4 packet in another's (RFC 2003).
pub const IPIP: u8 = 4;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;

/// The "don't fragment" bit of the field with the fragment's offset.
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The "more fragments" bit of the same field.
const MORE_FRAGMENTS: u16 = 0x2000;
/// The offset, in units of eight octets.
const OFFSET: u16 = 0x1fff;
/// What only a fragment has.
const FRAGMENT: u16 = MORE_FRAGMENTS | OFFSET;

view! {
    /// An IPv4 header without options.
    Ipv4, 20
}

impl Ipv4<'_> {
    /// Version and header length: 0x45 where there are no options.
    #[inline(always)]
    #[must_use]
    pub fn version_and_length(&self) -> u8 {
        self.0[0]
    }

    /// DSCP and ECN.
    #[inline(always)]
    #[must_use]
    pub fn tos(&self) -> u8 {
        self.0[1]
    }

    /// Octets in the packet, this header included.
    #[inline(always)]
    #[must_use]
    pub fn total_length(&self) -> u16 {
        be16::<2, 20>(self.0)
    }

    /// Whether routers must not fragment it.
    #[inline(always)]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        be16::<6, 20>(self.0) & DONT_FRAGMENT != 0
    }

    /// Whether it is a fragment, the first one included.
    #[inline(always)]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        be16::<6, 20>(self.0) & FRAGMENT != 0
    }

    /// What tells the fragments of one datagram from those of others.
    #[inline(always)]
    #[must_use]
    pub fn identification(&self) -> u16 {
        be16::<4, 20>(self.0)
    }

    /// Octets of its datagram's payload that are in fragments before it.
    #[inline(always)]
    #[must_use]
    pub fn fragment_offset(&self) -> u32 {
        ((be16::<6, 20>(self.0) & OFFSET) as u32) << 3
    }

    /// Whether fragments behind it have more of its datagram.
    #[inline(always)]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        be16::<6, 20>(self.0) & MORE_FRAGMENTS != 0
    }

    /// Makes it the header of a fragment. `offset` is a multiple of eight below 65,536.
    #[inline(always)]
    pub fn make_fragment(&mut self, total_length: u16, offset: u32, more: bool) {
        let bits = be16::<6, 20>(self.0) & !FRAGMENT;
        let more = if more { MORE_FRAGMENTS } else { 0 };
        put16::<2, 20>(self.0, total_length);
        put16::<6, 20>(self.0, bits | more | (offset >> 3) as u16 & OFFSET);
        self.set_checksum(0);
        let checksum = !checksum::fold_words(sum(self.words()));
        self.set_checksum(checksum.swap_bytes());
    }

    /// Time to live.
    #[inline(always)]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// What the payload is.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// The header's checksum.
    #[inline(always)]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        be16::<10, 20>(self.0)
    }

    /// Source address.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> u32 {
        be32::<12, 20>(self.0)
    }

    /// Destination address.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> u32 {
        be32::<16, 20>(self.0)
    }

    /// Whether the checksum fits the header.
    #[inline(always)]
    #[must_use]
    pub fn checksum_is_right(&self) -> bool {
        checksum::fold_words(sum(self.words())) == 0xffff
    }

    #[inline(always)]
    fn words(&self) -> [u32; 5] {
        [
            le32::<0, 20>(self.0),
            le32::<4, 20>(self.0),
            le32::<8, 20>(self.0),
            le32::<12, 20>(self.0),
            le32::<16, 20>(self.0),
        ]
    }

    /// Writes the checksum.
    #[inline(always)]
    pub fn set_checksum(&mut self, value: u16) {
        put16::<10, 20>(self.0, value);
    }

    /// Replaces both addresses and takes one from the time to live, with the checksum kept right. Returns the change
    /// of the addresses, which the transport's checksum needs too.
    #[inline(always)]
    pub fn readdress(&mut self, source: u32, destination: u32) -> Change {
        let change = Change::none()
            .word(self.source(), source)
            .word(self.destination(), destination);
        let ttl = be16::<8, 20>(self.0);
        let checksum = change.half(ttl, ttl - 0x0100).apply(self.checksum());
        put16::<8, 20>(self.0, ttl - 0x0100);
        self.set_checksum(checksum);
        put32::<12, 20>(self.0, source);
        put32::<16, 20>(self.0, destination);
        change
    }

    /// Replaces both addresses of a packet that is only quoted: its time to live stays. Returns the change of the
    /// addresses and that of the header's checksum.
    #[inline(always)]
    pub fn requote(&mut self, source: u32, destination: u32) -> (Change, Change) {
        let addresses = Change::none()
            .word(self.source(), source)
            .word(self.destination(), destination);
        let (before, after) = (self.checksum(), addresses.apply(self.checksum()));
        self.set_checksum(after);
        put32::<12, 20>(self.0, source);
        put32::<16, 20>(self.0, destination);
        (addresses, Change::none().half(before, after))
    }

    /// Exchanges source and destination, which leaves the checksum as it is.
    #[inline(always)]
    pub fn swap_addresses(&mut self) {
        let (source, destination) = (self.source(), self.destination());
        put32::<12, 20>(self.0, destination);
        put32::<16, 20>(self.0, source);
    }

    /// Writes the whole header.
    #[inline(always)]
    pub fn write(&mut self, fields: &Fields) {
        let big_endian = [
            0x4500_0000 | (fields.tos as u32) << 16 | fields.total_length as u32,
            DONT_FRAGMENT as u32,
            (fields.ttl as u32) << 24 | (fields.protocol as u32) << 16,
            fields.source,
            fields.destination,
        ];
        let words = big_endian.map(u32::swap_bytes);
        let checksum = !checksum::fold_words(sum(words));
        let [first, second, third, source, destination] = words;
        put_le32::<0, 20>(self.0, first);
        put_le32::<4, 20>(self.0, second);
        put_le32::<8, 20>(self.0, third | (checksum as u32) << 16);
        put_le32::<12, 20>(self.0, source);
        put_le32::<16, 20>(self.0, destination);
    }
}

/// The sum of a header's words.
#[inline(always)]
const fn sum([a, b, c, d, e]: [u32; 5]) -> u64 {
    a as u64 + b as u64 + c as u64 + d as u64 + e as u64
}

/// The fields of a header that we send: no options, never a fragment and not to be fragmented, so that the
/// identification may be zero (RFC 6864).
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// DSCP and ECN.
    pub tos: u8,
    /// Octets in the packet, the header included.
    pub total_length: u16,
    /// Time to live.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: u8,
    /// Source address.
    pub source: u32,
    /// Destination address.
    pub destination: u32,
}
