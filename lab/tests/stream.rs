//! Streams over the wire count what it loses, per direction.

#![allow(clippy::unwrap_used, reason = "tests state facts")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::net::{address, line, net, site};
use common::{prefix, skipped};
use kuafu_lab::stream::{Answers, Echo, Gap, Stream, StreamConfig, gaps};

const RATE: u32 = 200;
const ALWAYS: std::ops::Range<Duration> = Duration::ZERO..Duration::MAX;

#[test]
fn round_trips_and_losses_are_the_wires() {
    if skipped() {
        return;
    }
    let net = net(
        &prefix("stream"),
        2,
        |from, _| line(40.0, 50.0, from as u64),
        Vec::new(),
    );
    let echo = Echo::start(&net.hosts[1], (address(1), 7000).into()).unwrap();
    let config = StreamConfig {
        to: echo.local_addr(),
        id: 5,
        rate: RATE,
        bytes: 100,
        answers: Answers::Each,
    };
    let stream = Stream::start(&net.hosts[0], config).unwrap();
    await_replies(&stream, 200);
    // Half a second in which nothing comes there, then half a second in which nothing comes back.
    for (from, to) in [(0, 1), (1, 0)] {
        net.wan.set_loss(site(from), site(to), 1.0).unwrap();
        thread::sleep(Duration::from_millis(500));
        net.wan.set_loss(site(from), site(to), 0.0).unwrap();
        await_replies(&stream, stream.trace().replies().len() + 100);
    }
    let local = stream.local_addr().port();
    let trace = stream.finish(Duration::from_millis(500));
    let last = trace.replies().last().unwrap().number;

    let there = gaps(0..last, echo.arrived(5));
    let back = trace.gaps_back();
    println!("there {there:?}, back {back:?}");
    let lost = |gaps: &[Gap]| gaps.iter().map(|gap| gap.missing).sum::<u64>();
    assert!((60..300).contains(&lost(&there)), "{there:?}");
    assert!((60..300).contains(&lost(&back)), "{back:?}");
    assert_eq!(lost(&trace.gaps(0..last)), lost(&there) + lost(&back));
    let report = net.wan.report().unwrap();
    assert_eq!(report.counters.lost, lost(&there) + lost(&back));
    assert_eq!(echo.peer(5).unwrap(), (address(0), local).into());

    let wire = report.log.round_trip(&[site(0), site(1)], ALWAYS).unwrap();
    let measured = trace.rtt(0.5, ALWAYS).unwrap();
    println!("measured {measured:?}, wire {wire:?}, {}", report.lateness);
    assert!(
        measured + Duration::from_millis(5) > wire,
        "measured {measured:?}, wire {wire:?}"
    );
}

#[test]
fn answers_by_the_clock_need_no_questions() {
    if skipped() {
        return;
    }
    let net = net(
        &prefix("clock"),
        2,
        |from, _| line(40.0, 50.0, from as u64),
        Vec::new(),
    );
    let echo = Echo::start(&net.hosts[1], (address(1), 7000).into()).unwrap();
    let config = StreamConfig {
        to: echo.local_addr(),
        id: 6,
        rate: RATE,
        bytes: 100,
        answers: Answers::ByClock,
    };
    let stream = Stream::start(&net.hosts[0], config).unwrap();
    await_replies(&stream, 100);
    net.wan.set_loss(site(0), site(1), 1.0).unwrap();
    let before = stream.trace().replies().len();
    await_replies(&stream, before + 100);
    net.wan.set_loss(site(0), site(1), 0.0).unwrap();
    let arrived = echo.arrived(6).len();
    while echo.arrived(6).len() < arrived + 100 {
        thread::sleep(Duration::from_millis(20));
    }
    let trace = stream.finish(Duration::from_millis(500));
    let there = gaps(0..trace.sent_count(), echo.arrived(6));
    println!("there {there:?}, back {:?}", trace.gaps_back());
    assert!(there.iter().any(|gap| gap.missing > 50), "{there:?}");
    assert_eq!(trace.gaps_back(), []);
}

fn await_replies(stream: &Stream, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while stream.trace().replies().len() < count {
        assert!(
            Instant::now() < deadline,
            "{} replies",
            stream.trace().replies().len()
        );
        thread::sleep(Duration::from_millis(20));
    }
}
