//! What is too large for the backbone and may be cut, and what is in fragments already, through an entry and an exit
//! with their probers, there and back. Both are also the client's and the server's hosts, on the one wire.
//!
//! Needs root; says that it was skipped elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; what tests share is used in parts"
)]

#[path = "host/site.rs"]
mod site;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kuafu_dataplane::bpf::XdpMode;
use kuafu_dataplane::host::{Host, Options};
use kuafu_dataplane::probe;
use kuafu_model::HostState;
use kuafu_model::kinds::PortRange;
use kuafu_model::state::{
    LegKey, LegState, PairState, PathState, ServiceState, SlotAction, SlotState, Target, TargetState,
};
use kuafu_pipeline::{Event, Reason};
use site::{Site, dropped, sites, until};

/// The accelerated address: nobody's own.
const ACCELERATED: [u8; 4] = [192, 0, 2, 100];
/// Octets of datagrams: the largest that fits, the smallest that does not, the largest that the wire carries, and
/// some that their sender's own stack cuts; two leave a last fragment that is shorter than any link's frame.
const SIZES: [usize; 8] = [1_412, 1_413, 1_450, 1_472, 1_473, 2_955, 3_000, 9_000];

#[test]
fn datagrams_of_any_size_pass_there_and_back() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("cut");
    // Generic XDP passes on what tcx has redirected on the same machine, which a wire would hide.
    let open = |site: &Site| {
        let options = Options {
            xdp: Some(XdpMode::Native),
            ..site.options()
        };
        site.host.run(|| Host::open(options)).unwrap().unwrap()
    };
    let mut hosts = [0, 1].map(|at| open(&sites[at]));
    for (site, host) in sites.iter().zip(&mut hosts) {
        site.apply(host, &state(site)).unwrap();
    }
    point_to_the_entry(&sites);
    let server = bound(&sites[0], "192.0.2.1:9000");
    let client = bound(&sites[1], "192.0.2.2:4000");
    client.connect("192.0.2.100:7000").unwrap();
    until("neighbours are known", || {
        sites
            .iter()
            .zip(&mut hosts)
            .for_each(|(site, host)| drop(site.tick(host)));
        client.send(b"hello").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        server.recv_from(&mut [0; 16]).is_ok()
    });
    let [entry, exit] = &hosts;
    let away = dropped(entry, Reason::NeedsFragmentation);
    client.send(&pattern(1_472)).unwrap();
    until("nobody is there to cut", || {
        dropped(entry, Reason::NeedsFragmentation) == away + 1
    });

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        for site in &sites {
            scope.spawn(|| {
                site.host
                    .run(|| probe::run(&site.pins(), &stop))
                    .unwrap()
                    .unwrap()
            });
        }
        until("the probers are there", || {
            hosts
                .iter()
                .all(|host| host.maps().fragmenter.get(&0).unwrap().unwrap().until.get() > 0)
        });
        for octets in SIZES {
            echoed(&client, &server, octets);
        }
        drop(stops);
    });
    assert!(counted(entry, Event::Fragmented) >= 6 && counted(exit, Event::Fragmented) >= 6);
    assert_eq!(
        dropped(entry, Reason::Fragment) + dropped(exit, Reason::Fragment),
        0
    );
    assert_eq!(dropped(entry, Reason::NeedsFragmentation), away + 1);
}

/// A datagram arrives with its octets, and comes back with them.
fn echoed(client: &UdpSocket, server: &UdpSocket, octets: usize) {
    let (sent, mut seen) = (pattern(octets), vec![0; 10_000]);
    for socket in [client, server] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    client.send(&sent).unwrap();
    let (length, from) = loop {
        let (length, from) = server.recv_from(&mut seen).unwrap();
        // What was sent until neighbours were known.
        if &seen[..length] != b"hello" {
            break (length, from);
        }
    };
    assert!(seen[..length] == sent, "{octets} octets there");
    server.send_to(&sent, from).unwrap();
    let length = client.recv(&mut seen).unwrap();
    assert!(seen[..length] == sent, "{octets} octets back");
}

fn pattern(octets: usize) -> Vec<u8> {
    (0..=250).cycle().take(octets).collect()
}

fn counted(host: &Host, event: Event) -> u64 {
    let of_cpus = host.maps().events.get(event as u32).unwrap();
    of_cpus.iter().map(|counter| counter.packets).sum()
}

/// A socket whose datagrams may be cut.
fn bound(site: &Site, address: &str) -> UdpSocket {
    site.host.sysctl("net/ipv4/ip_no_pmtu_disc", "1").unwrap();
    site.host.run(|| UdpSocket::bind(address)).unwrap().unwrap()
}

/// Nobody answers for the accelerated address.
fn point_to_the_entry(sites: &[Site; 2]) {
    let address = || std::fs::read_to_string("/sys/class/net/eth0/address");
    let mac = sites[0].host.run(address).unwrap().unwrap();
    let line = format!(
        "neigh replace 192.0.2.100 lladdr {} nud permanent dev eth0",
        mac.trim()
    );
    sites[1].host.ip([line]).unwrap();
}

/// The first is the entry, the second the exit; a path in each direction.
fn state(site: &Site) -> HostState {
    let (own, other) = (site.number, 3 - site.number);
    let address = |last: u8| std::net::Ipv4Addr::new(192, 0, 2, last);
    let is_exit = own == 2;
    let mut state = site.state();
    (state.ports, state.endpoints, state.vteps) = (Vec::new(), Vec::new(), Vec::new());
    state.node.nat_ports = is_exit.then_some(10_000..=29_999);
    let keys = |from: u8| {
        vec![LegKey {
            epoch: 1,
            key: [from; 16],
        }]
    };
    let leg = LegState {
        keys: keys(own),
        label: 5,
        address: address(other),
        port: 6081,
        source_port: 50_000,
    };
    state.paths = vec![PathState {
        index: 1,
        id: 1,
        nodes: Vec::new(),
        near: false,
        leg,
    }];
    state.slots = vec![SlotState {
        label: 5,
        source: address(other),
        keys: keys(other),
        action: SlotAction::Exit {
            twin: 1,
            window: 1,
            answers: 1,
        },
    }];
    state.pairs = vec![PairState {
        index: 1,
        peer: "peer".into(),
        class: "game".into(),
        premium: false,
        duplicate: false,
        primary: Some(1),
        backup: None,
    }];
    let target = if is_exit {
        Target::Server {
            address: address(1),
            port: Some(9000),
        }
    } else {
        Target::Pair(1)
    };
    state.services = vec![ServiceState {
        name: "game".into(),
        at_exit: is_exit,
        whole_address: !is_exit,
        targets: vec![TargetState::unchecked(1, target)],
        ..ServiceState::blank(100, ACCELERATED.into(), (17, PortRange::literal(7000, 7000)))
    }];
    state
}

/// Stops the probers also when a test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
