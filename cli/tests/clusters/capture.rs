//! What an engineer sees on a relay: each packet before and after it, decoded, and why packets are dropped.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::common::{Stage, programs, skipped};
use super::intent;
use super::intent::{GAMES, Game};
use kuafu_lab::world::World;
use nix::sys::signal::Signal;

/// One way with a relay, and the direct one.
const WORLD: &str = "
seed: 7
mtu: 1500
sites:
  - {name: bahrain, role: node, region: me-south-1, spare: 2}
  - {name: montreal, role: node, region: ca-central-1}
  - {name: calgary, role: node, region: ca-west-1}
  - {name: client-bahrain, role: client, region: me-south-1, access_ms: 1}
  - {name: server-calgary, role: server, region: ca-west-1, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
const GAME: &Game = &GAMES[2];
const RELAY: &str = "montreal";
/// For whatever is waited for.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two packets of the player.
const PACE: Duration = Duration::from_millis(5);

#[test]
fn a_relay_shows_each_packet_before_and_after() {
    if skipped() {
        return;
    }
    if let Some(absent) = programs::absent() {
        return kuafu_lab::skip(format!("no {absent}: cargo xtask setup"));
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    stage.until_relayed(GAME);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.pcapng");
    while_playing(&stage.world, || both_sides_are_decoded(&stage, &file));
    one_flow_is_filtered(&file);
    probes_are_decoded(&stage, &folder.path().join("probes.pcapng"));
    drops_have_reason_and_hook(&stage, folder.path());
    a_traceroute_sees_the_ends_alone(&stage);
    while_playing(&stage.world, || {
        an_interrupt_leaves_a_whole_file(&stage, folder.path())
    });
}

fn manifests(world: &World) -> anyhow::Result<String> {
    intent::nodes(world).and_then(|nodes| Ok(nodes + &intent::accelerated(world, GAME)?))
}

/// Lets the player send while `work` runs.
fn while_playing(world: &World, work: impl FnOnce()) {
    let to = GAME.accelerated(world).unwrap();
    let bind = || UdpSocket::bind("0.0.0.0:0");
    let player = world.netns(GAME.player).unwrap().run(bind).unwrap().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = player.send_to(b"a move in the game", to);
                std::thread::sleep(PACE);
            }
        });
        let _stops = Stops(&stop);
        work();
    });
}

/// Ends the player also when a test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn dissector() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kuafu.lua")
}

/// tshark with the dissector, over `file` or standard input; a line a packet, fields between semicolons.
fn tshark(file: &Path, filter: &str, fields: &[&str]) -> Command {
    let mut tshark = Command::new("tshark");
    tshark
        .arg("-X")
        .arg(format!("lua_script:{}", dissector().display()));
    tshark
        .arg("-r")
        .arg(file)
        .args(["-Y", filter, "-T", "fields", "-E", "separator=;"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    tshark
}

fn lines(mut tshark: Command) -> Vec<Vec<String>> {
    let output = tshark.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark: {complaint}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| line.split(';').map(str::to_owned).collect())
        .collect()
}

/// `kuafu capture -w - | tshark -r -`, and a copy in `file`.
fn both_sides_are_decoded(stage: &Stage, file: &Path) {
    let relay = stage.world.netns(RELAY).unwrap();
    let mut capture = stage.on(RELAY, "capture");
    capture.args(["-w", "-", "--count", "60", "udp", "port", "7777"]);
    capture.stdout(Stdio::piped());
    let mut capture = relay.spawn(capture).unwrap();
    let mut copy = Command::new("tee");
    copy.arg(file)
        .stdin(capture.take_stdout().unwrap())
        .stdout(Stdio::piped());
    let mut copy = copy.spawn().unwrap();
    let fields = [
        "frame.comment",
        "kuafu.label",
        "kuafu.lane",
        "kuafu.sequence",
        "ip.src",
        "udp.dstport",
    ];
    let mut tshark = tshark(Path::new("-"), "kuafu", &fields);
    tshark.stdin(copy.stdout.take().unwrap());
    let packets = lines(tshark);
    assert!(copy.wait().unwrap().success());
    assert!(capture.wait(LIMIT).unwrap().unwrap().success());
    assert_eq!(packets.len(), 120, "sixty packets, each before and after");

    let mut sides: BTreeMap<&str, Vec<&[String]>> = BTreeMap::new();
    for packet in &packets {
        let (number, _) = packet[0].split_once(' ').unwrap();
        sides.entry(number).or_default().push(packet);
    }
    let [from, by] =
        ["bahrain", RELAY].map(|node| stage.world.site(node).unwrap().address().public.to_string());
    for both in sides.values() {
        let [before, after] = both.as_slice() else {
            panic!("{both:?}");
        };
        assert!(before[0].contains("before edge, xdp"), "{before:?}");
        assert!(after[0].ends_with(": tx"), "{after:?}");
        assert_ne!(before[1], after[1], "the label is the next node's");
        assert_eq!(before[2..4], after[2..4], "lane and sequence are the pair's");
        assert!(
            before[4].starts_with(&from) && after[4].starts_with(&by),
            "{before:?} {after:?}"
        );
        assert_eq!(after[5], "6081,7777", "both layers are decoded");
    }
}

/// `-Y 'kuafu.label == L && kuafu.lane == N'` keeps what has both, and nothing else.
fn one_flow_is_filtered(file: &Path) {
    let all = lines(tshark(file, "kuafu", &["kuafu.label", "kuafu.lane"]));
    let wanted = all.first().unwrap();
    let filter = format!("kuafu.label == {} && kuafu.lane == {}", wanted[0], wanted[1]);
    let kept = lines(tshark(file, &filter, &["kuafu.label", "kuafu.lane"]));
    assert_eq!(kept.len(), all.iter().filter(|packet| *packet == wanted).count());
    assert!(kept.len() <= all.len() / 2, "the other side has another label");
}

/// Probes are marked, and both directions of STAMP are read.
fn probes_are_decoded(stage: &Stage, file: &Path) {
    let mut capture = stage.on(RELAY, "capture");
    capture
        .args(["--count", "60", "udp", "port", "862", "-w"])
        .arg(file);
    let relay = stage.world.netns(RELAY).unwrap();
    assert!(relay.output(capture, LIMIT).unwrap().status.success());
    let fields = ["stamp.sequence", "stamp.sent", "stamp.sender_sequence"];
    let probes = lines(tshark(file, "kuafu.probe == 1", &fields));
    assert!(probes.len() > 60, "{probes:?}");
    for probe in &probes {
        assert!(probe[0].parse::<u32>().is_ok(), "{probe:?}");
        assert!(probe[1].parse::<f64>().is_ok_and(|sent| sent >= 0.0), "{probe:?}");
    }
    let from_reflectors = probes.iter().filter(|probe| probe[2].parse::<u32>().is_ok());
    let count = from_reflectors.count();
    assert!(count > 0 && count < probes.len(), "{probes:?}");
}

/// `kuafu capture --drops` names reason and hook of twenty datagrams that are no Geneve of ours.
fn drops_have_reason_and_hook(stage: &Stage, folder: &Path) {
    let client = stage.world.site(GAME.player).unwrap().address().public;
    let relay = stage.world.site(RELAY).unwrap().address().public;
    let log = folder.join("drops.log");
    let mut capture = stage.on(RELAY, "capture");
    capture.args(["--drops", "--count", "20", &format!("src host {client}")]);
    let mut capture = stage
        .world
        .netns(RELAY)
        .unwrap()
        .spawn_logged(capture, &log)
        .unwrap();
    capture.await_line("capturing on", LIMIT).unwrap();
    let plant = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        (0..20).try_for_each(|_| socket.send_to(&[0; 60], (relay, 6081)).map(drop))
    };
    stage
        .world
        .netns(GAME.player)
        .unwrap()
        .run(plant)
        .unwrap()
        .unwrap();
    assert!(capture.wait(LIMIT).unwrap().unwrap().success());
    let text = fs::read_to_string(&log).unwrap();
    let drops: Vec<_> = text.lines().filter(|line| line.contains("drop")).collect();
    assert_eq!(drops.len(), 20, "{text}");
    for line in drops {
        assert!(
            line.contains(" xdp ") && line.contains("edge: drop bad_geneve  "),
            "{line}"
        );
    }
}

/// To mtr the whole accelerator is one hop, which does not answer; behind it is the server, under the accelerated
/// address. ICMP echo is no listener's.
fn a_traceroute_sees_the_ends_alone(stage: &Stage) {
    if !Path::new("/usr/bin/mtr").exists() {
        return kuafu_lab::skip("no /usr/bin/mtr: cargo xtask setup");
    }
    let to = GAME.accelerated(&stage.world).unwrap();
    let hops = |by: &[&str]| {
        let mut mtr = Command::new("mtr");
        mtr.args(["-n", "-r", "-c", "1", "-G", "1", "-m", "4", "--csv"]);
        mtr.args(by).arg(to.ip().to_string());
        let output = stage
            .world
            .netns(GAME.player)
            .unwrap()
            .output(mtr, LIMIT)
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let hops = text
            .lines()
            .skip(1)
            .map(|line| line.split(',').nth(5).unwrap().to_owned());
        hops.collect::<Vec<_>>()
    };
    let udp = hops(&["-u", "-P", &to.port().to_string()]);
    assert_eq!(udp, ["???".to_owned(), to.ip().to_string()]);
    let icmp = hops(&[]);
    assert!(icmp.iter().all(|hop| hop == "???"), "{icmp:?}");
}

/// Ctrl-C ends it, with every packet whole in the file and no order left in the kernel.
fn an_interrupt_leaves_a_whole_file(stage: &Stage, folder: &Path) {
    let (file, log) = (folder.join("interrupted.pcapng"), folder.join("interrupted.log"));
    let relay = stage.world.netns(RELAY).unwrap();
    let mut capture = stage.on(RELAY, "capture");
    capture.arg("-w").arg(&file);
    let mut capture = relay.spawn_logged(capture, &log).unwrap();
    capture.await_line("capturing on", LIMIT).unwrap();
    let some = || {
        fs::metadata(&file)
            .is_ok_and(|file| file.len() > 10_000)
            .then_some(())
    };
    stage
        .cluster
        .until("some packets are written", LIMIT, some)
        .unwrap();
    capture.signal(Signal::SIGINT).unwrap();
    assert!(capture.wait(LIMIT).unwrap().unwrap().success());
    assert!(fs::read_to_string(&log).unwrap().contains(" lost on the way"));
    assert!(lines(tshark(&file, "kuafu", &["kuafu.label"])).len() > 20);
    // Nothing is left that would refuse the next one.
    let mut next = stage.on(RELAY, "capture");
    next.args(["--count", "1"]);
    assert!(relay.output(next, LIMIT).unwrap().status.success());
}
