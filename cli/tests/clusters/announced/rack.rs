//! A rack: two balancers, two servers and the controller on one link, a router with a player behind it.
//!
//! ```text
//! player -- router == bridge == left, right, one, two, control
//! ```
//! The router speaks BGP by another `gobgpd`, which puts no routes into the kernel: the test does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use kuafu_dataplane::bpf::{Maps, Pins};
use kuafu_lab::decapsulator::Decapsulator;
use kuafu_lab::link::{End, Offloads, veth};
use kuafu_lab::{Namespace, Process, Signal};
use kuafu_pipeline::map::{IpKey, ServiceKey, policy};
use kuafu_proto::Places;
use kuafu_proto::v1::{AnnouncementStatus, ClusterStatus};

use super::super::cluster::{Folders, command};
use super::super::common::{alone, soon};

/// What the router's gateway on the link is, and its prefix.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const CONTROL: &str = "192.0.2.10:7440";
/// Hosts on the link.
const HOSTS: [(&str, u8); 5] = [
    ("left", 1),
    ("right", 2),
    ("control", 10),
    ("one", 11),
    ("two", 12),
];
pub const NODES: [&str; 2] = ["left", "right"];
pub const SERVERS: [&str; 2] = ["one", "two"];
/// In the rack's link, elsewhere, and elsewhere.
pub const ARP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
pub const HOOK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 82);
pub const BGP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 83);
pub const ALL: [Ipv4Addr; 3] = [ARP, HOOK, BGP];
/// In the link, for neighbour discovery.
pub const SIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x80);
/// What the router is on the link.
const ROUTER_OF_SIX: &str = "2001:db8:2::fe";
/// Each is in the pool of the same reach.
const ARP_PREFIX: &str = "192.0.2.96/31";
pub const BGP_PREFIX: &str = "203.0.113.96/30";
/// Their addresses, the first and the last too.
pub const OF_PREFIXES: [Ipv4Addr; 6] = [
    Ipv4Addr::new(192, 0, 2, 96),
    Ipv4Addr::new(192, 0, 2, 97),
    Ipv4Addr::new(203, 0, 113, 96),
    Ipv4Addr::new(203, 0, 113, 97),
    Ipv4Addr::new(203, 0, 113, 98),
    Ipv4Addr::new(203, 0, 113, 99),
];
const PORT: u16 = 7_000;
const GUE: u16 = 6_080;
/// The router's ports: BGP, and its own gobgpd's orders.
const BGP_PORT: u16 = 1_790;
const API_PORT: u16 = 50_051;
/// For an answer.
const ANSWER: Duration = Duration::from_millis(300);
/// For one command.
const LIMIT: Duration = Duration::from_secs(20);

/// What must go last is last.
pub struct Rack {
    processes: BTreeMap<(String, &'static str), Process>,
    _routes: Routes,
    _servers: Vec<Server>,
    _router: Process,
    folders: Folders,
    namespaces: BTreeMap<String, Arc<Namespace>>,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.processes.clear();
        for node in NODES {
            // What it has started outlives an agent.
            let mut uninstall = command(&self.folders, node);
            uninstall
                .args(["uninstall", "--yes", "--pin-root"])
                .arg(&self.folders.pins);
            let _ = self.namespaces[node].output(uninstall, LIMIT);
        }
        self.folders.remove();
    }
}

impl Rack {
    /// Builds it, declares everything, and lets both nodes join.
    pub fn build() -> Self {
        // One after the other: they have one name, and the machine's cores to themselves.
        let alone = alone();
        let prefix = format!("kfa{}", std::process::id());
        let namespaces = namespaces(&prefix);
        let folders = Folders::make(PathBuf::from(env!("CARGO_BIN_EXE_kuafu"))).unwrap();
        let servers = SERVERS.map(|name| Server::start(name, &namespaces[name]));
        let router = router(&namespaces["router"], &folders);
        let mut rack = Self {
            processes: BTreeMap::new(),
            _routes: Routes::follow(&namespaces["router"]),
            _servers: servers.into(),
            _router: router,
            folders,
            namespaces,
            _alone: alone,
        };
        rack.start("control", "controller");
        soon("the controller answers", || rack.ask(&["status"]).ok());
        let manifests = rack.folders.of("control").join("rack.yaml");
        fs::write(&manifests, rack.manifests()).unwrap();
        rack.ask(&["apply", "-f", manifests.to_str().unwrap()]).unwrap();
        for node in NODES {
            let token = rack.ask(&["node", "token", node]).unwrap();
            let mut join = command(&rack.folders, node);
            join.args(["--controller", CONTROL, "node", "join", token.trim()]);
            succeed(&rack.namespaces[node], join).unwrap();
            rack.start(node, "agent");
            rack.start(node, "probe");
        }
        rack
    }

    fn manifests(&self) -> String {
        let node = |node: &str, last: u8| {
            format!(
                "kind: Node\nmetadata: {{name: {node}}}\nspec: {{region: eu-central-1, address: {{local: 192.0.2.{last}}}}}\n---\n"
            )
        };
        let hook = self.hook();
        let ways = [
            ("arp", vec![ARP.to_string(), ARP_PREFIX.to_owned()], String::new()),
            ("arp", vec![SIX.to_string()], String::new()),
            (
                "hook",
                vec![HOOK.to_string()],
                format!("  hook: {{command: {hook}, timeout_s: 5}}\n"),
            ),
            (
                "bgp",
                vec![BGP.to_string(), BGP_PREFIX.to_owned()],
                format!(
                    "  bgp: {{as: 65001, peers: [{{address: {ROUTER}, as: 65000}}], communities: [\"65000:100\"], port: {BGP_PORT}}}\n"
                ),
            ),
        ];
        let pools = ways.map(|(reach, publics, more)| {
            let entry = |public: &String| format!("{{nodes: [left, right], public: {public}}}");
            let is_six = publics[0].contains(':');
            let (name, servers) = if is_six {
                ("six", SERVERS.map(|name| of_six(name).to_string()))
            } else {
                (reach, SERVERS.map(|name| address(name).to_string()))
            };
            let [one, two] = servers;
            let addresses = publics.iter().map(entry).collect::<Vec<_>>().join(", ");
            format!(
                "kind: AddressPool\nmetadata: {{name: {name}}}\nspec:\n  reach: {reach}\n{more}  addresses: \
                 [{addresses}]\n---\n\
                 kind: Service\nmetadata: {{name: {name}}}\nspec:\n  pool: {name}\n  listeners: [{{protocol: tcp, port: \
                 {PORT}}}]\n  targets: [{{address: {one}}}, {{address: {two}}}]\n  mode: gue\n  health: {{type: tcp, \
                 interval_ms: 300}}\n---\n"
            )
        });
        node("left", 1) + &node("right", 2) + &pools.concat()
    }

    /// What brings an address to a node: here the router's own route.
    fn hook(&self) -> String {
        let path = self.folders.of("control").join("take-address");
        let router = self.namespaces["router"].name();
        let text = format!(
            "#!/bin/sh\ncase $2 in left) via=192.0.2.1;; right) via=192.0.2.2;; esac\nexec ip -n {router} route replace $1/32 via \
             $via\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Starts a process of a host, as its unit would.
    pub fn start(&mut self, host: &str, verb: &'static str) {
        let mut start = command(&self.folders, host);
        start.arg(verb);
        if verb == "controller" {
            start.args(["--listen", CONTROL]);
        } else {
            start.arg("--pin-root").arg(&self.folders.pins);
        }
        let log = self.folders.of(host).with_extension(format!("{verb}.log"));
        let process = self.namespaces[host].spawn_logged(start, &log).unwrap();
        self.processes.insert((host.to_owned(), verb), process);
    }

    /// Kills it.
    pub fn kill(&mut self, host: &str, verb: &'static str) {
        let mut process = self.processes.remove(&(host.to_owned(), verb)).unwrap();
        process.signal(Signal::SIGKILL).unwrap();
        process.wait(LIMIT).unwrap();
    }

    /// Stops a process, or lets it go on.
    pub fn signal(&mut self, host: &str, verb: &'static str, signal: Signal) {
        let process = self.processes.get_mut(&(host.to_owned(), verb)).unwrap();
        process.signal(signal).unwrap();
    }

    /// Listens to what a host claims by ARP from now on.
    pub fn claims(&self, host: &str) -> Claims {
        let mut listen = Command::new("tcpdump");
        listen.args([
            "-l",
            "-n",
            "-i",
            host,
            "-Q",
            "in",
            "arp and arp[14:4] == arp[24:4]",
        ]);
        let log = self.folders.of("router").with_extension("claims.log");
        let process = self.namespaces["router"].spawn_logged(listen, &log).unwrap();
        let claims = Claims {
            log,
            _process: process,
        };
        soon("claims are listened to", || {
            claims.text().contains("listening on").then_some(())
        });
        claims
    }

    /// Takes a host off the network at once, and then kills all that runs there.
    pub fn destroy(&mut self, node: &str) -> Instant {
        self.namespaces[node].ip(["link set eth0 down"]).unwrap();
        let cut = Instant::now();
        self.kill(node, "agent");
        self.kill(node, "probe");
        let pid = Places::below(&self.folders.of(node)).run().join("gobgpd.pid");
        let text = fs::read_to_string(pid).unwrap();
        let pid = text.split(' ').next().unwrap().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        cut
    }

    /// Lets it come back.
    pub fn restore(&mut self, node: &str) {
        self.namespaces[node].ip(up(node)).unwrap();
        self.start(node, "agent");
        self.start(node, "probe");
    }

    /// Keeps a node from its controller, and that alone, or lets it reach it again.
    pub fn isolate(&self, node: &str, off: bool) {
        let rules = if off {
            "table ip isolate { chain out { type filter hook output priority 0; tcp dport 7440 drop; }; chain in { type filter \
             hook input priority 0; tcp sport 7440 drop; }; }"
        } else {
            "delete table ip isolate"
        };
        self.namespaces[node].nft(rules).unwrap();
    }

    /// How a node's addresses stand, as its own agent says without a controller.
    pub fn own_standings(&self, node: &str) -> Option<Standings> {
        let mut own = command(&self.folders, node);
        own.args(["status", "-o", "json"]);
        standings(node, &succeed(&self.namespaces[node], own).ok()?)
    }

    /// Takes a server off the network, or puts it back.
    pub fn cut(&self, server: &str, off: bool) {
        let host = &self.namespaces[server];
        if off {
            host.ip(["link set eth0 down"]).unwrap();
        } else {
            host.ip(up(server)).unwrap();
        }
    }

    /// Whether a node's programs answer ARP requests for the address.
    pub fn answers_arp(&self, node: &str) -> bool {
        let key = ServiceKey {
            address: IpKey::v4(u32::from(ARP)),
            ..ServiceKey::default()
        };
        let maps = Maps::open(&Pins::new(&self.folders.pins, node)).unwrap();
        let whole = maps.services.get(&key).unwrap();
        whole.is_some_and(|whole| whole.has(policy::ANSWER_ARP))
    }

    /// Whether the router's neighbours lead to a node at the address that ARP finds.
    pub fn is_found_by_arp(&self, node: &str) -> bool {
        let mut show = Command::new("ip");
        show.args(["neigh", "show", "dev", "rack"]);
        let text = succeed(&self.namespaces["router"], show).unwrap();
        let mac = |of: Ipv4Addr| {
            let mut lines = text.lines();
            let line = lines.find(|line| line.starts_with(&format!("{of} ")))?;
            line.split_once("lladdr ")?.1.split(' ').next()
        };
        mac(ARP).is_some() && mac(ARP) == mac(address(node))
    }

    /// What a verb prints, asked of the controller.
    pub fn ask(&self, verb: &[&str]) -> Result<String, String> {
        let mut ask = command(&self.folders, "control");
        ask.args(["--controller", CONTROL]).args(verb);
        succeed(&self.namespaces["control"], ask)
    }

    /// How a node's addresses stand, as the controller hears it.
    fn standings(&self, node: &str) -> Option<Standings> {
        standings(node, &self.ask(&["status", "-o", "json"]).ok()?)
    }

    /// Waits until a node's addresses stand so.
    pub fn until(&self, node: &str, wanted: [&str; 3]) {
        let mut last = None;
        let (wanted, began): (Vec<_>, _) = (ALL.into_iter().zip(wanted).collect(), Instant::now());
        loop {
            last = self.standings(node).or(last);
            let is_so = |standings: &Standings| {
                let is = |(address, wanted): &(Ipv4Addr, &str)| {
                    standings
                        .get(&address.to_string())
                        .is_some_and(|(standing, _)| standing == wanted)
                };
                wanted.iter().all(is)
            };
            if last.as_ref().is_some_and(is_so) {
                return;
            }
            let late = began.elapsed() > Duration::from_secs(60);
            assert!(!late, "{node}: {last:?}, not {wanted:?}\n{}", self.logs());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The ends of all logs.
    pub fn logs(&self) -> String {
        let end = |(host, verb): (&str, &str)| {
            let log = self.folders.of(host).with_extension(format!("{verb}.log"));
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(25).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            format!("-- {host} {verb}\n{}\n", lines.join("\n"))
        };
        let logs = [
            ("control", "controller"),
            ("left", "agent"),
            ("right", "agent"),
            ("left", "probe"),
            ("right", "probe"),
        ];
        logs.map(end).concat()
    }

    /// What the router knows of the address of BGP: since when, by next hop.
    pub fn routes(&self) -> BTreeMap<Ipv4Addr, u64> {
        paths(&self.namespaces["router"], &whole(BGP))
    }

    /// How many routes the router has been told, and by which next hops the prefix of BGP is one.
    pub fn routes_of_prefix(&self) -> (usize, BTreeSet<Ipv4Addr>) {
        let router = &self.namespaces["router"];
        let hops = paths(router, BGP_PREFIX).into_keys().collect();
        (told(router).as_object().map_or(0, serde_json::Map::len), hops)
    }

    /// Waits until the router leads there by these next hops.
    pub fn until_led(&self, nodes: &[&str]) {
        let wanted: BTreeSet<Ipv4Addr> = nodes.iter().map(|node| address(node)).collect();
        soon(&format!("BGP leads to {nodes:?}"), || {
            let hops: BTreeSet<Ipv4Addr> = self.routes().into_keys().collect();
            (hops == wanted).then_some(())
        });
        // The kernel's routes follow.
        thread::sleep(Routes::LOOK * 3);
    }

    /// Who answers the player at an address.
    pub fn who(&self, to: impl Into<IpAddr>) -> Option<String> {
        let to = to.into();
        self.namespaces["player"].run(|| who(to)).unwrap().ok()
    }

    /// How long after `since` an address answers.
    pub fn until_answered(&self, to: IpAddr, since: Instant) -> Duration {
        let answered = self.namespaces["player"].run(|| {
            while who(to).is_err() {
                assert!(since.elapsed() < Duration::from_secs(60), "{to} does not answer");
            }
            since.elapsed()
        });
        answered.unwrap()
    }

    /// Connections of the player's that stay open.
    pub fn connections(&self, to: IpAddr, count: usize) -> Vec<Long> {
        let connect = |_| {
            soon("a connection stands", || {
                self.namespaces["player"].run(|| Long::open(to)).unwrap().ok()
            })
        };
        (0..count).map(connect).collect()
    }

    /// Asks at all addresses, a connection each, while `work` goes on. Returns what failed.
    pub fn under_load(&mut self, addresses: &[Ipv4Addr], work: impl FnOnce(&mut Self)) -> Vec<String> {
        let (ends, failed, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(Mutex::new(0)),
        );
        let threads: Vec<_> = addresses
            .iter()
            .map(|to| {
                let (ends, failed, asked, to) =
                    (Arc::clone(&ends), Arc::clone(&failed), Arc::clone(&asked), *to);
                let player = Arc::clone(&self.namespaces["player"]);
                thread::spawn(move || {
                    player
                        .run(|| {
                            while !ends.load(Ordering::Relaxed) {
                                *asked.lock().unwrap() += 1;
                                if let Err(error) = who(to.into()) {
                                    failed.lock().unwrap().push(format!("{to}: {error}"));
                                }
                                thread::sleep(Duration::from_millis(5));
                            }
                        })
                        .unwrap();
                })
            })
            .collect();
        work(self);
        ends.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
        println!("{} requests meanwhile", asked.lock().unwrap());
        Arc::try_unwrap(failed).unwrap().into_inner().unwrap()
    }
}

/// What a host claims.
pub struct Claims {
    log: PathBuf,
    _process: Process,
}

impl Claims {
    /// All so far, as tcpdump tells it.
    pub fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// How addresses and prefixes stand, and why.
type Standings = BTreeMap<String, (String, String)>;

/// Those of a node, in an answer of `kuafu status`.
fn standings(node: &str, answer: &str) -> Option<Standings> {
    let status: ClusterStatus = serde_json::from_str(answer).unwrap();
    let host = status.hosts.into_iter().find(|host| host.node == node)?.status?;
    let standing = |one: AnnouncementStatus| (one.address, (one.standing, one.reason));
    Some(host.announcements.into_iter().map(standing).collect())
}

pub fn address(host: &str) -> Ipv4Addr {
    let (_, last) = HOSTS.iter().find(|(name, _)| *name == host).unwrap();
    Ipv4Addr::new(192, 0, 2, *last)
}

/// The same of IPv6.
fn of_six(host: &str) -> Ipv6Addr {
    let [.., last] = address(host).octets();
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, last.into())
}

/// The link's own address: from it the kernel asks for neighbours that it keeps or passes packets on to, and the lab
/// gives none.
fn near(host: &str) -> String {
    let [.., last] = address(host).octets();
    format!("addr replace fe80::{last}/64 dev eth0 nodad")
}

/// What puts a host back on the link; it keeps its other addresses.
fn up(host: &str) -> [String; 4] {
    [
        "link set eth0 up".to_owned(),
        near(host),
        format!("route replace default via {ROUTER}"),
        format!("route replace default via {ROUTER_OF_SIX}"),
    ]
}

fn namespaces(prefix: &str) -> BTreeMap<String, Arc<Namespace>> {
    let make = |name: &str| {
        let namespace = Namespace::create(prefix, name).unwrap();
        (name.to_owned(), Arc::new(namespace))
    };
    let names = HOSTS.iter().map(|(name, _)| *name).chain(["router", "player"]);
    let namespaces: BTreeMap<String, Arc<Namespace>> = names.map(make).collect();
    let router = &namespaces["router"];
    router
        .ip([
            "link add rack type bridge",
            &format!("addr add {ROUTER}/24 dev rack"),
            "link set rack up",
            &format!("addr add {ROUTER_OF_SIX}/64 dev rack nodad"),
        ])
        .unwrap();
    let end = |namespace, device| End {
        offloads: Offloads::Wire,
        ..End::new(namespace, device)
    };
    for (name, last) in HOSTS {
        let host = End {
            addresses: vec![format!("192.0.2.{last}/24").parse().unwrap()],
            gateway: Some(ROUTER),
            ..end(&namespaces[name], "eth0")
        };
        veth(&host, &end(router, name), 1500).unwrap();
        // What is for another host does not reach one, as behind a network card.
        let lines = [
            format!("link set {name} master rack"),
            format!("link set {name} type bridge_slave flood off"),
        ];
        router.ip(lines).unwrap();
        let own = [
            format!("addr add {}/64 dev eth0 nodad", of_six(name)),
            near(name),
            format!("route add default via {ROUTER_OF_SIX}"),
        ];
        namespaces[name].ip(own).unwrap();
        namespaces[name]
            .sysctl("net/ipv6/conf/eth0/keep_addr_on_down", "1")
            .unwrap();
    }
    let player = End {
        addresses: vec!["198.51.100.2/24".parse().unwrap()],
        gateway: Some(Ipv4Addr::new(198, 51, 100, 1)),
        ..end(&namespaces["player"], "eth0")
    };
    let to_player = End {
        addresses: vec!["198.51.100.1/24".parse().unwrap()],
        ..end(router, "player")
    };
    // What goes to the servers in another header must fit.
    veth(&player, &to_player, 1400).unwrap();
    let own = [
        "addr add 2001:db8:3::1/64 dev player nodad",
        "addr add fe80::1/64 dev player nodad",
    ];
    router.ip(own).unwrap();
    let own = [
        "addr add 2001:db8:3::2/64 dev eth0 nodad",
        "addr add fe80::2/64 dev eth0 nodad",
        "route add default via 2001:db8:3::1",
    ];
    namespaces["player"].ip(own).unwrap();
    router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    for (key, value) in [
        ("ip_forward", "1"),
        ("fib_multipath_hash_policy", "1"),
        ("conf/all/rp_filter", "0"),
        ("conf/rack/rp_filter", "0"),
        ("conf/player/rp_filter", "0"),
    ] {
        router.sysctl(&format!("net/ipv4/{key}"), value).unwrap();
    }
    namespaces
}

/// The router's own speaker, which waits to be dialled.
fn router(router: &Namespace, folders: &Folders) -> Process {
    let mut text = format!(
        "[global.config]\nas = 65000\nrouter-id = \"{ROUTER}\"\nport = {BGP_PORT}\n[global.use-multiple-paths.config]\nenabled = true\n"
    );
    for node in NODES {
        text += &format!(
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = 65001\n\
             [neighbors.transport.config]\npassive-mode = true\n",
            address(node)
        );
    }
    let folder = folders.of("control");
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("router.toml");
    fs::write(&config, text).unwrap();
    let mut speaker = Command::new("gobgpd");
    speaker.arg("-f").arg(&config).args([
        &format!("--api-hosts=127.0.0.1:{API_PORT}"),
        "--pprof-disable",
        "--log-plain",
    ]);
    router.spawn_logged(speaker, &folder.join("router.log")).unwrap()
}

/// An address as routers write it.
fn whole(address: Ipv4Addr) -> String {
    format!("{address}/32")
}

/// What the router's speaker knows, by prefix.
fn told(router: &Namespace) -> serde_json::Value {
    let mut ask = Command::new("gobgp");
    ask.args(["-p", &API_PORT.to_string(), "-j", "global", "rib"]);
    let text = succeed(router, ask).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// What it knows of a prefix: since when, by next hop.
fn paths(router: &Namespace, prefix: &str) -> BTreeMap<Ipv4Addr, u64> {
    let paths = told(router)[prefix].as_array().cloned().unwrap_or_default();
    let path = |path: serde_json::Value| {
        let attributes = path["attrs"].as_array()?.clone();
        let hop = attributes
            .iter()
            .find_map(|one| one["nexthop"].as_str())?
            .parse()
            .ok()?;
        Some((hop, path["age"].as_u64()?))
    };
    paths.into_iter().filter_map(path).collect()
}

/// Puts into the router's kernel what its speaker knows.
struct Routes {
    ended: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Routes {
    const LOOK: Duration = Duration::from_millis(100);

    fn follow(router: &Arc<Namespace>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (until, router) = (Arc::clone(&ended), Arc::clone(router));
        let follow = move || {
            let mut known = [whole(BGP), BGP_PREFIX.to_owned()].map(|prefix| (prefix, BTreeSet::new()));
            while !until.load(Ordering::Relaxed) {
                for (prefix, known) in &mut known {
                    let hops: BTreeSet<Ipv4Addr> = paths(&router, prefix).into_keys().collect();
                    if hops != *known {
                        let ways: String = hops.iter().map(|hop| format!(" nexthop via {hop}")).collect();
                        let line = if hops.is_empty() {
                            format!("route del {prefix}")
                        } else {
                            format!("route replace {prefix}{ways}")
                        };
                        router.ip([line]).unwrap();
                        *known = hops;
                    }
                }
                thread::sleep(Self::LOOK);
            }
        };
        Self {
            ended,
            thread: Some(thread::spawn(follow)),
        }
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// A host without agent, which holds all addresses.
struct Server {
    _decapsulator: Decapsulator,
}

impl Server {
    fn start(name: &'static str, host: &Namespace) -> Self {
        let served = ALL.into_iter().chain(OF_PREFIXES).map(IpAddr::from);
        let served: Vec<IpAddr> = served.chain([SIX.into()]).collect();
        let add = |address: &IpAddr| match address {
            IpAddr::V4(address) => format!("address add {address}/32 dev lo"),
            IpAddr::V6(address) => format!("address add {address}/128 dev lo nodad"),
        };
        host.ip(served.iter().map(add)).unwrap();
        // As `kuafu get service/arp --backend-setup` says: nobody on the link shall hear that they are its own.
        for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
            host.sysctl(&format!("net/ipv4/conf/all/{key}"), value).unwrap();
        }
        let bind = || TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)));
        let listener = host.run(bind).unwrap().unwrap();
        // It ends with the test.
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                thread::spawn(move || echo(name, connection));
            }
        });
        Self {
            _decapsulator: Decapsulator::start(host, &served, GUE).unwrap(),
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

/// Who answers, asked from the calling thread's namespace.
fn who(to: IpAddr) -> std::io::Result<String> {
    Ok(Long::open(to)?.server)
}

/// A connection that stays open.
#[derive(Debug)]
pub struct Long {
    pub server: String,
    connection: BufReader<TcpStream>,
}

impl Long {
    fn open(to: IpAddr) -> std::io::Result<Self> {
        let connection = TcpStream::connect_timeout(&SocketAddr::from((to, PORT)), ANSWER)?;
        connection.set_read_timeout(Some(ANSWER))?;
        let mut connection = BufReader::new(connection);
        let mut server = String::new();
        connection.read_line(&mut server)?;
        let server = server.trim_end().to_owned();
        Ok(Self { server, connection })
    }

    /// Whether it goes on, be it after a while.
    pub fn echoes(&mut self) -> std::io::Result<()> {
        let limit = Some(Duration::from_secs(40));
        self.connection.get_ref().set_read_timeout(limit)?;
        self.connection.get_mut().write_all(b"still there?\n")?;
        let mut line = String::new();
        self.connection.read_line(&mut line)?;
        match line.trim_end() {
            "still there?" => Ok(()),
            other => Err(std::io::Error::other(format!("{other:?} of {}", self.server))),
        }
    }
}

/// What a command prints on a host; an error with what it complains of.
pub fn succeed(host: &Namespace, command: Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = host.output(command, LIMIT).map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{shown}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}
