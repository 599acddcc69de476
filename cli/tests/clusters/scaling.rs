//! A service that scales: its hook is told what its flows need, the targets that it names join and leave, and one that
//! hangs changes nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::common::{Stage, skipped, soon};
use super::intent;
use super::near::{LONG, Long, Server, all_from, carried};
use super::requests::{HTTP, request};
use kuafu_lab::world::World;
use kuafu_proto::v1::ClusterStatus;
use serde_json::{Value, json};

const WORLD: &str = "
seed: 43
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 1}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: one, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: two, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
const SERVERS: [&str; 2] = ["one", "two"];
const HOOK: u16 = 8_080;
/// Open flows, of which a target is to have 10.
const FLOWS: usize = 15;

#[test]
fn targets_join_and_leave_by_a_hook() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let pages = tempfile::tempdir().unwrap();
    let _servers = SERVERS.map(|name| Server::start(&stage.world, name, pages.path()));
    let address = carried(&stage.world, "osaka");
    // Nobody listens: the service has no target yet.
    soon("the hook is missed", || {
        faults(&stage).contains("cannot be reached").then_some(())
    });
    let hook = Hook::start(&stage.world);
    all_from(&stage.world, address, "one");
    assert_eq!(faults(&stage), "");
    let mut flows: Vec<Long> = (0..FLOWS).map(|_| Long::open(&stage.world, address)).collect();
    soon("a second one joins and gets flows", || {
        asks(&stage.world, address, "two")
    });
    let told = hook.told();
    let grown = told.iter().find(|told| told["wants"] == 2).unwrap();
    assert_eq!((&grown["service"], &grown["has"]), (&json!("web"), &json!(1)));
    assert!(grown["metric"]["flows"].as_u64() > Some(10), "{grown}");
    still_there(&mut flows);
    let on_two = soon("a flow that stays open is the second's", || {
        Some(Long::open(&stage.world, address)).filter(|long| long.server == "two")
    });
    a_hook_that_hangs(&stage, &hook, address);
    still_there(&mut flows);
    the_second_leaves(&stage, &hook, address, on_two);
    still_there(&mut flows);
}

/// The list stays, and `status` says so.
fn a_hook_that_hangs(stage: &Stage, hook: &Hook, address: Ipv4Addr) {
    hook.does(Does::Hang);
    let wrong = soon("status names it", || {
        Some(faults(stage)).filter(|faults| faults.contains("did not answer within 1 s"))
    });
    assert!(wrong.contains("service web: its scaling hook http://"), "{wrong}");
    for server in SERVERS {
        soon(server, || asks(&stage.world, address, server));
    }
    hook.does(Does::Nonsense);
    soon("status names that too", || {
        let is_named = faults(stage).contains("names targets that cannot be: spec.targets[0].address");
        is_named.then_some(())
    });
    assert_eq!(scaling(stage).0, 2);
    for server in SERVERS {
        soon(server, || asks(&stage.world, address, server));
    }
}

/// It gets nothing new, keeps what it has, and is gone when that has ended.
fn the_second_leaves(stage: &Stage, hook: &Hook, address: Ipv4Addr, mut on_two: Long) {
    hook.does(Does::Name(1));
    all_from(&stage.world, address, "one");
    assert_eq!((scaling(stage), faults(stage)), ((2, 1), String::new()));
    on_two.echoes().expect("it keeps its flows");
    drop(on_two);
    hook.does(Does::NothingNew);
    soon("it is gone", || (scaling(stage) == (1, 0)).then_some(()));
    all_from(&stage.world, address, "one");
}

fn still_there(flows: &mut [Long]) {
    for flow in flows.iter_mut().filter(|flow| flow.server == "one") {
        flow.echoes().expect("what comes and goes is others");
    }
}

/// Whether this server answers the next request.
fn asks(world: &World, address: Ipv4Addr, server: &str) -> Option<()> {
    let player = world.netns("player").unwrap();
    let who = player.run(|| request(address)).unwrap().ok()?;
    (who == server).then_some(())
}

fn status(stage: &Stage) -> ClusterStatus {
    stage.cluster.json(&stage.world, &["status"]).unwrap()
}

/// What is wrong with the hook.
fn faults(stage: &Stage) -> String {
    let faults = status(stage).faults.into_iter();
    let of_hook = faults.filter(|fault| fault.host == "controller");
    of_hook.map(|fault| fault.fault).collect()
}

/// How many targets the hook has named, and how many of these leave.
fn scaling(stage: &Stage) -> (u32, u32) {
    let scaling = &status(stage).scalings[0];
    (scaling.named, scaling.leaving)
}

fn manifests(world: &World) -> anyhow::Result<String> {
    Ok(intent::nodes(world)?
        + &format!(
            "
---
kind: AddressPool
metadata: {{name: here}}
spec: {{addresses: [{{node: osaka, public: {}}}]}}
---
kind: Service
metadata: {{name: web}}
spec:
  pool: here
  listeners: [{{protocol: tcp, port: {HTTP}}}, {{protocol: tcp, port: {LONG}}}]
  scaling:
    min: 1
    max: 2
    flows_per_target: 10
    interval_s: 1
    hook: {{url: \"http://{}:{HOOK}/scale\", timeout_s: 1}}
",
            carried(world, "osaka"),
            world.site("control")?.address().local,
        ))
}

/// What the hook does with a call.
#[derive(Clone, Copy)]
enum Does {
    /// Names as many as are wanted.
    Follow,
    /// Names so many.
    Name(usize),
    /// Says that nothing changes.
    NothingNew,
    /// Names what is no address.
    Nonsense,
    /// Says nothing.
    Hang,
}

/// A server of HTTP beside the controller; it ends with the test.
struct Hook(Arc<Mutex<(Does, Vec<Value>)>>);

impl Hook {
    fn start(world: &World) -> Self {
        let bind = || TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, HOOK)));
        let listener = world.netns("control").unwrap().run(bind).unwrap().unwrap();
        let addresses = SERVERS.map(|name| world.site(name).unwrap().address().public);
        let known = Arc::new(Mutex::new((Does::Follow, Vec::new())));
        let shared = Arc::clone(&known);
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let Some(told) = body(&stream) else { continue };
                let does = shared.lock().unwrap().0;
                let count = match does {
                    Does::Follow => told["wants"]
                        .as_u64()
                        .map_or(0, |wants| wants.try_into().unwrap()),
                    Does::Name(count) => count,
                    Does::NothingNew | Does::Nonsense | Does::Hang => 0,
                };
                shared.lock().unwrap().1.push(told);
                let named = addresses.iter().take(count);
                let named: Vec<Value> = named.map(|address| json!({"address": address})).collect();
                let (status, text) = match does {
                    Does::Hang => {
                        hanging.push(stream);
                        continue;
                    }
                    Does::NothingNew => ("204 No Content", String::new()),
                    Does::Nonsense => ("200 OK", json!({"targets": [{"address": "there"}]}).to_string()),
                    Does::Follow | Does::Name(_) => ("200 OK", json!({"targets": named}).to_string()),
                };
                let length = text.len();
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{text}");
                // Who asked may have gone.
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        Self(known)
    }

    fn does(&self, does: Does) {
        self.0.lock().unwrap().0 = does;
    }

    /// What it was told so far.
    fn told(&self) -> Vec<Value> {
        self.0.lock().unwrap().1.clone()
    }
}

/// The body of a request.
fn body(stream: &TcpStream) -> Option<Value> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut octets = vec![0; length];
    stream.read_exact(&mut octets).ok()?;
    serde_json::from_slice(&octets).ok()
}
