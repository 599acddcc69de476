//! A bare host joins by one command, carries, and leaves as it was.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::common::{Stage, skipped, soon};
use super::intent::{GAME_PORT, GAMES, Game};
use super::{intent, play};
use kuafu_lab::stream::{Echo, gaps};

/// Osaka is none of the nodes that the stage lets join.
const WORLD: &str = "
seed: 13
mtu: 1500
sites:
  - {name: osaka, role: server, region: ap-northeast-3, spare: 1}
  - {name: taipei, role: node, region: ap-east-2}
  - {name: cape-town, role: node, region: af-south-1}
  - {name: client-osaka, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: server-cape, role: server, region: af-south-1, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
/// For one command.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_bare_host_carries_by_one_command_and_leaves_as_it_was() {
    if skipped() {
        return;
    }
    let mut stage = Stage::of(WORLD, |world| intent::nodes(world)).unwrap();
    let game = &GAMES[0];
    let world = &stage.world;
    let bare = traces(&stage);
    let server = Echo::start(
        world.netns(game.server).unwrap(),
        SocketAddr::from(([0, 0, 0, 0], GAME_PORT)),
    )
    .unwrap();

    let address = world.site("osaka").unwrap().address();
    let (local, public) = (address.local.to_string(), address.public.to_string());
    let declaring = [
        "--region",
        "ap-northeast-3",
        "--address",
        &local,
        "--public",
        &public,
    ];
    let token = ask(&stage, &[&["node", "token", "osaka"], &declaring[..]].concat());
    let text = intent::accelerated(world, game).unwrap();
    stage.cluster.apply(world, "accelerator.yaml", &text).unwrap();
    let to = game.accelerated(world).unwrap();
    let player = play::stream(world, game, 1, to, 64).unwrap();

    let began = Instant::now();
    let mut join = stage.command("osaka");
    join.args([
        "--controller",
        &control(&stage),
        "node",
        "join",
        "--run",
        "--pin-root",
    ]);
    join.arg(stage.pins()).arg(token.trim());
    let host = world.netns("osaka").unwrap();
    let joined = host.spawn(join).unwrap();
    soon("the first accelerated packet is answered", || {
        (!player.trace().replies().is_empty()).then_some(())
    });
    println!(
        "from a bare host to the first accelerated answer: {:?}",
        began.elapsed()
    );
    drop(player);
    stage.until_connected("osaka");

    a_relay_leaves(&mut stage, &server, game);
    let refused = leave(&stage, "osaka");
    assert!(refused.contains("the agent runs"), "{refused}");
    joined.stop(Duration::from_secs(20)).unwrap();
    let refused = leave(&stage, "osaka");
    assert!(refused.contains("node/osaka cannot leave"), "{refused}");
    let declared = ask(&stage, &["get", "node/osaka", "-o", "yaml"]);
    assert!(!declared.contains("drain: true"), "nor is it drained: {declared}");
    assert!(refused.contains(game.name), "{refused}");
    assert!(
        stage.pins().join("osaka").exists(),
        "what cannot leave is as it was"
    );
    let name = game.name;
    let gone = ["accelerator", "service", "addresspool"].map(|kind| format!("{kind}/{name}"));
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    ask(&stage, &[&["delete"], &gone[..]].concat());
    let left = leave(&stage, "osaka");
    assert!(left.contains("deleted node/osaka"), "{left}");
    assert!(
        ask(&stage, &["get", "node"])
            .lines()
            .all(|line| !line.contains("osaka"))
    );
    assert_eq!(traces(&stage), bare);
    assert!(leave(&stage, "osaka").contains("nothing to do"));
}

/// The relay of a stream leaves by one command, and the stream loses no packet.
fn a_relay_leaves(stage: &mut Stage, server: &Echo, game: &Game) {
    const STREAM: u32 = 2;
    let relay = "taipei";
    let route = stage.until_relayed(game);
    assert_eq!(route.path, [game.entry, relay, game.exit]);
    let stream = play::duplex(&stage.world, game, STREAM, 200).unwrap();
    soon("the stream flows both ways", || {
        (stream.trace().replies().len() > 200).then_some(())
    });
    let processes = stage.cluster.nodes.remove(relay).unwrap();
    processes.probe.stop(LIMIT).unwrap();
    processes.agent.stop(LIMIT).unwrap();
    let left = leave(stage, relay);
    assert!(left.contains("deleted node/taipei"), "{left}");

    let trace = stream.finish(play::STRAGGLERS);
    let there = gaps(0..trace.sent_count(), server.arrived(STREAM));
    let back = trace.gaps_back();
    assert!(
        there.is_empty() && back.is_empty(),
        "{there:?} there, {back:?} back"
    );
    println!("a relay has left under {} packets each way", trace.sent_count());
    let after = play::route(&stage.world, &stage.cluster, game).unwrap();
    assert_eq!(after.path, [game.entry, game.exit]);
}

/// Links with their programs, addresses, routes, settings, files and pins of the host.
fn traces(stage: &Stage) -> Vec<String> {
    let host = stage.world.netns("osaka").unwrap();
    let output = |line: &str| {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        let output = host.output(command, LIMIT).unwrap();
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        format!("{line}:\n{}", lines.join("\n"))
    };
    let mut traces: Vec<String> = [
        "ip -d -o link",
        "ip -o address",
        "ip route",
        "grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_local_reserved_ports",
    ]
    .into_iter()
    .map(output)
    .collect();
    let root = stage.root("osaka");
    let files = |folder: &Path| match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect(),
        Err(_) => Vec::new(),
    };
    for folder in ["var/lib/kuafu", "etc/kuafu", "run/kuafu"] {
        traces.push(format!("{folder}: {:?}", files(&root.join(folder))));
    }
    traces.push(format!("pins: {:?}", files(&stage.pins().join("osaka"))));
    traces
}

/// What `node leave` says on a host, of either kind.
fn leave(stage: &Stage, node: &str) -> String {
    let mut command = stage.command(node);
    command
        .args(["node", "leave", "--yes", "--pin-root"])
        .arg(stage.pins());
    let output = stage.world.netns(node).unwrap().output(command, LIMIT).unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn control(stage: &Stage) -> String {
    format!("{}:7440", stage.world.site("control").unwrap().address().public)
}

fn ask(stage: &Stage, verb: &[&str]) -> String {
    stage.cluster.ask(&stage.world, verb).unwrap()
}
