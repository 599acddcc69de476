//! Worlds from files: addresses, NAT, hosts that go and come back.

#![allow(clippy::unwrap_used, reason = "tests state facts")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{pass, prefix, skipped, udp};
use kuafu_lab::stream::{Answers, Echo, Stream, StreamConfig};
use kuafu_lab::world::{DEMO, Latencies, PAIR, Site, World, WorldSpec};
use kuafu_lab::{Error, Reflector, XdpMode, leftovers};

const ALWAYS: std::ops::Range<Duration> = Duration::ZERO..Duration::MAX;

fn pair(prefix: &str) -> World {
    World::build(
        prefix,
        &WorldSpec::parse(PAIR).unwrap(),
        &Latencies::aws().unwrap(),
    )
    .unwrap()
}

fn local(site: &Site) -> UdpSocket {
    udp(
        site.namespace().unwrap(),
        &format!("{}:7000", site.address().local),
    )
}

#[test]
fn a_host_behind_a_nat_is_reached_and_seen_at_its_public_address() {
    if skipped() {
        return;
    }
    let world = pair(&prefix("nat"));
    let (here, there) = (world.site("here").unwrap(), world.site("there").unwrap());
    assert_ne!(there.address().public, there.address().local);
    let (a, b) = (local(here), local(there));
    let public = SocketAddr::from((there.address().public, 7000));
    let seen = pass(&a, public, &b, "in");
    assert_eq!(seen, (here.address().public, 7000).into());
    assert_eq!(pass(&b, seen, &a, "out"), public);
    let path = world.path(&["here", "there"]).unwrap();
    let log = world.wan().report().unwrap().log;
    assert!(log.round_trip(&path, Duration::ZERO..Duration::MAX).is_some());
}

#[test]
fn spare_addresses_lead_to_their_host() {
    if skipped() {
        return;
    }
    let world = pair(&prefix("spare"));
    let (here, there) = (world.site("here").unwrap(), world.site("there").unwrap());
    let spare = there.spare()[0];
    let line = format!("addr add {}/32 dev {}", spare.local, Site::DEVICE);
    there.namespace().unwrap().ip([line]).unwrap();
    let socket = udp(there.namespace().unwrap(), &format!("{}:7000", spare.local));
    pass(&local(here), (spare.public, 7000).into(), &socket, "spare");
}

#[test]
fn tcp_crosses_the_nat() {
    if skipped() {
        return;
    }
    let world = pair(&prefix("tcp"));
    let (here, there) = (world.site("here").unwrap(), world.site("there").unwrap());
    let listener = there
        .namespace()
        .unwrap()
        .run(|| TcpListener::bind((there.address().local, 7000)))
        .unwrap()
        .unwrap();
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            received.len()
        });
        let connect = || TcpStream::connect((there.address().public, 7000));
        let mut sender = here.namespace().unwrap().run(connect).unwrap().unwrap();
        sender.write_all(&vec![7; 1 << 20]).unwrap();
        drop(sender);
        receiver.join().unwrap()
    });
    assert_eq!(received, 1 << 20);
}

#[test]
fn a_destroyed_host_is_gone_with_all_that_ran_and_comes_back_bare() {
    if skipped() {
        return;
    }
    let mut world = pair(&prefix("destroy"));
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let mut process = world.site("there").unwrap().spawn(sleep).unwrap();
    world.destroy("there").unwrap();
    assert!(process.wait(Duration::from_secs(5)).unwrap().is_some());
    assert!(matches!(world.netns("there"), Err(Error::Destroyed { .. })));
    world.restore("there").unwrap();
    let (here, there) = (world.site("here").unwrap(), world.site("there").unwrap());
    let public = SocketAddr::from((there.address().public, 7000));
    pass(&local(here), public, &local(there), "again");
}

#[test]
fn a_prefix_belongs_to_one_world_and_nothing_stays() {
    if skipped() {
        return;
    }
    let prefix = prefix("twice");
    let world = pair(&prefix);
    let again = World::build(
        &prefix,
        &WorldSpec::parse(PAIR).unwrap(),
        &Latencies::aws().unwrap(),
    );
    assert!(matches!(again, Err(Error::InUse { .. })));
    drop(world);
    let left = leftovers(&prefix).unwrap();
    assert!(left.is_empty(), "{left}");
}

#[test]
fn the_world_of_the_demonstration_stands() {
    if skipped() {
        return;
    }
    let world = World::up(&WorldSpec::parse(DEMO).unwrap()).unwrap();
    let (client, server) = (
        world.site("client-osaka").unwrap(),
        world.site("server-cape").unwrap(),
    );
    let public = SocketAddr::from((server.address().public, 7000));
    pass(&local(client), public, &local(server), "far");
}

/// Round trips between the demonstration's ends, by echoes over UDP: what the wire logged for the
/// same time, within 1 ms. That the law has the matrix's median is a test of the law.
#[test]
fn round_trips_are_those_of_the_matrix() {
    if skipped() {
        return;
    }
    const ASKED: usize = 300;
    let world = World::build(
        &prefix("matrix"),
        &WorldSpec::parse(DEMO).unwrap(),
        &Latencies::aws().unwrap(),
    )
    .unwrap();
    let pairs = [
        ("osaka", "cape-town"),
        ("hong-kong", "cape-town"),
        ("bahrain", "calgary"),
        ("calgary", "sao-paulo"),
        ("calgary", "oregon"),
        ("taipei", "montreal"),
        ("virginia", "sao-paulo"),
    ];
    let streams = pairs.map(|pair| asked(&world, pair));
    let deadline = Instant::now() + Duration::from_secs(60);
    while streams
        .iter()
        .any(|(_, stream)| stream.trace().replies().len() < ASKED)
    {
        assert!(Instant::now() < deadline, "echoes are missing");
        thread::sleep(Duration::from_millis(50));
    }
    let report = world.wan().report().unwrap();
    for ((from, to), (_echo, stream)) in pairs.into_iter().zip(streams) {
        let trace = stream.trace();
        let began = stream.start_time() - world.wan().started();
        let path = world.path(&[from, to]).unwrap();
        // Tenth by tenth of a second: the delay is held for a second, and then is another.
        let mut apart: Vec<_> = (0..)
            .map(|tenth| Duration::from_millis(100) * tenth..Duration::from_millis(100) * (tenth + 1))
            .take_while(|times| times.end < report.elapsed - began)
            .filter_map(|times| {
                let logged = report
                    .log
                    .round_trip(&path, times.start + began..times.end + began)?;
                Some(trace.rtt(0.5, times)?.abs_diff(logged))
            })
            .collect();
        apart.sort_unstable();
        let (count, median) = (apart.len(), apart[apart.len() / 2]);
        let measured = trace.rtt(0.5, ALWAYS).unwrap();
        println!("{from} -> {to}: measured {measured:?}, from the log {median:?} in {count} tenths");
        assert!(median < Duration::from_millis(1), "{from} -> {to}: {apart:?}");
    }
    println!("{}", report.lateness);
}

/// A stream of 50 packets a second from one site, and the echo at the other.
fn asked(world: &World, (from, to): (&str, &str)) -> (Echo, Stream) {
    let (from, to) = (world.site(from).unwrap(), world.site(to).unwrap());
    let id = u16::try_from(from.id().index() * 100 + to.id().index()).unwrap();
    let port = 7000 + id;
    let echo = Echo::start(to.namespace().unwrap(), (to.address().local, port).into()).unwrap();
    let config = StreamConfig {
        to: (to.address().public, port).into(),
        id: id.into(),
        rate: 50,
        bytes: 64,
        answers: Answers::Each,
    };
    let stream = Stream::start(from.namespace().unwrap(), config).unwrap();
    (echo, stream)
}

/// The backbone leans on this: what a relay sends by XDP_TX reaches the wire, also through a NAT's router.
#[test]
fn what_xdp_sends_back_reaches_the_wire() {
    if skipped() {
        return;
    }
    let world = pair(&prefix("xdp"));
    let (here, there) = (world.site("here").unwrap(), world.site("there").unwrap());
    for (reflecting, asking) in [(here, there), (there, here)] {
        for mode in [XdpMode::Native, XdpMode::Generic] {
            let device = reflecting.namespace().unwrap();
            let _reflector = Reflector::attach(device, Site::DEVICE, mode).unwrap();
            let socket = local(asking);
            let public = SocketAddr::from((reflecting.address().public, 7000));
            for number in 0..100 {
                assert_eq!(pass(&socket, public, &socket, &number.to_string()), public);
            }
        }
    }
}
