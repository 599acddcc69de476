//! An instance that a test has pinned, what is balanced there, and frames for it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use kuafu_dataplane::bpf::{LinkKind, Program, TestRun};
use serde_json::{Value, json};

/// `XDP_DROP`, `XDP_PASS`, `XDP_TX`.
pub(super) const DROP: u32 = 1;
pub(super) const PASS: u32 = 2;
pub(super) const TX: u32 = 3;
/// Flows of a test, as many as the balancer is promised for.
pub(super) const FLOWS: u32 = 100_000;
pub(super) const ALL: usize = FLOWS as usize;
pub(super) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
pub(super) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
pub(super) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x33];
pub(super) const OUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
pub(super) const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// An instance of its own, that goes with the value.
pub(super) struct Pinned {
    path: PathBuf,
    folder: tempfile::TempDir,
}

impl Pinned {
    pub(super) fn new(name: &str, config: &Value) -> Self {
        let path = PathBuf::from(format!("/sys/fs/bpf/kuafu-pin-{name}-{}", std::process::id()));
        let folder = tempfile::tempdir().unwrap();
        let pinned = Self { path, folder };
        pinned.configure(config);
        pinned
    }

    pub(super) fn command(&self, config: &Value) -> Command {
        let file = self.folder.path().join("edge.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = kuafu();
        command.arg("--config").arg(file).arg("--pin").arg(&self.path);
        command
    }

    pub(super) fn configure(&self, config: &Value) {
        let output = self.command(config).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(text(&output.stdout), format!("{}\n", self.path.display()));
    }

    pub(super) fn ring(&self, config: &Value, service: &str) -> Vec<String> {
        let output = self.command(config).args(["--ring", service]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect()
    }

    pub(super) fn program(&self) -> Program {
        Program::open(&self.path, "kuafu_edge", LinkKind::Xdp).unwrap()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_dir_all(format!("{}-maps", self.path.display()));
    }
}

pub(super) fn kuafu() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kuafu"));
    command.args(["dev", "pin-edge"]);
    command
}

pub(super) fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

/// `count` targets of equal weight, without those in `without`.
pub(super) fn targets(count: u32, without: &[u32]) -> Value {
    let targets = (0..count).filter(|index| !without.contains(index));
    targets
        .map(|index| json!({"address": target(index), "weight": 1}))
        .collect()
}

pub(super) fn target(index: u32) -> String {
    Ipv4Addr::from(0xc000_0300 + index).to_string()
}

/// A TCP and a UDP service over these targets, by IPIP.
pub(super) fn config(targets: &Value) -> Value {
    let service = |name: &str, protocol: &str, port: u16| {
        let mut service = json!({"name": name, "address": SERVICE, "protocol": protocol, "port": port});
        service["targets"] = targets.clone();
        service
    };
    json!({
        "gateway_mac": "02:00:00:00:00:33",
        "encapsulation": {"kind": "ipip", "outer_sources": ["192.0.2.1"]},
        "max_frame": 1514,
        "ring_size": 65537,
        "shield": "off",
        "policy": {"fragments": "forward", "echo": "reply", "oversize": "icmp"},
        "services": [service("web", "tcp", 443), service("game", "udp", 7000)],
    })
}

/// A client's address and port, by a number.
pub(super) fn client(number: u32) -> (Ipv4Addr, u16) {
    (
        Ipv4Addr::from(0xcb00_7100 + number / 1000),
        1024 + (number % 1000) as u16 * 7,
    )
}

pub(super) fn ethernet() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(ROUTER_MAC, OWN_MAC)
}

pub(super) fn tcp(number: u32, syn: bool) -> Vec<u8> {
    tcp_with(number, |packet| if syn { packet.syn() } else { packet.ack(1) })
}

/// A flow's reset.
pub(super) fn reset(number: u32) -> Vec<u8> {
    tcp_with(number, PacketBuilderStep::rst)
}

fn tcp_with(
    number: u32,
    flags: impl FnOnce(PacketBuilderStep<TcpHeader>) -> PacketBuilderStep<TcpHeader>,
) -> Vec<u8> {
    let (address, port) = client(number);
    let packet = ethernet()
        .ipv4(address.octets(), SERVICE.octets(), 60)
        .tcp(port, 443, 1, 1024);
    let mut frame = Vec::new();
    flags(packet).write(&mut frame, b"abcd").unwrap();
    frame
}

pub(super) fn udp_from((address, port): (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = ethernet()
        .ipv4(address.octets(), SERVICE.octets(), 60)
        .udp(port, 7000);
    packet.write(&mut frame, payload).unwrap();
    frame
}

/// Runs a frame, and checks all that must be so of one that is sent on by IPIP. Its target.
pub(super) fn forwarded(program: &Program, frame: &[u8]) -> Ipv4Addr {
    let run = program.test_run(&TestRun::once(frame, 0)).unwrap();
    assert_eq!(run.verdict, TX, "{frame:02x?}");
    let out = &run.frame;
    assert_eq!(out[..14], [&GATEWAY_MAC[..], &OWN_MAC, &[8, 0]].concat());
    let (outer, _) = etherparse::Ipv4Header::from_slice(&out[14..]).unwrap();
    assert_eq!(outer.source, [192, 0, 2, 1]);
    assert_eq!(
        (outer.protocol.0, usize::from(outer.total_len)),
        (4, out.len() - 14)
    );
    assert_eq!(outer.header_checksum, outer.calc_header_checksum());
    assert!(outer.time_to_live > 0);
    assert_eq!(out[15], frame[15], "TOS");
    assert_eq!(out[34..], frame[14..], "the inner packet, unchanged");
    outer.destination.into()
}

/// How many flows have another target, and how many there are.
pub(super) fn moved(before: &[Ipv4Addr], after: &[Ipv4Addr]) -> (usize, usize) {
    let moved = before.iter().zip(after).filter(|(before, after)| before != after);
    (moved.count(), after.len())
}

pub(super) fn skipped() -> bool {
    match kuafu_lab::unavailable() {
        Some(why) => {
            kuafu_lab::skip(why);
            true
        }
        None => false,
    }
}

/// Clients' frames of all kinds to a service of each family, as far as `pin-edge` has them answered or sent on.
pub(super) fn of_all_kinds() -> Vec<Vec<u8>> {
    let service_v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).octets();
    let client_v6 = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 7).octets();
    let mut frames = Vec::new();
    for octets in [0, 1, 17, 700, 1352] {
        let payload: Vec<u8> = (0..=250).cycle().take(octets).collect();
        let v4 = || ethernet().ipv4([203, 0, 113, 7], SERVICE.octets(), 60);
        let v6 = || ethernet().ipv6(client_v6, service_v6, 60);
        let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = Vec::new();
            write(&mut frame);
            frames.push(frame);
        };
        add(&|frame| v4().udp(4000, 7000).write(frame, &payload).unwrap());
        add(&|frame| v6().udp(4000, 7000).write(frame, &payload).unwrap());
        add(&|frame| v4().tcp(4000, 443, 1, 9).syn().write(frame, &payload).unwrap());
        add(&|frame| v6().tcp(4000, 443, 1, 9).ack(7).write(frame, &payload).unwrap());
        add(&|frame| v4().icmpv4_echo_request(7, 1).write(frame, &payload).unwrap());
        add(&|frame| v6().icmpv6_echo_request(7, 1).write(frame, &payload).unwrap());
    }
    let too_long = vec![7; 1473];
    let mut long = [Vec::new(), Vec::new()];
    let v4 = ethernet()
        .ipv4([203, 0, 113, 7], SERVICE.octets(), 60)
        .udp(4000, 7000);
    v4.write(&mut long[0], &too_long).unwrap();
    let v6 = ethernet().ipv6(client_v6, service_v6, 60).udp(4000, 7000);
    v6.write(&mut long[1], &too_long).unwrap();
    frames.extend(long);
    frames
}
