//! Packets as text: layers from the outside in, parted by `|`.
//!
//! ```text
//! eth m02 > m01 | ipv4 192.0.2.2 > 192.0.2.1 | udp 50000 > 6081 sum none
//!   | geneve 100 label 6 seq 1 key 3 | ipv4 203.0.113.7 > 198.51.100.2 | udp 4000 > 7000 | data 16
//! ```
//!
//! | layer | may say |
//! |---|---|
//! | `eth A > B` | `type 0x88b5` |
//! | `errand PAIR VNI MTU` | `reply`, `back`: of a packet on the slow path, in place of `eth` |
//! | `arp request\|reply\|N MAC IP > MAC IP` | |
//! | `ipv4 A > B` | `ttl`, `tos`, `id`, `df`, `mf`, `frag`, `proto`, `len`, `opts HEX`, `sum bad` |
//! | `ipv6 A > B` | `hops`, `class`, `label`, `next`, `len`, `version` |
//! | `udp A > B`, `tcp A > B` | `len`; `flags SAFRP`, `seq`, `off`; `sum none\|bad\|0x…` |
//! | `icmp TYPE CODE`, `icmp6 TYPE CODE` | `rest 0x…`, `sum bad` |
//! | `vxlan VNI` | `flags 0x…` |
//! | `gue PROTO` | the header of variant 0; variant 1 has none |
//! | `geneve VNI` | `label`, `lane`, `inc`, `epoch`, `seq`, `time`, `key N\|none`, `reply`, `dup`, `probe`, `proto 0x…` |
//! | `stamp SEQ` | `err`, `tlv`, `times`, `counters A B C`, `back SEQ`, `backerr`, `ttl` |
//! | `data N`, `hex …` | octets 0, 1, 2 …; any |
//! | `pad N`, `cut N` | zeros behind the packet; only the first N octets of the frame |
//!
//! What is not said has its usual value: checksums right, lengths as they are, TTL 64. `mNN` is 02:00:00:00:00:NN.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;

/// The key of that number: all of its octets are the number.
pub fn key(number: u8) -> [u8; 16] {
    [number; 16]
}

/// The 60 octets under the tag, of a frame's octets from Geneve on.
pub fn under_tag(geneve: &[u8]) -> Vec<u8> {
    let mut covered = [&geneve[..8], &geneve[12..24]].concat();
    covered.extend(geneve[32..].iter().take(40));
    covered.resize(60, 0);
    covered
}

/// SipHash-2-4, by an implementation that is not the pipeline's.
#[allow(
    deprecated,
    reason = "the standard library has no other SipHash-2-4 with keys of one's own"
)]
pub fn tag(key: [u8; 16], covered: &[u8]) -> u64 {
    use std::hash::Hasher;
    let half = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().expect("eight octets"));
    let mut hasher = std::hash::SipHasher::new_with_keys(half(0), half(8));
    hasher.write(covered);
    hasher.finish()
}

/// Both addresses of a packet.
pub type Ends = (IpAddr, IpAddr);

/// The checksum of a transport's octets between these ends, of which the pseudo-header says `length` (RFC 9293, §3.1; RFC
/// 8200, §8.1); 0 where a right one is among them.
pub fn transport_sum(ends: Ends, protocol: u8, length: usize, octets: &[u8]) -> u16 {
    let addresses = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
        _ => panic!("ends of two families"),
    };
    Sum16BitWords::new()
        .add_slice(&addresses)
        .add_4bytes((length as u32).to_be_bytes())
        .add_2bytes([0, protocol])
        .add_slice(octets)
        .ones_complement()
        .to_be()
}

/// An Ethernet address as text.
pub fn mac(octets: [u8; 6]) -> String {
    match octets {
        [2, 0, 0, 0, 0, last] => format!("m{last:02x}"),
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => "all".into(),
        other => hex(&other),
    }
}

/// An Ethernet address from text.
pub fn parse_mac(text: &str) -> [u8; 6] {
    match text.strip_prefix('m') {
        Some(last) => [2, 0, 0, 0, 0, u8::from_str_radix(last, 16).expect("two digits")],
        None if text == "all" => [0xff; 6],
        None => unhex(text).try_into().expect("six octets"),
    }
}

/// Octets as digits.
pub fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Octets from digits.
pub fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits"))
        .collect()
}
