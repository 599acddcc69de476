//! Servers that die, and servers that are drained: what of their services' clients notices it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Stage, skipped, soon};
use super::intent;
use super::requests::{ANSWER, HTTP, Request, connect, failed, request, under_load};
use kuafu_lab::Process;
use kuafu_lab::decapsulator::Decapsulator;
use kuafu_lab::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WORLD: &str = "
seed: 29
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3, spare: 4}
  - {name: player, role: client, region: ap-northeast-3, access_ms: 1}
  - {name: one, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: two, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: three, role: server, region: ap-northeast-3, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
/// The last one dies.
const SERVERS: [&str; 3] = ["one", "two", "three"];
/// Each at an address of its own.
const MODES: [&str; 4] = ["nat", "ipip", "gue, gue: {variant: 0}", "gue, gue: {variant: 1}"];
/// Where connections stay open.
pub(super) const LONG: u16 = 7_000;
const GUE: u16 = 6_080;
const INTERVAL: Duration = Duration::from_millis(300);
const FALL: u32 = 3;
/// Long connections to each service.
const CONNECTIONS: usize = 30;
/// For what is to stay as it is.
const WHILE: Duration = Duration::from_secs(3);

#[test]
fn servers_that_die_are_left_out_and_drained_ones_lose_nothing() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, manifests).unwrap();
    let addresses: Vec<Ipv4Addr> = spares(&stage.world).collect();
    let pages = tempfile::tempdir().unwrap();
    let start = |name| Server::start(&stage.world, name, &addresses, pages.path());
    let [first, second, last] = SERVERS;
    let mut servers = vec![start(first), start(second)];
    until(&stage, "the last one does not serve yet", |name| {
        if name == last { "down" } else { "up" }
    });
    // So its slots have changed when it dies, where the beginnings of flows are remembered.
    servers.push(start(last));
    until(&stage, "all serve", |_| "up");
    // Before, it was asked what its set-up lacks.
    let wrong = |server: &Server| server.decapsulator.unwrapped().wrong;
    let questions: Vec<usize> = servers.iter().map(|server| wrong(server).len()).collect();
    for (mode, address) in MODES.iter().zip(&addresses) {
        soon(&format!("{mode} answers"), || ask(&stage.world, *address));
    }
    one_dies(&stage, &addresses, &servers[2]);
    let _agent = an_agent_that_starts_anew_knows_it(&stage, &addresses);
    one_comes_back(&stage, &addresses, &servers[2]);
    all_are_drained_in_turn(&stage, &addresses);
    one_is_drained_by_a_deadline(&stage, &addresses, SERVERS[0]);
    for (server, questions) in servers.iter().zip(questions) {
        let wrong = wrong(server);
        assert_eq!(wrong.len(), questions, "{}: {wrong:?}", server.name);
    }
}

/// A host goes without a word. Its connections are gone; those of the others are not, and new ones avoid it.
fn one_dies(stage: &Stage, addresses: &[Ipv4Addr], server: &Server) {
    let connected = |address: &Ipv4Addr| connections(&stage.world, *address);
    let mut long: Vec<Vec<Long>> = addresses.iter().map(connected).collect();
    let (mut died, mut known) = (Instant::now(), Instant::now());
    let all = under_load(&stage.world, "player", addresses, |_| {
        thread::sleep(WHILE);
        died = Instant::now();
        server.cut(&stage.world, true);
        until(stage, "it is down in all services", |name| {
            if name == server.name { "down" } else { "up" }
        });
        known = Instant::now();
        thread::sleep(WHILE);
    });
    println!("down in all services {:?} after it died", known - died);
    for ((mode, requests), long) in MODES.iter().zip(&all).zip(&mut long) {
        let failed: Vec<Instant> = failed(requests).map(|request| request.began).collect();
        let span = failed
            .iter()
            .max()
            .zip(failed.iter().min())
            .map(|(last, first)| *last - *first);
        let (count, span) = (requests.len(), span.unwrap_or_default());
        println!(
            "{mode}: {count} requests, {} failed, the last {span:?} after the first",
            failed.len()
        );
        // One that was under way when it died began up to its time before.
        assert!(
            failed.iter().all(|began| *began + ANSWER >= died),
            "{mode}: before it died"
        );
        assert!(
            failed.iter().all(|began| *began <= known),
            "{mode}: after it was left out"
        );
        assert!(
            span <= INTERVAL * FALL + Duration::from_secs(1),
            "{mode}: {span:?}"
        );
        let after = requests.iter().filter(|request| request.began > known);
        let who: BTreeSet<&str> = after.filter_map(|request| request.who.as_deref().ok()).collect();
        assert_eq!(who, BTreeSet::from(["one", "two"]), "{mode}");
        let others = long
            .iter_mut()
            .filter(|connection| connection.server != server.name);
        let lost = others.filter_map(|connection| connection.echoes().err());
        assert_eq!(lost.count(), 0, "{mode}: connections to the others");
    }
}

/// What is in force says which servers were down: no request goes there when an agent starts. Returns the new one.
fn an_agent_that_starts_anew_knows_it(stage: &Stage, addresses: &[Ipv4Addr]) -> Process {
    let mut agent = None;
    let all = under_load(&stage.world, "player", addresses, |_| {
        thread::sleep(WHILE / 2);
        let killed = Pid::from_raw(stage.cluster.nodes["osaka"].agent.id().try_into().unwrap());
        kill(killed, Signal::SIGKILL).unwrap();
        let osaka = stage.world.site("osaka").unwrap();
        agent = Some(stage.cluster.process(osaka, "agent").unwrap());
        stage.until_connected("osaka");
        thread::sleep(WHILE);
    });
    for (mode, requests) in MODES.iter().zip(&all) {
        none_failed(mode, requests, "while the agent was killed and started");
    }
    agent.expect("it was started")
}

fn one_comes_back(stage: &Stage, addresses: &[Ipv4Addr], server: &Server) {
    server.cut(&stage.world, false);
    for (mode, address) in MODES.iter().zip(addresses) {
        soon(&format!("{mode} uses it again"), || {
            (ask(&stage.world, *address)? == server.name).then_some(())
        });
    }
}

/// Each server is drained and used again, under load: no request fails, and no connection is lost.
fn all_are_drained_in_turn(stage: &Stage, addresses: &[Ipv4Addr]) {
    until(stage, "all serve again", |_| "up");
    let all = under_load(&stage.world, "player", addresses, |so_far| {
        for name in SERVERS {
            is_drained(stage, (name, addresses), so_far);
            for address in addresses {
                soon(&format!("{name} is used again"), || {
                    (ask(&stage.world, *address)? == name).then_some(())
                });
            }
        }
    });
    for (mode, requests) in MODES.iter().zip(&all) {
        none_failed(mode, requests, "while each server was drained");
    }
}

/// One gets nothing new and keeps what it has; once that has ended, the drain says so.
fn is_drained(stage: &Stage, (name, addresses): (&str, &[Ipv4Addr]), so_far: &[Mutex<Vec<Request>>]) {
    let connected = |address: &Ipv4Addr| connections(&stage.world, *address);
    let mut long: Vec<Long> = addresses.iter().flat_map(connected).collect();
    let refused = drain(stage, name, &["--wait", "2"]).unwrap_err().to_string();
    let with_it = long.iter().filter(|connection| connection.server == name).count();
    // A request to each service may be on its way besides.
    let said = |more| refused.contains(&format!("there are still {} flows with", with_it + more));
    assert!((0..=MODES.len()).any(said), "{refused}, and {with_it} stand");
    let drained = Instant::now();
    thread::sleep(WHILE);
    for (mode, requests) in MODES.iter().zip(so_far) {
        // A copy: whoever asks goes on.
        let requests = requests.lock().unwrap().clone();
        let after = requests.iter().filter(|request| request.began > drained);
        let of_it = after.filter(|request| request.who.as_deref() == Ok(name));
        let of_it = of_it.count();
        assert_eq!(of_it, 0, "{mode}: {name} gets new ones");
    }
    let lost = long.iter_mut().filter_map(|connection| connection.echoes().err());
    assert_eq!(lost.count(), 0, "connections while {name} is drained");
    drop(long);
    drain(stage, name, &["--wait", "15"]).unwrap();
    drain(stage, name, &["--undo"]).unwrap();
}

fn drain(stage: &Stage, name: &str, more: &[&str]) -> anyhow::Result<String> {
    let target = format!("target/{}", stage.world.site(name)?.address().public);
    let verb = [&["drain", target.as_str()], more].concat();
    stage.cluster.ask(&stage.world, &verb)
}

/// What a server still has when its time is over goes to others, which do not know it; the others keep theirs.
fn one_is_drained_by_a_deadline(stage: &Stage, addresses: &[Ipv4Addr], name: &str) {
    let connected = |address: &Ipv4Addr| connections(&stage.world, *address);
    let mut long: Vec<Long> = addresses.iter().flat_map(connected).collect();
    drain(stage, name, &["--deadline", "3", "--wait", "15"]).unwrap();
    let (mut ended, mut others) = ([0, 0], [0, 0]);
    for connection in &mut long {
        let counts = if connection.server == name {
            &mut ended
        } else {
            &mut others
        };
        counts[usize::from(connection.echoes().is_err())] += 1;
    }
    println!("after a deadline {ended:?} of its connections stand and are gone, of the others' {others:?}");
    assert_eq!((ended[0], others[1]), (0, 0));
    assert!(ended[1] > 0 && others[0] > 0);
    drain(stage, name, &["--undo"]).unwrap();
    let address = addresses[0];
    let mut again = soon("it is used again", || {
        let mut long = connections(&stage.world, address).into_iter();
        long.find(|connection| connection.server == name)
    });
    // Longer than a host takes from one look at its state to the next.
    thread::sleep(WHILE);
    again.echoes().unwrap();
}

fn none_failed(mode: &str, requests: &[Request], when: &str) {
    println!("{mode}: {} requests {when}", requests.len());
    let failed: Vec<&Request> = failed(requests).collect();
    assert!(
        failed.is_empty(),
        "{mode}: {failed:?} {when}, now {:?}",
        Instant::now()
    );
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
    let (targets, interval) = (targets?.join(", "), INTERVAL.as_millis());
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
  health: {{type: http, path: /who, port: {HTTP}, interval_ms: {interval}, fall: {FALL}}}
  mode: {}
",
            mode.replace(", ", "\n  ")
        );
    }
    Ok(text)
}

/// Waits until osaka says this of each server, in all services.
fn until(stage: &Stage, what: &str, standing: impl Fn(&str) -> &'static str) {
    soon(what, || {
        let standings = standings(stage)?;
        let is_so = |((_, name), is): (&(String, String), &String)| is == standing(name);
        (standings.len() == MODES.len() * SERVERS.len() && standings.iter().all(is_so)).then_some(())
    });
}

/// What osaka says of each server in each service.
fn standings(stage: &Stage) -> Option<BTreeMap<(String, String), String>> {
    let name = |address: &str| {
        let is = |name: &&&str| stage.world.site(name).unwrap().address().public.to_string() == address;
        SERVERS.iter().find(is).map(|name| (*name).to_owned())
    };
    let status = stage.status("osaka")?.status?;
    let servers = status.servers.into_iter();
    servers
        .map(|server| Some(((server.service, name(&server.address)?), server.standing)))
        .collect()
}

/// A host without agent: a web server, one whose connections stay open, and what takes packets out.
pub(super) struct Server {
    pub(super) name: &'static str,
    decapsulator: Decapsulator,
    pub(super) web: Process,
}

impl Server {
    pub(super) fn start(world: &World, name: &'static str, addresses: &[Ipv4Addr], pages: &Path) -> Self {
        let host = world.netns(name).unwrap();
        // The first one is rewritten: its servers do not have the service's address.
        let direct = &addresses[1..];
        host.ip(direct
            .iter()
            .map(|address| format!("address add {address}/32 dev lo")))
            .unwrap();
        let folder = pages.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("who"), name).unwrap();
        let mut web = Command::new("busybox");
        web.args(["httpd", "-f", "-p", &HTTP.to_string(), "-h"])
            .arg(&folder);
        let bind = || TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, LONG)));
        let listener = host.run(bind).unwrap().unwrap();
        // It ends with the test.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || echo(name, connection));
            }
        });
        Self {
            name,
            decapsulator: Decapsulator::start(host, direct, GUE).unwrap(),
            web: host.spawn(web).unwrap(),
        }
    }

    /// Takes it off the network, or puts it back.
    pub(super) fn cut(&self, world: &World, off: bool) {
        let host = world.netns(self.name).unwrap();
        let gateway = world.site(self.name).unwrap().gateway();
        let line = if off {
            "link set eth0 down".to_owned()
        } else {
            "link set eth0 up".to_owned()
        };
        let route = (!off).then(|| format!("route replace default via {gateway}"));
        host.ip(std::iter::once(line).chain(route)).unwrap();
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

/// A connection that stays open.
pub(super) struct Long {
    pub(super) server: String,
    connection: BufReader<TcpStream>,
}

impl Long {
    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.connection.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Whether it still stands.
    pub(super) fn echoes(&mut self) -> std::io::Result<()> {
        self.connection
            .get_ref()
            .set_read_timeout(Some(Duration::from_secs(10)))?;
        self.connection.get_mut().write_all(b"still there?\n")?;
        match self.line()?.as_str() {
            "still there?" => Ok(()),
            other => Err(std::io::Error::other(other.to_owned())),
        }
    }
}

pub(super) fn connections(world: &World, address: Ipv4Addr) -> Vec<Long> {
    let player = world.netns("player").unwrap();
    let long = |_| {
        soon("a connection stands", || {
            let connect = || connect(address, LONG);
            let connection = BufReader::new(player.run(connect).unwrap().ok()?);
            let mut long = Long {
                server: String::new(),
                connection,
            };
            long.server = long.line().ok()?;
            Some(long)
        })
    };
    (0..CONNECTIONS).map(long).collect()
}

/// Who answers the player's request.
fn ask(world: &World, address: Ipv4Addr) -> Option<String> {
    let ask = || request(address);
    world.netns("player").unwrap().run(ask).unwrap().ok()
}
