//! The packet that is asked about: built from what is said of it, or taken from where it was seen.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result as Any, anyhow, bail, ensure};
use clap::ValueEnum;
use etherparse::{
    IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice, ip_number,
};
use kuafu_model::kinds::Mac;
use kuafu_pipeline::header::{Errand, Ethernet};

/// Where the packet comes from.
#[derive(Debug, clap::Args)]
#[group(id = "packet", required = true, multiple = true, args = ["to", "hex", "pcap"])]
pub(super) struct FrameArgs {
    /// Its source; the default is the port's address
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    from: Option<End>,
    /// Its destination
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    to: Option<End>,
    /// Its protocol; by default udp where a port is given, else icmp
    #[arg(long, value_name = "PROTOCOL")]
    proto: Option<Proto>,
    /// Octets behind its headers
    #[arg(long, value_name = "OCTETS", default_value_t = 32)]
    payload: u16,
    /// Forbid fragmenting it, as IPv6 does always
    #[arg(long)]
    df: bool,
    /// Its Ethernet source; the default is the one that a port with its address has
    #[arg(long, value_name = "MAC")]
    from_mac: Option<Mac>,
    /// The whole frame as hexadecimal digits
    #[arg(long, value_name = "DIGITS", conflicts_with_all = ["to", "from", "pcap"])]
    hex: Option<String>,
    /// A capture, as tcpdump -w writes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "from"])]
    pcap: Option<PathBuf>,
    /// Which packet of the capture, from 1
    #[arg(long, value_name = "NUMBER", requires = "pcap", default_value_t = 1)]
    number: usize,
}

/// An address, and a port where the protocol has such.
#[derive(Clone, Copy, Debug)]
struct End {
    address: IpAddr,
    port: Option<u16>,
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, port: None });
        }
        let both: SocketAddr = text.parse().map_err(|_| {
            "expected an address, with or without a port: 10.0.0.5:80 or [2001:db8::5]:80".to_owned()
        })?;
        Ok(Self {
            address: both.ip(),
            port: Some(both.port()),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Proto {
    Udp,
    Tcp,
    Icmp,
}

impl FrameArgs {
    /// The frame, from its Ethernet header on. `sender` is the address, and the Ethernet address if it is known, of the
    /// port that sends it.
    pub(super) fn build(&self, sender: Option<(Ipv4Addr, Option<[u8; 6]>)>) -> Any<Vec<u8>> {
        if let Some(digits) = &self.hex {
            return digits_to_octets(digits);
        }
        if let Some(file) = &self.pcap {
            let capture = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            return nth_of_capture(&capture, self.number, file);
        }
        let to = self.to.context("no --to")?;
        let port_of = |address: Ipv4Addr| End {
            address: address.into(),
            port: None,
        };
        let from = self.from.or(sender.map(|(address, _)| port_of(address)));
        let from = from.context("no --from: an interface alone does not say who sends")?;
        let mac = match (self.from_mac, sender) {
            (Some(mac), _) => mac.octets(),
            (None, Some((_, Some(mac)))) => mac,
            (None, _) => derived_mac(from.address),
        };
        self.between(mac, from, to)
    }

    fn between(&self, mac: [u8; 6], from: End, to: End) -> Any<Vec<u8>> {
        let ported = from.port.is_some() || to.port.is_some();
        let proto = self
            .proto
            .unwrap_or(if ported { Proto::Udp } else { Proto::Icmp });
        ensure!(!(ported && proto == Proto::Icmp), "ICMP has no ports");
        let ip = PacketBuilder::ethernet2(mac, derived_mac(to.address)).ip(self.header(proto, from, to)?);
        let (source, destination) = (from.port.unwrap_or(40_000), to.port.unwrap_or(7));
        let payload = vec![0; self.payload.into()];
        let mut frame = Vec::new();
        match proto {
            Proto::Udp => ip.udp(source, destination).write(&mut frame, &payload)?,
            Proto::Tcp => ip
                .tcp(source, destination, 1, 65_535)
                .syn()
                .write(&mut frame, &payload)?,
            Proto::Icmp if to.address.is_ipv6() => {
                ip.icmpv6_echo_request(1, 1).write(&mut frame, &payload)?;
            }
            Proto::Icmp => ip.icmpv4_echo_request(1, 1).write(&mut frame, &payload)?,
        }
        Ok(frame)
    }

    fn header(&self, proto: Proto, from: End, to: End) -> Any<IpHeaders> {
        const TTL: u8 = 64;
        let number = proto.number(to.address);
        Ok(match (from.address, to.address) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = Ipv4Header::new(0, TTL, number, from.octets(), to.octets())?;
                ip.dont_fragment = self.df;
                IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: 0,
                    next_header: number,
                    hop_limit: TTL,
                    source: from.octets(),
                    destination: to.octets(),
                };
                IpHeaders::Ipv6(ip, etherparse::Ipv6Extensions::default())
            }
            (from, to) => bail!("--from {from} and --to {to} are not of one family"),
        })
    }
}

impl Proto {
    const fn number(self, to: IpAddr) -> IpNumber {
        match (self, to) {
            (Self::Udp, _) => ip_number::UDP,
            (Self::Tcp, _) => ip_number::TCP,
            (Self::Icmp, IpAddr::V4(_)) => ip_number::ICMP,
            (Self::Icmp, IpAddr::V6(_)) => ip_number::IPV6_ICMP,
        }
    }
}

/// What a port has unless its manifest says otherwise.
fn derived_mac(address: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
    };
    [2, 0, a, b, c, d]
}

fn digits_to_octets(text: &str) -> Any<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| {
            c.to_digit(16)
                .ok_or_else(|| anyhow!("--hex: {c:?} is no hexadecimal digit"))
        })
        .collect::<Any<_>>()?;
    ensure!(digits.len().is_multiple_of(2), "--hex: an odd number of digits");
    digits
        .chunks_exact(2)
        .map(|pair| Ok(u8::try_from(pair[0] << 4 | pair[1])?))
        .collect()
}

/// A packet of a capture file in libpcap's format, with Ethernet headers.
fn nth_of_capture(capture: &[u8], number: usize, file: &Path) -> Any<Vec<u8>> {
    const HEADER: usize = 24;
    const RECORD: usize = 16;
    const ETHERNET: u32 = 1;
    let name = file.display();
    let read: fn([u8; 4]) -> u32 = match capture.first_chunk() {
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => u32::from_le_bytes,
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => u32::from_be_bytes,
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => {
            bail!("{name} is pcapng; convert it: tcpdump -r {name} -w packets.pcap")
        }
        _ => bail!("{name} is no capture as tcpdump -w writes it"),
    };
    let word = |at: usize| capture.get(at..)?.first_chunk().copied().map(read);
    ensure!(
        word(20) == Some(ETHERNET),
        "{name} was not captured on an Ethernet device"
    );
    let mut at = HEADER;
    let mut seen = 0;
    while let Some(length) = word(at + 8) {
        let from = at + RECORD;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| from.checked_add(length));
        seen += 1;
        let packet = end.and_then(|end| Some((end, capture.get(from..end)?)));
        let (end, packet) = packet.with_context(|| format!("{name}: packet {seen} is cut off"))?;
        if seen == number {
            return Ok(packet.to_vec());
        }
        at = end;
    }
    bail!("{name} has {seen} packets, not {number}")
}

/// A frame in one line.
pub(super) fn summary(frame: &[u8]) -> String {
    let mut text = String::new();
    let errand = frame
        .split_first_chunk::<{ Ethernet::LEN }>()
        .and_then(|(head, packet)| {
            let mut head = *head;
            let errand = Errand::at::<0, _>(&mut head);
            let cut = errand
                .to_cut()
                .map(|(way, _)| ("to be fragmented by the prober", way));
            let copied = || {
                errand
                    .to_copy()
                    .map(|(way, ..)| ("to be sent over both paths", way))
            };
            Some((cut.or_else(copied)?, packet))
        });
    let sliced = match errand {
        Some(((what, way), packet)) => {
            let _ = write!(text, "{what}, for pair {}: ", way.pair);
            SlicedPacket::from_ip(packet)
        }
        None => SlicedPacket::from_ethernet(frame),
    };
    if let Ok(packet) = sliced {
        let ends: Option<(IpAddr, IpAddr, IpNumber)> = match &packet.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let (from, to) = (header.source_addr(), header.destination_addr());
                Some((from.into(), to.into(), header.protocol()))
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let (from, to) = (header.source_addr(), header.destination_addr());
                Some((from.into(), to.into(), header.next_header()))
            }
            _ => None,
        };
        if let Some((from, to, protocol)) = ends {
            let _ = write!(text, "{from} > {to}");
            let _ = match &packet.transport {
                Some(TransportSlice::Udp(udp)) => {
                    write!(text, ", UDP {} > {}", udp.source_port(), udp.destination_port())
                }
                Some(TransportSlice::Tcp(tcp)) => {
                    write!(text, ", TCP {} > {}", tcp.source_port(), tcp.destination_port())
                }
                Some(TransportSlice::Icmpv4(icmp)) => {
                    write!(text, ", ICMP type {} code {}", icmp.type_u8(), icmp.code_u8())
                }
                Some(TransportSlice::Icmpv6(icmp)) => {
                    write!(text, ", ICMPv6 type {} code {}", icmp.type_u8(), icmp.code_u8())
                }
                _ => write!(text, ", IP protocol {}", protocol.0),
            };
            text += ", ";
        } else if packet.net.is_some() {
            text += "not IP, ";
        }
    }
    let _ = write!(text, "{} octets", frame.len());
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn digits_may_stand_apart() {
        assert_eq!(digits_to_octets("02 00:0a0B").unwrap(), [2, 0, 10, 11]);
        assert!(digits_to_octets("020").is_err());
        assert!(digits_to_octets("0g").is_err());
    }

    #[test]
    fn a_packet_of_either_family_is_built() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            frame: FrameArgs,
        }
        let built = |from: &str, to: &str| {
            let line = Line::try_parse_from(["x", "--from", from, "--to", to]).unwrap();
            line.frame.build(None).map(|frame| summary(&frame))
        };
        assert_eq!(
            built("[2001:db8::7]:40000", "[2001:db8::80]:443").unwrap(),
            "2001:db8::7 > 2001:db8::80, UDP 40000 > 443, 94 octets"
        );
        assert_eq!(
            built("2001:db8::7", "2001:db8::80").unwrap(),
            "2001:db8::7 > 2001:db8::80, ICMPv6 type 128 code 0, 94 octets"
        );
        assert!(
            built("192.0.2.7:1", "192.0.2.8:2")
                .unwrap()
                .starts_with("192.0.2.7 > ")
        );
        let refused = built("192.0.2.7", "2001:db8::80").unwrap_err().to_string();
        assert_eq!(
            refused,
            "--from 192.0.2.7 and --to 2001:db8::80 are not of one family"
        );
    }

    #[test]
    fn a_capture_gives_its_nth_packet() {
        let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        capture.extend([0; 8]);
        capture.extend([0, 0, 4, 0, 1, 0, 0, 0]);
        for packet in [[1, 2, 3], [4, 5, 6]] {
            capture.extend([0; 8]);
            capture.extend([3, 0, 0, 0, 3, 0, 0, 0]);
            capture.extend(packet);
        }
        let file = Path::new("x.pcap");
        assert_eq!(nth_of_capture(&capture, 2, file).unwrap(), [4, 5, 6]);
        assert_eq!(
            nth_of_capture(&capture, 3, file).unwrap_err().to_string(),
            "x.pcap has 2 packets, not 3"
        );
        let cut = nth_of_capture(&capture[..capture.len() - 1], 2, file).unwrap_err();
        assert_eq!(cut.to_string(), "x.pcap: packet 2 is cut off");
        assert!(nth_of_capture(b"text", 1, file).is_err());
    }
}
