//! An accelerator with three endpoints in two regions: each gets its share of the clients, and keeps each of them. When
//! one dies its clients go to the others, which keep theirs.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::common::{Stage, skipped, soon};
use super::intent;
use kuafu_lab::world::World;

const WORLD: &str = "
seed: 19
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 1}
  - {name: bahrain, role: node, region: me-south-1}
  - {name: cape-town, role: node, region: af-south-1}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: one, role: server, region: me-south-1, access_ms: 1}
  - {name: two, role: server, region: me-south-1, access_ms: 1}
  - {name: three, role: server, region: af-south-1, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
const PORT: u16 = 7_777;
/// Endpoints and their weights; two services, each behind the exit of its region.
const ENDPOINTS: [(&str, u32); 3] = [("one", 1), ("two", 2), ("three", 3)];
/// Their ports are the clients.
const CLIENTS: Range<u16> = 20_000..30_000;
/// Those that come when one of the endpoints is dead.
const LATER: Range<u16> = 31_000..33_000;
/// What a health check asks, and how the answer begins.
const PING: &[u8] = b"ping";
const HEALTH: &str = "{type: udp, send: ping, expect: ping, interval_ms: 500}";
/// So many at once, then a pause: no queue is longer.
const BURST: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);
/// For what is under way.
const UNDER_WAY: Duration = Duration::from_millis(500);
/// Of all clients.
const WITHIN: f64 = 0.02;

#[test]
fn endpoints_of_two_regions_get_their_shares() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let mut servers: Vec<Server> = ENDPOINTS
        .iter()
        .map(|(name, _)| Server::start(&stage.world, name))
        .collect();
    // A listener leads to the exits that are ready: before anybody is counted, both are.
    soon("each endpoint gets something", || {
        send(&stage.world, 10_000..10_100);
        let heard = |server: &Server| !server.heard().is_empty();
        servers.iter().all(heard).then_some(())
    });
    // Twice from each.
    send(&stage.world, CLIENTS);
    until_heard(&stage.world, CLIENTS, &servers);
    let clients = clients_of(&servers, &CLIENTS);
    let all: usize = clients.iter().map(BTreeSet::len).sum();
    assert_eq!(all, CLIENTS.len(), "some were heard by two");
    let weights: u32 = ENDPOINTS.iter().map(|(_, weight)| weight).sum();
    for ((name, weight), clients) in ENDPOINTS.iter().zip(&clients) {
        let (share, due) = (
            clients.len() as f64 / all as f64,
            f64::from(*weight) / f64::from(weights),
        );
        println!(
            "{name}: {} clients, {:.2} % of {:.2}",
            clients.len(),
            share * 100.0,
            due * 100.0
        );
        assert!((share - due).abs() <= WITHIN, "{name}: {share} of {due}");
    }
    one_dies(&stage, &mut servers, &clients);
}

/// The second endpoint dies: the entry leads less to its region, and whoever was not its client stays.
fn one_dies(stage: &Stage, servers: &mut Vec<Server>, before: &[BTreeSet<u16>]) {
    let dead = servers.remove(1);
    drop(dead);
    soon("the exit has left it out", || {
        let status = stage.status("bahrain")?.status?;
        let mut down = status.servers.iter().filter(|server| server.standing == "down");
        let reason = down.next()?.reason.clone();
        println!("down: {reason}");
        Some(())
    });
    // One of the region's three shares is left, beside the other region's three.
    soon("the entry leads there by what is left", || {
        let state = stage.state("osaka");
        let weights: Vec<u32> = state
            .services
            .iter()
            .flat_map(|service| &service.targets)
            .map(|target| target.weight)
            .collect();
        let (most, least) = (weights.iter().max()?, weights.iter().min()?);
        (weights.len() == 2 && *most == 3 * least).then_some(())
    });
    for server in servers.iter() {
        server.forget();
    }
    let stayed: Vec<&BTreeSet<u16>> = [&before[0], &before[2]].to_vec();
    let others: BTreeSet<u16> = stayed.iter().copied().flatten().copied().collect();
    send(&stage.world, others.iter().copied());
    until_heard(&stage.world, others.iter().copied(), servers);
    for (server, stayed) in servers.iter().zip(stayed) {
        let now: BTreeSet<u16> = server
            .heard()
            .into_iter()
            .filter(|client| CLIENTS.contains(client))
            .collect();
        let moved = now.difference(stayed).count();
        assert_eq!(
            (moved, now.len()),
            (0, stayed.len()),
            "flows with endpoints that live stay there"
        );
    }
    // The dead one's clients, and new ones. These share by the new weights only after 30 s, in which they might be
    // clients of before.
    until_heard(&stage.world, before[1].iter().copied(), servers);
    until_heard(&stage.world, LATER, servers);
}

/// The clients of each server.
fn clients_of(servers: &[Server], range: &Range<u16>) -> Vec<BTreeSet<u16>> {
    let of = |server: &Server| {
        server
            .heard()
            .into_iter()
            .filter(|client| range.contains(client))
            .collect()
    };
    servers.iter().map(of).collect()
}

/// Sends from each client, and again from those that a busy machine lost.
fn until_heard(world: &World, clients: impl Iterator<Item = u16> + Clone + Send, servers: &[Server]) {
    send(world, clients.clone());
    soon("each client is heard", || {
        thread::sleep(UNDER_WAY);
        let heard: BTreeSet<u16> = servers.iter().flat_map(Server::heard).collect();
        let unheard: Vec<u16> = clients.clone().filter(|client| !heard.contains(client)).collect();
        send(world, unheard.iter().copied());
        unheard.is_empty().then_some(())
    });
}

fn manifests(world: &World) -> anyhow::Result<String> {
    let target = |number: usize| -> anyhow::Result<String> {
        let (name, weight) = ENDPOINTS[number];
        let address = world.site(name)?.address().public;
        Ok(format!("{{address: {address}, port: {PORT}, weight: {weight}}}"))
    };
    let address = world.site("osaka")?.spare()[0];
    Ok(intent::nodes(world)?
        + &format!(
            "
---
kind: AddressPool
metadata: {{name: asia}}
spec:
  addresses: [{{node: osaka, public: {}, local: {}}}]
---
kind: Service
metadata: {{name: bahrain}}
spec: {{targets: [{}, {}], health: {HEALTH}}}
---
kind: Service
metadata: {{name: cape-town}}
spec: {{targets: [{}], health: {HEALTH}}}
---
kind: Accelerator
metadata: {{name: arena}}
spec:
  pool: asia
  listeners: [{{protocol: udp, port: {PORT}}}]
  groups: [{{service: bahrain, region: me-south-1}}, {{service: cape-town, region: af-south-1}}]
",
            address.public,
            address.local,
            target(0)?,
            target(1)?,
            target(2)?
        ))
}

/// A packet from each of these ports of the player, in which the port is written.
fn send(world: &World, clients: impl IntoIterator<Item = u16> + Send) {
    let public = world.site("osaka").unwrap().spare()[0].public;
    let to = SocketAddrV4::new(public, PORT);
    let sent = world.netns("player").unwrap().run(|| {
        for (number, client) in clients.into_iter().enumerate() {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, client)).unwrap();
            socket.send_to(&client.to_be_bytes(), to).unwrap();
            if number % BURST == 0 {
                thread::sleep(PAUSE);
            }
        }
    });
    sent.unwrap();
}

/// Hears what clients send.
struct Server {
    ends: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<u16>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(world: &World, name: &str) -> Self {
        let bind = || UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)));
        let socket = world.netns(name).unwrap().run(bind).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (ends, heard) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<u16>>>::default());
        let (until, into) = (ends.clone(), heard.clone());
        let thread = thread::spawn(move || {
            let mut octets = [0; 16];
            while !until.load(Ordering::Relaxed) {
                let Ok((count, from)) = socket.recv_from(&mut octets) else {
                    continue;
                };
                match &octets[..count] {
                    &[high, low] => into.lock().unwrap().push(u16::from_be_bytes([high, low])),
                    PING => drop(socket.send_to(PING, from)),
                    _ => {}
                }
            }
        });
        Self {
            ends,
            heard,
            thread: Some(thread),
        }
    }

    /// Forgets whom it heard.
    fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// The ports, a packet each.
    fn heard(&self) -> Vec<u16> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
