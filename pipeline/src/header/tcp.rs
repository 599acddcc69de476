//! TCP (RFC 9293).

use super::{be16, be32, put16, put32, view};
use crate::checksum::{self, Change};

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// The acknowledgement is valid.
pub const ACK: u8 = 0x10;

/// Whether a segment with these flags begins a connection: a SYN that acknowledges nothing.
#[inline(always)]
#[must_use]
pub const fn begins(flags: u8) -> bool {
    flags & (SYN | ACK) == SYN
}

/// The answer to a SYN.
pub struct SynAck {
    /// Source, above the destination.
    pub ports: u32,
    /// The number that it acknowledges.
    pub acknowledges: u32,
}

view! {
    /// A TCP header without options.
    Tcp, 20
}

impl Tcp<'_> {
    /// Octets in the header, options included.
    #[inline(always)]
    #[must_use]
    pub fn header_length(&self) -> u32 {
        (self.0[12] >> 4) as u32 * 4
    }

    /// FIN, SYN, RST, PSH, ACK, URG, ECE, CWR from the lowest bit on.
    #[inline(always)]
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.0[13]
    }

    /// The number of its first octet.
    #[inline(always)]
    #[must_use]
    pub fn sequence(&self) -> u32 {
        be32::<4, 20>(self.0)
    }

    /// Writes a segment without options or data: sequence number 0, no window. `pseudo` is the running sum of what else
    /// its checksum covers: both addresses, the protocol and 20 octets.
    #[inline(always)]
    pub fn write_syn_ack(&mut self, answer: &SynAck, pseudo: u32) {
        let (offset, flags) = (5 << 12, (SYN | ACK) as u32);
        let sum = [answer.ports, answer.acknowledges]
            .into_iter()
            .fold(pseudo + offset + flags, checksum::add32);
        put32::<0, 20>(self.0, answer.ports);
        put32::<4, 20>(self.0, 0);
        put32::<8, 20>(self.0, answer.acknowledges);
        put32::<12, 20>(self.0, (offset | flags) << 16);
        put32::<16, 20>(self.0, (checksum::finish(sum) as u32) << 16);
    }

    /// Source port.
    #[inline(always)]
    #[must_use]
    pub fn source(&self) -> u16 {
        be16::<0, 20>(self.0)
    }

    /// Destination port.
    #[inline(always)]
    #[must_use]
    pub fn destination(&self) -> u16 {
        be16::<2, 20>(self.0)
    }

    /// Replaces both ports, with the checksum kept right; `addresses` is what changed in the header before.
    #[inline(always)]
    pub fn replace_ports(&mut self, source: u16, destination: u16, addresses: Change) {
        let change = addresses
            .half(self.source(), source)
            .half(self.destination(), destination);
        let checksum = change.apply(be16::<16, 20>(self.0));
        put16::<0, 20>(self.0, source);
        put16::<2, 20>(self.0, destination);
        put16::<16, 20>(self.0, checksum);
    }
}
