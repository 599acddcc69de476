//! A host between its state and its kernel: two of them in namespaces, with a port each.
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

#[path = "host/checks.rs"]
mod checks;
#[path = "host/site.rs"]
mod site;
#[path = "host/upgrade.rs"]
mod upgrade;

#[path = "host/v6.rs"]
mod v6;

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kuafu_dataplane::Error;
use kuafu_dataplane::bpf::{Pins, XdpMode};
use kuafu_dataplane::host::{Host, OVERLAY_DEVICE, OVERLAY_PORT, Options};
use kuafu_pipeline::Reason;
use kuafu_pipeline::map::{
    AdmittedKey, AdmittedKeyV6, Be16, CachedFlows, Connection, ConnectionKey, IpKey, SingleThreaded, Tracked,
    listed_key,
};
use kuafu_pipeline::stage::flow::Flow;
use kuafu_proto::state::from_json;
use site::{Site, answered, dropped, opened, sites, until, until_they_talk, with_echo};

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

/// The last packet may have come a while after the one that an entry names.
#[test]
fn idle_flows_are_forgotten_with_their_copies() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("flows");
    let mut host = sites[0].open();
    let now = host.clock().jiffies().unwrap();
    let minute = now - host.clock().ticks(Duration::from_secs(60));
    let key = |port| {
        let address = |last| IpKey::v4(u32::from(Ipv4Addr::new(192, 0, 2, last)));
        ConnectionKey::new(
            9,
            [address(7), address(8)],
            [Be16::new(port), Be16::new(7000)],
            17,
        )
    };
    let maps = host.maps();
    let line = |port| Flow::of_connection(&key(port)).unwrap().hash() % maps.flow_cache.capacity();
    for (port, last) in [(1, minute), (2, minute - Tracked::GRAIN - 1)] {
        let flow = Tracked::new(5, 1, false, last);
        let lines = CachedFlows::default();
        lines.flows[0].copy(&SingleThreaded, [u64::from(port), 1], &flow);
        maps.flow_cache.set(&line(port), &lines).unwrap();
        maps.tracked.set(&key(port), &flow).unwrap();
    }
    assert_ne!(line(1), line(2));
    assert_eq!(host.sweep().unwrap(), 1);
    let maps = host.maps();
    let is_known = |port| maps.tracked.get(&key(port)).unwrap().is_some();
    let is_copied = |port: u16| {
        let line = Flow::of_connection(&key(port)).unwrap().hash() % maps.flow_cache.capacity();
        let lines = maps.flow_cache.get(&line).unwrap().unwrap();
        lines.flows[0].is_of([u64::from(port), 1])
    };
    assert_eq!([1, 2].map(is_known), [true, false]);
    assert_eq!([1, 2].map(is_copied), [true, false]);
}

#[test]
fn admission_ends() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("admitted");
    let mut host = sites[0].open();
    let now = host.clock().jiffies().unwrap();
    let later = now + host.clock().ticks(Duration::from_secs(60));
    let client = |client| AdmittedKey { vni: 9, client };
    let client_v6 = |last| AdmittedKeyV6::new(9, IpKey::from_halves([1 << 61, last]));
    for (number, until) in [(1, now), (2, later)] {
        host.maps().admitted.set(&client(number), &until).unwrap();
        host.maps()
            .admitted_v6
            .set(&client_v6(number.into()), &until)
            .unwrap();
    }
    assert_eq!(host.sweep().unwrap(), 2);
    let of_v6 = [1, 2].map(|number| host.maps().admitted_v6.get(&client_v6(number)).unwrap());
    assert_eq!(of_v6, [None, Some(later)]);
    assert_eq!(host.maps().admitted.get(&client(1)).unwrap(), None);
    assert_eq!(host.maps().admitted.get(&client(2)).unwrap(), Some(later));
}

#[test]
fn shields_and_lists_are_in_force_until_they_are_taken_away() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("shield");
    let site = &sites[0];
    let mut state = site.state();
    let service = serde_json::json!({
        "cluster": "test", "revision": 1,
        "node": {"id": 1, "name": "h1", "local": "192.0.2.1", "public": "192.0.2.1", "overlay": "100.64.0.1",
            "udp_port": 6081},
        "services": [{"vni": 9, "name": "web", "own": true, "local": "198.51.100.1", "public": "198.51.100.1",
            "whole_address": true, "protocol": 6, "port": 443, "idle_timeout_s": 60,
            "targets": [{"weight": 1, "direct": {"address": "192.0.2.2"}}],
            "shield": {"enforces": true, "hold_s": 60, "source_new_per_s": 100, "prefix_new_per_s": 2000,
                "block": ["bots"]}}],
        "prefix_lists": [{"name": "bots", "prefixes": ["10.0.0.0/8", "203.0.113.7/32"]}],
    });
    let with = from_json(&service.to_string()).unwrap();
    state.services = with.services;
    state.prefix_lists = with.prefix_lists;
    let (area, address) = (0x0aff, u32::from(Ipv4Addr::new(203, 0, 113, 7)));
    let lists = |host: &Host| {
        let (maps, network) = (host.maps(), address >> 8);
        let marks = maps.list_marks.get(&(network >> 6)).unwrap().unwrap();
        let listed = maps.listed.get(&listed_key(address, 32)).unwrap();
        let area = maps.list_areas.get(&area).unwrap().unwrap();
        (area, listed, marks >> (network & 63) & 1)
    };

    let mut host = site.open();
    site.apply(&mut host, &state).unwrap();
    let first = host.maps().shields.get(&1).unwrap().unwrap();
    assert_eq!((first.vni, first.blocked), (9, 1));
    assert_eq!(lists(&host), (1, Some(1), 1));

    drop(host);
    let mut host = site.open();
    assert_eq!(
        lists(&host),
        (1, Some(1), 1),
        "the agent's end takes nothing away"
    );
    site.apply(&mut host, &state).unwrap();
    let second = host.maps().shields.get(&1).unwrap().unwrap();
    assert!(second.key != first.key, "each start has a secret of its own");
    assert_eq!(lists(&host), (1, Some(1), 1));

    state.revision += 1;
    state.services[0].shield = None;
    state.prefix_lists.clear();
    site.apply(&mut host, &state).unwrap();
    assert_eq!(lists(&host), (0, None, 0));
    assert_eq!(host.maps().shields.get(&1).unwrap(), Some(Default::default()));
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

#[test]
fn guests_of_two_hosts_talk_and_a_restart_loses_nothing() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("talk");
    let [mut one, mut two] = opened(&sites);
    with_echo(&sites, |client| {
        until_they_talk(&sites, [&mut one, &mut two], client);
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
