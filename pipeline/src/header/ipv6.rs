//! IPv6 (RFC 8200).

use super::{be16, le64, put_le64, put16, put32, view};
use crate::map::IpKey;

/// Next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// An IPv6 packet in another's (RFC 2473).
pub const IPV6: u8 = 41;
/// A routing header.
pub const ROUTING: u8 = 43;
/// A fragment's header.
pub const FRAGMENT: u8 = 44;
/// An authentication header.
pub const AUTHENTICATION: u8 = 51;
/// ICMPv6.
pub const ICMP: u8 = 58;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

view! {
    /// An IPv6 header.
    Ipv6, 40
}

impl Ipv6<'_> {
    /// The version: 6.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// DSCP and ECN.
    #[inline(always)]
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        (be16::<0, 40>(self.0) >> 4) as u8
    }

    /// Octets after this header.
    #[inline(always)]
    #[must_use]
    pub fn payload_length(&self) -> u16 {
        be16::<4, 40>(self.0)
    }

    /// What the payload, or the first extension header, is.
    #[inline(always)]
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// Hops that are left to it.
    #[inline(always)]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// Source address.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> IpKey {
        IpKey::from_words([le64::<8, 40>(self.0), le64::<16, 40>(self.0)])
    }

    /// Destination address.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> IpKey {
        IpKey::from_words([le64::<24, 40>(self.0), le64::<32, 40>(self.0)])
    }

    /// Octets in the payload, by their number, and both addresses, as a running sum: what the transport's checksum
    /// covers beside the payload (§8.1). In the order of the octets, as [`checksum::words`](crate::checksum::words).
    #[inline(always)]
    #[must_use]
    pub fn pseudo_header(source: IpKey, destination: IpKey, octets: u16, next_header: u8) -> u64 {
        let numbers = [(octets as u32).swap_bytes(), (next_header as u32).swap_bytes()];
        let [a, b] = source.words();
        let [c, d] = destination.words();
        let words = crate::checksum::words([a, b, c, d]);
        words + numbers[0] as u64 + numbers[1] as u64
    }

    /// Writes the whole header.
    #[inline(always)]
    pub fn write(&mut self, fields: &Fields) {
        let flow = fields.flow_label & 0x000f_ffff;
        put32::<0, 40>(self.0, 6 << 28 | (fields.traffic_class as u32) << 20 | flow);
        let last = (fields.next_header as u16) << 8 | fields.hop_limit as u16;
        put16::<4, 40>(self.0, fields.payload_length);
        put16::<6, 40>(self.0, last);
        let [a, b] = fields.source.words();
        let [c, d] = fields.destination.words();
        put_le64::<8, 40>(self.0, a);
        put_le64::<16, 40>(self.0, b);
        put_le64::<24, 40>(self.0, c);
        put_le64::<32, 40>(self.0, d);
    }
}

/// The fields of a header that we send.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, of which the lower 20 bits count (RFC 6437).
    pub flow_label: u32,
    /// Octets after the header.
    pub payload_length: u16,
    /// What the payload is.
    pub next_header: u8,
    /// Hops that it may take.
    pub hop_limit: u8,
    /// Source address.
    pub source: IpKey,
    /// Destination address.
    pub destination: IpKey,
}
