//! QUIC's ids, ICMP errors, policies, IPv6.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use etherparse::PacketBuilder;
use kuafu_dataplane::bpf::{Program, TestRun};
use serde_json::{Value, json};

use super::instance::{
    DROP, GATEWAY_MAC, OUTER_V6, OWN_MAC, PASS, Pinned, SERVICE, TX, client, config, ethernet, forwarded,
    skipped, target, targets, tcp, udp_from,
};

#[test]
fn quic_connections_are_told_by_their_ids() {
    if skipped() {
        return;
    }
    let mut config = config(&targets(10, &[]));
    config["services"][1]["quic"] = json!(true);
    config["quic"] = json!({
        "cid_layout": {"kind": "tagged"},
        "server_ids": [{"id": 1025, "target": target(4)}, {"id": "0x010203", "target": "192.0.2.99"}],
    });
    let pinned = Pinned::new("quic", &config);
    let program = pinned.program();
    let short = |id: [u8; 8]| [&[0x40], &id[..], &[0; 12]].concat();
    let known = short([0b0100_0001, 0, 0b0100_0000, 9, 9, 9, 9, 9]);
    let named = short([0b1000_0000, 1, 2, 3, 9, 9, 9, 9]);
    let unknown = short([0b0100_0001, 0xff, 0b0100_0000, 9, 9, 9, 9, 9]);
    let long = [
        &[0xc0, 0, 0, 0, 1, 8],
        &[0b0100_0001, 0, 0b0100_0000, 9, 9, 9, 9, 9][..],
        &[0; 30],
    ]
    .concat();
    let mut by_ring = HashSet::new();
    for number in 0..1000 {
        let from = client(number);
        let ring = forwarded(&program, &udp_from(from, &long));
        by_ring.insert(ring);
        assert_eq!(
            forwarded(&program, &udp_from(from, &unknown)),
            ring,
            "as the flow's packets before"
        );
        assert_eq!(
            forwarded(&program, &udp_from(from, &known)).to_string(),
            target(4)
        );
        assert_eq!(
            forwarded(&program, &udp_from(from, &unknown)).to_string(),
            target(4),
            "which it follows"
        );
        assert_eq!(
            forwarded(&program, &udp_from(from, &named)).to_string(),
            "192.0.2.99"
        );
    }
    assert_eq!(by_ring.len(), 10);
    // A server that is none of the service's targets outlives a change of these.
    config["services"][1]["targets"] = targets(10, &[2]);
    pinned.configure(&config);
    for number in 0..1000 {
        assert_eq!(
            forwarded(&program, &udp_from(client(number), &unknown)).to_string(),
            "192.0.2.99"
        );
    }

    config["quic"] = json!({
        "cid_layout": {"kind": "quic-lb-plain", "config_rotation": 2, "server_id_bytes": 3},
        "server_ids": [{"id": 0x0001_0203, "target": target(5)}],
    });
    pinned.configure(&config);
    let known = short([0b0100_0000, 1, 2, 3, 9, 9, 9, 9]);
    for number in 2000..3000 {
        assert_eq!(
            forwarded(&program, &udp_from(client(number), &known)).to_string(),
            target(5)
        );
    }
}

#[test]
fn errors_go_where_their_flow_goes_and_policies_hold() {
    if skipped() {
        return;
    }
    let pinned = Pinned::new("policies", &config(&targets(10, &[])));
    let program = pinned.program();
    let run = |frame: &[u8]| program.test_run(&TestRun::once(frame, 0)).unwrap();
    for number in 0..1000 {
        // What the service's server answered, quoted by a router on the way to the client.
        let (address, port) = client(number);
        let mut quoted = Vec::new();
        let answer = PacketBuilder::ipv4(SERVICE.octets(), address.octets(), 60)
            .tcp(443, port, 1, 1024)
            .ack(1);
        answer.write(&mut quoted, b"").unwrap();
        let mut error = Vec::new();
        let kind = etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 },
        );
        let router = ethernet()
            .ipv4([203, 0, 113, 254], SERVICE.octets(), 60)
            .icmpv4(kind);
        router.write(&mut error, &quoted).unwrap();
        assert_eq!(
            forwarded(&program, &error),
            forwarded(&program, &tcp(number, false))
        );
    }
    let echo = |payload: &[u8]| {
        let mut frame = Vec::new();
        let packet = ethernet()
            .ipv4([203, 0, 113, 7], SERVICE.octets(), 60)
            .icmpv4_echo_request(7, 1);
        packet.write(&mut frame, payload).unwrap();
        frame
    };
    let answer = run(&echo(b"0123456789"));
    assert_eq!(answer.verdict, TX);
    let parsed = etherparse::PacketHeaders::from_ethernet_slice(&answer.frame).unwrap();
    let Some(etherparse::TransportHeader::Icmpv4(icmp)) = parsed.transport else {
        panic!("{:02x?}", answer.frame)
    };
    assert!(matches!(icmp.icmp_type, etherparse::Icmpv4Type::EchoReply(_)));
    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(b"0123456789"));

    let largest = udp_from(client(1), &vec![1; 1472]);
    assert_eq!(largest.len(), 1514);
    forwarded(&program, &largest);
    let refused = run(&udp_from(client(1), &vec![1; 1473]));
    assert_eq!((refused.verdict, &refused.frame[34..36]), (TX, &[3, 4][..]));
    assert_eq!(refused.frame[40..42], 1500u16.to_be_bytes());

    // What is nobody's is left as it was.
    let mut foreign = tcp(1, true);
    foreign[36..38].copy_from_slice(&80u16.to_be_bytes());
    let passed = run(&foreign);
    assert_eq!((passed.verdict, &passed.frame), (PASS, &foreign));

    let mut silent = config(&json!([]));
    silent["policy"] =
        json!({"fragments": "drop", "ipv4_options": "pass", "echo": "pass", "oversize": "drop"});
    silent["services"][1]["targets"] = targets(3, &[]);
    pinned.configure(&silent);
    let dropped = run(&tcp(500_000, true));
    assert_eq!(
        (dropped.verdict, &dropped.frame),
        (DROP, &tcp(500_000, true)),
        "no targets"
    );
    assert_eq!(run(&echo(b"x")).verdict, PASS);
    assert_eq!(run(&udp_from(client(1), &vec![1; 1473])).verdict, DROP);
    let mut fragment = udp_from(client(1), &[1; 64]);
    fragment[20] |= 0x20;
    let (mut header, _) = etherparse::Ipv4Header::from_slice(&fragment[14..]).unwrap();
    header.header_checksum = header.calc_header_checksum();
    fragment[24..26].copy_from_slice(&header.header_checksum.to_be_bytes());
    assert_eq!(run(&fragment).verdict, DROP);
}

/// Runs an IPv6 frame, and checks all that must be so of one that is sent on, where `gue` is what stands between UDP and
/// the inner packet. Its target.
fn forwarded_v6(program: &Program, frame: &[u8], gue: Option<&[u8]>) -> Ipv6Addr {
    let run = program.test_run(&TestRun::once(frame, 0)).unwrap();
    assert_eq!(run.verdict, TX, "{frame:02x?}");
    let out = &run.frame;
    assert_eq!(out[..14], [&GATEWAY_MAC[..], &OWN_MAC, &[0x86, 0xdd]].concat());
    let (outer, inside) = etherparse::Ipv6Header::from_slice(&out[14..]).unwrap();
    let (inner, _) = etherparse::Ipv6Header::from_slice(&frame[14..]).unwrap();
    assert_eq!(outer.source, OUTER_V6.octets());
    assert_eq!(usize::from(outer.payload_length), inside.len());
    assert_eq!(outer.traffic_class, inner.traffic_class);
    assert!(outer.hop_limit > 0);
    let inside = match gue {
        None => {
            assert_eq!(outer.next_header.0, 41);
            inside
        }
        Some(header) => {
            assert_eq!(outer.next_header.0, 17);
            let (udp, behind) = etherparse::UdpHeader::from_slice(inside).unwrap();
            assert_eq!((udp.destination_port, udp.checksum), (6080, 0));
            assert_eq!(usize::from(udp.length), inside.len());
            behind.strip_prefix(header).unwrap()
        }
    };
    assert_eq!(inside, &frame[14..], "the inner packet, unchanged");
    outer.destination.into()
}

#[test]
fn ipv6_is_served_alike() {
    if skipped() {
        return;
    }
    let flows = 20_000;
    let service = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
    let target = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last);
    let frame = |number: u32, syn: bool| {
        let client = Ipv6Addr::new(
            0x2001,
            0xdb8,
            3,
            0,
            0,
            0,
            0,
            u16::try_from(number / 1000).unwrap(),
        )
        .octets();
        let packet = ethernet().ipv6(client, service.octets(), 60);
        let packet = packet.tcp(1024 + (number % 1000) as u16 * 7, 443, 1, 1024);
        let packet = if syn { packet.syn() } else { packet.ack(1) };
        let mut frame = Vec::new();
        packet.write(&mut frame, b"abcd").unwrap();
        frame
    };
    let ways = [
        (json!({"kind": "ipip"}), None),
        (
            json!({"kind": "gue", "port": 6080, "variant": 0}),
            Some(&[0, 41, 0, 0][..]),
        ),
        (json!({"kind": "gue", "port": 6080, "variant": 1}), Some(&[][..])),
    ];
    for (index, (encapsulation, gue)) in ways.into_iter().enumerate() {
        let with = |targets: &[u16]| {
            let mut config = config(&json!([]));
            config["encapsulation"] = encapsulation.clone();
            config["encapsulation"]["outer_sources"] = json!([OUTER_V6]);
            let targets: Vec<Value> = targets
                .iter()
                .map(|last| json!({"address": target(*last)}))
                .collect();
            let web = json!({"name": "web", "address": service, "protocol": "tcp", "port": 443, "targets": targets});
            config["services"] = json!([web]);
            config
        };
        let pinned = Pinned::new(&format!("six-{index}"), &with(&[1, 2, 3, 4]));
        let program = pinned.program();
        let all = |syn: bool| -> Vec<Ipv6Addr> {
            (0..flows)
                .map(|number| forwarded_v6(&program, &frame(number, syn), gue))
                .collect()
        };
        let first = all(true);
        let kept = |now: &[Ipv6Addr]| {
            let both = first.iter().zip(now);
            let mut others = both.filter(|(before, _)| **before != target(2));
            others.all(|(before, now)| before == now)
        };
        assert!(kept(&all(false)));
        pinned.configure(&with(&[1, 3, 4, 5]));
        let later = all(false);
        assert!(kept(&later) && !later.contains(&target(2)));
        let again: HashSet<_> = all(true).into_iter().collect();
        assert!(!again.contains(&target(2)), "not even anew");
    }
}
