//! A host between its state and its kernel: two of them in namespaces, with a port each.
//!
//! Needs root; says that it was skipped elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kuafu_dataplane::bpf::{Pins, Sizes, XdpMode};
use kuafu_dataplane::host::{Host, OVERLAY_DEVICE, OVERLAY_PORT, Options};
use kuafu_dataplane::{Error, uninstall};
use kuafu_lab::Namespace;
use kuafu_lab::link::{End, Mac, veth};
use kuafu_model::HostState;
use kuafu_pipeline::Reason;
use kuafu_pipeline::map::{Be16, Connection, ConnectionKey, IpKey};
use kuafu_proto::state::from_json;
use tempfile::TempDir;

/// Nothing here takes longer on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a datagram may take before it is sent again, or counts as lost.
const ANSWER: Duration = Duration::from_secs(1);

/// A host, its guest, and where its things are.
struct Site {
    number: u8,
    host: Namespace,
    guest: Namespace,
    data: TempDir,
    pins: PathBuf,
}

/// Two hosts on one wire.
fn sites(test: &str) -> [Site; 2] {
    let prefix = format!("kfh{}", std::process::id());
    let sites = [1, 2].map(|number| Site {
        number,
        host: Namespace::create(&prefix, &format!("{test}-h{number}")).unwrap(),
        guest: Namespace::create(&prefix, &format!("{test}-g{number}")).unwrap(),
        data: tempfile::tempdir().unwrap(),
        pins: PathBuf::from(format!("/sys/fs/bpf/{prefix}-{test}")),
    });
    let end = |site: usize| End {
        addresses: vec![format!("192.0.2.{}/24", site + 1).parse().unwrap()],
        ..End::new(&sites[site].host, "eth0")
    };
    veth(&end(0), &end(1), 1500).unwrap();
    for site in &sites {
        site.plug();
    }
    sites
}

impl Site {
    /// The cable between the host's `port` and its guest.
    fn plug(&self) {
        let guest = End {
            mac: Some(Mac([2, 0, 0, 0, 7, self.number])),
            addresses: vec![format!("10.7.0.{}/24", self.number).parse().unwrap()],
            ..End::new(&self.guest, "eth0")
        };
        veth(&End::new(&self.host, "port"), &guest, 1450).unwrap();
    }

    fn name(&self) -> String {
        format!("h{}", self.number)
    }

    fn pins(&self) -> Pins {
        Pins::new(&self.pins, &self.name())
    }

    fn options(&self) -> Options {
        Options {
            node: self.name(),
            pins: self.pins(),
            data: self.data.path().to_owned(),
            xdp: None,
            sizes: Sizes::default(),
        }
    }

    fn open(&self) -> Host {
        self.host.run(|| Host::open(self.options())).unwrap().unwrap()
    }

    fn apply(&self, host: &mut Host, state: &HostState) -> kuafu_dataplane::Result<()> {
        self.host.run(|| host.apply(state)).unwrap()
    }

    fn tick(&self, host: &mut Host) -> Vec<String> {
        self.host.run(|| host.tick()).unwrap().unwrap()
    }

    /// One port here, the other's as an endpoint.
    fn state(&self) -> HostState {
        let (own, other) = (self.number, 3 - self.number);
        let text = serde_json::json!({
            "cluster": "test",
            "revision": 1,
            "node": {"id": own, "name": self.name(), "local": format!("192.0.2.{own}"),
                "public": format!("192.0.2.{own}"), "overlay": format!("100.64.0.{own}"), "udp_port": 6081},
            "ports": [{"name": "port", "vni": 7, "address": format!("10.7.0.{own}"),
                "mac": format!("02:00:00:00:07:0{own}"), "interface": "port"}],
            "endpoints": [{"vni": 7, "address": format!("10.7.0.{other}"),
                "mac": format!("02:00:00:00:07:0{other}"), "host": format!("192.0.2.{other}")}],
            "vteps": [{"vni": 7, "address": format!("192.0.2.{other}")}],
        });
        from_json(&text.to_string()).unwrap()
    }

    fn setting(&self, key: &str) -> String {
        let read = || fs::read_to_string(format!("/proc/sys/{key}"));
        self.host.run(read).unwrap().unwrap().trim().to_owned()
    }

    fn has(&self, device: &str) -> bool {
        let number = || nix::net::if_::if_nametoindex(device).is_ok();
        self.host.run(number).unwrap()
    }

    fn uninstall(&self) -> Vec<String> {
        let done = self.host.run(|| uninstall(&self.pins(), self.data.path()));
        done.unwrap().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.pins().remove_all();
    }
}

/// Answers every datagram until `stop`.
fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).unwrap();
        }
    }
}

/// A socket in the first guest whose datagrams the second's echo answers, while `work` runs.
fn with_echo(sites: &[Site; 2], work: impl FnOnce(&UdpSocket)) {
    let bind = |site: &Site| {
        let address = (Ipv4Addr::new(10, 7, 0, site.number), 7000);
        site.guest.run(|| UdpSocket::bind(address)).unwrap().unwrap()
    };
    let (client, server) = (bind(&sites[0]), bind(&sites[1]));
    client.connect("10.7.0.2:7000").unwrap();
    client.set_read_timeout(Some(ANSWER)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&server, &stop));
        let stops = Stops(&stop);
        work(&client);
        drop(stops);
    });
}

/// Stops the echo also when a test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether a datagram of that number is answered.
fn answered(client: &UdpSocket, number: u32) -> bool {
    if client.send(&number.to_be_bytes()).is_err() {
        return false;
    }
    let mut answer = [0; 64];
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        match client.recv(&mut answer) {
            Ok(4) if answer[..4] == number.to_be_bytes() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many packets this host dropped for a reason.
fn dropped(host: &Host, reason: Reason) -> u64 {
    let of_cpus = host.maps().drops.get(reason as u32).unwrap();
    of_cpus.iter().map(|drop| drop.packets).sum()
}

#[test]
fn what_leaves_kuafu0_meets_the_port_program() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("overlay");
    let site = &sites[0];
    let mut host = site.open();
    site.apply(&mut host, &site.state()).unwrap();
    assert_eq!(dropped(&host, Reason::NotAProbe), 0, "it is silent by itself");
    let send = || {
        let socket = UdpSocket::bind("100.64.0.1:40000").unwrap();
        socket.send_to(b"no probe", "100.64.0.2:862").unwrap();
    };
    site.host.run(send).unwrap();
    until("it is counted", || dropped(&host, Reason::NotAProbe) == 1);
}

#[test]
fn idle_connections_end_in_both_directions() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("sweep");
    let mut host = sites[0].open();
    let now = host.clock().jiffies().unwrap();
    let minutes = |count: u64| now - host.clock().ticks(Duration::from_secs(60 * count));
    for (port, last) in [(1, now), (2, minutes(2))] {
        let address = |last| IpKey::v4(u32::from(Ipv4Addr::new(192, 0, 2, last)));
        let ports = [Be16::new(port), Be16::new(7000)];
        let there = ConnectionKey::new(9, [address(7), address(8)], ports, 17);
        let leaves = ConnectionKey::new(
            0,
            [address(1), address(80)],
            [Be16::new(10_000 + port), ports[1]],
            17,
        );
        let back = leaves.turned_round(0);
        let connections = &host.maps().connections;
        connections
            .set(&there, &Connection::new(9, 1, &leaves, last))
            .unwrap();
        connections
            .set(&back, &Connection::new(9, 1, &there.turned_round(9), last))
            .unwrap();
    }
    assert_eq!(host.sweep().unwrap(), 1);
    assert_eq!(
        host.maps().connections.count().unwrap(),
        2,
        "the busy one stays whole"
    );
    assert_eq!(host.sweep().unwrap(), 0);
}

#[test]
fn a_wide_underlay_gets_the_edge_for_packets_in_pieces() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("wide");
    let site = &sites[0];
    let mut host = site.open();
    site.apply(&mut host, &site.state()).unwrap();
    let edge = |host: &Host| {
        let mut programs = host.programs().into_iter().map(|program| program.name);
        programs.find(|name| name.starts_with("kuafu_edge")).unwrap()
    };
    assert_eq!(edge(&host), "kuafu_edge");
    site.host.ip(["link set eth0 mtu 9000"]).unwrap();
    assert_eq!(site.tick(&mut host), Vec::<String>::new());
    assert_eq!(edge(&host), "kuafu_edge_frags");
    assert_eq!(host.facts().underlay_mtu, 9000);
}

/// Names under which links are pinned.
fn links(site: &Site) -> Vec<String> {
    let mut names = site.pins().link_names().unwrap();
    names.sort();
    names
}

fn opened(sites: &[Site; 2]) -> [Host; 2] {
    [0, 1].map(|at| {
        let mut host = sites[at].open();
        sites[at].apply(&mut host, &sites[at].state()).unwrap();
        host
    })
}

#[test]
fn guests_of_two_hosts_talk_and_a_restart_loses_nothing() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("talk");
    let [mut one, mut two] = opened(&sites);
    with_echo(&sites, |client| {
        until("guests talk", || {
            sites[0].tick(&mut one);
            sites[1].tick(&mut two);
            answered(client, 0)
        });
        assert_eq!(sites[0].tick(&mut one), Vec::<String>::new());
        let (before, programs) = (links(&sites[0]), one.programs());
        assert_eq!(programs.len(), 4, "{programs:?}");
        let (incarnation, contents) = (one.incarnation(), one.contents().clone());
        drop(one);
        assert!(answered(client, 1), "without an agent");
        let restarted = AtomicBool::new(false);
        let mut again = None;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut host = sites[0].open();
                assert_eq!(host.incarnation(), incarnation);
                sites[0].apply(&mut host, &sites[0].state()).unwrap();
                sites[0].tick(&mut host);
                again = Some(host);
                restarted.store(true, Ordering::Relaxed);
            });
            let mut number = 2;
            while !restarted.load(Ordering::Relaxed) {
                assert!(answered(client, number), "datagram {number} is lost");
                number += 1;
            }
        });
        let again = again.unwrap();
        assert_eq!(links(&sites[0]), before);
        assert_eq!(again.contents(), &contents);
        let ids = |programs: &[kuafu_dataplane::host::Attached]| -> Vec<u32> {
            programs.iter().map(|program| program.id).collect()
        };
        assert_ne!(
            ids(&again.programs()),
            ids(&programs),
            "the programs are the new ones"
        );
    });
}

#[test]
fn a_state_that_cannot_be_is_refused_and_the_old_one_stays() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("refuse");
    let site = &sites[0];
    let mut host = site.open();
    let mut elsewhere = site.state();
    elsewhere.node.local = Ipv4Addr::new(192, 0, 2, 99);
    let refused = site.apply(&mut host, &elsewhere).unwrap_err();
    assert!(matches!(refused, Error::NoUnderlay(_)), "{refused}");
    let mut wrong = site.state();
    wrong.ports[0].mtu = Some(9000);
    assert!(site.apply(&mut host, &wrong).is_err());
    assert!(links(site).is_empty(), "nothing is half attached");
    assert!(!site.has(OVERLAY_DEVICE));

    site.apply(&mut host, &site.state()).unwrap();
    let (before, contents) = (links(site), host.contents().clone());
    for state in [&elsewhere, &wrong] {
        site.apply(&mut host, state).unwrap_err();
        assert_eq!((links(site), host.contents()), (before.clone(), &contents));
        assert_eq!(host.state(), Some(&site.state()));
    }
    let listener = site
        .host
        .run(|| std::net::TcpListener::bind("0.0.0.0:12345"))
        .unwrap()
        .unwrap();
    let mut exit = site.state();
    exit.node.nat_ports = Some(10_000..=29_999);
    let taken = site.apply(&mut host, &exit).unwrap_err();
    assert!(matches!(taken, Error::PortInUse { port: 12_345, .. }), "{taken}");
    assert_eq!(host.contents(), &contents);
    drop(listener);
    site.apply(&mut host, &exit).unwrap();
    assert_eq!(site.setting("net/ipv4/ip_local_reserved_ports"), "10000-29999");
}

#[test]
fn an_occupied_underlay_is_refused() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("occupied");
    let mut first = sites[0].open();
    sites[0].apply(&mut first, &sites[0].state()).unwrap();
    // Another node's agent on the same device.
    let options = Options {
        pins: Pins::new(&sites[0].pins, "other"),
        ..sites[0].options()
    };
    let refused = sites[0].host.run(|| {
        let mut other = Host::open(options).unwrap();
        let refused = other.apply(&sites[0].state()).unwrap_err();
        (refused, other.programs(), Pins::new(&sites[0].pins, "other"))
    });
    let (refused, programs, pins) = refused.unwrap();
    let left = pins.link_names().unwrap();
    pins.remove_all().unwrap();
    assert!(matches!(refused, Error::Occupied { .. }), "{refused}");
    assert!(programs.is_empty() && left.is_empty(), "{programs:?} {left:?}");
}

#[test]
fn ports_wait_for_their_interfaces_and_follow_them() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("wait");
    sites[0].host.ip(["link del port"]).unwrap();
    let [mut one, mut two] = opened(&sites);
    assert_eq!(one.contents().waiting.len(), 1);
    for round in 0..2 {
        sites[0].plug();
        let mut together = |client: &UdpSocket| {
            until("the guest of the new port is reached", || {
                sites[0].tick(&mut one);
                sites[1].tick(&mut two);
                answered(client, round)
            });
        };
        with_echo(&sites, &mut together);
        assert!(one.contents().waiting.is_empty());
        sites[0].host.ip(["link del port"]).unwrap();
        sites[0].tick(&mut one);
        assert_eq!(one.contents().waiting.len(), 1);
        assert!(one.programs().iter().all(|program| program.interface != "port"));
    }
}

#[test]
fn a_reboot_is_a_new_incarnation_and_uninstall_leaves_nothing() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("leave");
    let site = &sites[0];
    site.host
        .sysctl("net/ipv4/ip_local_reserved_ports", "8080")
        .unwrap();
    site.host.sysctl("net/ipv4/conf/eth0/forwarding", "0").unwrap();
    assert_eq!(site.uninstall(), Vec::<String>::new(), "nothing is there");
    let mut state = site.state();
    state.node.nat_ports = Some(10_000..=29_999);
    for incarnation in [1, 2] {
        let mut host = site.open();
        assert_eq!(host.incarnation(), incarnation);
        site.apply(&mut host, &state).unwrap();
        assert_eq!(
            host.maps().node.get(&0).unwrap().unwrap().incarnation,
            incarnation
        );
        assert!(site.has(OVERLAY_DEVICE) && site.has(OVERLAY_PORT));
        assert_eq!(
            site.setting("net/ipv4/ip_local_reserved_ports"),
            "8080,10000-29999"
        );
        assert_eq!(site.setting("net/ipv4/conf/eth0/forwarding"), "1");
        drop(host);
        // What a reboot takes.
        site.pins().remove_all().unwrap();
    }
    drop({
        let mut host = site.open();
        site.apply(&mut host, &state).unwrap();
        host
    });
    let done = site.uninstall();
    assert!(done.iter().any(|line| line.contains("kuafu0")), "{done:?}");
    assert!(!site.has(OVERLAY_DEVICE) && !site.has(OVERLAY_PORT));
    assert!(!Path::new(site.pins().folder()).exists());
    assert_eq!(site.setting("net/ipv4/ip_local_reserved_ports"), "8080");
    assert_eq!(site.setting("net/ipv4/conf/eth0/forwarding"), "0");
    assert_eq!(site.uninstall(), Vec::<String>::new(), "twice is once");
}

#[test]
fn the_edge_is_attached_as_it_is_asked_for() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("mode");
    let hooks = [
        (None, "xdp generic"),
        (Some(XdpMode::Native), "xdp native"),
        (None, "xdp native"),
        (Some(XdpMode::Generic), "xdp generic"),
    ];
    for (xdp, hook) in hooks {
        let options = Options {
            xdp,
            ..sites[0].options()
        };
        let mut host = sites[0].host.run(|| Host::open(options)).unwrap().unwrap();
        sites[0].apply(&mut host, &sites[0].state()).unwrap();
        let programs = host.programs();
        let edge = programs
            .iter()
            .find(|program| program.name.starts_with("kuafu_edge"));
        assert_eq!(edge.map(|edge| edge.hook), Some(hook), "{xdp:?}");
    }
}
