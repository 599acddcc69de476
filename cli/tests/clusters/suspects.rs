//! Servers that are asked rarely, and die: what becomes of their clients' flows lets them be asked at once. Made-up flows
//! take no server out.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Stage, skipped, soon};
use super::flood::{Kind, flood};
use super::health::{LONG, Long, Server, connections};
use super::intent;
use super::requests::{HTTP, under_load};
use kuafu_lab::world::World;
use kuafu_proto::v1::ServerStatus;
use nix::sys::signal::Signal;

const WORLD: &str = "
seed: 37
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 2}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: one, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: two, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: three, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
/// The program of the first one dies, the second one is cut off, and the third one is flooded.
const SERVERS: [&str; 3] = ["one", "two", "three"];
/// Each at an address of its own.
const MODES: [&str; 2] = ["nat", "ipip"];
/// Clients of each service at the same time: those that wait for a server that is silent begin nothing else.
const CLIENTS: usize = 24;
/// By the interval alone a server would be known to be down after one at the least.
const INTERVAL_MS: u64 = 60_000;
const DEADLINE: Duration = Duration::from_secs(40);
/// For what is to stay as it is.
const WHILE: Duration = Duration::from_secs(4);

#[test]
fn servers_whose_flows_are_not_answered_are_asked_at_once() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let addresses: Vec<Ipv4Addr> = spares(&stage.world).collect();
    let pages = tempfile::tempdir().unwrap();
    let mut servers = SERVERS.map(|name| Server::start(&stage.world, name, &addresses, pages.path()));
    soon("all serve", || {
        let all = statuses(&stage)?;
        (all.len() == MODES.len() * SERVERS.len() && all.iter().all(|one| one.standing == "up")).then_some(())
    });
    let connected = |address: &Ipv4Addr| connections(&stage.world, *address);
    let mut long: Vec<Long> = addresses.iter().flat_map(connected).collect();
    let clients = addresses.repeat(CLIENTS);
    under_load(&stage.world, "player", &clients, |_| {
        let begun = Instant::now();
        servers[0].web.signal(Signal::SIGKILL).unwrap();
        are_down(&stage, begun, servers[0].name, ["were refused", "was answered"]);
        let begun = Instant::now();
        servers[1].cut(&stage.world, true);
        are_down(&stage, begun, servers[1].name, ["was answered"; 2]);
    });
    let others = long.iter_mut().filter(|long| long.server == servers[2].name);
    let others: Vec<_> = others.map(Long::echoes).collect();
    assert!(
        !others.is_empty() && others.iter().all(Result::is_ok),
        "{others:?}"
    );
    made_up_flows_take_nobody_out(&stage, addresses[1]);
}

/// A server is down in both services in time, for what its flows said of it.
fn are_down(stage: &Stage, begun: Instant, name: &str, said: [&str; 2]) {
    let name = stage.world.site(name).unwrap().address().public.to_string();
    let down = loop {
        let all = statuses(stage).unwrap_or_default();
        let told = format!("{all:?}");
        let down = all
            .into_iter()
            .filter(|one| one.address == name && one.standing == "down");
        let down: Vec<ServerStatus> = down.collect();
        if down.len() == MODES.len() {
            break down;
        }
        assert!(begun.elapsed() < DEADLINE, "{name} is not down: {told}");
        thread::sleep(Duration::from_millis(50));
    };
    println!("down in both after {:?}", begun.elapsed());
    for (server, said) in down.iter().zip(said) {
        println!("{}: {}", server.service, server.reason);
        let why = server.reason.split_once("; asked at once because ");
        assert!(why.is_some_and(|(_, why)| why.contains(said)), "{server:?}");
        assert!(server.suspicions > 0, "{server:?}");
    }
}

/// Of who is flooded with SYNs that nobody follows, the last server that is left is asked, and serves.
fn made_up_flows_take_nobody_out(stage: &Stage, address: Ipv4Addr) {
    let name = stage.world.site(SERVERS[2]).unwrap().address().public.to_string();
    let third = || {
        let all = statuses(stage)?.into_iter();
        let mut its = all.filter(|one| one.address == name && one.service == "web-1");
        its.next()
    };
    let before = third().unwrap().suspicions;
    let flooded = flood(stage, address, Kind::Syn, || {
        soon("it is suspected", || (third()?.suspicions > before).then_some(()));
        thread::sleep(WHILE);
    });
    let after = third().unwrap();
    println!("{flooded}; suspected {} times", after.suspicions - before);
    assert_eq!(after.standing, "up", "{after:?}");
    // Once in an interval at most, and the test may be slow.
    assert!(after.suspicions - before <= 2, "{after:?}");
}

fn spares(world: &World) -> impl Iterator<Item = Ipv4Addr> {
    world.site("osaka").unwrap().spare().iter().map(|at| at.public)
}

fn manifests(world: &World) -> anyhow::Result<String> {
    let mut text = intent::nodes(world)?;
    let targets: anyhow::Result<Vec<String>> = SERVERS
        .iter()
        .map(|name| Ok(format!("{{address: {}}}", world.site(name)?.address().public)))
        .collect();
    let targets = targets?.join(", ");
    for (number, (mode, address)) in MODES.iter().zip(spares(world)).enumerate() {
        text += &format!(
            "
---
kind: AddressPool
metadata: {{name: pool-{number}}}
spec: {{addresses: [{{node: osaka, public: {address}}}]}}
---
kind: Service
metadata: {{name: web-{number}}}
spec:
  pool: pool-{number}
  listeners: [{{protocol: tcp, port: {HTTP}}}, {{protocol: tcp, port: {LONG}}}]
  targets: [{targets}]
  health: {{type: http, path: /who, port: {HTTP}, interval_ms: {INTERVAL_MS}, timeout_ms: 1000, fall: 2}}
  mode: {mode}
"
        );
    }
    Ok(text)
}

/// What osaka says of each server in each service, by service.
fn statuses(stage: &Stage) -> Option<Vec<ServerStatus>> {
    let mut servers = stage.status("osaka")?.status?.servers;
    servers.sort_by(|a, b| a.service.cmp(&b.service));
    Some(servers)
}
