//! What runs in the guest: packet cases over the loaded programs, and the programs on devices.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use kuafu_dataplane::bpf::{Bpf, Link, Pins, Sizes, XdpMode};
use kuafu_lab::Namespace;
use kuafu_lab::link::{Feature, set_offload};

use crate::common::case::{Case, Input, changes};
use crate::common::encode::encode;
use crate::common::world::{self, PORTS, UNDERLAY};
use crate::kernel::{Kernel, namespace, stay_on_one_cpu};

/// For a packet on its way.
const PATIENCE: Duration = Duration::from_secs(20);
/// Ethernet, IPv4 and UDP: what the sockets outside put in front themselves.
const IN_FRONT: usize = 42;

#[test]
#[ignore = "runs in a guest"]
fn programs_pass_packets() {
    let host = namespace("guest");
    let count = host.run(cases).unwrap();
    println!("{count} packets met what their cases say");
    let pins = Pins::new(Path::new("/sys/fs/bpf/kuafu-guest"), "host");
    let pinned = Pinned(&pins);
    let outside = Namespace::create(host.name(), "outside").unwrap();
    let machine = Namespace::create(host.name(), "machine").unwrap();
    wire(&host, &outside, &machine);
    host.run(|| attach(&pins)).unwrap();
    vxlan(&outside, &machine);
    println!("VXLAN left and came in");
    relayed(&outside);
    println!("a relay passed a packet on");
    drop(pinned);
}

pub struct Pinned<'p>(pub &'p Pins);

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.0.remove_all().unwrap();
    }
}

/// The packet cases of the usual world, but those that wait for a clock; returns how many packets were judged.
fn cases() -> usize {
    stay_on_one_cpu();
    let world = world::named("host");
    let kernel = Kernel::new(&world, false);
    let mut judged = 0;
    let all = common_cases().filter(|case| case.packets.iter().all(|packet| !packet.until_limited));
    for case in all {
        kernel.begin_anew(&world);
        for (packet, input) in case.packets.iter().zip(case.inputs()) {
            let complaints = judge(&kernel, packet, &input);
            assert!(complaints.is_empty(), "{}: {complaints}", case.name);
            judged += 1;
        }
    }
    judged
}

fn common_cases() -> impl Iterator<Item = Case> {
    let files = crate::common::case::all().into_iter();
    files
        .flat_map(|(_, cases)| cases)
        .filter(|case| case.world == "host")
}

fn judge(kernel: &Kernel, packet: &crate::common::case::Packet, input: &Input) -> String {
    let before = kernel.counters();
    let done = kernel.run(input);
    kernel.allow_answers();
    packet.judge(input, &done, &changes(&before, &kernel.counters()))
}

/// Puts the far ends of underlay and first port where others live: the network's hosts .2 and .3 have one device.
fn wire(host: &Namespace, outside: &Namespace, machine: &Namespace) {
    let port = PORTS[0].1;
    host.ip([
        format!("link set under-peer netns {}", outside.name()),
        format!("link set {port}-peer netns {}", machine.name()),
    ])
    .unwrap();
    outside
        .ip([
            "link set under-peer address 02:00:00:00:00:03 up",
            "addr add 192.0.2.2/24 dev under-peer",
            "addr add 192.0.2.3/24 dev under-peer",
            "neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 nud permanent dev under-peer",
        ])
        .unwrap();
    machine
        .ip([
            format!("link set {port}-peer address 02:00:00:00:00:21 mtu 1450 up"),
            format!("addr add 10.0.0.1/24 dev {port}-peer"),
        ])
        .unwrap();
    // A wire's checksums are complete.
    set_offload(outside, "under-peer", Feature::TxChecksum, false).unwrap();
}

/// Loads the programs over maps of the usual world, and attaches edge, decapsulation and the first port.
pub fn attach(pins: &Pins) {
    let bpf = Bpf::load_pinned(pins, &Sizes::default()).unwrap();
    let (world, maps) = (world::named("host"), &bpf.maps);
    let contents = world.contents().unwrap();
    let mut neighbours = world.neighbours();
    for neighbour in neighbours.values_mut() {
        // One device stands for all hosts outside.
        let own = kuafu_pipeline::map::Mac::from_octets([2, 0, 0, 0, 0, 1]);
        let far = kuafu_pipeline::map::Mac::from_octets([2, 0, 0, 0, 0, 3]);
        neighbour.macs = kuafu_pipeline::map::MacPair::new(far, own);
    }
    maps.neighbours.set_all(&neighbours).unwrap();
    maps.vteps.set_all(&contents.vteps).unwrap();
    maps.slots.set_all(&contents.slots).unwrap();
    maps.ports.set_all(&contents.ports).unwrap();
    maps.endpoints.set_all(&contents.endpoints).unwrap();
    maps.senders.set_all(&contents.senders).unwrap();
    maps.targets.set_all(&contents.targets).unwrap();
    for (first, slots) in &contents.rings {
        let slots: std::collections::BTreeMap<u32, u32> = (*first..).zip(slots.iter().copied()).collect();
        maps.rings.set_all(&slots).unwrap();
    }
    maps.services.set_all(&contents.services).unwrap();
    maps.node.set(&0, &contents.node).unwrap();
    let (programs, under) = (&bpf.programs, (UNDERLAY, "under"));
    let pin = |name: &str| pins.links().join(name);
    let attach = |program, device, name| Link::attach(program, device, XdpMode::Generic, &pin(name)).unwrap();
    attach(&programs.edge, under, "edge");
    attach(&programs.underlay, under, "underlay");
    attach(&programs.port, PORTS[0], "port");
}

/// A machine's datagram leaves as VXLAN, and one that comes as VXLAN reaches it.
fn vxlan(outside: &Namespace, machine: &Namespace) {
    let vtep = socket(outside, "192.0.2.2:4789");
    let inside = socket(machine, "10.0.0.1:1");
    inside.send_to(b"from inside", "10.0.0.3:2").unwrap();
    let packet = receive(&vtep, |packet| packet.ends_with(b"from inside"));
    assert_eq!(
        packet[..8],
        [8, 0, 0, 0, 0, 0, 7, 0],
        "VXLAN with VNI 7 (RFC 7348)"
    );
    let answer = encode(
        "eth m02 > m01 | ipv4 192.0.2.2 > 192.0.2.1 | udp 4789 > 4789 sum none | vxlan 7 | eth m23 > m21 | \
         ipv4 10.0.0.3 > 10.0.0.1 | udp 2 > 1 | data 20",
    );
    vtep.send_to(&answer[IN_FRONT..], "192.0.2.1:4789").unwrap();
    let data = receive(&inside, |packet| packet.len() == 20);
    assert_eq!(data, answer[answer.len() - 20..]);
}

/// What .2 sends to .3 by way of this host arrives with the next label.
fn relayed(outside: &Namespace) {
    let (entry, exit) = (
        socket(outside, "192.0.2.2:50009"),
        socket(outside, "192.0.2.3:6081"),
    );
    let around = "udp 4000 > 7000 | data 24";
    let inner = format!("ipv4 203.0.113.7 > 198.51.100.1 | {around}");
    let sent = encode(&format!(
        "eth m02 > m01 | ipv4 192.0.2.2 > 192.0.2.1 | udp 50009 > 6081 sum none | geneve 101 label 5 seq 9 key 1 | {inner}"
    ));
    let expected = encode(&format!(
        "eth m01 > m03 | ipv4 192.0.2.1 > 192.0.2.3 | udp 50002 > 6081 sum none | geneve 101 label 9 seq 9 key 2 | {inner}"
    ));
    entry.send_to(&sent[IN_FRONT..], "192.0.2.1:6081").unwrap();
    let packet = receive(&exit, |_| true);
    assert_eq!(packet, expected[IN_FRONT..]);
}

fn socket(namespace: &Namespace, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The first packet that is `wanted`.
fn receive(socket: &UdpSocket, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer).expect("a packet in time");
        if wanted(&buffer[..length]) {
            return buffer[..length].to_vec();
        }
    }
}
