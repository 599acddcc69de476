use std::net::Ipv4Addr;
use std::sync::Arc;

use kuafu_model::kinds::{
    Affinity, ConfigNumber, ConnectionIds, Echo, Fragments, IdOctets, Options, Oversize, PacketPolicy,
    PortRange,
};
use kuafu_model::state::*;

use super::parse::Read;
use super::*;
use crate::Delta;

fn leg(label: u32) -> LegState {
    LegState {
        keys: vec![LegKey {
            epoch: 1,
            key: [0x5a; 16],
        }],
        label,
        address: Ipv4Addr::new(198, 51, 100, 2),
        port: 6081,
        source_port: 49_153,
    }
}

fn service(at_exit: bool, target: Target) -> ServiceState {
    ServiceState {
        vni: 5,
        name: "arena".to_owned(),
        own: false,
        at_exit,
        local: Ipv4Addr::new(10, 1, 0, 9).into(),
        public: Ipv4Addr::new(203, 0, 113, 9).into(),
        whole_address: true,
        protocol: 17,
        ports: PortRange::literal(2342, 2342),
        idle_timeout_s: 60,
        bandwidth_mbps: at_exit.then_some(50),
        mtu: at_exit.then_some(1400),
        asked_at: (!at_exit).then_some(Ipv4Addr::new(10, 1, 0, 8).into()),
        affinity: if at_exit { Affinity::Flow } else { Affinity::Client },
        connection_ids: (!at_exit).then_some(ConnectionIds::QuicLb {
            config: ConfigNumber::new(2).unwrap(),
            octets: IdOctets::new(3).unwrap(),
        }),
        packets: if at_exit {
            PacketPolicy::default()
        } else {
            PacketPolicy {
                fragments: Fragments::Pass,
                ipv4_options: Options::Pass,
                echo: Some(Echo::Drop),
                oversize: Oversize::Drop,
            }
        },
        shield: (!at_exit).then(shield),
        targets: vec![TargetState::unchecked(1, target)],
    }
}

fn shield() -> Shield {
    Shield {
        enforces: true,
        alarm_new_per_s: Some(5000),
        hold_s: 60,
        syn_cookies: true,
        drop_amplifiers: false,
        admitted_only: true,
        source_new_per_s: 100,
        prefix_new_per_s: 2000,
        new_per_s: None,
        block: vec!["bots".to_owned()],
        allow: Vec::new(),
    }
}

fn slot(label: u32, action: SlotAction) -> SlotState {
    SlotState {
        label,
        source: Ipv4Addr::new(198, 51, 100, 3),
        keys: leg(1).keys,
        action,
    }
}

/// A state with an entry of each kind, ordered by key.
pub(crate) fn sample() -> HostState {
    HostState {
        cluster: "7f3c".to_owned(),
        revision: 7,
        node: Host {
            id: 3,
            name: "osaka".to_owned(),
            local: Ipv4Addr::new(10, 1, 0, 2),
            public: Ipv4Addr::new(203, 0, 113, 7),
            overlay: Ipv4Addr::new(100, 64, 0, 3),
            udp_port: 6081,
            nat_ports: Some(10_000..=29_999),
        },
        ports: vec![PortState {
            name: "web".to_owned(),
            vni: 2,
            address: Ipv4Addr::new(10, 0, 0, 5),
            mac: [2, 0, 0, 0, 0, 0x1f],
            interface: "veth-web".to_owned(),
            mtu: Some(1450),
            serves: vec![Served {
                address: Ipv4Addr::new(203, 0, 113, 5),
                protocol: 6,
                ports: PortRange::literal(8000, 8099),
            }],
        }],
        endpoints: vec![RemoteEndpoint {
            vni: 2,
            address: Ipv4Addr::new(10, 0, 0, 6),
            mac: [2, 0, 0, 0, 0, 6],
            host: Ipv4Addr::new(198, 51, 100, 2),
        }],
        vteps: vec![VtepState {
            vni: 2,
            address: Ipv4Addr::new(198, 51, 100, 2),
        }],
        slots: vec![
            slot(1, SlotAction::Relay(leg(9))),
            slot(
                2,
                SlotAction::Exit {
                    twin: 1,
                    window: 1,
                    answers: 1,
                },
            ),
        ],
        paths: vec![PathState {
            index: 1,
            id: 1 << 40,
            nodes: vec!["osaka".to_owned(), "calgary".to_owned()],
            leg: leg(4),
            near: true,
        }],
        pairs: vec![PairState {
            index: 1,
            peer: "calgary".to_owned(),
            class: "game".to_owned(),
            premium: true,
            duplicate: true,
            primary: Some(1),
            backup: None,
        }],
        services: vec![
            service(false, Target::Pair(1)),
            service(
                true,
                Target::Server {
                    address: Ipv4Addr::new(192, 0, 2, 1),
                    port: Some(2342),
                },
            ),
        ],
        prefix_lists: vec![PrefixListState {
            name: "bots".to_owned(),
            prefixes: ["198.51.100.0/24", "203.0.113.7/32"]
                .map(|prefix| prefix.parse().unwrap())
                .into(),
        }],
        announcements: announcements(),
    }
}

/// One of each kind.
fn announcements() -> Vec<Announcement> {
    let hook = Way::Hook {
        command: "/sbin/take".to_owned(),
        timeout_s: 30,
    };
    let bgp = Way::Bgp {
        speaker: Speaker {
            daemon: Daemon::Frr {
                bfd: Some(Bfd {
                    interval_ms: 300,
                    multiplier: 3,
                }),
            },
            number: 65_001,
            peers: vec![Router {
                address: Ipv4Addr::new(192, 0, 2, 254),
                number: 65_000,
                multihop: Some(2),
                password_file: Some("/etc/kuafu/bgp-password".to_owned()),
            }],
            port: 179,
        },
        communities: vec!["65000:100".to_owned()],
        med: Some(50),
    };
    let ways = [(9, Way::Arp), (10, hook), (11, bgp)].into_iter();
    let announcement = |(last, way)| Announcement {
        local: Ipv4Addr::new(10, 1, 0, last).into(),
        public: Ipv4Addr::new(203, 0, 113, last).into(),
        length: 32,
        here: last != 10,
        term: last.into(),
        way,
    };
    let mut all: Vec<Announcement> = ways.map(announcement).collect();
    let of_prefix = all.last().cloned().map(|address| Announcement {
        local: Ipv4Addr::new(10, 1, 1, 0).into(),
        public: Ipv4Addr::new(198, 51, 100, 0).into(),
        length: 24,
        ..address
    });
    let of_v6 = |local: &str, public: &str, length| {
        let (local, public) = (local.parse().unwrap(), public.parse().unwrap());
        all.get(1).cloned().map(|address| Announcement {
            local,
            public,
            length,
            ..address
        })
    };
    let by_hook = of_v6("2001:db8::10", "2001:db8:1::10", 128);
    let six = of_v6("2001:db8:5::", "2001:db8:6::", 120).zip(of_prefix.clone());
    let six = six.map(|(six, bgp)| Announcement { way: bgp.way, ..six });
    [of_prefix, by_hook, six]
        .into_iter()
        .for_each(|one| all.extend(one));
    all
}

#[test]
fn a_prefix_is_told_by_its_first_address_and_of_bgp_alone() {
    let message = |index: usize, change: fn(&mut v1::Announcement)| {
        let mut state = v1::HostState::from(&sample());
        change(&mut state.announcements[index]);
        HostState::try_from(state).map_err(|error| error.to_string())
    };
    assert_eq!(message(3, |_| {}), Ok(sample()));
    for (change, said) in [
        (
            (|one| one.length = Some(32)) as fn(&mut v1::Announcement),
            "length",
        ),
        (|one| one.length = Some(0), "length"),
        (|one| one.length = Some(23), "local"),
        (|one| one.public = "198.51.100.7".into(), "public"),
        (
            |one| {
                one.bgp = None;
                one.arp = Some(v1::announcement::Arp {});
            },
            "length",
        ),
    ] {
        let error = message(3, change).unwrap_err();
        assert!(error.contains(&format!("announcements[3].{said}")), "{error}");
    }
    for (change, said) in [
        (
            (|one| one.length = Some(128)) as fn(&mut v1::Announcement),
            "length",
        ),
        (|one| one.local = "2001:db8:5::1".into(), "local"),
        (|one| one.public = "198.51.100.0".into(), "public"),
    ] {
        let error = message(5, change).unwrap_err();
        assert!(error.contains(&format!("announcements[5].{said}")), "{error}");
    }
}

#[test]
fn binary_and_json_read_what_they_write() {
    let state = sample();
    assert_eq!(from_bytes(&to_bytes(&state)).unwrap(), state);
    let json = to_json(&state).unwrap();
    assert_eq!(from_json(&json).unwrap(), state);
    assert!(json.contains("\"mac\": \"02:00:00:00:00:1f\""), "{json}");
    assert!(json.contains(&"5a".repeat(16)), "{json}");
}

/// A check of a server, and of each kind another one.
fn checks() -> Vec<Check> {
    let (path, host) = ("/ready".to_owned(), "game.example".to_owned());
    let status = (200, 399);
    let http = |tls| Ask::Http {
        tls,
        path: path.clone(),
        host: host.clone(),
        status,
    };
    let asks = [
        Ask::Tcp,
        http(false),
        http(true),
        Ask::Udp {
            send: vec![0xff, 0],
            expect: Vec::new(),
        },
        Ask::A2s,
        Ask::Quake3,
        Ask::Minecraft,
        Ask::Quic {
            alpn: "h3".to_owned(),
            host: String::new(),
        },
        Ask::Grpc {
            service: "game".to_owned(),
        },
    ];
    let check = |ask| Check {
        service: "game".to_owned(),
        ask,
        port: Some(2343),
        interval_ms: 100,
        timeout_ms: 50,
        rise: 2,
        fall: 3,
        least_percent: 50,
        slow_start_s: 0,
    };
    asks.into_iter().map(check).collect()
}

#[test]
fn checks_survive_and_their_change_is_a_delta() {
    for check in checks() {
        let (before, mut state) = (sample(), sample());
        state.services[1].targets[0].check = Some(Arc::new(check));
        state.services[1].targets[0].ends_s = Some(1_796_104_800);
        state.services[1].targets[0].server_id = Some(7);
        (
            state.services[1].targets[0].group,
            state.services[1].targets[0].rank,
        ) = (1, 2);
        assert_eq!(from_bytes(&to_bytes(&state)).unwrap(), state);
        assert_eq!(from_json(&to_json(&state).unwrap()).unwrap(), state);
        assert_eq!(Delta::between(&before, &state).apply(&before).unwrap(), state);
    }
}

#[test]
fn shields_and_lists_survive_and_their_change_is_a_delta() {
    let (before, mut state) = (sample(), sample());
    state.services[0].shield = Some(Shield {
        alarm_new_per_s: None,
        new_per_s: Some(20_000),
        allow: vec!["friends".to_owned()],
        ..shield()
    });
    state.prefix_lists[0].prefixes = ["0.0.0.0/0".parse().unwrap()].into();
    assert_eq!(from_bytes(&to_bytes(&state)).unwrap(), state);
    assert_eq!(from_json(&to_json(&state).unwrap()).unwrap(), state);
    let delta = Delta::between(&before, &state);
    assert_eq!(
        (delta.services.changed.len(), delta.prefix_lists.changed.len()),
        (1, 1)
    );
    assert_eq!(delta.apply(&before).unwrap(), state);
}

#[test]
fn wrong_checks_are_named() {
    let of = |change: fn(&mut v1::Check)| {
        let mut message = v1::Check::from(&checks()[0]);
        change(&mut message);
        Check::read(message).unwrap_err().to_string()
    };
    assert!(of(|check| check.interval_ms = 0).contains("interval_ms"));
    assert!(of(|check| check.least_percent = 101).contains("0 to 100"));
    assert!(of(|check| check.port = Some(0)).contains("port"));
    assert!(
        of(|check| check.tcp = None).contains("tcp"),
        "nothing that is known here"
    );
    assert!(of(|check| check.a2s = check.tcp).contains("the only one"));
}

#[test]
fn wrong_ports_are_named() {
    let of = |port, last_port| {
        let served = &sample().ports[0].serves[0];
        let message = v1::Served {
            port,
            last_port,
            ..served.into()
        };
        Served::read(message)
    };
    assert_eq!(of(80, None).unwrap().ports, PortRange::literal(80, 80));
    assert_eq!(of(80, Some(81)).unwrap().ports, PortRange::literal(80, 81));
    for (port, last, field) in [
        (0, None, "port"),
        (80, Some(79), "last_port"),
        (80, Some(1 << 16), "last_port"),
    ] {
        let error = of(port, last).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn json_may_leave_out_what_is_empty() {
    let json = r#"{"cluster": "c", "revision": 1, "node": {"id": 1, "name": "a", "local": "10.0.0.1",
        "public": "10.0.0.1", "overlay": "100.64.0.1", "udp_port": 6081}}"#;
    let state = from_json(json).unwrap();
    assert_eq!(state.node.name, "a");
    assert!(state.ports.is_empty());
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            "\"label\": 2,",
            "\"label\": 65536,",
            "slots[1].label: \"65536\" is not 1 to 65,535",
        ),
        (
            "\"02:00:00:00:00:1f\"",
            "\"02:00\"",
            "ports[0].mac: \"02:00\" is not an Ethernet address",
        ),
        (
            "\"192.0.2.1\"",
            "\"here\"",
            "services[1].targets[0].server.address: \"here\" is not an IPv4 address",
        ),
        (
            "\"hold_s\": 60",
            "\"hold_s\": 0",
            "services[0].shield.hold_s: \"0\" is not 1 to 3600",
        ),
        (
            "\"source_new_per_s\": 100",
            "\"source_new_per_s\": 0",
            "services[0].shield.source_new_per_s: \"0\" is not 1 to 100,000,000",
        ),
        (
            "\"203.0.113.7/32\"",
            "\"203.0.113.7/24\"",
            "prefix_lists[0].prefixes[1]: \"203.0.113.7/24\" is not an IPv4 prefix without bits outside it",
        ),
        (
            "\"hook\": null",
            "\"hook\": {\"command\": \"/take\", \"timeout_s\": 1}",
            "announcements[0].arp: \"\" is not the only one beside hook and bgp",
        ),
        (
            "\"timeout_s\": 30",
            "\"timeout_s\": 0",
            "announcements[1].hook.timeout_s: \"0\" is not 1 or more",
        ),
        ("\"schema\": 1", "\"schema\": 2", "state of schema 2"),
        ("\"udp_port\"", "\"udp_prt\"", "unknown field `udp_prt`"),
    ];
    let json = to_json(&sample()).unwrap();
    for (from, to, message) in cases {
        assert!(json.contains(from), "{from}");
        let error = from_json(&json.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn keys_are_not_printed() {
    let message = v1::HostState::from(&sample());
    assert!(!format!("{message:?}").contains("90, 90"));
}
