//! A service whose servers are ports of a VPC: one on the host that carries the service's address, one on another, and one
//! on a host without agent. Each is set up with the printed lines alone, gets packets whole, and answers clients directly.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Stage, skipped, soon};
use super::intent;
use super::requests::{ANSWER, HTTP, Request, connect, failed, request, under_load};
use super::tenants::{Machine, machine};
use kuafu_lab::world::World;
use kuafu_lab::{Namespace, Process};

const WORLD: &str = "
seed: 31
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 1}
  - {name: tokyo, role: node, region: ap-northeast-1}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: plain, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
/// The hosts of the ports, which have the addresses 10.0.0.1 and so on.
const HOSTS: [&str; 3] = ["osaka", "tokyo", "plain"];
const TENANT: &str = "red";
/// Where uploads go.
const SINK: u16 = 7_000;
/// Octets of an upload: many segments as large as can be.
const UPLOAD: usize = 1_000_000;
const REQUESTS: usize = 1_000;
const INTERVAL: Duration = Duration::from_millis(300);
const FALL: u32 = 3;
const LIMIT: Duration = Duration::from_secs(60);
/// For what is to stay as it is.
const WHILE: Duration = Duration::from_secs(3);

#[test]
fn ports_of_a_vpc_answer_clients_themselves() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let machines: Vec<Machine> = (1..)
        .zip(&HOSTS[..2])
        .map(|(number, host)| machine(&stage.world, TENANT, host, number).unwrap())
        .collect();
    let plain = stage.world.netns("plain").unwrap();
    let servers: Vec<&Namespace> = machines
        .iter()
        .map(|machine| &machine.namespace)
        .chain([plain])
        .collect();
    set_up(&stage, &servers);
    let pages = tempfile::tempdir().unwrap();
    let serve = |(host, name): (&&Namespace, &&str)| serve(host, name, pages.path());
    let _webs: Vec<Process> = servers.iter().zip(&HOSTS).map(serve).collect();
    until(&stage, "all serve", |_| "up");
    each_serves_and_takes_uploads(&stage);
    the_foreign_one_dies(&stage, plain);
    each_is_drained(&stage);
    println!("dropped: {}", stage.dropped());
}

/// Runs the printed lines where servers are: each takes its own part.
fn set_up(stage: &Stage, servers: &[&Namespace]) {
    let lines = ["get", "service/web", "--backend-setup"];
    let script = stage.cluster.ask(&stage.world, &lines).unwrap();
    for host in servers {
        for _twice in 0..2 {
            let mut shell = Command::new("sh");
            shell.args(["-e", "-c", &script]);
            let ran = host.output(shell, LIMIT).unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert!(ran.status.success(), "{said}\n{script}");
        }
    }
}

/// A web server and a sink of uploads, which says how much has come.
fn serve(host: &Namespace, name: &str, pages: &Path) -> Process {
    let folder = pages.join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("who"), name).unwrap();
    let bind = || TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, SINK)));
    let listener = host.run(bind).unwrap().unwrap();
    // It ends with the test.
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut octets = vec![0; UPLOAD];
                connection.read_exact(&mut octets)?;
                connection.write_all(&[u8::from(octets == pattern())])
            });
        }
    });
    let mut web = Command::new("busybox");
    web.args(["httpd", "-f", "-p", &HTTP.to_string(), "-h"])
        .arg(&folder);
    host.spawn(web).unwrap()
}

fn pattern() -> Vec<u8> {
    (0..=250).cycle().take(UPLOAD).collect()
}

/// Requests go to all three, uploads arrive whole, and none fails.
fn each_serves_and_takes_uploads(stage: &Stage) {
    let (address, player) = (address(&stage.world), stage.world.netns("player").unwrap());
    let mut answered: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..REQUESTS {
        let who = player.run(|| request(address)).unwrap().expect("an answer");
        *answered.entry(who).or_default() += 1;
    }
    println!("{REQUESTS} requests: {answered:?}");
    assert_eq!(answered.len(), HOSTS.len(), "{answered:?}");
    let upload = || -> std::io::Result<u8> {
        let mut connection = connect(address, SINK)?;
        connection.set_read_timeout(Some(LIMIT))?;
        connection.write_all(&pattern())?;
        let mut whole = [0];
        connection.read_exact(&mut whole)?;
        Ok(whole[0])
    };
    for _ in 0..4 * HOSTS.len() {
        assert_eq!(player.run(upload).unwrap().expect("an upload"), 1);
    }
}

/// No request goes there once it is down, and it comes back.
fn the_foreign_one_dies(stage: &Stage, plain: &Namespace) {
    let gateway = stage.world.site("plain").unwrap().gateway();
    let (mut died, mut known) = (Instant::now(), Instant::now());
    let all = under_load(&stage.world, "player", &[address(&stage.world)], |_| {
        thread::sleep(WHILE);
        died = Instant::now();
        plain.ip(["link set eth0 down"]).unwrap();
        until(
            stage,
            "it is down",
            |name| {
                if name == "plain" { "down" } else { "up" }
            },
        );
        known = Instant::now();
        thread::sleep(WHILE);
    });
    let failed: Vec<&Request> = failed(&all[0]).collect();
    println!("{} requests, {} failed", all[0].len(), failed.len());
    assert!(
        failed
            .iter()
            .all(|request| request.began + ANSWER >= died && request.began <= known),
        "{failed:?}"
    );
    let began = || failed.iter().map(|request| request.began);
    if let (Some(first), Some(last)) = (began().min(), began().max()) {
        assert!(
            last - first <= INTERVAL * FALL + Duration::from_secs(1),
            "{:?}",
            last - first
        );
    }
    let after = all[0].iter().filter(|request| request.began > known);
    let who: BTreeSet<&str> = after.filter_map(|request| request.who.as_deref().ok()).collect();
    assert_eq!(who, BTreeSet::from(["osaka", "tokyo"]));
    plain
        .ip([
            "link set eth0 up".to_owned(),
            format!("route replace default via {gateway}"),
        ])
        .unwrap();
    until(stage, "it serves again", |_| "up");
}

/// Under load each is drained by its address in the VPC: no request fails, and none goes there.
fn each_is_drained(stage: &Stage) {
    let all = under_load(&stage.world, "player", &[address(&stage.world)], |so_far| {
        for (number, name) in (1..).zip(HOSTS) {
            let target = format!("target/10.0.0.{number}");
            let drain = |more: &[&str]| {
                let verb = [&["drain", target.as_str()], more].concat();
                stage.cluster.ask(&stage.world, &verb).unwrap()
            };
            drain(&["--wait", "15"]);
            let drained = Instant::now();
            thread::sleep(WHILE);
            let requests = so_far[0].lock().unwrap().clone();
            let after = requests.iter().filter(|request| request.began > drained);
            let of_it = after.filter(|request| request.who.as_deref() == Ok(name));
            assert_eq!(of_it.count(), 0, "{name} gets new ones");
            drain(&["--undo"]);
            soon("it is used again", || {
                let ask = || request(address(&stage.world));
                let who = stage.world.netns("player").unwrap().run(ask).unwrap().ok()?;
                (who == name).then_some(())
            });
        }
    });
    let failed: Vec<&Request> = failed(&all[0]).collect();
    println!("{} requests while each was drained", all[0].len());
    assert!(failed.is_empty(), "{failed:?}");
}

/// Waits until osaka says this of each server.
fn until(stage: &Stage, what: &str, standing: impl Fn(&str) -> &'static str) {
    soon(what, || {
        let servers = stage.status("osaka")?.status?.servers;
        let is_so = |(number, name): (usize, &&str)| {
            let address = format!("10.0.0.{number}");
            let mut ours = servers.iter().filter(|server| server.address == address);
            ours.all(|server| server.standing == standing(name))
        };
        let count = servers.len() == HOSTS.len();
        (count && (1..).zip(&HOSTS).all(is_so)).then_some(())
    });
}

fn address(world: &World) -> Ipv4Addr {
    world.site("osaka").unwrap().spare()[0].public
}

fn manifests(world: &World) -> anyhow::Result<String> {
    let plain = world.site("plain")?.address();
    let (interval, address) = (INTERVAL.as_millis(), address(world));
    let mut text = intent::nodes(world)?;
    text += &format!(
        "
---
kind: Node
metadata: {{name: plain}}
spec: {{agent: false, region: ap-northeast-3, address: {{local: {}, public: {}}}}}
---
kind: Vpc
metadata: {{name: {TENANT}}}
spec: {{cidr: 10.0.0.0/24, vni: 100}}
---
kind: AddressPool
metadata: {{name: pool}}
spec: {{addresses: [{{node: osaka, public: {address}}}]}}
---
kind: Service
metadata: {{name: web}}
spec:
  pool: pool
  listeners: [{{protocol: tcp, port: {HTTP}}}, {{protocol: tcp, port: {SINK}}}]
  mode: vxlan
  vpc: {TENANT}
  targets: [{{address: 10.0.0.1}}, {{address: 10.0.0.2}}, {{address: 10.0.0.3}}]
  health: {{type: http, path: /who, port: {HTTP}, interval_ms: {interval}, fall: {FALL}}}
",
        plain.local, plain.public
    );
    for (number, host) in (1..).zip(HOSTS) {
        let interface = if host == "plain" {
            String::new()
        } else {
            format!(", interface: {TENANT}0")
        };
        text += &format!(
            "---\nkind: Port\nmetadata: {{name: {TENANT}-{host}}}\nspec: {{vpc: {TENANT}, node: {host}, address: 10.0.0.{number}, \
             mac: \"52:54:00:00:00:0{number}\"{interface}}}\n"
        );
    }
    Ok(text)
}
