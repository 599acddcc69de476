//! The flow cache: which packets ask for their flow's entry, and which for its copy.
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::case::{Input, Program, on_model};
use common::encode::encode;
use common::world;
use kuafu_model::runner::Host;
use kuafu_pipeline::map::Tracked;

/// No target has it.
const NOBODY: u32 = 60_000;

/// What becomes of a packet with these flags.
fn packet(host: &mut Host, flags: &str) -> String {
    done(
        host,
        &format!("eth mfe > m01 | ipv4 203.0.113.7 > 198.51.100.1 df | tcp 4000 > 7020 flags {flags}"),
    )
}

fn done(host: &mut Host, packet: &str) -> String {
    let input = Input {
        program: Program::Edge,
        interface: world::UNDERLAY,
        mark: 0,
        segment: 0,
        octets: encode(packet),
    };
    format!("{:?}", on_model(host, &input).0)
}

/// Lets the flow's entry name nobody, as of this moment.
fn spoil(host: &mut Host) {
    let (key, entry) = host.tracked().next().expect("a flow");
    let (key, (_, generation)) = (*key, entry.choice());
    let (now, _) = host.clock();
    host.set_tracked(key, Tracked::new(NOBODY, generation, false, now));
}

#[test]
fn a_copy_is_asked_for_a_while() {
    let mut host = world::named("host").model();
    host.set_clock(1000, 0);
    for flags in ["S", "A", "A"] {
        assert_eq!(packet(&mut host, flags), "Transmit");
    }
    spoil(&mut host);
    assert_eq!(packet(&mut host, "A"), "Transmit", "by the copy");
    host.set_clock(1000 + Tracked::GRAIN - 1, 0);
    assert_eq!(packet(&mut host, "A"), "Transmit", "still");
    host.set_clock(1000 + Tracked::GRAIN, 0);
    assert_eq!(packet(&mut host, "A"), "Drop", "by the entry");
}

#[test]
fn what_changes_an_entry_asks_for_it() {
    for flags in ["FA", "R"] {
        let mut host = world::named("host").model();
        for flags in ["S", "A", "A"] {
            assert_eq!(packet(&mut host, flags), "Transmit");
        }
        spoil(&mut host);
        assert_eq!(packet(&mut host, flags), "Drop", "{flags}");
    }
}

/// As when a ring, its members or a shield's lists have changed.
#[test]
fn another_generation_asks_for_the_entry() {
    let mut host = world::named("host").model();
    for flags in ["S", "A", "A"] {
        assert_eq!(packet(&mut host, flags), "Transmit");
    }
    let before = state(&host);
    let mut contents = host.contents().clone();
    let services = contents.services.values_mut();
    services.for_each(|service| service.generation += 1);
    host.program(&contents);
    assert_eq!(packet(&mut host, "A"), "Transmit");
    assert_eq!(
        state(&host),
        (before.0, before.1 + 1),
        "by the entry, which says so"
    );
}

/// The target and the generation of the only flow.
fn state(host: &Host) -> (u32, u32) {
    host.tracked().next().expect("a flow").1.choice()
}

#[test]
fn an_error_about_a_flow_asks_for_its_entry() {
    let error = "eth mfe > m01 | ipv4 203.0.113.1 > 198.51.100.1 | icmp 3 4 rest 0x578 | ipv4 198.51.100.1 > 203.0.113.7 \
                 df len 1500 | tcp 7020 > 4000";
    let mut host = world::named("host").model();
    for flags in ["S", "A", "A"] {
        assert_eq!(packet(&mut host, flags), "Transmit");
    }
    assert_eq!(done(&mut host, error), "Transmit");
    spoil(&mut host);
    assert_eq!(done(&mut host, error), "Drop");
    assert_eq!(packet(&mut host, "A"), "Transmit", "by the copy");
}

/// The copy of a flow whose port is used anew is forgotten, so that its second packet says that it goes on.
#[test]
fn a_new_beginning_forgets_the_copy() {
    let mut host = world::named("host").model();
    for flags in ["S", "A", "A", "FA", "S"] {
        assert_eq!(packet(&mut host, flags), "Transmit");
    }
    spoil(&mut host);
    assert_eq!(packet(&mut host, "A"), "Drop");
}
