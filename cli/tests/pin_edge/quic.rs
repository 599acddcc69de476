//! A real QUIC client whose address changes in mid-transfer: its server's connection ids name the server, and the
//! transfer goes on there.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu_dataplane::bpf::{Link, XdpMode};
use kuafu_lab::Namespace;
use kuafu_lab::decapsulator::Decapsulator;
use kuafu_lab::link::{End, Mac, Offloads, veth};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig, TokioRuntime,
};
use serde_json::json;

use super::instance::{GATEWAY_MAC, Pinned, SERVICE, config, skipped};

const PORT: u16 = 7000;
const NAME: &str = "game.example";
const BALANCER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The servers: what the service sends to, and the id that each gives to its connections.
const SERVERS: [(Ipv4Addr, u32); 2] = [
    (Ipv4Addr::new(192, 0, 3, 1), 0x0a_0b_01),
    (Ipv4Addr::new(192, 0, 3, 2), 0x0a_0b_02),
];
/// So many, since the ring alone would lead half of them to the same server.
const CONNECTIONS: usize = 8;
/// Octets of a transfer, and of what has come when the address changes.
const TRANSFER: usize = 1 << 20;
const BEFORE: usize = 1 << 17;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_client_that_changes_its_address_keeps_its_server() {
    if skipped() {
        return;
    }
    let prefix = format!("kfq{}", std::process::id());
    let world = World::new(&prefix);
    let certificate = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let servers: Vec<Endpoint> = SERVERS
        .iter()
        .zip(&world.servers)
        .map(|((_, id), host)| server(host, *id, &certificate))
        .collect();
    let (client, mut moved) = (world.client(&certificate), 0);
    for _ in 0..CONNECTIONS {
        let before = world.at_rest();
        let transferred = tokio::time::timeout(LIMIT, transfer(&world, &client));
        let who = runtime.block_on(transferred).expect("a transfer in time");
        let after = world.at_rest();
        let at: Vec<bool> = before
            .iter()
            .zip(&after)
            .map(|(before, after)| after > before)
            .collect();
        let expected: Vec<bool> = SERVERS.iter().map(|(_, id)| *id == who).collect();
        // The first packets have no id of the server's yet, and follow the ring: to the one that then gave its own.
        assert_eq!(at, expected, "all packets of the connection at its server");
        moved += 1;
    }
    println!("{moved} transfers of {TRANSFER} octets went on at their servers");
    drop(servers);
}

/// Client and router in one, the balancer, two servers.
struct World {
    outside: Namespace,
    servers: Vec<Namespace>,
    decapsulators: Vec<Decapsulator>,
    _link: Link,
    _pinned: Pinned,
    _balancer: Namespace,
}

impl World {
    fn new(prefix: &str) -> Self {
        let make = |name: &str| Namespace::create(prefix, name).unwrap();
        let (outside, balancer) = (make("outside"), make("balancer"));
        let servers = vec![make("one"), make("two")];
        veth(
            &End {
                addresses: vec![format!("{ROUTER}/24").parse().unwrap()],
                mac: Some(Mac(GATEWAY_MAC)),
                offloads: Offloads::WireTap,
                ..End::new(&outside, "to-edge")
            },
            &End {
                addresses: vec![format!("{BALANCER}/24").parse().unwrap()],
                offloads: Offloads::Wire,
                ..End::new(&balancer, "under")
            },
            1500,
        )
        .unwrap();
        outside.sysctl("net/ipv4/ip_forward", "1").unwrap();
        outside
            .ip([format!("route add {SERVICE}/32 via {BALANCER}")])
            .unwrap();
        for (number, (server, (address, _))) in servers.iter().zip(SERVERS).enumerate() {
            let (device, net) = (format!("to-{number}"), format!("10.1.{number}"));
            veth(
                &End {
                    addresses: vec![format!("{net}.1/24").parse().unwrap()],
                    ..End::new(&outside, &device)
                },
                &End {
                    addresses: vec![format!("{net}.2/24").parse().unwrap()],
                    ..End::new(server, "eth0")
                },
                1500,
            )
            .unwrap();
            outside
                .ip([format!("route add {address}/32 via {net}.2")])
                .unwrap();
            server
                .ip([
                    format!("address add {address}/32 dev lo"),
                    format!("address add {SERVICE}/32 dev lo"),
                    format!("route add default via {net}.1"),
                ])
                .unwrap();
        }
        let pinned = Pinned::new("migrates", &balanced());
        let pin = format!("/sys/fs/bpf/{prefix}-link");
        let attach = || {
            let number = nix::net::if_::if_nametoindex("under").unwrap();
            Link::attach(
                &pinned.program(),
                (number, "under"),
                XdpMode::Generic,
                pin.as_ref(),
            )
            .unwrap()
        };
        let link = balancer.run(attach).unwrap();
        // Attached it stays; the pin is not needed.
        std::fs::remove_file(&pin).unwrap();
        let decapsulators = servers
            .iter()
            .map(|server| Decapsulator::start(server, &[SERVICE], 6080).unwrap());
        Self {
            decapsulators: decapsulators.collect(),
            outside,
            servers,
            _link: link,
            _pinned: pinned,
            _balancer: balancer,
        }
    }

    /// A client's socket, at a port that none had before.
    fn socket(&self) -> UdpSocket {
        self.outside
            .run(|| UdpSocket::bind((ROUTER, 0)))
            .unwrap()
            .unwrap()
    }

    fn client(&self, certificate: &Certificate) -> Endpoint {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(certificate.cert.der().to_vec()))
            .unwrap();
        let runtime = Arc::new(TokioRuntime);
        let mut endpoint = Endpoint::new(EndpointConfig::default(), None, self.socket(), runtime).unwrap();
        endpoint.set_default_client_config(ClientConfig::with_root_certificates(Arc::new(roots)).unwrap());
        endpoint
    }

    /// The same, once no packet is on its way any more.
    fn at_rest(&self) -> Vec<u64> {
        let mut last = self.unwrapped();
        let mut before = Vec::new();
        let deadline = Instant::now() + LIMIT;
        while before != last {
            assert!(Instant::now() < deadline, "packets go on and on: {last:?}");
            std::thread::sleep(Duration::from_millis(100));
            before = std::mem::replace(&mut last, self.unwrapped());
        }
        last
    }

    /// Packets that each server has got from the balancer.
    fn unwrapped(&self) -> Vec<u64> {
        let count = |decapsulator: &Decapsulator| {
            let unwrapped = decapsulator.unwrapped();
            assert_eq!(unwrapped.wrong, [""; 0]);
            unwrapped.ipip
        };
        self.decapsulators.iter().map(count).collect()
    }
}

type Certificate = rcgen::CertifiedKey<rcgen::KeyPair>;

/// The service, of QUIC, whose ids' first octet says that the three after it name the server.
fn balanced() -> serde_json::Value {
    let targets = SERVERS.map(|(address, _)| json!({"address": address, "weight": 1}));
    let mut config = config(&json!(targets));
    config["services"][1]["quic"] = json!(true);
    let ids = SERVERS.map(|(address, id)| json!({"id": id, "target": address}));
    config["quic"] = json!({"cid_layout": {"kind": "tagged"}, "server_ids": ids});
    config
}

/// Gives ids that name the server.
struct Names(u32);

impl ConnectionIdGenerator for Names {
    fn generate_cid(&mut self) -> ConnectionId {
        let [_, high, middle, low] = self.0.to_be_bytes();
        let [first, rest @ ..]: [u8; 5] = rand::random();
        ConnectionId::new(&[&[0b1000_0000 | first & 0b0011_1111, high, middle, low][..], &rest].concat())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A server that says who it is, and then sends what a transfer is made of.
fn server(host: &Namespace, id: u32, certificate: &Certificate) -> Endpoint {
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let chain = vec![CertificateDer::from(certificate.cert.der().to_vec())];
    let config = ServerConfig::with_single_cert(chain, key).unwrap();
    let socket = host.run(|| UdpSocket::bind((SERVICE, PORT))).unwrap().unwrap();
    let mut ids = EndpointConfig::default();
    ids.cid_generator(move || Box::new(Names(id)));
    let endpoint = Endpoint::new(ids, Some(config), socket, Arc::new(TokioRuntime)).unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await.ok()?;
                let mut stream = connection.open_uni().await.ok()?;
                stream.write_all(&id.to_be_bytes()).await.ok()?;
                stream.write_all(&[7; TRANSFER]).await.ok()?;
                stream.finish().ok()?;
                connection.closed().await;
                Some(())
            });
        }
    });
    endpoint
}

/// A transfer in whose midst the client's address changes; the server that sent it.
async fn transfer(world: &World, client: &Endpoint) -> u32 {
    let connecting = client.connect(SocketAddr::from((SERVICE, PORT)), NAME).unwrap();
    let connection = connecting.await.unwrap();
    let mut stream = connection.accept_uni().await.unwrap();
    let mut id = [0; 4];
    stream.read_exact(&mut id).await.unwrap();
    let mut octets = vec![0; BEFORE];
    stream.read_exact(&mut octets).await.unwrap();
    let before = client.local_addr().unwrap();
    client.rebind(world.socket()).unwrap();
    assert_ne!(client.local_addr().unwrap(), before);
    octets.extend(stream.read_to_end(TRANSFER).await.unwrap());
    assert!(octets == [7; TRANSFER], "{} octets", octets.len());
    connection.close(0_u32.into(), b"done");
    client.wait_idle().await;
    u32::from_be_bytes(id)
}
