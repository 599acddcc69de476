//! What leaves is right: for tshark, and whatever came in.

use std::process::Command;
use std::time::Duration;

use etherparse::checksum::Sum16BitWords;
use kuafu_dataplane::bpf::TestRun;
use pcap_file::pcap::{PcapPacket, PcapWriter};
use serde_json::json;

use super::instance::{DROP, OUTER_V6, PASS, Pinned, TX, config, of_all_kinds, skipped, targets, text};

/// How many of these frames tshark, which checks all sums, shows by a filter.
fn dissected(frames: &[Vec<u8>], filter: &str) -> usize {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = PcapWriter::new(file.as_file()).unwrap();
    for frame in frames {
        let octets = u32::try_from(frame.len()).unwrap();
        let packet = PcapPacket::new(Duration::ZERO, octets, frame);
        writer.write_packet(&packet).unwrap();
    }
    let mut tshark = Command::new("tshark");
    for protocol in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    tshark.arg("-r").arg(file.path()).args(["-Y", filter]);
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().count()
}

#[test]
fn what_leaves_is_right_for_tshark_too() {
    if skipped() {
        return;
    }
    let frames = of_all_kinds();
    let service_v6 = "2001:db8:1::1";
    let ways = [
        json!({"kind": "ipip"}),
        json!({"kind": "gue", "port": 6080, "variant": 0}),
        json!({"kind": "gue", "port": 6080, "variant": 1}),
    ];
    for (index, encapsulation) in ways.into_iter().enumerate() {
        let mut all = config(&targets(10, &[]));
        all["encapsulation"] = encapsulation;
        all["encapsulation"]["outer_sources"] = json!(["192.0.2.1", OUTER_V6]);
        let six = json!([{"address": "2001:db8:2::1"}, {"address": "2001:db8:2::2"}]);
        let mut services = all["services"].as_array().unwrap().clone();
        for mut service in all["services"].as_array().unwrap().clone() {
            service["name"] = json!(format!("{}-six", service["name"].as_str().unwrap()));
            service["address"] = json!(service_v6);
            service["targets"] = six.clone();
            services.push(service);
        }
        all["services"] = json!(services);
        let pinned = Pinned::new(&format!("tshark-{index}"), &all);
        let program = pinned.program();
        let run = |frame: &Vec<u8>| program.test_run(&TestRun::once(frame, 0)).unwrap();
        let out: Vec<_> = frames.iter().map(run).collect();
        assert!(out.iter().all(|run| run.verdict == TX));
        let out: Vec<_> = out.into_iter().map(|run| run.frame).collect();
        let sums = ["ip", "udp", "tcp", "icmp", "icmpv6"];
        let bad = sums
            .map(|protocol| format!("{protocol}.checksum.status == \"Bad\""))
            .join(" || ");
        assert_eq!(dissected(&out, &bad), 0);
        assert_eq!(
            dissected(&out, "icmp.type == 0 || icmpv6.type == 129"),
            10,
            "echo"
        );
        assert_eq!(
            dissected(&out, "icmp.type == 3 || icmpv6.type == 2"),
            2,
            "too big"
        );
        let sent_on = match index {
            0 => "(ip.src == 192.0.2.1 && ip.proto == 4) || (ipv6.src == 2001:db8::9 && ipv6.nxt == 41)",
            _ => "(ip.src == 192.0.2.1 || ipv6.src == 2001:db8::9) && udp.dstport == 6080",
        };
        assert_eq!(dissected(&out, sent_on), 20);
        if index == 0 {
            let inner =
                "ip.dst == 198.51.100.1 && ip.ttl == 60 || ipv6.dst == 2001:db8:1::1 && ipv6.hlim == 60";
            assert_eq!(
                dissected(
                    &out,
                    &format!("({inner}) && (udp.dstport == 7000 || tcp.dstport == 443)")
                ),
                22
            );
        }
    }
}

/// A number that looks random, each time another one (xorshift, Marsaglia 2003).
fn draw(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 16) as usize
}

/// Whether the IP headers of a frame, one in the other, are such as a router passes on.
fn has_sane_headers(frame: &[u8]) -> bool {
    let mut packet = &frame[14..];
    let mut ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    loop {
        let (inside, next) = match ethertype {
            0x0800 => {
                let Ok((header, inside)) = etherparse::Ipv4Header::from_slice(packet) else {
                    return false;
                };
                let exact = usize::from(header.total_len) == packet.len();
                // As it is: the reserved bit of the flags is no reason to drop (RFC 1812, §4.2.2.3).
                let octets = Sum16BitWords::new().add_slice(&packet[..header.header_len()]);
                let summed = octets.ones_complement() == 0;
                if !exact || !summed || header.time_to_live == 0 {
                    return false;
                }
                (inside, header.protocol.0)
            }
            _ => {
                let Ok((header, inside)) = etherparse::Ipv6Header::from_slice(packet) else {
                    return false;
                };
                if usize::from(header.payload_length) != inside.len() || header.hop_limit == 0 {
                    return false;
                }
                (inside, header.next_header.0)
            }
        };
        (packet, ethertype) = match next {
            4 => (inside, 0x0800),
            41 => (inside, 0x86dd),
            _ => return true,
        };
    }
}

#[test]
fn nothing_malformed_leaves_at_any_length_and_with_any_bits() {
    attack(100_000);
}

/// The same, longer.
#[test]
#[ignore = "minutes: cargo xtask soak bits"]
fn soak_bits() {
    let draws = std::env::var("KUAFU_SOAK_FRAMES").map_or(10_000_000, |draws| draws.parse().unwrap());
    attack(draws);
}

/// Frames of all kinds, cut short everywhere, and so many with bits flipped.
fn attack(draws: u32) {
    if skipped() {
        return;
    }
    let mut both = config(&targets(10, &[]));
    both["encapsulation"]["outer_sources"] = json!(["192.0.2.1", OUTER_V6]);
    let six = json!({"name": "six", "address": "2001:db8:1::1", "protocol": "udp", "port": 7000,
                     "targets": [{"address": "2001:db8:2::1"}]});
    both["services"].as_array_mut().unwrap().push(six);
    let pinned = Pinned::new("hostile", &both);
    let program = pinned.program();
    let (mut sent, mut runs) = (0, 0);
    let mut run = |frame: &[u8]| {
        let run = program.test_run(&TestRun::once(frame, 0)).unwrap();
        assert!(
            [DROP, PASS, TX].contains(&run.verdict),
            "{} of {frame:02x?}",
            run.verdict
        );
        if run.verdict == TX {
            assert!(has_sane_headers(&run.frame), "{frame:02x?}\n{:02x?}", run.frame);
            sent += 1;
        } else {
            assert_eq!(run.frame, frame, "{} leaves a packet as it was", run.verdict);
        }
        runs += 1;
    };
    let frames = of_all_kinds();
    for frame in &frames {
        let mut padded = frame.clone();
        padded.resize(frame.len() + 9, 0);
        run(&padded);
        (15..=frame.len()).for_each(|length| run(&frame[..length]));
    }
    let mut state = 1;
    for _ in 0..draws {
        let mut frame = frames[draw(&mut state) % 24].clone();
        for _ in 0..=draw(&mut state) % 3 {
            let at = draw(&mut state) % (frame.len().min(90) * 8);
            frame[at / 8] ^= 1 << (at % 8);
        }
        run(&frame);
    }
    println!("{runs} frames, {sent} sent on or answered, each with sane headers");
    assert!(sent > 10_000);
}
