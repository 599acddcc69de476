//! From octets to text, with etherparse as the judge of what other programs would read.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{ArpPacketSlice, Ipv4HeaderSlice, TcpHeaderSlice, UdpHeaderSlice};

use super::text::{Ends, hex, key, mac, tag, transport_sum, under_tag};

/// Keys that a tag is tried with.
const KEYS: u8 = 16;

/// A frame as text.
pub fn decode(frame: &[u8]) -> String {
    let mut text = String::new();
    ethernet(&mut text, frame);
    text
}

fn rest(text: &mut String, octets: &[u8]) {
    let counting = octets.iter().enumerate().all(|(at, octet)| at as u8 == *octet);
    if octets.is_empty() {
    } else if counting {
        write!(text, " | data {}", octets.len()).expect("memory");
    } else {
        write!(text, " | hex {}", hex(octets)).expect("memory");
    }
}

fn ethernet(text: &mut String, frame: &[u8]) {
    let Some((header, inside)) = frame.split_at_checked(14) else {
        return text.push_str(&format!("hex {}", hex(frame)));
    };
    if header[12..] == [0x88, 0xb6] {
        errand(text, header);
        return ipv4(text, inside, false);
    }
    let address = |at: usize| mac(header[at..at + 6].try_into().expect("six octets"));
    write!(text, "eth {} > {}", address(6), address(0)).expect("memory");
    match u16::from_be_bytes([header[12], header[13]]) {
        0x0800 => ipv4(text, inside, false),
        0x86dd => ipv6(text, inside, false),
        0x0806 => arp(text, inside),
        0x88b5 => rest(text, inside),
        other => {
            write!(text, " type {other:#06x}").expect("memory");
            rest(text, inside);
        }
    }
}

fn errand(text: &mut String, header: &[u8]) {
    let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four octets"));
    let (pair, vni, mtu) = (word(0) & 0xffff, word(4) >> 8, word(8));
    write!(text, "errand {pair} {vni} {mtu}").expect("memory");
    if word(4) & 1 != 0 {
        text.push_str(" reply");
    }
}

fn arp(text: &mut String, octets: &[u8]) {
    let Ok(arp) = ArpPacketSlice::from_slice(octets) else {
        return rest(text, octets);
    };
    let operation = match arp.operation().0 {
        1 => "request".into(),
        2 => "reply".into(),
        other => other.to_string(),
    };
    let mac = |octets: &[u8]| mac(octets.try_into().expect("six octets"));
    let ip = |octets: &[u8]| Ipv4Addr::from(<[u8; 4]>::try_from(octets).expect("four octets"));
    write!(
        text,
        " | arp {operation} {} {} > {} {}",
        mac(arp.sender_hw_addr()),
        ip(arp.sender_protocol_addr()),
        mac(arp.target_hw_addr()),
        ip(arp.target_protocol_addr())
    )
    .expect("memory");
}

fn ipv4(text: &mut String, octets: &[u8], quoted: bool) {
    let Ok(ip) = Ipv4HeaderSlice::from_slice(octets) else {
        return rest(text, octets);
    };
    text.push_str(" | ");
    ipv4_header(text, &ip, octets.len());
    let header = ip.slice().len();
    let end = octets.len().min(usize::from(ip.total_len()).max(header));
    let inside = &octets[header..end];
    let proto = ip.protocol().0;
    let first = ip.fragments_offset().value() == 0;
    // A checksum is that of the whole datagram.
    let around = if quoted || ip.more_fragments() {
        None
    } else {
        Some((ip.source_addr().into(), ip.destination_addr().into()))
    };
    match proto {
        17 if first => udp(text, inside, around),
        6 if first => tcp(text, inside, around),
        1 if first && !quoted => icmp(text, inside),
        4 if first => ipv4(text, inside, false),
        _ => {
            write!(text, " proto {proto}").expect("memory");
            rest(text, inside);
        }
    }
    if end < octets.len() {
        write!(text, " | pad {}", octets.len() - end).expect("memory");
    }
}

fn ipv4_header(text: &mut String, ip: &Ipv4HeaderSlice<'_>, octets: usize) {
    let named = [
        ("ttl", u64::from(ip.ttl()), 64),
        ("tos", u64::from(ip.slice()[1]), 0),
        ("id", u64::from(ip.identification()), 0),
        ("frag", u64::from(ip.fragments_offset().value()), 0),
    ];
    write!(text, "ipv4 {} > {}", ip.source_addr(), ip.destination_addr()).expect("memory");
    for (name, value, usual) in named {
        if value != usual {
            write!(text, " {name} {value}").expect("memory");
        }
    }
    if ip.dont_fragment() {
        text.push_str(" df");
    }
    if ip.more_fragments() {
        text.push_str(" mf");
    }
    if usize::from(ip.total_len()) > octets {
        write!(text, " len {}", ip.total_len()).expect("memory");
    }
    if !ip.options().is_empty() {
        write!(text, " opts {}", hex(ip.options())).expect("memory");
    }
    if ip.header_checksum() != ip.to_header().calc_header_checksum() {
        text.push_str(" sum bad");
    }
}

fn ipv6(text: &mut String, octets: &[u8], quoted: bool) {
    let Some((header, inside)) = octets.split_at_checked(40) else {
        return rest(text, octets);
    };
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).expect("16 octets"));
    let (first, length, next) = (
        be(header),
        usize::from(header[4]) << 8 | usize::from(header[5]),
        header[6],
    );
    let (source, destination) = (address(8), address(24));
    write!(text, " | ipv6 {source} > {destination}").expect("memory");
    let named = [
        ("version", first >> 28, 6),
        ("hops", u32::from(header[7]), 64),
        ("class", first >> 20 & 0xff, 0),
        ("label", first & 0xf_ffff, 0),
    ];
    for (name, value, usual) in named {
        if value != usual {
            write!(text, " {name} {value}").expect("memory");
        }
    }
    if length > inside.len() {
        write!(text, " len {length}").expect("memory");
    }
    let (inside, padded) = inside.split_at(length.min(inside.len()));
    let ends = (source.into(), destination.into());
    let around = (!quoted).then_some(ends);
    match next {
        17 => udp(text, inside, around),
        6 => tcp(text, inside, around),
        58 if !quoted => icmp6(text, inside, ends),
        41 => ipv6(text, inside, false),
        _ => {
            write!(text, " next {next}").expect("memory");
            rest(text, inside);
        }
    }
    if !padded.is_empty() {
        write!(text, " | pad {}", padded.len()).expect("memory");
    }
}

fn icmp6(text: &mut String, octets: &[u8], ends: Ends) {
    let Some((header, inside)) = octets.split_at_checked(8) else {
        return rest(text, octets);
    };
    write!(text, " | icmp6 {} {}", header[0], header[1]).expect("memory");
    if be(&header[4..8]) != 0 {
        write!(text, " rest {:#x}", be(&header[4..8])).expect("memory");
    }
    if transport_sum(ends, 58, octets.len(), octets) != 0 {
        text.push_str(" sum bad");
    }
    if header[0] < 5 {
        ipv6(text, inside, true);
    } else {
        rest(text, inside);
    }
}

type Around = Option<Ends>;

fn udp(text: &mut String, octets: &[u8], around: Around) {
    let Ok(udp) = UdpHeaderSlice::from_slice(octets) else {
        return rest(text, octets);
    };
    let (from, to, inside) = (udp.source_port(), udp.destination_port(), &octets[8..]);
    write!(text, " | udp {from} > {to}").expect("memory");
    if usize::from(udp.length()) != octets.len() {
        write!(text, " len {}", udp.length()).expect("memory");
    }
    match around {
        None => write!(text, " sum {:#06x}", udp.checksum()).expect("memory"),
        Some(_) if udp.checksum() == 0 => text.push_str(" sum none"),
        Some(ends) => {
            if transport_sum(ends, 17, udp.length().into(), octets) != 0 {
                text.push_str(" sum bad");
            }
        }
    }
    match (from, to) {
        (_, 4789) if inside.len() >= 8 => vxlan(text, inside),
        (_, 6080) if inside.len() >= 20 => gue(text, inside),
        (_, 6081) if inside.len() >= 32 => geneve(text, inside),
        (862, _) | (_, 862) if inside.len() == 60 => stamp(text, inside),
        _ => rest(text, inside),
    }
}

fn tcp(text: &mut String, octets: &[u8], around: Around) {
    let Ok(tcp) = TcpHeaderSlice::from_slice(octets) else {
        let ports = octets.get(..4).map(|four| (be(four) >> 16, be(four) & 0xffff));
        if let Some((from, to)) = ports {
            write!(text, " proto 6 ports {from} {to}").expect("memory");
        }
        return rest(text, octets);
    };
    write!(text, " | tcp {} > {}", tcp.source_port(), tcp.destination_port()).expect("memory");
    let flags: String = [
        (tcp.syn(), 'S'),
        (tcp.ack(), 'A'),
        (tcp.fin(), 'F'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
    ]
    .iter()
    .filter_map(|(set, letter)| set.then_some(*letter))
    .collect();
    if flags != "A" {
        write!(text, " flags {}", if flags.is_empty() { "none" } else { &flags }).expect("memory");
    }
    if tcp.sequence_number() != 0 {
        write!(text, " seq {}", tcp.sequence_number()).expect("memory");
    }
    if tcp.acknowledgment_number() != 0 {
        write!(text, " ack {}", tcp.acknowledgment_number()).expect("memory");
    }
    let inside = &octets[tcp.slice().len()..];
    if around.is_some_and(|ends| transport_sum(ends, 6, octets.len(), octets) != 0) {
        text.push_str(" sum bad");
    }
    rest(text, inside);
}

fn icmp(text: &mut String, octets: &[u8]) {
    let Some((header, inside)) = octets.split_at_checked(8) else {
        return rest(text, octets);
    };
    write!(text, " | icmp {} {}", header[0], header[1]).expect("memory");
    if be(&header[4..8]) != 0 {
        write!(text, " rest {:#x}", be(&header[4..8])).expect("memory");
    }
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(octets);
    if sum.ones_complement() != 0 {
        text.push_str(" sum bad");
    }
    if matches!(header[0], 3 | 11 | 12) {
        ipv4(text, inside, true);
    } else {
        rest(text, inside);
    }
}

fn be(octets: &[u8]) -> u32 {
    u32::from_be_bytes(octets[..4].try_into().expect("four octets"))
}

fn vxlan(text: &mut String, octets: &[u8]) {
    let (flags, vni) = (be(octets), be(&octets[4..]) >> 8);
    write!(text, " | vxlan {vni}").expect("memory");
    if flags != 0x0800_0000 {
        write!(text, " flags {flags:#x}").expect("memory");
    }
    text.push_str(" | ");
    ethernet(text, &octets[8..]);
}

/// Variants 0 and 1: the first two bits say which, as an IP version does.
fn gue(text: &mut String, octets: &[u8]) {
    match *octets {
        [0, proto, 0, 0, ..] => {
            write!(text, " | gue {proto}").expect("memory");
            if proto == 41 {
                ipv6(text, &octets[4..], false);
            } else {
                ipv4(text, &octets[4..], false);
            }
        }
        [first, ..] if first >> 4 == 4 => ipv4(text, octets, false),
        [first, ..] if first >> 4 == 6 => ipv6(text, octets, false),
        _ => rest(text, octets),
    }
}

fn geneve(text: &mut String, octets: &[u8]) {
    let ours = octets[0] == 6 && octets[1] & 0x7f == 0x40 && octets[7..12] == [0, 0xff, 0x4b, 0x81, 5];
    if !ours || octets[2..4] != [8, 0] {
        return rest(text, octets);
    }
    let word = be(&octets[12..]);
    write!(text, " | geneve {} label {}", be(&octets[4..]) >> 8, word >> 12).expect("memory");
    let fields = [
        ("lane", word >> 8 & 15, 0),
        ("inc", word >> 4 & 15, 0),
        ("epoch", word >> 2 & 3, 1),
    ];
    for (name, value, usual) in fields {
        if value != usual {
            write!(text, " {name} {value}").expect("memory");
        }
    }
    write!(text, " seq {}", be(&octets[16..])).expect("memory");
    let stamp = be(&octets[20..]);
    if stamp != 0 {
        // When a packet was sent is not the same in two runs: that it says so, is.
        text.push_str(" time 1");
    }
    let sent = u64::from_le_bytes(octets[24..32].try_into().expect("eight octets"));
    let covered = under_tag(octets);
    match (1..KEYS).find(|number| tag(key(*number), &covered) == sent) {
        Some(number) => write!(text, " key {number}").expect("memory"),
        None => text.push_str(" key none"),
    }
    for (flag, set) in [
        ("reply", word & 1 != 0),
        ("dup", word & 2 != 0),
        ("probe", octets[1] & 0x80 != 0),
    ] {
        if set {
            write!(text, " {flag}").expect("memory");
        }
    }
    ipv4(text, &octets[32..], false);
}

fn stamp(text: &mut String, octets: &[u8]) {
    let word = |index: usize| be(&octets[index * 4..]);
    write!(text, " | stamp {}", word(0)).expect("memory");
    let fields = [
        ("err", word(3) >> 16, 0),
        ("back", word(6), 0),
        ("backerr", word(9) >> 16, 0),
        ("ttl", word(10) >> 24, 0),
        ("tlv", word(11), 0x0005_000c),
    ];
    for (name, value, usual) in fields {
        if value == usual {
        } else if matches!(name, "tlv" | "err" | "backerr") {
            write!(text, " {name} {value:#x}").expect("memory");
        } else {
            write!(text, " {name} {value}").expect("memory");
        }
    }
    let set = |index: usize| {
        if word(index) | word(index + 1) == 0 {
            '-'
        } else {
            'T'
        }
    };
    write!(text, " times {}{}{}", set(1), set(4), set(7)).expect("memory");
    write!(text, " counters {} {} {}", word(12), word(13), word(14)).expect("memory");
}
