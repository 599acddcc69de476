//! A packet on a line.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use kuafu_dataplane::capture::{Carried, Passage, Side, Snapshot};

/// A line for each side of the program.
pub(super) fn lines(passage: &Passage) -> impl Iterator<Item = String> {
    passage
        .snapshots()
        .map(|(side, snapshot)| line(passage, side, snapshot))
}

fn line(passage: &Passage, side: Side, snapshot: &Snapshot) -> String {
    let what = match (side, passage.reason) {
        (Side::Before, _) => "in".to_owned(),
        (Side::After, None) => passage.word().to_owned(),
        (Side::After, Some(reason)) => format!("{} {}", passage.word(), reason.word()),
    };
    format!(
        "{} {} {} {}: {what}  {}",
        time_of_day(snapshot.time),
        passage.interface,
        passage.hook,
        passage.program.word(),
        frame(&snapshot.octets)
    )
}

/// Of UTC, to the microsecond.
fn time_of_day(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let of_day = since.as_secs() % 86_400;
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!(
        "{hours:02}:{minutes:02}:{seconds:02}.{:06}",
        since.subsec_micros()
    )
}

/// A frame, and what it carries.
fn frame(octets: &[u8]) -> String {
    let mut text = match LaxSlicedPacket::from_ethernet(octets) {
        Ok(packet) => describe(&packet, octets.len()),
        Err(_) => format!("{} octets that are no frame", octets.len()),
    };
    match Carried::of(octets) {
        Some(Carried::Vpc { vni, frame: inner }) => {
            let _ = write!(text, " | vni {vni} | {}", frame(inner));
        }
        Some(Carried::Backbone { header, packet }) => {
            let word = header.word();
            let _ = write!(
                text,
                " | vni {} label {} lane {} seq {} incarnation {} epoch {}{}{} | ",
                header.vni(),
                word.label(),
                word.lane(),
                header.sequence(),
                word.incarnation(),
                word.epoch(),
                if word.is_reply() { " reply" } else { "" },
                if header.is_probe() { " probe" } else { "" },
            );
            text += &match LaxSlicedPacket::from_ip(packet) {
                Ok(inner) => describe(&inner, packet.len()),
                Err(_) => format!("{} octets that are no IP packet", packet.len()),
            };
        }
        None => {}
    }
    text
}

fn describe(packet: &LaxSlicedPacket<'_>, length: usize) -> String {
    let (from, to) = match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let [from, to] =
                [header.source(), header.destination()].map(|address| Ipv4Addr::from(address).to_string());
            (from, to)
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            (
                format!("[{}]", header.source_addr()),
                format!("[{}]", header.destination_addr()),
            )
        }
        Some(LaxNetSlice::Arp(arp)) => return format!("arp, operation {}", arp.operation().0),
        None => return format!("{length} octets that are no IP packet"),
    };
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            let payload = udp.payload().len();
            format!(
                "{from}:{} > {to}:{} udp {payload}",
                udp.source_port(),
                udp.destination_port()
            )
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = [
                (tcp.syn(), 'S'),
                (tcp.fin(), 'F'),
                (tcp.rst(), 'R'),
                (tcp.psh(), 'P'),
                (tcp.ack(), '.'),
            ];
            let flags: String = flags
                .into_iter()
                .filter_map(|(is_set, flag)| is_set.then_some(flag))
                .collect();
            let (source, destination) = (tcp.source_port(), tcp.destination_port());
            format!(
                "{from}:{source} > {to}:{destination} tcp {flags} {}",
                tcp.payload().len()
            )
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            format!(
                "{from} > {to} icmp type {} code {}",
                icmp.type_u8(),
                icmp.code_u8()
            )
        }
        _ => format!("{from} > {to}, {length} octets"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use kuafu_pipeline::Reason;
    use kuafu_pipeline::header::geneve::{Geneve, Header, Word};
    use kuafu_pipeline::map::CapturedProgram;

    use super::*;

    /// A relayed packet: Ethernet, IPv4, UDP 6081, Geneve with the option, and the client's UDP in it.
    fn relayed() -> Vec<u8> {
        let inner =
            etherparse::PacketBuilder::ipv4([203, 0, 113, 9], [198, 51, 100, 1], 64).udp(40_000, 7000);
        let mut packet = Vec::new();
        inner.write(&mut packet, b"hello").unwrap();
        let mut geneve = [0; 32];
        Geneve::at::<0, 32>(&mut geneve)
            .write(&Header::new(false, 101, Word::new(17, 3, 1, 0, true), 5, 0), 7);
        let outer = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .udp(50_003, 6081);
        let mut octets = Vec::new();
        outer
            .write(&mut octets, &[&geneve, packet.as_slice()].concat())
            .unwrap();
        octets
    }

    pub(in crate::verb::capture) fn passage() -> Passage {
        let snapshot = |microseconds| Snapshot {
            time: UNIX_EPOCH + Duration::from_micros(microseconds),
            length: 1500,
            octets: relayed(),
        };
        Passage {
            number: 1,
            program: CapturedProgram::Edge,
            hook: "xdp native",
            interface: "eth0".to_owned(),
            verdict: 3,
            reason: None,
            before: Some(snapshot(86_400_000_000 * 3 + 45_296_000_007)),
            after: snapshot(86_400_000_000 * 3 + 45_296_000_009),
        }
    }

    #[test]
    fn both_sides_are_a_line_each() {
        let lines: Vec<_> = lines(&passage()).collect();
        let packet = "192.0.2.1:50003 > 192.0.2.2:6081 udp 65 | vni 101 label 17 lane 3 seq 5 incarnation 1 epoch 0 reply | \
                      203.0.113.9:40000 > 198.51.100.1:7000 udp 5";
        let expected = [
            format!("12:34:56.000007 eth0 xdp native edge: in  {packet}"),
            format!("12:34:56.000009 eth0 xdp native edge: tx  {packet}"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_drop_has_its_reason() {
        let mut dropped = passage();
        (dropped.before, dropped.verdict, dropped.reason) = (None, 1, Some(Reason::BadTag));
        dropped.after.octets.truncate(40);
        let lines: Vec<_> = lines(&dropped).collect();
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].contains("edge: drop bad_tag  192.0.2.1 > 192.0.2.2"),
            "{lines:?}"
        );
    }

    #[test]
    fn any_octets_are_a_line() {
        let whole = relayed();
        for length in 0..whole.len() {
            let text = frame(&whole[..length]);
            assert!(!text.is_empty() && !text.contains('\n'));
        }
        for octet in 0..whole.len() {
            let mut changed = whole.clone();
            changed[octet] ^= 0xff;
            frame(&changed);
        }
    }
}
