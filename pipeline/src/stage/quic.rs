//! QUIC (RFC 9000): a connection may change its client's address; what tells it is the id that its server has chosen.

use super::flow::{Address, Flow, Part};
use super::ring::NOBODY;
use crate::header::ipv4;
use crate::map::{QuicServerKey, Service, policy};
use crate::{Frame, Tables};

/// Octets in a UDP header.
const UDP: u32 = 8;
/// The bit of a first octet that long headers have: a handshake stays with its flow.
const LONG: u8 = 0x80;

/// The number of the target that a packet's connection id names, else [`NOBODY`]. `datagram` is where UDP begins in the
/// frame, and `octets` how long it is.
#[inline(always)]
pub fn server<F: Frame, T: Tables, A: Address>(
    frame: &mut F,
    tables: &T,
    service: &Service,
    flow: &Flow<A>,
    (datagram, octets): (u32, u32),
) -> u32 {
    if !service.has(policy::QUIC) || flow.protocol != ipv4::UDP || flow.part != Part::Whole {
        return NOBODY;
    }
    let payload = octets.saturating_sub(UDP);
    if payload < 2 {
        return NOBODY;
    }
    let [first, second, ..] = frame.words(datagram + UDP);
    let octets = first.to_le_bytes();
    if octets[0] & LONG != 0 {
        return NOBODY;
    }
    let id = (first >> 8 | second << 56).to_le_bytes();
    let ninth = (second >> 8) as u8;
    let server = service.connection_ids().server(id, ninth, payload - 1);
    let number = server.and_then(|id| tables.quic_target(&QuicServerKey::new(service.vni, id)));
    number.unwrap_or(NOBODY)
}
