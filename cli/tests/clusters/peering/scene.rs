//! A node between two routers, and the controller, on one link.
//!
//! ```text
//! left, control == bridge at first == second
//! ```
//! The first router is FRR with BFD, the second one GoBGP. The second one tells networks of its own. Sessions are over IPv4,
//! and carry IPv6.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use kuafu_lab::link::{End, Offloads, veth};
use kuafu_lab::{Namespace, Process, Signal};
use kuafu_proto::Places;
use kuafu_proto::v1::ClusterStatus;

use super::super::announced::rack::succeed;
use super::super::cluster::{Folders, command};
use super::super::common::{alone, soon};

/// The routers' names.
pub const FIRST: &str = "first";
pub const SECOND: &str = "second";
pub const ROUTER_FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
pub const ROUTER_SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 253);
/// The second router's address that the first one leads to.
pub const SECOND_BEHIND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The password of the session with the first one.
pub const SECRET: &str = "not#for-everybody";
pub const LEFT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// What the node announces.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 83);
/// The same of IPv6.
pub const PREFIX6: &str = "2001:db8:83::/120";
/// The node's address of IPv6, to which routers send that.
pub const LEFT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// What the second router tells.
pub const TOLD: &str = "198.18.7.0/24";
pub const TOLD6: &str = "2001:db8:7::/48";
const CONTROL: &str = "192.0.2.10:7440";
const PORT: u16 = 1_790;
const API_PORT: u16 = 50_051;
const PROGRAMS: &str = "/usr/lib/frr";
const LIMIT: Duration = Duration::from_secs(20);

/// Says what is missing, if something is.
pub fn is_installed() -> bool {
    let gobgpd = Command::new("gobgpd").arg("--version").output().is_ok();
    if !gobgpd {
        kuafu_lab::skip("a router speaks BGP by `gobgpd` (apt-get install gobgpd)");
    }
    let frr = Path::new(PROGRAMS).join("bgpd").exists();
    if !frr {
        kuafu_lab::skip("a router speaks BGP by `frr` (apt-get install frr)");
    }
    gobgpd && frr
}

/// What must go last is last.
pub struct Scene {
    processes: BTreeMap<&'static str, Process>,
    first: Vec<Process>,
    second: Option<Process>,
    folders: Folders,
    namespaces: BTreeMap<&'static str, Arc<Namespace>>,
    _alone: MutexGuard<'static, ()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.processes.clear();
        for router in self.first.drain(..).chain(self.second.take()) {
            // FRR leaves files where it is killed.
            let _ = router.stop(LIMIT);
        }
        let _ = self.namespaces["left"].output(self.uninstallation(), LIMIT);
        self.folders.remove();
    }
}

impl Scene {
    /// Builds it; GoBGP speaks with both routers.
    pub fn build() -> Self {
        let alone = alone();
        let namespaces = namespaces(&format!("kfp{}", std::process::id()));
        let folders = Folders::make(PathBuf::from(env!("CARGO_BIN_EXE_kuafu"))).unwrap();
        let mut scene = Self {
            processes: BTreeMap::new(),
            first: first(&namespaces[FIRST], &folders),
            second: Some(second(&namespaces[SECOND], &folders)),
            folders,
            namespaces,
            _alone: alone,
        };
        let routes = [
            "route add 10.9.0.0/16 via 192.0.2.254 proto bgp",
            "nexthop add id 77 via 192.0.2.254 dev eth0 proto zebra",
            "nexthop add id 78 via 192.0.2.253 dev eth0 proto zebra",
            "route add 10.10.0.0/16 nhid 77 proto bgp",
        ];
        scene.namespaces["left"].ip(routes).unwrap();
        scene.address_of_v6("add", 64);
        scene.start("controller");
        soon("the controller answers", || scene.ask(&["status"]).ok());
        let file = scene.password_file();
        fs::create_dir_all(scene.folders.of("left")).unwrap();
        fs::write(&file, format!("{SECRET}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        scene.speak("daemon: gobgp");
        let token = scene.ask(&["node", "token", "left"]).unwrap();
        let mut join = command(&scene.folders, "left");
        join.args(["--controller", CONTROL, "node", "join", token.trim()]);
        succeed(&scene.namespaces["left"], join).unwrap();
        scene.start("agent");
        scene.start("probe");
        scene.until("announced");
        scene
    }

    /// The node gets its address of IPv6 with a prefix of that length, or loses it.
    pub fn address_of_v6(&self, verb: &str, length: u8) {
        let line = format!("address {verb} {LEFT6}/{length} dev eth0 nodad");
        self.namespaces["left"].ip([line]).unwrap();
    }

    /// Declares how the node speaks with both routers: with the first one by a password, with the second one over a hop.
    pub fn speak(&self, how: &str) {
        let file = self.password_file();
        let peers = format!(
            "{{address: {ROUTER_FIRST}, as: 65000, password_file: {}}}, {{address: {SECOND_BEHIND}, as: 65000, multihop: 2}}",
            file.display()
        );
        let bgp = format!(
            "  reach: bgp\n  bgp: {{{how}, as: 65001, peers: [{peers}], communities: [\"65000:100\", \"65000:200\"], port: {PORT}}}\n"
        );
        let text = format!(
            "kind: Node\nmetadata: {{name: left}}\nspec: {{region: eu-central-1, address: {{local: {LEFT}}}}}\n---\n\
             kind: AddressPool\nmetadata: {{name: bgp}}\nspec:\n{bgp}  addresses: [{{node: left, public: {ADDRESS}}}]\n---\n\
             kind: AddressPool\nmetadata: {{name: six}}\nspec:\n{bgp}  addresses: [{{node: left, public: \"{PREFIX6}\"}}]\n---\n\
             kind: Service\nmetadata: {{name: six}}\nspec:\n  pool: six\n  listeners: [{{protocol: tcp, port: 7000}}]\n  \
             targets: [{{address: 2001:db8::11}}]\n  mode: gue\n---\n\
             kind: Service\nmetadata: {{name: bgp}}\nspec:\n  pool: bgp\n  listeners: [{{protocol: tcp, port: 7000}}]\n  \
             targets: [{{address: 192.0.2.11}}]\n  mode: gue\n"
        );
        let file = self.folders.of("control").join("peering.yaml");
        fs::create_dir_all(self.folders.of("control")).unwrap();
        fs::write(&file, text).unwrap();
        self.ask(&["apply", "-f", file.to_str().unwrap()]).unwrap();
    }

    fn host(verb: &str) -> &'static str {
        if verb == "controller" { "control" } else { "left" }
    }

    /// Starts one of Kuafu's processes, as its unit would.
    pub fn start(&mut self, verb: &'static str) {
        self.start_with(verb, None);
    }

    /// The same, with programs found elsewhere.
    pub fn start_with(&mut self, verb: &'static str, path: Option<&Path>) {
        let host = Self::host(verb);
        let mut start = command(&self.folders, host);
        start.arg(verb);
        if verb == "controller" {
            start.args(["--listen", CONTROL]);
        } else {
            start.arg("--pin-root").arg(&self.folders.pins);
        }
        if let Some(path) = path {
            start.env("PATH", path);
        }
        let log = self.folders.of(host).with_extension(format!("{verb}.log"));
        let process = self.namespaces[host].spawn_logged(start, &log).unwrap();
        self.processes.insert(verb, process);
    }

    /// A folder with the system's programs but those whose names begin so.
    pub fn programs_without(&self, beginning: &str) -> PathBuf {
        let folder = self.folders.of("left").join("programs");
        fs::create_dir_all(&folder).unwrap();
        for from in ["/usr/bin", "/usr/sbin"] {
            for entry in fs::read_dir(from).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap();
                if !name.to_string_lossy().starts_with(beginning) {
                    // A name of both folders is the first one's.
                    let _ = symlink(&path, folder.join(name));
                }
            }
        }
        folder
    }

    /// Kills it.
    pub fn kill(&mut self, verb: &'static str) {
        let mut process = self.processes.remove(verb).unwrap();
        process.signal(Signal::SIGKILL).unwrap();
        process.wait(LIMIT).unwrap();
    }

    /// What a verb prints, asked of the controller.
    pub fn ask(&self, verb: &[&str]) -> Result<String, String> {
        let mut ask = command(&self.folders, "control");
        ask.args(["--controller", CONTROL]).args(verb);
        succeed(&self.namespaces["control"], ask)
    }

    /// How the address and the prefix stand, and why, where that is the same.
    pub fn standing(&self) -> (String, String) {
        let [v4, v6] = self.standings();
        if v4 == v6 { v4 } else { Default::default() }
    }

    /// How the address stands, and how the prefix.
    pub fn standings(&self) -> [(String, String); 2] {
        let standings = || {
            let status: ClusterStatus =
                serde_json::from_str(&self.ask(&["status", "-o", "json"]).ok()?).unwrap();
            let host = status
                .hosts
                .into_iter()
                .find(|host| host.node == "left")?
                .status?;
            let of = |address: &str| {
                let one = host.announcements.iter().find(|one| one.address == address)?;
                Some((one.standing.clone(), one.reason.clone()))
            };
            Some([of(&ADDRESS.to_string())?, of(PREFIX6)?])
        };
        standings().unwrap_or_default()
    }

    /// Waits until both stand so, and nothing is wrong with them.
    pub fn until(&self, standing: &str) {
        self.until_said(standing, "");
    }

    /// Waits until both stand so, for a reason that begins so.
    pub fn until_said(&self, standing: &str, reason: &str) {
        let is_so = |(now, why): &(String, String)| {
            now == standing && why.starts_with(reason) && why.is_empty() == reason.is_empty()
        };
        soon(&format!("it is {standing} ({reason})\n{}", self.logs()), || {
            Some(self.standing()).filter(is_so)
        });
    }

    /// What the agent has written.
    pub fn logs(&self) -> String {
        let log = self.folders.of("left").with_extension("agent.log");
        fs::read_to_string(log).unwrap_or_default()
    }

    /// The node's file with the password.
    pub fn password_file(&self) -> PathBuf {
        self.folders.of("left").join("bgp-password")
    }

    /// Waits until these routers know address and prefix, and no other one does.
    pub fn until_told_to(&self, routers: &[&str]) {
        self.until_known(routers, routers);
    }

    /// Waits until the first routers know the address, and the others the prefix, and no others do.
    pub fn until_known(&self, address: &[&str], prefix: &[&str]) {
        let what = format!("{address:?} know the address, {prefix:?} the prefix");
        soon(&what, || {
            let is_so = [("ipv4", &address), ("ipv6", &prefix)]
                .into_iter()
                .all(|(family, routers)| {
                    self.first_path(family).is_some() == routers.contains(&FIRST)
                        && self.second_path(family).is_some() == routers.contains(&SECOND)
                });
            is_so.then_some(())
        });
    }

    /// What the first router says.
    pub fn first_says(&self, question: &str) -> serde_json::Value {
        serde_json::from_str(&self.tell_first(&[question])).unwrap_or_default()
    }

    /// Gives the first router orders.
    fn tell_first(&self, orders: &[&str]) -> String {
        let folder = self.folders.of(FIRST);
        let mut ask = Command::new("vtysh");
        ask.arg("--vty_socket")
            .arg(&folder)
            .arg("--config_dir")
            .arg(&folder);
        ask.args(orders.iter().flat_map(|order| ["-c", *order]));
        succeed(&self.namespaces[FIRST], ask).unwrap_or_default()
    }

    fn first_path(&self, family: &str) -> Option<serde_json::Value> {
        let known = self.first_says(&format!("show bgp {family} unicast {} json", announced(family)));
        known["paths"].as_array()?.first().cloned()
    }

    /// All that the first router knows.
    pub fn known_to_first(&self) -> Vec<String> {
        let of = |family| {
            let known = self.first_says(&format!("show bgp {family} unicast json"));
            let routes = known["routes"].as_object().cloned().unwrap_or_default();
            routes.into_iter().map(|(prefix, _)| prefix)
        };
        of("ipv4").chain(of("ipv6")).collect()
    }

    /// Where the routers send packets to the prefix.
    pub fn next_hops(&self) -> [String; 2] {
        let first = self.first_path("ipv6").unwrap_or_default();
        let second = self.second_path("ipv6").unwrap_or_default();
        let attributes = second["attrs"].as_array().cloned().unwrap_or_default();
        let next_hop = attributes.iter().find_map(|one| one["nexthop"].as_str());
        let first = first["nexthops"][0]["ip"].as_str();
        [first, next_hop].map(|hop| hop.unwrap_or_default().to_owned())
    }

    /// Since when the second router knows the address; what the first one says of that varies.
    pub fn since(&self) -> Option<u64> {
        self.second_path("ipv4")?["age"].as_u64()
    }

    /// What the announcement carries there.
    pub fn communities(&self) -> String {
        let path = self.first_path("ipv4").unwrap();
        path["community"]["string"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// BFD with the node, as the first router sees it.
    pub fn bfd(&self) -> serde_json::Value {
        self.first_says("show bfd peers json")[0].clone()
    }

    /// The same of BGP.
    pub fn session(&self) -> serde_json::Value {
        self.first_says("show bgp neighbors json")[LEFT.to_string()].clone()
    }

    fn second_says(&self, words: &[&str]) -> serde_json::Value {
        let mut ask = Command::new("gobgp");
        ask.args(["-p", &API_PORT.to_string(), "-j"]).args(words);
        let text = succeed(&self.namespaces[SECOND], ask).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn second_path(&self, family: &str) -> Option<serde_json::Value> {
        let known = self.second_says(&["global", "rib", "-a", family]);
        known.get(announced(family))?.get(0).cloned()
    }

    /// Whether the second router has told the node its networks.
    pub fn second_tells(&self) -> bool {
        let told = |family| self.second_says(&["neighbor", &LEFT.to_string(), "adj-out", "-a", family]);
        told("ipv4").to_string().contains(TOLD) && told("ipv6").to_string().contains(TOLD6)
    }

    /// The second router dies, or comes back.
    pub fn second_speaks(&mut self, on: bool) {
        self.second = None;
        if on {
            self.second = Some(second(&self.namespaces[SECOND], &self.folders));
        }
    }

    /// The node's routes and next hops.
    pub fn kernel(&self) -> String {
        let show = |family, what| {
            let mut show = Command::new("ip");
            show.args([family, what, "show"]);
            succeed(&self.namespaces["left"], show).unwrap()
        };
        show("-4", "route") + &show("-6", "route") + &show("-4", "nexthop")
    }

    /// Where the node's agent keeps what goes with the host's start.
    pub fn run_folder(&self) -> PathBuf {
        Places::below(&self.folders.of("left")).run()
    }

    /// The TCP sockets of a host that take connections, with the programs that have them.
    pub fn listeners(&self, host: &str) -> String {
        let mut show = Command::new("ss");
        show.arg("-Hltnp");
        succeed(&self.namespaces[host], show).unwrap()
    }

    /// The numbers of the daemons that run for the node, by their names.
    pub fn numbers(&self) -> BTreeMap<String, i32> {
        let number = |name: &str| {
            let text = fs::read_to_string(self.run_folder().join(format!("{name}.pid"))).ok()?;
            let number = text.split(' ').next()?.parse::<i32>().ok()?;
            let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
            (!stat.contains(") Z ")).then(|| (name.to_owned(), number))
        };
        ["gobgpd", "bgpd", "bfdd", "zebra"]
            .into_iter()
            .filter_map(number)
            .collect()
    }

    /// Their names.
    pub fn programs(&self) -> Vec<String> {
        self.numbers().into_keys().collect()
    }

    /// Sends a signal to one of them.
    pub fn signal(&self, name: &str, signal: Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.numbers()[name]), signal).unwrap();
    }

    /// Ends one of them, in a way that leaves nothing of it.
    pub fn end(&self, name: &str) {
        self.signal(name, Signal::SIGTERM);
    }

    fn uninstallation(&self) -> Command {
        let mut uninstall = command(&self.folders, "left");
        uninstall.args(["uninstall", "--yes", "--pin-root"]);
        uninstall.arg(&self.folders.pins);
        uninstall
    }

    /// Takes Kuafu off the node.
    pub fn uninstall(&mut self) {
        self.kill("agent");
        self.kill("probe");
        succeed(&self.namespaces["left"], self.uninstallation()).unwrap();
    }
}

/// What the node announces of a family.
fn announced(family: &str) -> String {
    match family {
        "ipv4" => format!("{ADDRESS}/32"),
        _ => PREFIX6.to_owned(),
    }
}

fn namespaces(prefix: &str) -> BTreeMap<&'static str, Arc<Namespace>> {
    let make = |name| (name, Arc::new(Namespace::create(prefix, name).unwrap()));
    let namespaces: BTreeMap<_, _> = [FIRST, SECOND, "left", "control"].map(make).into();
    let first = &namespaces[FIRST];
    let lines = [
        "link add rack type bridge",
        &format!("addr add {ROUTER_FIRST}/24 dev rack"),
        "addr add 2001:db8::fe/64 dev rack nodad",
        "link set rack up",
    ];
    first.ip(lines).unwrap();
    for (name, last) in [("left", 1), ("control", 10), (SECOND, 253)] {
        let host = End {
            addresses: vec![format!("192.0.2.{last}/24").parse().unwrap()],
            gateway: Some(ROUTER_FIRST),
            offloads: Offloads::Wire,
            ..End::new(&namespaces[name], "eth0")
        };
        let there = End {
            offloads: Offloads::Wire,
            ..End::new(first, name)
        };
        veth(&host, &there, 1500).unwrap();
        first.ip([format!("link set {name} master rack")]).unwrap();
    }
    namespaces[SECOND]
        .ip([format!("addr add {SECOND_BEHIND}/32 dev lo")])
        .unwrap();
    let behind = format!("route add {SECOND_BEHIND}/32 via {ROUTER_SECOND}");
    first.ip([behind]).unwrap();
    for (key, value) in [
        ("ip_forward", "1"),
        ("conf/all/send_redirects", "0"),
        ("conf/rack/send_redirects", "0"),
    ] {
        first.sysctl(&format!("net/ipv4/{key}"), value).unwrap();
    }
    namespaces
}

/// FRR, with BFD.
fn first(router: &Namespace, folders: &Folders) -> Vec<Process> {
    let folder = folders.of(FIRST);
    fs::create_dir_all(&folder).unwrap();
    let user = nix::unistd::User::from_name("frr").unwrap().unwrap();
    chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    let config = format!(
        "router bgp 65000\n bgp router-id {ROUTER_FIRST}\n no bgp ebgp-requires-policy\n neighbor {LEFT} remote-as 65001\n \
         neighbor {LEFT} passive\n neighbor {LEFT} password {SECRET}\n neighbor {LEFT} bfd 3 300 300\n \
         address-family ipv6 unicast\n  neighbor {LEFT} activate\n exit-address-family\n"
    );
    for (name, text) in [
        ("bgpd.conf", config.as_str()),
        ("none.conf", ""),
        ("vtysh.conf", ""),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let start = |name: &str| {
        let mut daemon = Command::new(Path::new(PROGRAMS).join(name));
        daemon.args(["-u", "frr", "-g", "frr", "--log", "stdout"]);
        daemon.arg("--vty_socket").arg(&folder);
        daemon.arg("-z").arg(folder.join("zserv.api"));
        daemon.arg("-i").arg(folder.join(format!("{name}.pid")));
        let config = if name == "bgpd" { "bgpd.conf" } else { "none.conf" };
        daemon.arg("-f").arg(folder.join(config));
        match name {
            "bgpd" => daemon.args(["--bgp_port", &PORT.to_string()]),
            "bfdd" => daemon.arg("--bfdctl").arg(folder.join("bfdd.sock")),
            _ => daemon.arg("--retain"),
        };
        router
            .spawn_logged(daemon, &folder.join(format!("{name}.log")))
            .unwrap()
    };
    let zebra = start("zebra");
    soon("zebra takes connections", || {
        UnixStream::connect(folder.join("zserv.api")).ok()
    });
    vec![zebra, start("bfdd"), start("bgpd")]
}

/// GoBGP, which tells a network.
fn second(router: &Namespace, folders: &Folders) -> Process {
    let text = format!(
        "[global.config]\nas = 65000\nrouter-id = \"{ROUTER_SECOND}\"\nport = {PORT}\n\
         [[neighbors]]\n[neighbors.config]\nneighbor-address = \"{LEFT}\"\npeer-as = 65001\n\
         [neighbors.transport.config]\npassive-mode = true\n\
         [neighbors.timers.config]\nidle-hold-time-after-reset = 1\n\
         [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n\
         [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv6-unicast\"\n"
    );
    let folder = folders.of(SECOND);
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("router.toml");
    fs::write(&config, text).unwrap();
    let mut speaker = Command::new("gobgpd");
    speaker.arg("-f").arg(&config).args([
        &format!("--api-hosts=127.0.0.1:{API_PORT}"),
        "--pprof-disable",
        "--log-plain",
    ]);
    let process = router.spawn_logged(speaker, &folder.join("router.log")).unwrap();
    for words in [
        vec!["-a", "ipv4", TOLD],
        vec!["-a", "ipv6", TOLD6, "nexthop", "2001:db8::fd"],
    ] {
        soon("the second router takes its network", || {
            let mut tell = Command::new("gobgp");
            tell.args(["-p", &API_PORT.to_string(), "global", "rib", "add"]);
            tell.args(&words);
            succeed(router, tell).ok()
        });
    }
    process
}
