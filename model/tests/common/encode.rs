//! From text to octets.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::checksum::Sum16BitWords;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, TcpHeader, UdpHeader};

use super::text::{Ends, key, parse_mac, tag, transport_sum, under_tag, unhex};

/// A frame from its text.
pub fn encode(text: &str) -> Vec<u8> {
    let layers: Vec<Layer<'_>> = text.split('|').map(Layer::new).collect();
    let (shapes, layers): (Vec<_>, Vec<_>) = layers.into_iter().partition(|layer| layer.is_shape());
    let mut frame = from(&layers, None);
    for shape in shapes {
        let octets = shape.number(1);
        let len = if shape.words[0] == "cut" {
            octets
        } else {
            frame.len() + octets
        };
        frame.resize(len, 0);
    }
    frame
}

/// One layer's words.
struct Layer<'a> {
    words: Vec<&'a str>,
}

/// Addresses for the checksums of what is inside.
type Around = Option<Ends>;

impl<'a> Layer<'a> {
    fn new(text: &'a str) -> Self {
        let words: Vec<_> = text.split_whitespace().collect();
        assert!(!words.is_empty(), "an empty layer");
        Self { words }
    }

    fn is_shape(&self) -> bool {
        matches!(self.words[0], "cut" | "pad")
    }

    fn number(&self, at: usize) -> usize {
        self.words[at].parse().expect("a number")
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        let at = self.words.iter().position(|word| *word == name)?;
        Some(self.words[at + 1])
    }

    fn int(&self, name: &str, default: u64) -> u64 {
        self.value(name)
            .map_or(default, |text| match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).expect("digits"),
                None => text.parse().expect("a number"),
            })
    }

    fn has(&self, flag: &str) -> bool {
        self.words.contains(&flag)
    }

    /// The checksum to write, where `right` is the right one.
    fn checksum(&self, right: u16) -> u16 {
        match self.value("sum") {
            None => right,
            Some("none") => 0,
            Some("bad") => right ^ 0x5555,
            Some(_) => self.int("sum", 0) as u16,
        }
    }
}

/// The octets of these layers.
fn from(layers: &[Layer<'_>], around: Around) -> Vec<u8> {
    let Some((layer, inside)) = layers.split_first() else {
        return Vec::new();
    };
    match layer.words[0] {
        "eth" => ethernet(layer, inside),
        "errand" => errand(layer, inside),
        "arp" => arp(layer),
        "ipv4" => ipv4(layer, inside),
        "ipv6" => ipv6(layer, inside),
        "udp" => udp(layer, from(inside, None), around),
        "tcp" => tcp(layer, from(inside, None), around),
        "icmp" => icmp(layer, from(inside, None), |octets| {
            Sum16BitWords::new().add_slice(octets).ones_complement().to_be()
        }),
        "icmp6" => icmp6(layer, from(inside, None), around),
        "vxlan" => vxlan(layer, from(inside, None)),
        "gue" => [&[0, layer.number(1) as u8, 0, 0][..], &from(inside, None)].concat(),
        "geneve" => geneve(layer, from(inside, None)),
        "stamp" => stamp(layer),
        "data" => (0..layer.number(1)).map(|octet| octet as u8).collect(),
        "hex" => unhex(layer.words[1]),
        other => panic!("no layer is called {other}"),
    }
}

fn ethernet(layer: &Layer<'_>, inside: &[Layer<'_>]) -> Vec<u8> {
    let implied = match inside.first().map(|layer| layer.words[0]) {
        Some("arp") => 0x0806,
        Some("ipv4") => 0x0800,
        Some("ipv6") => 0x86dd,
        _ => 0x88b5,
    };
    let ethertype = layer.int("type", implied) as u16;
    let (source, destination) = (parse_mac(layer.words[1]), parse_mac(layer.words[3]));
    [
        &destination[..],
        &source,
        &ethertype.to_be_bytes(),
        &from(inside, None),
    ]
    .concat()
}

fn errand(layer: &Layer<'_>, inside: &[Layer<'_>]) -> Vec<u8> {
    let [pair, vni, mtu] = [1, 2, 3].map(|at| layer.number(at) as u32);
    let ethertype: u16 = if layer.has("back") { 0x0800 } else { 0x88b6 };
    [
        &(0x4b56 << 16 | pair).to_be_bytes()[..],
        &(vni << 8 | u32::from(layer.has("reply"))).to_be_bytes(),
        &mtu.to_be_bytes(),
        &ethertype.to_be_bytes(),
        &from(inside, None),
    ]
    .concat()
}

fn arp(layer: &Layer<'_>) -> Vec<u8> {
    let operation: u16 = match layer.words[1] {
        "request" => 1,
        "reply" => 2,
        number => number.parse().expect("a number"),
    };
    let address = |at: usize| layer.words[at].parse::<Ipv4Addr>().expect("an address").octets();
    let mut octets = vec![0, 1, 8, 0, 6, 4];
    octets.extend(operation.to_be_bytes());
    octets.extend(parse_mac(layer.words[2]));
    octets.extend(address(3));
    octets.extend(parse_mac(layer.words[5]));
    octets.extend(address(6));
    octets
}

fn ipv4(layer: &Layer<'_>, inside: &[Layer<'_>]) -> Vec<u8> {
    let address = |at: usize| layer.words[at].parse::<Ipv4Addr>().expect("an address");
    let (source, destination) = (address(1), address(3));
    let payload = from(inside, Some((source.into(), destination.into())));
    let implied = match inside.first().map(|layer| layer.words[0]) {
        Some("udp") => 17,
        Some("tcp") => 6,
        Some("icmp") => 1,
        Some("ipv4") => 4,
        _ => 253,
    };
    let mut header = Ipv4Header::new(
        0,
        layer.int("ttl", 64) as u8,
        IpNumber(layer.int("proto", implied) as u8),
        source.octets(),
        destination.octets(),
    )
    .expect("a header");
    let tos = layer.int("tos", 0) as u8;
    header.dscp = (tos >> 2).try_into().expect("six bits");
    header.ecn = (tos & 3).try_into().expect("two bits");
    header.identification = layer.int("id", 0) as u16;
    header.dont_fragment = layer.has("df");
    header.more_fragments = layer.has("mf");
    header.fragment_offset = IpFragOffset::try_new(layer.int("frag", 0) as u16).expect("13 bits");
    if let Some(options) = layer.value("opts") {
        header.options = Ipv4Options::try_from(&unhex(options)[..]).expect("options");
    }
    let length = header.header_len() + payload.len();
    header.total_len = layer.int("len", length as u64) as u16;
    header.header_checksum = layer.checksum(header.calc_header_checksum());
    let mut octets = header.to_bytes().to_vec();
    octets.extend(payload);
    octets
}

fn ipv6(layer: &Layer<'_>, inside: &[Layer<'_>]) -> Vec<u8> {
    let address = |at: usize| layer.words[at].parse::<Ipv6Addr>().expect("an address");
    let (source, destination) = (address(1), address(3));
    let payload = from(inside, Some((source.into(), destination.into())));
    let implied = match inside.first().map(|layer| layer.words[0]) {
        Some("udp") => 17,
        Some("tcp") => 6,
        Some("icmp6") => 58,
        Some("ipv6") => 41,
        _ => 253,
    };
    let first = (layer.int("version", 6) << 28 | layer.int("class", 0) << 20 | layer.int("label", 0)) as u32;
    let mut octets = first.to_be_bytes().to_vec();
    octets.extend((layer.int("len", payload.len() as u64) as u16).to_be_bytes());
    octets.extend([layer.int("next", implied) as u8, layer.int("hops", 64) as u8]);
    octets.extend(source.octets());
    octets.extend(destination.octets());
    octets.extend(payload);
    octets
}

fn ports(layer: &Layer<'_>) -> (u16, u16) {
    (layer.number(1) as u16, layer.number(3) as u16)
}

fn udp(layer: &Layer<'_>, payload: Vec<u8>, around: Around) -> Vec<u8> {
    let (source_port, destination_port) = ports(layer);
    let mut header = UdpHeader {
        source_port,
        destination_port,
        length: layer.int("len", payload.len() as u64 + 8) as u16,
        checksum: 0,
    };
    let octets = [&header.to_bytes()[..], &payload].concat();
    // A sum of zero is sent as all ones (RFC 768).
    let right = |ends| match transport_sum(ends, 17, header.length.into(), &octets) {
        0 => 0xffff,
        sum => sum,
    };
    header.checksum = layer.checksum(around.map_or(0, right));
    [&header.to_bytes()[..], &payload].concat()
}

fn tcp(layer: &Layer<'_>, payload: Vec<u8>, around: Around) -> Vec<u8> {
    let (source, destination) = ports(layer);
    let mut header = TcpHeader::new(source, destination, layer.int("seq", 0) as u32, 0xffff);
    let flags = layer.value("flags").unwrap_or("A");
    let flags = if flags == "none" { "" } else { flags };
    (header.syn, header.ack) = (flags.contains('S'), flags.contains('A'));
    header.acknowledgment_number = layer.int("ack", 0) as u32;
    (header.fin, header.rst, header.psh) = (flags.contains('F'), flags.contains('R'), flags.contains('P'));
    let octets = [&header.to_bytes()[..], &payload].concat();
    let right = around.map_or(0, |ends| transport_sum(ends, 6, octets.len(), &octets));
    header.checksum = layer.checksum(right);
    let mut octets = header.to_bytes().to_vec();
    octets[12] = (layer.int("off", 5) as u8) << 4;
    octets.extend(payload);
    octets
}

fn icmp6(layer: &Layer<'_>, payload: Vec<u8>, around: Around) -> Vec<u8> {
    let ends = around.expect("ICMPv6 is in IPv6");
    icmp(layer, payload, |octets| {
        transport_sum(ends, 58, octets.len(), octets)
    })
}

fn icmp(layer: &Layer<'_>, payload: Vec<u8>, sum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
    let rest = layer.int("rest", 0) as u32;
    let mut octets = vec![layer.number(1) as u8, layer.number(2) as u8, 0, 0];
    octets.extend(rest.to_be_bytes());
    octets.extend(payload);
    let right = sum(&octets);
    octets[2..4].copy_from_slice(&layer.checksum(right).to_be_bytes());
    octets
}

fn vxlan(layer: &Layer<'_>, payload: Vec<u8>) -> Vec<u8> {
    let (flags, vni) = (
        layer.int("flags", 0x0800_0000) as u32,
        (layer.number(1) as u32) << 8,
    );
    [&flags.to_be_bytes()[..], &vni.to_be_bytes(), &payload].concat()
}

fn geneve(layer: &Layer<'_>, payload: Vec<u8>) -> Vec<u8> {
    let control = if layer.has("probe") { 0x80 } else { 0 };
    let mut octets = vec![6, 0x40 | control];
    octets.extend((layer.int("proto", 0x0800) as u16).to_be_bytes());
    octets.extend(((layer.number(1) as u32) << 8).to_be_bytes());
    octets.extend([0xff, 0x4b, 0x81, 0x05]);
    let word = (layer.int("label", 0) << 12)
        | (layer.int("lane", 0) << 8)
        | (layer.int("inc", 0) << 4)
        | (layer.int("epoch", 1) << 2)
        | u64::from(layer.has("dup")) << 1
        | u64::from(layer.has("reply"));
    octets.extend((word as u32).to_be_bytes());
    octets.extend((layer.int("seq", 0) as u32).to_be_bytes());
    octets.extend((layer.int("time", 0) as u32).to_be_bytes());
    octets.extend([0; 8]);
    octets.extend(payload);
    let number = match layer.value("key") {
        None | Some("none") => 0,
        Some(_) => layer.int("key", 0) as u8,
    };
    let tag = tag(key(number), &under_tag(&octets));
    octets[24..32].copy_from_slice(&tag.to_le_bytes());
    octets
}

fn stamp(layer: &Layer<'_>) -> Vec<u8> {
    let at = layer.words.iter().position(|word| *word == "counters");
    let counter = |index: usize| at.map_or(0, |at| layer.number(at + index) as u32);
    let words: [u32; 15] = [
        layer.number(1) as u32,
        0,
        0,
        (layer.int("err", 0) as u32) << 16,
        0,
        0,
        layer.int("back", 0) as u32,
        0,
        0,
        (layer.int("backerr", 0) as u32) << 16,
        (layer.int("ttl", 0) as u32) << 24,
        layer.int("tlv", 0x0005_000c) as u32,
        counter(1),
        counter(2),
        counter(3),
    ];
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}
