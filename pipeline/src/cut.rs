//! Cutting an IPv4 packet into fragments (RFC 791, §3.2).
//!
//! A fragment can be cut again: the pieces then have their offsets in the same datagram, and the last of them says that
//! more follows where the fragment said so. Options would have to be copied by kind; packets with options never get
//! here (`ip_options`), and are refused.

use crate::header::Ipv4;

/// Octets of a header without options.
const HEADER: usize = 20;
/// What offsets count in.
const UNIT: usize = 8;

/// A piece of a packet: a packet of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'p> {
    /// Its IP header.
    pub header: [u8; HEADER],
    /// What follows that.
    pub payload: &'p [u8],
}

/// What is left of a packet that is being cut.
#[derive(Clone, Debug)]
pub struct Cut<'p> {
    header: [u8; HEADER],
    /// `None` when it is all cut.
    rest: Option<&'p [u8]>,
    /// Octets of the datagram in front of the rest.
    offset: u32,
    /// Octets of payload in a piece.
    room: usize,
    more: bool,
}

/// The pieces of an IPv4 packet, each of `mtu` octets at most, in their order; one that fits is its only piece.
///
/// `None` where it is no whole packet without options, must not be cut, or has a place in its datagram that no
/// datagram has; or where `mtu` leaves no room for eight octets.
#[must_use]
pub fn cut(packet: &[u8], mtu: u16) -> Option<Cut<'_>> {
    let (header, payload) = packet.split_first_chunk::<HEADER>()?;
    let (mut header, mtu) = (*header, usize::from(mtu));
    let ip = Ipv4::at::<0, HEADER>(&mut header);
    if ip.version_and_length() != 0x45 || usize::from(ip.total_length()) != packet.len() {
        return None;
    }
    let (offset, more) = (ip.fragment_offset(), ip.more_fragments());
    let fits = packet.len() <= mtu;
    let room = mtu.checked_sub(HEADER)? / UNIT * UNIT;
    let may_be_cut = !ip.dont_fragment() && room != 0 && (!more || payload.len() % UNIT == 0);
    if !fits && !may_be_cut || offset as usize + packet.len() > usize::from(u16::MAX) {
        return None;
    }
    Some(Cut {
        header,
        rest: Some(payload),
        offset,
        room: if fits { payload.len() } else { room },
        more,
    })
}

impl<'p> Iterator for Cut<'p> {
    type Item = Piece<'p>;

    fn next(&mut self) -> Option<Piece<'p>> {
        let rest = self.rest.take()?;
        let (payload, rest) = rest.split_at(rest.len().min(self.room));
        let is_last = rest.is_empty();
        let mut header = self.header;
        let length = (HEADER + payload.len()) as u16;
        Ipv4::at::<0, HEADER>(&mut header).make_fragment(length, self.offset, self.more || !is_last);
        self.offset += payload.len() as u32;
        self.rest = (!is_last).then_some(rest);
        Some(Piece { header, payload })
    }
}
