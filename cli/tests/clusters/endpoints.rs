//! An accelerator with three endpoints in two regions: each gets its share of the clients, and keeps each of them.

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
    let servers: Vec<Server> = ENDPOINTS
        .iter()
        .map(|(name, _)| Server::start(&stage.world, name))
        .collect();
    // A listener leads to the exits that are ready: before anybody is counted, both are.
    soon("each endpoint gets something", || {
        send(&stage.world, 10_000..10_100);
        let heard = |server: &Server| !server.heard().is_empty();
        servers.iter().all(heard).then_some(())
    });
    let clients = || -> Vec<BTreeSet<u16>> {
        let of = |server: &Server| {
            server
                .heard()
                .into_iter()
                .filter(|client| CLIENTS.contains(client))
                .collect()
        };
        servers.iter().map(of).collect()
    };
    // Twice from each, and again from those that a busy machine lost.
    send(&stage.world, CLIENTS);
    send(&stage.world, CLIENTS);
    soon("each client is heard", || {
        let heard: BTreeSet<u16> = clients().into_iter().flatten().collect();
        let unheard: Vec<u16> = CLIENTS.filter(|client| !heard.contains(client)).collect();
        send(&stage.world, unheard.iter().copied());
        thread::sleep(UNDER_WAY);
        unheard.is_empty().then_some(())
    });
    let clients = clients();
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
spec: {{targets: [{}, {}]}}
---
kind: Service
metadata: {{name: cape-town}}
spec: {{targets: [{}]}}
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
            let mut octets = [0; 2];
            while !until.load(Ordering::Relaxed) {
                if socket.recv(&mut octets).is_ok() {
                    into.lock().unwrap().push(u16::from_be_bytes(octets));
                }
            }
        });
        Self {
            ends,
            heard,
            thread: Some(thread),
        }
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
