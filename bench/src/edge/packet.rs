//! Packets as they arrive, and how each must leave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use kuafu_pipeline::header::geneve::{Covered, Header, Word};
use kuafu_pipeline::header::ipv4::{Fields, IPIP, TCP, UDP};
use kuafu_pipeline::header::{Ethernet, Geneve, Ipv4, Ipv6, Udp, ethernet, ipv6, tcp};
use kuafu_pipeline::map::IpKey;
use kuafu_pipeline::siphash::Key;

use super::balancer::{ADDRESS, ADDRESS_V6};
use super::host::{
    ACCELERATED, ARRIVING, BACKBONE_PORT, BEFORE, ENDING, EPOCH, HERE, LEAVING_HERE, LISTENER, NEXT,
    NEXT_LABEL, RELAYED, SERVER, macs,
};

/// Ethernet, IPv4, UDP, Geneve with the option: in front of the inner packet.
const OUTER: usize = 74;
/// The inner packet: IPv4, UDP and 28 octets, as games send them.
const INNER: usize = 56;
/// A client's frame, and the same on the backbone.
pub(super) const PLAIN: usize = 14 + INNER;
pub(super) const CARRIED: usize = OUTER + INNER;
pub(super) const PLAIN_V6: usize = 14 + 40 + SEGMENT;
/// Numbers that a packet takes in turn: 64 under each of 16 incarnations, so that those of the next turn are new to the
/// window.
pub(super) const TURNS: u32 = 1024;
const TTL: u8 = 60;
/// A client whose address may be any of its 65,536, see `restore_flows`.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(203, 7, 0, 0);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
/// A segment of TCP: header and 16 octets.
const SEGMENT: usize = 36;

/// A client's datagram to a listener of the accelerated address, as it arrives.
pub(super) fn plain(port: u16) -> Result<Vec<u8>> {
    let mut head = [0; 14];
    ethernet_header(&mut head, ethernet::IPV4);
    Ok([&head[..], &inner(port)?].concat())
}

/// A client's segment to a service that is balanced.
pub(super) fn segment(port: u16) -> Result<Vec<u8>> {
    from_client(ADDRESS, port, tcp::ACK)
}

/// Its first one.
pub(super) fn first(port: u16) -> Result<Vec<u8>> {
    from_client(ADDRESS, port, tcp::SYN)
}

/// One to somebody else.
pub(super) fn passing() -> Result<Vec<u8>> {
    from_client(SERVER, 80, tcp::ACK)
}

fn from_client(destination: Ipv4Addr, port: u16, flags: u8) -> Result<Vec<u8>> {
    let mut head = [0; 34];
    ethernet_header(&mut head, ethernet::IPV4);
    Ipv4::at::<14, 34>(&mut head).write(&Fields {
        tos: 0,
        total_length: u16::try_from(PLAIN - 14)?,
        ttl: 64,
        protocol: TCP,
        source: CLIENT.into(),
        destination: destination.into(),
    });
    Ok([&head[..], &tcp_segment(port, flags)].concat())
}

/// The same of IPv6.
pub(super) fn segment_v6(port: u16) -> Result<Vec<u8>> {
    let mut head = [0; 54];
    ethernet_header(&mut head, ethernet::IPV6);
    Ipv6::at::<14, 54>(&mut head).write(&ipv6::Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_length: u16::try_from(SEGMENT)?,
        next_header: TCP,
        hop_limit: 64,
        source: IpKey::from(IpAddr::from(CLIENT_V6)),
        destination: IpKey::from(IpAddr::from(ADDRESS_V6)),
    });
    Ok([&head[..], &tcp_segment(port, tcp::ACK)].concat())
}

/// From a port whose octets are zero, as `restore_flows` wants it.
fn tcp_segment(port: u16, flags: u8) -> [u8; SEGMENT] {
    let mut segment = [0; SEGMENT];
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    // Its header has five words.
    segment[12] = 5 << 4;
    segment[13] = flags;
    segment
}

/// A frame of the backbone, tagged for the relay.
pub(super) fn relayed() -> Result<Vec<u8>> {
    carried(RELAYED, 0)
}

/// The same for the exit, in its turn.
pub(super) fn ending(turn: u32) -> Result<Vec<u8>> {
    carried(ENDING, turn)
}

/// What differs between turns: the option's first two words, and the tag.
pub(super) fn numbers(frame: &[u8]) -> Result<[u64; 2]> {
    let word = |at: usize| -> Result<u64> {
        let octets = frame.get(at..).and_then(<[u8]>::first_chunk::<8>);
        Ok(u64::from_ne_bytes(*octets.context("a frame of the backbone")?))
    };
    Ok([word(54)?, word(66)?])
}

/// Whether a frame left as the relay, or the entry, sends it: to the next node, under its label.
pub(super) fn is_on_its_way(frame: &mut [u8], ttl: u8) -> bool {
    let Some(head) = frame.first_chunk_mut::<OUTER>() else {
        return false;
    };
    let ip = Ipv4::at::<14, OUTER>(head);
    let to_next = ip.ttl() == ttl && ip.destination() == u32::from(NEXT);
    let label = Geneve::at::<42, OUTER>(head)
        .read()
        .map(|header| header.word().label());
    to_next && label == Some(NEXT_LABEL)
}

/// As the relay sends it on.
pub(super) fn is_relayed(frame: &mut [u8]) -> bool {
    frame.len() == CARRIED && is_on_its_way(frame, TTL - 1)
}

/// As the entry sends it.
pub(super) fn has_entered(frame: &mut [u8]) -> bool {
    frame.len() == CARRIED && is_on_its_way(frame, 64)
}

/// As the exit sends it to the server.
pub(super) fn has_left(frame: &mut [u8]) -> bool {
    let is_plain = frame.len() == PLAIN;
    let Some(head) = frame.first_chunk_mut::<34>() else {
        return false;
    };
    let ip = Ipv4::at::<14, 34>(head);
    is_plain && ip.source() == u32::from(HERE) && ip.destination() == u32::from(SERVER)
}

/// As it goes to the server by IPIP.
pub(super) fn is_in_ipip(frame: &mut [u8]) -> bool {
    is_wrapped(frame, 20, IPIP)
}

/// As it goes to the server by GUE, variant 1.
pub(super) fn is_in_gue(frame: &mut [u8]) -> bool {
    is_wrapped(frame, 28, UDP)
}

/// As it goes to a port of a VPC by VXLAN.
pub(super) fn is_in_vxlan(frame: &mut [u8]) -> bool {
    is_wrapped(frame, 50, UDP)
}

/// As IPv6 goes to the server behind another such header.
pub(super) fn is_in_ip6ip6(frame: &mut [u8]) -> bool {
    let is_longer = frame.len() == PLAIN_V6 + 40;
    let Some(head) = frame.first_chunk_mut::<54>() else {
        return false;
    };
    is_longer && Ipv6::at::<14, 54>(head).next_header() == ipv6::IPV6
}

/// As the question whether its client can be reached.
pub(super) fn is_asked(frame: &mut [u8]) -> bool {
    const HEADERS: usize = 54;
    let is_bare = frame.len() == HEADERS;
    let Some(head) = frame.first_chunk_mut::<HEADERS>() else {
        return false;
    };
    let source = Ipv4::at::<14, HEADERS>(head).source();
    is_bare && source == u32::from(ADDRESS) && head[47] == tcp::SYN | tcp::ACK
}

/// As it was: what is dropped stays so.
pub(super) fn is_whole(frame: &mut [u8]) -> bool {
    frame.len() == PLAIN
}

/// As it is.
pub(super) fn is_untouched(frame: &mut [u8]) -> bool {
    passing().is_ok_and(|passing| passing == frame)
}

fn is_wrapped(frame: &mut [u8], more: usize, protocol: u8) -> bool {
    let is_longer = frame.len() == PLAIN + more;
    let Some(head) = frame.first_chunk_mut::<34>() else {
        return false;
    };
    let ip = Ipv4::at::<14, 34>(head);
    is_longer && ip.protocol() == protocol && ip.destination() == u32::from(SERVER)
}

fn carried(label: u32, turn: u32) -> Result<Vec<u8>> {
    let mut head = [0; OUTER];
    let octets = u16::try_from(CARRIED - 14)?;
    let body = inner(LISTENER)?;
    Ipv4::at::<14, OUTER>(&mut head).write(&Fields {
        tos: 0,
        total_length: octets,
        ttl: TTL,
        protocol: UDP,
        source: BEFORE.into(),
        destination: HERE.into(),
    });
    Udp::at::<34, OUTER>(&mut head).write(50_009, BACKBONE_PORT, octets - 20);
    let word = Word::new(label, 0, (turn / 64) & 15, EPOCH.into(), false);
    let header = Header::new(false, LEAVING_HERE, word, turn % 64, 0);
    let half = u64::from_le_bytes([ARRIVING; 8]);
    let arriving = Key { k0: half, k1: half };
    let tag = Covered::new(&header, first_words(&body)?).tag(arriving);
    Geneve::at::<42, OUTER>(&mut head).write(&header, tag);
    ethernet_header(&mut head, ethernet::IPV4);
    Ok([&head[..], &body].concat())
}

fn ethernet_header<const N: usize>(head: &mut [u8; N], ethertype: u16) {
    let mut header = Ethernet::at::<0, N>(head);
    header.set_addresses(macs());
    header.set_ethertype(ethertype);
}

/// A client's IP packet to a listener.
fn inner(port: u16) -> Result<[u8; INNER]> {
    let mut body = [0; INNER];
    Ipv4::at::<0, INNER>(&mut body).write(&Fields {
        tos: 0,
        total_length: u16::try_from(INNER)?,
        ttl: 64,
        protocol: UDP,
        source: u32::from(Ipv4Addr::new(203, 0, 113, 7)),
        destination: ACCELERATED.into(),
    });
    Udp::at::<20, INNER>(&mut body).write(4000, port, u16::try_from(INNER - 20)?);
    Ok(body)
}

fn first_words(body: &[u8; INNER]) -> Result<[u64; 5]> {
    let (words, _) = body.as_chunks::<8>();
    let words = words.first_chunk::<5>().context("the tag covers 40 octets")?;
    Ok(words.map(u64::from_le_bytes))
}
