//! What a capture sees of the programs that run on a host.
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

use kuafu_dataplane::Error;
use kuafu_dataplane::capture::filter::Filter;
use kuafu_dataplane::capture::{Capture, Carried, LeftOut, Options, Passage, SNAP_LENGTH};
use kuafu_pipeline::Reason;
use kuafu_pipeline::map::CaptureOrder;
use kuafu_pipeline::map::CapturedProgram::{self, Edge, Port, Underlay};
use site::{Site, answered, opened, sites, until, until_they_talk, with_echo};

const ALL: Options = Options {
    drops_only: false,
    snap_length: SNAP_LENGTH,
    rate: 0,
};

fn capture(site: &Site, options: Options) -> Capture {
    let start = || Capture::start(site.pins(), options).unwrap();
    site.host.run(start).unwrap()
}

/// Reads, as the site's host, until `enough` of what was read.
fn read(site: &Site, capture: &mut Capture, what: &str, enough: impl Fn(&[Passage]) -> bool) -> Vec<Passage> {
    let mut passages = Vec::new();
    until(what, || {
        passages.extend(site.host.run(|| capture.read()).unwrap());
        enough(&passages)
    });
    passages
}

/// Sends datagrams from the first guest under an address that is not its own.
fn plant_spoofed(site: &Site, count: u16) {
    site.guest.ip(["address add 10.7.0.77/24 dev eth0"]).unwrap();
    site.guest
        .ip(["neigh replace 10.7.0.2 lladdr 02:00:00:00:07:02 dev eth0"])
        .unwrap();
    let send = || {
        let socket = UdpSocket::bind("10.7.0.77:7000").unwrap();
        for number in 0..count {
            socket.send_to(&number.to_be_bytes(), "10.7.0.2:7000").unwrap();
        }
    };
    site.guest.run(send).unwrap();
}

#[test]
fn packets_are_seen_before_and_after_each_program() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("seen");
    let nothing = Capture::start(sites[0].pins(), ALL).unwrap_err();
    assert!(matches!(nothing, Error::NothingRuns { .. }), "{nothing}");
    let [mut one, mut two] = opened(&sites);
    with_echo(&sites, |client| {
        until_they_talk(&sites, [&mut one, &mut two], client);
        let mut capture = capture(&sites[0], ALL);
        assert!(answered(client, 0xabcd));
        // XDP in the stack does not see what a neighbour on the same machine redirected, but what it sent.
        let send = || UdpSocket::bind("192.0.2.2:7000")?.send_to(&[0, 0, 0xab, 0xcd], "192.0.2.1:7000");
        sites[1].host.run(send).unwrap().unwrap();
        let is_ours = |passage: &Passage| passage.after.octets.ends_with(&0xabcd_u32.to_be_bytes());
        let four = |passages: &[Passage]| passages.iter().filter(|one| is_ours(one)).count() == 4;
        let sent = read(&sites[0], &mut capture, "all are seen", four);
        let mut ways: Vec<_> = sent.iter().filter(|one| is_ours(one)).map(way).collect();
        ways.sort_unstable();
        let expected = [
            (Edge, "xdp generic", "eth0", "pass", 46, 46),
            (Port, "tcx ingress", "port", "redirect", 46, 96),
            (Underlay, "tcx ingress", "eth0", "pass", 46, 46),
            (Underlay, "tcx ingress", "eth0", "redirect", 96, 46),
        ];
        assert_eq!(ways, expected);
        let carried = sent
            .iter()
            .find(|one| one.program == Port && is_ours(one))
            .unwrap();
        let Some(Carried::Vpc { vni: 7, frame }) = Carried::of(&carried.after.octets) else {
            panic!("{carried:?}");
        };
        assert_eq!(frame, carried.before.as_ref().unwrap().octets);
        assert_eq!(capture.left_out().unwrap(), LeftOut::default());
        let other = sites[0]
            .host
            .run(|| Capture::start(sites[0].pins(), ALL))
            .unwrap();
        assert!(matches!(other, Err(Error::Captured)), "one at a time");
    });
    let order = one.maps().capture.get(&0).unwrap();
    assert_eq!(order, Some(CaptureOrder::default()), "nobody captures any more");
}

type Way<'p> = (CapturedProgram, &'p str, &'p str, &'p str, u32, u32);

fn way(passage: &Passage) -> Way<'_> {
    let before = passage.before.as_ref().expect("a packet as it came");
    (
        passage.program,
        passage.hook,
        &passage.interface,
        passage.word(),
        before.length,
        passage.after.length,
    )
}

#[test]
fn each_planted_drop_is_seen_with_reason_and_hook() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("drops");
    let _hosts = opened(&sites);
    let drops_only = Options {
        drops_only: true,
        ..ALL
    };
    let mut capture = capture(&sites[0], drops_only);
    plant_spoofed(&sites[0], 20);
    let is_planted = |passage: &Passage| passage.after.octets.len() == 44;
    let twenty = |passages: &[Passage]| passages.iter().filter(|one| is_planted(one)).count() == 20;
    let passages = read(&sites[0], &mut capture, "twenty drops are seen", twenty);
    assert!(
        passages
            .iter()
            .all(|passage| passage.reason.is_some() && passage.before.is_none())
    );
    for (number, passage) in (0_u16..).zip(passages.iter().filter(|passage| is_planted(passage))) {
        let seen = (
            passage.reason,
            passage.hook,
            passage.interface.as_str(),
            passage.word(),
        );
        assert_eq!(seen, (Some(Reason::Spoofed), "tcx ingress", "port", "drop"));
        assert_eq!(passage.after.octets[42..], number.to_be_bytes());
    }
}

#[test]
fn an_upgrade_of_the_agent_is_followed() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("upgrade");
    let [one, _two] = opened(&sites);
    let mut capture = capture(&sites[0], ALL);
    drop(one);
    let mut again = sites[0].open();
    sites[0].apply(&mut again, &sites[0].state()).unwrap();
    plant_spoofed(&sites[0], 1);
    let spoofed = |passages: &[Passage]| passages.iter().any(|one| one.reason == Some(Reason::Spoofed));
    read(&sites[0], &mut capture, "the new program is observed", spoofed);
    assert!(capture.keep().unwrap());
    drop(again);
    sites[0].uninstall();
    assert!(!capture.keep().unwrap(), "the programs are gone");
}

#[test]
fn a_capture_keeps_to_its_limits() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("limits");
    let _hosts = opened(&sites);
    let limited = Options {
        snap_length: 30,
        rate: 5,
        ..ALL
    };
    let mut capture = capture(&sites[0], limited);
    plant_spoofed(&sites[0], 500);
    until("all have passed", || capture.left_out().unwrap().by_rate > 0);
    let passages = read(&sites[0], &mut capture, "some are seen", |passages| {
        !passages.is_empty()
    });
    assert!(passages.len() < 250, "{} of 500", passages.len());
    for passage in &passages {
        let snapshots = passage.snapshots().map(|(_, snapshot)| snapshot.octets.len());
        assert_eq!(snapshots.collect::<Vec<_>>(), [30, 30]);
    }
    assert_eq!(capture.left_out().unwrap().lost, 0);
}

#[test]
fn a_capture_that_was_killed_is_forgotten() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let sites = sites("killed");
    let _hosts = opened(&sites);
    let killed = capture(&sites[0], ALL);
    let start = || Capture::start(sites[0].pins(), ALL);
    assert!(matches!(sites[0].host.run(start).unwrap(), Err(Error::Captured)));
    // What SIGKILL leaves: an order that nobody takes back or renews.
    std::mem::forget(killed);
    until("another may begin", || sites[0].host.run(start).unwrap().is_ok());
}

#[test]
fn a_filter_takes_what_a_packet_carries() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let filter = match Filter::compile("udp port 7000 and src host 10.7.0.1") {
        Ok(filter) => filter,
        Err(error) => return kuafu_lab::skip(error),
    };
    assert!(Filter::compile("no such filter").is_err());
    let sites = sites("filter");
    let [mut one, mut two] = opened(&sites);
    with_echo(&sites, |client| {
        until_they_talk(&sites, [&mut one, &mut two], client);
        let mut capture = capture(&sites[1], ALL);
        assert!(answered(client, 1));
        let all = |passages: &[Passage]| passages.iter().filter(|one| one.program == Port).count() >= 1;
        let passages = read(&sites[1], &mut capture, "request and answer are seen", all);
        let taken: Vec<_> = passages
            .iter()
            .filter(|passage| filter.takes(passage))
            .map(way)
            .collect();
        assert_eq!(taken, [(Underlay, "tcx ingress", "eth0", "redirect", 96, 46)]);
    });
}
