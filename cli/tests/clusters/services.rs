//! Services that listen themselves: their servers, which run no agent, get packets whole and answer clients directly.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::common::{Stage, skipped, soon};
use super::intent;
use kuafu_lab::Process;
use kuafu_lab::decapsulator::Decapsulator;
use kuafu_lab::stream::{Answers, Echo, Stream, StreamConfig};
use kuafu_lab::world::World;

const WORLD: &str = "
seed: 23
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 3}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: one, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: two, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: three, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
const SERVERS: [&str; 3] = ["one", "two", "three"];
/// Each at an address of its own.
const MODES: [&str; 3] = ["ipip", "gue, gue: {variant: 0}", "gue, gue: {variant: 1}"];
const HTTP: u16 = 80;
pub(super) const UDP: u16 = 7_777;
pub(super) const GUE: u16 = 6_080;
/// Requests to each service, each by a connection of its own.
const REQUESTS: usize = 100;
/// Packets a second of a stream, and for how long.
const RATE: u32 = 1_000;
const LENGTH: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn servers_without_an_agent_answer_clients_themselves() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let addresses: Vec<Ipv4Addr> = stage
        .world
        .site("osaka")
        .unwrap()
        .spare()
        .iter()
        .map(|at| at.public)
        .collect();
    let pages = tempfile::tempdir().unwrap();
    let servers = SERVERS.map(|name| Server::start(&stage.world, name, &addresses, pages.path()));
    for (mode, address) in MODES.iter().zip(&addresses) {
        soon("the service answers", || ask(&stage.world, *address));
        let before: Vec<_> = servers
            .iter()
            .map(|server| server.decapsulator.unwrapped())
            .collect();
        let mut answered: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..REQUESTS {
            let who = ask(&stage.world, *address).expect("an answer");
            *answered.entry(who).or_default() += 1;
        }
        println!("{mode}: {answered:?}");
        assert_eq!(answered.len(), SERVERS.len(), "{mode}: {answered:?}");
        stream(&stage.world, (*address, 1), &servers);
        for (server, before) in servers.iter().zip(before) {
            let now = server.decapsulator.unwrapped();
            let went = [
                now.ipip - before.ipip,
                now.gue[0] - before.gue[0],
                now.gue[1] - before.gue[1],
            ];
            let expected = MODES.iter().position(|known| known == mode).unwrap();
            for (way, count) in went.iter().enumerate() {
                assert_eq!(*count > 0, way == expected, "{mode}: {went:?}");
            }
            assert!(now.wrong.is_empty(), "{:?}", now.wrong);
        }
    }
    let sources: usize = servers
        .iter()
        .map(|server| server.decapsulator.unwrapped().gue_sources.len())
        .sum();
    assert!(
        sources > REQUESTS / 2,
        "each flow has a source port of its own: {sources}"
    );
    policies(&stage, addresses[0]);
    many_ports(&stage, addresses[1], &servers);
}

/// All flows of a client lead to one server, and the address answers no echo requests, once that is declared.
fn policies(stage: &Stage, address: Ipv4Addr) {
    let answers = || {
        let mut ping = Command::new("ping");
        ping.args(["-c", "1", "-W", "1", &address.to_string()]);
        let answered = stage.world.netns("player").unwrap().output(ping, LIMIT);
        answered.unwrap().status.success()
    };
    assert!(answers(), "that is usual");
    let text = manifests(&stage.world).unwrap();
    let text = text
        .replacen(
            "spec: {addresses: ",
            "spec: {packets: {echo: drop}, addresses: ",
            1,
        )
        .replacen("  pool: pool-0\n", "  pool: pool-0\n  affinity: client\n", 1);
    // Ports that no connection had before: what begins with those of one that is closed keeps its server for a minute.
    let player = stage.world.netns("player").unwrap();
    player
        .sysctl("net/ipv4/ip_local_port_range", "10000 30000")
        .unwrap();
    stage.cluster.apply(&stage.world, "world.yaml", &text).unwrap();
    let one = soon("a client has one server", || {
        let asked = (0..20).map(|_| ask(&stage.world, address));
        let answered: Option<BTreeSet<String>> = asked.collect();
        answered.filter(|answered| answered.len() == 1)
    });
    for _ in 0..REQUESTS {
        assert!(one.contains(&ask(&stage.world, address).expect("an answer")));
    }
    assert!(!answers(), "echo: drop");
}

/// All ports of TCP and a range of UDP's lead to the servers, and connection ids of QUIC to those that they name.
fn many_ports(stage: &Stage, address: Ipv4Addr, servers: &[Server]) {
    let text = manifests(&stage.world).unwrap();
    let text = text.replacen(
        &format!(
            "pool: pool-1\n  listeners: [{{protocol: tcp, port: {HTTP}}}, {{protocol: udp, port: {UDP}}}]"
        ),
        "pool: pool-1\n  listeners: [{protocol: tcp, ports: all}, {protocol: udp, ports: 7700-7799}]\n  \
         quic: {layout: quic-lb, config: 2, server_id_octets: 2}",
        1,
    );
    let (others, its) = text.split_at(text.find("name: web-1").unwrap());
    let mut its = its.to_owned();
    for (index, name) in SERVERS.iter().enumerate() {
        let server = stage.world.site(name).unwrap().address().public;
        let named = format!("{{address: {server}, server_id: {}}}", 0x0100 + index);
        its = its.replacen(&format!("{{address: {server}}}"), &named, 1);
    }
    let text = others.to_owned() + &its;
    stage.cluster.apply(&stage.world, "world.yaml", &text).unwrap();
    soon("a server refuses what comes to a port without a program", || {
        let to = SocketAddrV4::new(address, HTTP + 1).into();
        let player = stage.world.netns("player").unwrap();
        let asked = player.run(|| TcpStream::connect_timeout(&to, LIMIT)).unwrap();
        let is_refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
        asked.is_err_and(is_refused).then_some(())
    });
    ask(&stage.world, address).expect("an answer");
    stream(&stage.world, (address, 2), servers);
    let arrived = || -> Vec<u64> {
        servers
            .iter()
            .map(|server| server.decapsulator.unwrapped().gue[0])
            .collect()
    };
    for index in 0..SERVERS.len() {
        let mut expected = arrived();
        expected[index] += REQUESTS as u64;
        // A short header, the configuration's number, the server's id, and what the server likes.
        let id = u8::try_from(index).unwrap();
        let packet = [0x40, 0b0100_0000, 0x01, id, 9, 9, 9, 9, 9, 9];
        let player = stage.world.netns("player").unwrap();
        let sent = player.run(|| -> std::io::Result<()> {
            for port in (7700..7800).cycle().take(REQUESTS) {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.send_to(&packet, (address, port))?;
            }
            Ok(())
        });
        sent.unwrap().unwrap();
        soon("all arrive at the server that they name", || {
            (arrived() == expected).then_some(())
        });
    }
}

fn manifests(world: &World) -> anyhow::Result<String> {
    let mut text = intent::nodes(world)?;
    let targets: anyhow::Result<Vec<String>> = SERVERS
        .iter()
        .map(|name| Ok(format!("{{address: {}}}", world.site(name)?.address().public)))
        .collect();
    let targets = targets?.join(", ");
    for (number, (mode, address)) in MODES.iter().zip(world.site("osaka")?.spare()).enumerate() {
        text += &format!(
            "
---
kind: AddressPool
metadata: {{name: pool-{number}}}
spec: {{addresses: [{{node: osaka, public: {}}}]}}
---
kind: Service
metadata: {{name: web-{number}}}
spec:
  pool: pool-{number}
  listeners: [{{protocol: tcp, port: {HTTP}}}, {{protocol: udp, port: {UDP}}}]
  targets: [{targets}]
  mode: {}
",
            address.public,
            mode.replace(", ", "\n  ")
        );
    }
    Ok(text)
}

/// A host without agent: a web server, an echo at each service's address, and what takes packets out.
pub(super) struct Server {
    pub(super) decapsulator: Decapsulator,
    pub(super) echoes: Vec<Echo>,
    _web: Process,
}

impl Server {
    pub(super) fn start(world: &World, name: &str, addresses: &[Ipv4Addr], pages: &Path) -> Self {
        let host = world.netns(name).unwrap();
        let own = addresses
            .iter()
            .map(|address| format!("address add {address}/32 dev lo"));
        host.ip(own).unwrap();
        let folder = pages.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("who"), name).unwrap();
        let mut web = Command::new("busybox");
        web.args(["httpd", "-f", "-p", &HTTP.to_string(), "-h"])
            .arg(&folder);
        let echo = |address: &Ipv4Addr| Echo::start(host, SocketAddr::from((*address, UDP))).unwrap();
        Self {
            decapsulator: Decapsulator::start(host, addresses, GUE).unwrap(),
            echoes: addresses.iter().map(echo).collect(),
            _web: host.spawn(web).unwrap(),
        }
    }
}

/// Who answers a request.
fn ask(world: &World, address: Ipv4Addr) -> Option<String> {
    let asked = world.netns("player").unwrap().run(|| -> std::io::Result<String> {
        let to = SocketAddrV4::new(address, HTTP).into();
        let mut connection = TcpStream::connect_timeout(&to, LIMIT)?;
        connection.set_read_timeout(Some(LIMIT))?;
        connection.write_all(b"GET /who HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        connection.read_to_string(&mut text)?;
        Ok(text)
    });
    let text = asked.unwrap().ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    Some(body.to_owned())
}

/// A stream of datagrams, which has a number: each arrives at the one server of its flow, and is answered.
fn stream(world: &World, (address, number): (Ipv4Addr, u32), servers: &[Server]) {
    let id = u32::from(address) ^ number << 16;
    let config = StreamConfig {
        to: SocketAddrV4::new(address, UDP).into(),
        id,
        rate: RATE,
        bytes: 1_000,
        answers: Answers::Each,
    };
    let stream = Stream::start(world.netns("player").unwrap(), config).unwrap();
    std::thread::sleep(LENGTH);
    let trace = stream.finish(Duration::from_secs(1));
    let arrived =
        |server: &Server| -> usize { server.echoes.iter().map(|echo| echo.arrived(id).len()).sum() };
    let arrived: Vec<usize> = servers.iter().map(arrived).collect();
    let sent = usize::try_from(trace.sent_count()).unwrap();
    println!(
        "{address}: {sent} sent, arrived {arrived:?}, answered {}",
        trace.replies().len()
    );
    assert_eq!(arrived.iter().max(), Some(&sent), "all by one server");
    assert_eq!(arrived.iter().sum::<usize>(), sent, "and by it alone");
    assert_eq!(trace.replies().len(), sent);
}
