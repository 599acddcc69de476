//! What a host answers, over maps that packets of the cases have changed.
//!
//! Needs root; says that it was skipped elsewhere.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; what tests share is used in parts"
)]

#[path = "../../model/tests/common/mod.rs"]
mod common;
#[path = "cases/kernel.rs"]
mod kernel;

use std::collections::BTreeMap;
use std::time::Duration;

use common::case::{Case, Done, Input, Program, changes};
use common::encode::encode;
use common::world::{self, UNDERLAY, World};
use kernel::{Kernel, namespace, stay_on_one_cpu};
use kuafu_dataplane::bpf::{Clock, Sizes};
use kuafu_dataplane::read::{DropWatch, Measured, ShieldWatch, View, answer, contents};
use kuafu_model::contents::{Capacities, Contents};
use kuafu_model::kinds::PortRange;
use kuafu_model::state::{Encapsulation, PrefixListState, ServiceState, Shield, Target, TargetState};
use kuafu_pipeline::Reason;
use kuafu_pipeline::map::ShieldState;
use kuafu_proto::v1::query::Ask;
use kuafu_proto::v1::query_answer::Answer;
use kuafu_proto::v1::{self, ExplainQuery, Explanation};

/// A world in the kernel, and what its answers are made from.
struct Host {
    world: World,
    kernel: Kernel,
    clock: Clock,
    contents: Contents,
    drops: DropWatch,
    shields: ShieldWatch,
}

const MEASURED: Measured = Measured {
    sent: 20,
    received: 19,
    rtt_p50_us: 1000,
    rtt_p90_us: 1100,
    rtt_ewma_us: 1050,
};

impl Host {
    fn new(name: &str) -> Self {
        Self::of(world::named(name))
    }

    fn of(world: World) -> Self {
        stay_on_one_cpu();
        let kernel = Kernel::of_size(&sizes(&world), world.contents().as_ref(), (&world, false));
        Self {
            drops: DropWatch::new(kernel.maps()).unwrap(),
            shields: ShieldWatch::default(),
            contents: world.contents().unwrap_or_default(),
            clock: Clock::new().unwrap(),
            kernel,
            world,
        }
    }

    fn ask(&self, ask: Ask) -> Answer {
        let programs = [("p1", 1), ("p2", 1), ("under", 2)].map(|(interface, id)| v1::ProgramStatus {
            name: "kuafu".to_owned(),
            interface: interface.to_owned(),
            hook: "tcx ingress".to_owned(),
            id,
        });
        let view = View {
            name: "unnamed",
            maps: self.kernel.maps(),
            clock: &self.clock,
            state: self.world.state.as_ref(),
            contents: &self.contents,
            programs: &programs,
            incarnation: 3,
            liveness: false,
            probing: v1::Probing::default(),
            faults: &["something is wrong".to_owned()],
            measured: &|path| (path == 1).then_some(MEASURED),
            servers: &Vec::new,
            announcements: &Vec::new,
            drops: &self.drops,
            shields: &self.shields,
        };
        let answer = answer(
            &view,
            &v1::Query {
                id: 7,
                ask: Some(ask),
            },
        );
        assert_eq!(answer.id, 7);
        answer.answer.unwrap()
    }

    fn explain(&self, input: &Input) -> Result<Explanation, String> {
        let query = ExplainQuery {
            frame: input.octets.clone(),
            interface: nix::net::if_::if_indextoname(input.interface)
                .unwrap()
                .into_string()
                .unwrap(),
            mark: input.mark,
        };
        match self.ask(Ask::Explain(query)) {
            Answer::Explanation(explanation) => Ok(explanation),
            Answer::Error(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    /// What the programs of the interface do with a frame, the one after the other.
    fn run(&self, input: &Input) -> (Program, Done) {
        let chain: &[Program] = if input.interface == UNDERLAY {
            &[Program::Edge, Program::Underlay]
        } else {
            &[Program::Port]
        };
        let (mut input, mut done) = (input.clone(), None);
        for program in chain {
            input.program = *program;
            let this = self.kernel.run(&input);
            input.octets.clone_from(&this.octets);
            done = Some((*program, this));
            if !matches!(done, Some((Program::Edge, Done { code: 2, .. }))) {
                break;
            }
        }
        done.unwrap()
    }
}

/// No larger than the world needs: each explanation reads all maps back.
fn sizes(world: &World) -> Sizes {
    let room = u32::try_from(world.connections.min(1024)).unwrap();
    Sizes {
        capacities: Capacities {
            endpoints: 1024,
            senders: 1024,
            slots: 1024,
            targets: 1024,
            members: 1024,
            quic_targets: 1024,
            limits: 1024,
            listed: 1024,
            ..Capacities::default()
        },
        connections: room,
        tracked: room,
        ..Sizes::default()
    }
}

fn in_namespace(name: &str, test: impl FnOnce() + Send) {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    namespace(name).run(test).expect("the namespace");
}

#[test]
fn an_explanation_is_what_the_kernel_does() {
    in_namespace("explain", || {
        let cases: Vec<Case> = common::case::all()
            .into_iter()
            .flat_map(|(_, cases)| cases)
            .collect();
        let mut wrong = String::new();
        let mut packets = 0;
        for name in world::NAMES.iter().filter(|name| **name != "bare") {
            let host = Host::new(name);
            for case in cases.iter().filter(|case| case.world == *name) {
                host.kernel.begin_anew(&host.world);
                for (packet, input) in case.packets.iter().zip(case.inputs()) {
                    // How many answers the clock allows, and how long packets become, is not asked here.
                    if packet.until_limited || input.segment != 0 {
                        continue;
                    }
                    packets += 1;
                    if let Some(why) = difference(&host, &input) {
                        wrong += &format!("{} ({name}): {}\n  {why}\n", case.name, packet.input);
                    }
                }
            }
        }
        assert!(packets > 100, "only {packets} packets");
        assert!(wrong.is_empty(), "\n{wrong}");
    });
}

/// What an explanation says otherwise than the kernel then does.
fn difference(host: &Host, input: &Input) -> Option<String> {
    let told = host.explain(input).expect("an explanation");
    host.kernel.allow_answers();
    let before = host.kernel.counters();
    let (program, done) = host.run(input);
    let reasons: Vec<String> = changes(&before, &host.kernel.counters())
        .into_keys()
        .filter(|word| Reason::from_word(word).is_some())
        .collect();
    let verdict = match (program, done.code) {
        (Program::Edge, 1) | (_, 2) => "drop",
        (Program::Port | Program::Underlay, -1) => "pass",
        _ => "leave",
    };
    let told_verdict = match told.verdict.as_str() {
        "transmit" | "arrive" | "deliver" | "answer" => "leave",
        other => other,
    };
    let same_reason = reasons.first().map_or("", String::as_str) == told.reason;
    // Sequence numbers, times and tags are each packet's own.
    let same_frame = done.octets == told.frame
        || verdict == "drop"
        || (done.octets.len() == told.frame.len() && is_backbone(&done.octets));
    if verdict == told_verdict && same_reason && same_frame {
        return None;
    }
    Some(format!(
        "told {} {:?} {:02x?}\n  done {verdict} ({program:?} {}) {reasons:?} {:02x?}",
        told.verdict, told.reason, told.frame, done.code, done.octets
    ))
}

fn is_backbone(frame: &[u8]) -> bool {
    frame.get(36..38) == Some(&6081_u16.to_be_bytes())
}

#[test]
fn an_explanation_changes_nothing_and_names_its_steps() {
    in_namespace("steps", || {
        let host = Host::new("host");
        let input = client(40_000);
        let (before, counters) = (host.kernel.state(), host.kernel.counters());
        let told = host.explain(&input).unwrap();
        assert_eq!((host.kernel.state(), host.kernel.counters()), (before, counters));
        assert_eq!((told.node.as_str(), told.program.as_str()), ("host", "edge"));
        assert_eq!(
            (told.verdict.as_str(), told.interface.as_str()),
            ("transmit", "under")
        );
        let stages: Vec<&str> = told.steps.iter().map(|step| step.stage.as_str()).collect();
        for stage in [
            "node",
            "services",
            "rings",
            "targets",
            "limits",
            "pairs",
            "path_states",
            "neighbours",
            "count",
        ] {
            assert!(stages.contains(&stage), "{stage} is not among {stages:?}");
        }
        let bare = Host::new("bare");
        let refused = bare.explain(&input).unwrap_err();
        assert!(
            refused.contains("none of Kuafu's programs runs there"),
            "{refused}"
        );
    });
}

/// A client's packet at the entry.
fn client(port: u16) -> Input {
    Input {
        program: Program::Edge,
        interface: UNDERLAY,
        mark: 0,
        segment: 0,
        octets: encode(&format!(
            "eth mfe > m01 | ipv4 203.0.113.9 > 198.51.100.1 | udp {port} > 7000 | data 5"
        )),
    }
}

/// A client's packet at the exit, by the backbone.
fn exiting(sequence: u32) -> Input {
    Input {
        octets: encode(&format!(
            "eth m02 > m01 | ipv4 192.0.2.2 > 192.0.2.1 | udp 50003 > 6081 sum none | geneve 101 label 6 seq {sequence} \
             key 3 | ipv4 203.0.113.9 > 198.51.100.1 | udp 40000 > 7000 | data 5"
        )),
        ..client(0)
    }
}

#[test]
fn flows_and_drops_are_those_of_the_packets() {
    in_namespace("answers", || {
        let mut host = Host::new("host");
        assert_eq!(host.run(&exiting(1)).1.code, 3);
        assert_eq!(host.run(&exiting(2)).1.code, 3);
        assert_eq!(host.run(&exiting(2)).1.code, 1, "a duplicate");
        host.drops.look(host.kernel.maps()).unwrap();

        let Answer::Flows(flows) = host.ask(Ask::Flows(v1::FlowsQuery { limit: 1 })) else {
            panic!("no flows");
        };
        let [flow] = flows.flows.as_slice() else {
            panic!("{flows:?}");
        };
        assert!(!flows.truncated && flow.idle_ms < 60_000, "{flow:?}");
        let port: u16 = flow.source.strip_prefix("192.0.2.1:").unwrap().parse().unwrap();
        assert!((10_000..=29_999).contains(&port));
        let expected = v1::Flow {
            exit: "host".into(),
            entry: "peer".into(),
            accelerator: "accelerator-101".into(),
            protocol: 17,
            client: "203.0.113.9:40000".into(),
            service: "198.51.100.1:7000".into(),
            endpoint: "192.0.2.80:9000".into(),
            packets_to_server: 2,
            bytes_to_server: 2 * 33,
            source: flow.source.clone(),
            idle_ms: flow.idle_ms,
            ..v1::Flow::default()
        };
        assert_eq!(*flow, expected);

        let Answer::Drops(drops) = host.ask(Ask::Drops(v1::DropsQuery {})) else {
            panic!("no drops");
        };
        let [drop] = drops.drops.as_slice() else {
            panic!("{drops:?}");
        };
        let seen = (drop.reason.as_str(), drop.count, drop.interface.as_str());
        assert_eq!(seen, ("duplicate", 1, "under"));
        assert_eq!(drop.first_bytes, exiting(2).octets[..64]);
        assert!(drop.last_seen_unix_ms.is_some());
    });
}

/// Accelerator 100 with a shield.
fn shielded(admitted_only: bool, alarm_new_per_s: Option<u32>) -> Host {
    let mut world = world::named("host");
    let state = world.state.as_mut().unwrap();
    for service in state.services.iter_mut().filter(|service| service.vni == 100) {
        service.shield = Some(Shield {
            enforces: true,
            alarm_new_per_s,
            hold_s: 60,
            syn_cookies: true,
            drop_amplifiers: true,
            admitted_only,
            source_new_per_s: 1,
            prefix_new_per_s: 2000,
            new_per_s: None,
            block: vec!["bots".into()],
            allow: Vec::new(),
        });
    }
    state.prefix_lists = vec![PrefixListState {
        name: "bots".into(),
        prefixes: ["192.0.2.0/24".parse().unwrap()].into(),
    }];
    Host::of(world)
}

/// A service of IPv6 whose shield wants admitted clients.
fn shielded_v6() -> Host {
    let mut world = shielded(true, None).world;
    let state = world.state.as_mut().unwrap();
    let shield = state.services.iter().find_map(|service| service.shield.clone());
    state.services.push(ServiceState {
        name: "six".into(),
        own: true,
        targets: vec![TargetState::unchecked(
            1,
            Target::Direct {
                address: "2001:db8::9".parse().unwrap(),
                encapsulation: Encapsulation::Ipip,
            },
        )],
        shield: shield.map(|shield| Shield {
            block: Vec::new(),
            ..shield
        }),
        ..ServiceState::blank(
            106,
            "2001:db8::1".parse().unwrap(),
            (17, PortRange::literal(7000, 7000)),
        )
    });
    Host::of(world)
}

fn status_of(host: &Host, object: &str) -> Result<v1::ShieldStatus, String> {
    let object = object.to_owned();
    match host.ask(Ask::Shield(v1::ShieldQuery { object })) {
        Answer::Shield(status) => Ok(status),
        Answer::Error(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn admit(host: &Host, object: &str, client: &str, ttl_s: u32) -> Result<(), String> {
    let query = v1::AdmitQuery {
        object: object.to_owned(),
        client: client.to_owned(),
        ttl_s,
    };
    match host.ask(Ask::Admit(query)) {
        Answer::Admitted(_) => Ok(()),
        Answer::Error(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

/// What was counted at all.
fn tallies(status: &v1::ShieldStatus) -> Vec<(&str, u64)> {
    let tallies = status.tallies.iter().filter(|tally| tally.packets != 0);
    tallies
        .map(|tally| (tally.what.as_str(), tally.packets))
        .collect()
}

#[test]
fn who_is_admitted_may_begin_and_others_are_named() {
    in_namespace("admit", || {
        const ARENA: &str = "accelerator/accelerator-100";
        let mut host = shielded(true, None);
        host.shields.look(host.kernel.maps(), &host.contents).unwrap();
        let dropped = |host: &Host, port| host.run(&client(port)).1.code == 1;
        assert!(dropped(&host, 40_000));
        admit(&host, ARENA, "203.0.113.9", 60).unwrap();
        assert!(!dropped(&host, 40_001));
        assert!(!dropped(&host, 40_002));
        assert!(
            admit(&host, ARENA, "203.0.113.9", 1).is_ok(),
            "it lasts shorter now"
        );

        let status = status_of(&host, ARENA).unwrap();
        assert_eq!(
            (
                status.node.as_str(),
                status.mode.as_str(),
                status.up,
                status.since_ms
            ),
            ("host", "on", true, None)
        );
        assert_eq!(tallies(&status), [("new", 3), ("not_admitted", 1)]);
        assert!(
            status.does.iter().any(|does| does.contains("kuafu admit")),
            "{status:?}"
        );
        assert!(status.does.iter().any(|does| does.contains("bots")), "{status:?}");
        assert!(status.sources.is_empty(), "not before the tenth look");

        for _ in 0..9 {
            host.shields.look(host.kernel.maps(), &host.contents).unwrap();
        }
        let status = status_of(&host, ARENA).unwrap();
        let hitter = |source: &str, packets| v1::Hitter {
            source: source.into(),
            packets,
        };
        assert_eq!(status.sources, [hitter("203.0.113.9", 3)]);
        assert_eq!(status.prefixes, [hitter("203.0.113.0/24", 3)]);
        for _ in 0..10 {
            host.shields.look(host.kernel.maps(), &host.contents).unwrap();
        }
        assert!(
            status_of(&host, ARENA).unwrap().sources.is_empty(),
            "counted anew"
        );
    });
}

#[test]
fn clients_of_ipv6_are_admitted_and_named_by_their_networks() {
    in_namespace("admit-v6", || {
        const SIX: &str = "service/six";
        let mut host = shielded_v6();
        let packet = |source: &str| Input {
            octets: encode(&format!(
                "eth mfe > m01 | ipv6 {source} > 2001:db8::1 | udp 4000 > 7000 | data 5"
            )),
            ..client(4000)
        };
        let (one, other) = (packet("2001:db8:5:6::7"), packet("2001:db8:5:6::8"));
        let reason = |host: &Host, input: &Input| host.explain(input).unwrap().reason;
        assert_eq!(reason(&host, &one), "not_admitted");
        let refused = admit(&host, SIX, "203.0.113.9", 60).unwrap_err();
        assert!(refused.contains("name the client's IPv6 address"), "{refused}");
        admit(&host, SIX, "2001:db8:5:6::7", 60).unwrap();
        assert_ne!(reason(&host, &one), "not_admitted");
        assert_eq!(reason(&host, &other), "not_admitted");

        host.run(&one);
        host.run(&other);
        for _ in 0..10 {
            host.shields.look(host.kernel.maps(), &host.contents).unwrap();
        }
        let status = status_of(&host, SIX).unwrap();
        assert_eq!(tallies(&status), [("new", 2), ("not_admitted", 1)]);
        let hitter = |source: &str| v1::Hitter {
            source: source.into(),
            packets: 2,
        };
        assert_eq!(status.sources, [hitter("2001:db8:5:6::/64")]);
        assert_eq!(status.prefixes, [hitter("2001:db8:5::/48")]);
        for _ in 0..10 {
            host.shields.look(host.kernel.maps(), &host.contents).unwrap();
        }
        assert!(status_of(&host, SIX).unwrap().sources.is_empty(), "counted anew");
    });
}

#[test]
fn an_explanation_knows_how_the_shield_is() {
    in_namespace("explain-shield", || {
        let host = shielded(true, None);
        let input = client(40_000);
        assert_eq!(host.explain(&input).unwrap().reason, "not_admitted");
        admit(&host, "accelerator/accelerator-100", "203.0.113.9", 60).unwrap();
        assert_eq!(host.explain(&input).unwrap().reason, "");

        let host = shielded(false, Some(1));
        let state = ShieldState::default();
        let now = host.clock.jiffies().unwrap();
        state.up_since.set(now - host.clock.ticks(Duration::from_secs(5)));
        state
            .up_until
            .set(now + host.clock.ticks(Duration::from_secs(60)));
        host.kernel.maps().shield_states.set(&1, &state).unwrap();
        let status = status_of(&host, "accelerator/accelerator-100").unwrap();
        assert_eq!((status.mode.as_str(), status.up), ("automatic", true));
        assert!((5_000..60_000).contains(&status.since_ms.unwrap()), "{status:?}");
        let stages = host.explain(&input).unwrap();
        assert!(
            stages.steps.iter().any(|step| step.text.contains("enforces")),
            "{stages:?}"
        );
        assert_eq!(host.explain(&from_amplifier()).unwrap().reason, "amplifier");
    });
}

/// A client's packet from a port that amplifies.
fn from_amplifier() -> Input {
    client(53)
}

#[test]
fn what_cannot_be_admitted_is_refused_with_the_fix() {
    in_namespace("no-admission", || {
        let host = shielded(false, None);
        let open = admit(&host, "accelerator/accelerator-100", "203.0.113.9", 60).unwrap_err();
        assert!(open.contains("set spec.shield.admission: required"), "{open}");
        let none = admit(&host, "accelerator/accelerator-101", "203.0.113.9", 60).unwrap_err();
        assert!(none.contains("accelerator/accelerator-101"), "{none}");
        let address = admit(&host, "accelerator/accelerator-100", "example.org", 60).unwrap_err();
        assert!(address.contains("is not an IP address"), "{address}");
        let host = shielded(true, None);
        let family = admit(&host, "accelerator/accelerator-100", "2001:db8::1", 60).unwrap_err();
        assert!(family.contains("name the client's IPv4 address"), "{family}");
        let host = shielded(false, None);
        let ttl = admit(&host, "accelerator/accelerator-100", "203.0.113.9", 0).unwrap_err();
        assert!(ttl.contains("1 to 86400 seconds"), "{ttl}");
        let none = status_of(&host, "service/accelerator-100").unwrap_err();
        assert!(none.contains("has no shield on this host"), "{none}");
        assert_eq!(host.kernel.maps().admitted.count().unwrap(), 0);
    });
}

#[test]
fn status_says_what_is_wrong() {
    in_namespace("status", || {
        let host = Host::new("stale");
        let Answer::Status(status) = host.ask(Ask::Status(v1::StatusQuery {})) else {
            panic!("no status");
        };
        assert_eq!(
            (status.node.as_str(), status.revision, status.incarnation),
            ("host", 1, 3)
        );
        let paths: BTreeMap<u32, &str> = status
            .paths
            .iter()
            .map(|path| (path.index, path.state.as_str()))
            .collect();
        assert_eq!(paths, BTreeMap::from([(1, "stale"), (2, "fresh"), (3, "fresh")]));
        assert_eq!((status.paths[0].sent, status.paths[0].rtt_p50_us), (20, 1000));
        assert!(status.paths[0].last_echo_ms.is_some() && status.paths[1].last_echo_ms.is_none());
        let faults = status.faults.join("\n");
        for fault in [
            "liveness: off",
            "port kuafu0: no program is attached to kuafu0",
            "something is wrong",
        ] {
            assert!(faults.contains(fault), "{faults}");
        }
        let slots = status.maps.iter().find(|map| map.name == "slots").unwrap();
        assert_eq!((slots.entries, slots.capacity), (5, 1024));
    });
}

#[test]
fn the_maps_read_back_are_what_was_written() {
    in_namespace("back", || {
        let host = Host::new("host");
        let mut written = host.contents.clone();
        // What no map names is not to be read back.
        written.waiting.clear();
        written.rings.retain(|first, _| {
            let mut services = written.services.values();
            services.any(|service| service.size != 0 && service.first == *first)
        });
        assert_eq!(contents(host.kernel.maps()).unwrap(), written);
    });
}
