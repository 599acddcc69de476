//! A service that selects its servers, and prefers what is near: each region's flows go to its own server, to the other one while that is dead, and
//! come back, but for those that have begun there.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::common::{Stage, skipped, soon};
use super::intent;
use super::requests::{HTTP, connect, request};
use kuafu_lab::Process;
use kuafu_lab::world::World;

const WORLD: &str = "
seed: 41
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 1}
  - {name: bahrain, role: node, region: me-south-1, spare: 1}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: one, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: two, role: server, region: me-south-1, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
/// Where connections stay open.
pub(super) const LONG: u16 = 7_000;
/// Flows that are to go to one server, each by a connection of its own.
const FLOWS: usize = 20;

#[test]
fn flows_go_to_the_near_server_while_it_serves() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let pages = tempfile::tempdir().unwrap();
    let _far = Server::start(&stage.world, "two", pages.path());
    let [osaka, bahrain] = ["osaka", "bahrain"].map(|node| carried(&stage.world, node));
    // The near one has not served yet.
    all_from(&stage.world, osaka, "two");
    let near = Server::start(&stage.world, "one", pages.path());
    all_from(&stage.world, osaka, "one");
    all_from(&stage.world, bahrain, "two");
    drop(near);
    all_from(&stage.world, osaka, "two");
    let mut long = Long::open(&stage.world, osaka);
    assert_eq!(long.server, "two");
    let _near = Server::start(&stage.world, "one", pages.path());
    all_from(&stage.world, osaka, "one");
    all_from(&stage.world, bahrain, "two");
    long.echoes().expect("the flow with the far one stays there");
    assert_eq!(Long::open(&stage.world, osaka).server, "one");
    // It is a target by its label alone.
    let text = manifests(&stage.world).unwrap();
    let without = text.replace("role: web, tier: front}}\nspec", "role: web}}\nspec");
    assert_ne!(text, without);
    stage.cluster.apply(&stage.world, "world.yaml", &without).unwrap();
    all_from(&stage.world, osaka, "two");
    stage.cluster.apply(&stage.world, "world.yaml", &text).unwrap();
    all_from(&stage.world, osaka, "one");
    let drained = format!("target/{}", stage.world.site("one").unwrap().address().local);
    let wrong = stage.cluster.ask(&stage.world, &["drain", &drained]).unwrap_err();
    assert!(wrong.to_string().contains("kuafu drain node/one"), "{wrong}");
}

/// Waits until each new flow to an address goes to this server.
pub(super) fn all_from(world: &World, address: Ipv4Addr, server: &str) {
    soon(&format!("{server} answers at {address}"), || {
        let ask = || (0..FLOWS).all(|_| request(address).is_ok_and(|who| who == server));
        let player = world.netns("player").unwrap();
        player.run(ask).unwrap().then_some(())
    });
}

/// A node's address of the pool.
pub(super) fn carried(world: &World, node: &str) -> Ipv4Addr {
    world.site(node).unwrap().spare()[0].public
}

fn manifests(world: &World) -> anyhow::Result<String> {
    let (one, two) = (world.site("one")?.address(), world.site("two")?.address());
    // The first one is selected by its labels, and where its node is; the second where it says.
    Ok(intent::nodes(world)?
        + &format!(
            "
---
kind: Node
metadata: {{name: one, labels: {{role: web, tier: front}}}}
spec: {{region: ap-northeast-3, agent: false, address: {{local: {}, public: {}}}}}
---
kind: AddressPool
metadata: {{name: both}}
spec: {{addresses: [{{node: osaka, public: {}}}, {{node: bahrain, public: {}}}]}}
---
kind: Service
metadata: {{name: web}}
spec:
  pool: both
  listeners: [{{protocol: tcp, port: {HTTP}}}, {{protocol: tcp, port: {LONG}}}]
  prefer: region
  targets: [{{address: {}, region: me-south-1}}]
  select: {{labels: {{role: web, tier: front}}}}
  health: {{type: http, path: /who, port: {HTTP}, interval_ms: 1500}}
",
            one.local,
            one.public,
            carried(world, "osaka"),
            carried(world, "bahrain"),
            two.public
        ))
}

/// A web server that says who it is; it ends when it is dropped. One whose connections stay open ends with the test.
pub(super) struct Server {
    _web: Process,
}

impl Server {
    pub(super) fn start(world: &World, name: &'static str, pages: &Path) -> Self {
        let host = world.netns(name).unwrap();
        let folder = pages.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("who"), name).unwrap();
        let mut web = Command::new("busybox");
        web.args(["httpd", "-f", "-p", &HTTP.to_string(), "-h"])
            .arg(&folder);
        let bind = || TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, LONG)));
        // Who starts again finds it there.
        if let Ok(listener) = host.run(bind).unwrap() {
            thread::spawn(move || {
                for connection in listener.incoming().flatten() {
                    thread::spawn(move || echo(name, connection));
                }
            });
        }
        Self {
            _web: host.spawn(web).unwrap(),
        }
    }
}

/// Says who it is, and then what it hears.
fn echo(name: &str, mut connection: TcpStream) -> Option<()> {
    connection.write_all(format!("{name}\n").as_bytes()).ok()?;
    let mut heard = [0; 64];
    loop {
        let count = connection.read(&mut heard).ok().filter(|count| *count > 0)?;
        connection.write_all(&heard[..count]).ok()?;
    }
}

/// A connection of the player's that stays open.
pub(super) struct Long {
    pub(super) server: String,
    connection: TcpStream,
}

impl Long {
    pub(super) fn open(world: &World, address: Ipv4Addr) -> Self {
        let player = world.netns("player").unwrap();
        soon("a connection stands", || {
            let mut connection = player.run(|| connect(address, LONG)).unwrap().ok()?;
            let server = line(&mut connection).ok()?;
            Some(Self { server, connection })
        })
    }

    /// Whether it still stands.
    pub(super) fn echoes(&mut self) -> std::io::Result<()> {
        self.connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        self.connection.write_all(b"still there?\n")?;
        match line(&mut self.connection)?.as_str() {
            "still there?" => Ok(()),
            other => Err(std::io::Error::other(other.to_owned())),
        }
    }
}

fn line(connection: &mut TcpStream) -> std::io::Result<String> {
    let mut text = Vec::new();
    let mut octet = [0];
    while connection.read_exact(&mut octet).is_ok() && octet != *b"\n" {
        text.push(octet[0]);
    }
    String::from_utf8(text).map_err(std::io::Error::other)
}
