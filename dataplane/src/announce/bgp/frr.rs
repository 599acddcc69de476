//! Debian's `frr`: its `bgpd`; `zebra`, which tells it of the host's links; and `bfdd`, where BFD is wanted.
//!
//! They run as FRR's own user, with files, sockets and a path space of their own below the agent's: the system's service
//! `frr` knows nothing of them. `zebra` takes over what other programs of its kind have put into the kernel, whatever it is
//! told; so it runs in a user namespace, where the kernel lets it read and change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kuafu_model::state::{self, Bfd, Router, Speaker};
use nix::unistd::User;
use serde::Deserialize;

use super::{
    Daemon, Family, HOLD, NEXT_HOP, Order, RETRY_S, Route, Sessions, Silent, is_in_path, keep_private, order,
    process, read,
};

pub(super) struct Frr;

/// Where Debian puts the daemons.
const PROGRAMS: &str = "/usr/lib/frr";
/// The user and the group that they run as.
const USER: &str = "frr";
/// The name of their path space.
const SPACE: &str = "kuafu";
/// What they make of it, whatever they are told: empty folders. Older ones make the first alone.
const SPACE_FOLDERS: [&str; 2] = ["/var/run/frr/kuafu", "/var/lib/frr/kuafu"];
/// Once for its user, who may write into that folder, and once for root.
const CONFIG: &str = "bgpd.conf";
/// For who has nothing to be told.
const EMPTY: &str = "empty.conf";
/// What `zebra` is told: a router that is further away may be found by the default route.
const LINKS: &str = "zebra.conf";
const LINKS_TEXT: &str = "ip nht resolve-via-default\n";
/// What `vtysh` reads, which root runs.
const VTYSH: &str = "vtysh.conf";
/// The UDP ports of BFD to neighbours and over hops (RFC 5881, RFC 5883).
const BFD_PORTS: [&str; 2] = [":0EC8", ":12B0"];
/// Seconds until routes of an earlier `zebra` would be removed: never.
const NEVER_S: &str = "2147483647";

impl Daemon for Frr {
    fn name(&self) -> &'static str {
        "frr's bgpd"
    }

    fn absent(&self) -> &'static str {
        "frr is not installed: apt install frr"
    }

    fn all_programs(&self) -> &'static [&'static str] {
        &["zebra", "bfdd", "bgpd"]
    }

    fn programs(&self, speaker: &Speaker) -> Vec<&'static str> {
        let programs = self.all_programs().iter().copied();
        programs
            .filter(|name| *name != "bfdd" || bfd(speaker).is_some())
            .collect()
    }

    fn command(&self, run: &Path, name: &str) -> Command {
        let folder = folder(run);
        let program = Path::new(PROGRAMS).join(name);
        let mut command = if name == "zebra" {
            apart(program.as_os_str())
        } else {
            Command::new(program)
        };
        // They take orders by their sockets alone, and none by TCP.
        command.args(["-u", USER, "-g", USER, "-N", SPACE, "--log", "stdout", "-P", "0"]);
        command.arg("--vty_socket").arg(&folder);
        command.arg("-z").arg(links_socket(run));
        command.arg("-i").arg(folder.join(name).with_extension("pid"));
        command.arg("-f").arg(folder.join(match name {
            "bgpd" => CONFIG,
            "zebra" => LINKS,
            _ => EMPTY,
        }));
        match name {
            "zebra" => command.args(["--allow_delete", "--retain", "--graceful_restart", NEVER_S]),
            "bfdd" => command.arg("--bfdctl").arg(folder.join("bfdd.sock")),
            // It dials, and takes no connections.
            _ => command.args(["--no_kernel", "--bgp_port", "0"]),
        };
        command
    }

    /// `bgpd` asks for BFD at its start, by `zebra`; what it cannot ask there it asks nevermore (FRR 8.4).
    fn has_started(&self, run: &Path, name: &str) -> bool {
        name != "zebra" || UnixStream::connect(links_socket(run)).is_ok()
    }

    fn config_file(&self, run: &Path) -> PathBuf {
        run.join(CONFIG)
    }

    fn config(&self, sessions: &Sessions<'_>) -> String {
        config(sessions)
    }

    fn is_ready(&self, run: &Path, speaker: &Speaker) -> Result<(), String> {
        let mut programs = self.all_programs().iter();
        let is_there = programs.all(|name| Path::new(PROGRAMS).join(name).exists()) && is_in_path("vtysh");
        if !is_there || !matches!(User::from_name(USER), Ok(Some(_))) {
            return Err(self.absent().to_owned());
        }
        if let Some(name) = ["setpriv", "unshare"].into_iter().find(|name| !is_in_path(name)) {
            return Err(format!(
                "zebra needs {name}, which is missing: apt install util-linux"
            ));
        }
        let is_ours = process::running(run, "bfdd").is_some();
        if bfd(speaker).is_some() && !is_ours && takes_bfd(&fs::read_to_string(UDP).unwrap_or_default()) {
            return Err(TAKEN.to_owned());
        }
        try_apart()
    }

    fn lay_out(&self, run: &Path, config: &str) -> io::Result<()> {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        let user = User::from_name(USER)?.ok_or_else(absent)?;
        let folder = folder(run);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let owner = (user.uid.as_raw(), user.gid.as_raw());
        chown(&folder, Some(owner.0), Some(owner.1))?;
        for (name, text) in [(CONFIG, config), (LINKS, LINKS_TEXT), (EMPTY, "")] {
            keep_private(&folder.join(name), text, Some(owner))?;
        }
        keep_private(&run.join(VTYSH), "", None)?;
        keep_private(&self.config_file(run), config, None)
    }

    fn clear(&self, run: &Path) {
        let _ = fs::remove_dir_all(folder(run));
        for name in [VTYSH, CONFIG] {
            let _ = fs::remove_file(run.join(name));
        }
        for folder in SPACE_FOLDERS {
            let _ = fs::remove_dir(folder);
        }
    }

    fn announce(&self, run: &Path, route: Route, attributes: &[String]) -> Result<(), String> {
        let network = format!("network {}", route.prefix());
        let (map, lines) = match carried(attributes) {
            Some((name, sets)) => (
                format!(" route-map {name}"),
                [
                    vec![format!("route-map {name} permit 10")],
                    sets,
                    vec!["exit".to_owned()],
                ]
                .concat(),
            ),
            None => Default::default(),
        };
        configure(run, lines, route.family(), &(network + &map))
    }

    fn withdraw(&self, run: &Path, route: Route) -> Result<(), String> {
        if self.routes(run, route.family())?.contains(&route) {
            let order = format!("no network {}", route.prefix());
            return configure(run, Vec::new(), route.family(), &order);
        }
        Ok(())
    }

    fn routes(&self, run: &Path, family: Family) -> Result<BTreeSet<Route>, String> {
        let question = format!("show bgp {} unicast json", family.word());
        let known: Known = read(&vtysh(run, &[&question])?)?;
        let own = |(prefix, paths): (&String, &Vec<Told>)| {
            let is_own = paths.iter().any(|path| path.peer == NO_PEER);
            prefix.parse().ok().filter(|_| is_own)
        };
        Ok(known.routes.iter().filter_map(own).collect())
    }

    fn silent(&self, run: &Path) -> Result<Silent, String> {
        Ok(silent(read(&vtysh(run, &["show bgp neighbors json"])?)?))
    }
}

fn folder(run: &Path) -> PathBuf {
    run.join("frr")
}

/// Where `zebra` takes connections.
fn links_socket(run: &Path) -> PathBuf {
    folder(run).join("zserv.api")
}

const fn bfd(speaker: &Speaker) -> Option<&Bfd> {
    match &speaker.daemon {
        state::Daemon::Frr { bfd } => bfd.as_ref(),
        state::Daemon::Gobgp => None,
    }
}

/// What an announcement carries, as a route map of that name sets it.
fn carried(attributes: &[String]) -> Option<(String, Vec<String>)> {
    let pairs = attributes.chunks_exact(2);
    let set = |pair: &[String]| match pair {
        [name, value] if name == "med" => format!("set metric {value}"),
        [name, value] if name == NEXT_HOP => format!("set ipv6 next-hop global {value}"),
        [name, value] => format!("set {name} {}", value.replace(',', " ")),
        _ => String::new(),
    };
    let sets = pairs.map(set).collect();
    (!attributes.is_empty()).then(|| (attributes.join("="), sets))
}

/// The configuration of a speaker. It tells what it announces itself, and takes nothing: it is no way from one router to
/// another.
fn config(sessions: &Sessions<'_>) -> String {
    let Sessions {
        speaker,
        local,
        has_v6,
        ..
    } = sessions;
    let [hold, keepalive] = HOLD;
    let mut text = format!(
        "bgp as-path access-list own permit ^$\nroute-map own permit 10\n match as-path own\nexit\n\
         route-map nothing deny 10\nexit\n\
         router bgp {}\n bgp router-id {local}\n no bgp default ipv4-unicast\n no bgp network import-check\n\
         \x20timers bgp {keepalive} {hold}\n",
        speaker.number
    );
    for router in &speaker.peers {
        let (address, number) = (router.address, router.number);
        // Writing to a text succeeds.
        let _ = write!(
            text,
            " neighbor {address} remote-as {number}\n neighbor {address} port {}\n neighbor {address} update-source {local}\n\
             \x20neighbor {address} timers connect {RETRY_S}\n",
            speaker.port
        );
        if let Some(hops) = router.multihop {
            let _ = writeln!(text, " neighbor {address} ebgp-multihop {hops}");
        }
        if let Some(password) = sessions.passwords.get(&address) {
            let _ = writeln!(text, " neighbor {address} password {password}");
        }
        if let Some(bfd) = bfd(speaker) {
            let (multiplier, interval) = (bfd.multiplier, bfd.interval_ms);
            let _ = writeln!(text, " neighbor {address} bfd {multiplier} {interval} {interval}");
        }
    }
    text += &family(speaker, Family::V4);
    if *has_v6 {
        text += &family(speaker, Family::V6);
    }
    text + "exit\n"
}

/// What sessions carry of a family. They are over IPv4, and have no address of IPv6 to put into the place of an
/// announcement's next hop.
fn family(speaker: &Speaker, family: Family) -> String {
    let mut text = format!(" address-family {} unicast\n", family.word());
    for Router { address, .. } in &speaker.peers {
        // Writing to a text succeeds.
        let _ = writeln!(text, "  neighbor {address} activate");
        if family == Family::V6 {
            let _ = writeln!(text, "  neighbor {address} attribute-unchanged next-hop");
        }
        let _ = write!(
            text,
            "  neighbor {address} route-map nothing in\n  neighbor {address} route-map own out\n"
        );
    }
    text + " exit-address-family\n"
}

#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    routes: BTreeMap<String, Vec<Told>>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "peerId")]
    peer: String,
}

/// Who has told a path that nobody has told.
const NO_PEER: &str = "(unspec)";

/// What has no address as its key is no neighbour.
fn silent(all: BTreeMap<String, serde_json::Value>) -> Silent {
    let mut silent = Silent::default();
    for (key, one) in all {
        let Ok(address) = key.parse() else { continue };
        let families = &one["neighborCapabilities"]["multiprotocolExtensions"];
        if one["bgpState"] != "Established" {
            silent.sessions.insert(address);
        } else if families["ipv6Unicast"]["advertisedAndReceived"] != true {
            silent.without_v6.insert(address);
        }
    }
    silent
}

/// A program as FRR's user, in a user namespace of its own.
fn apart(program: &OsStr) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--init-groups"]);
    command.args(["unshare", "--user", "--map-current-user", "--keep-caps"]);
    command.arg(program);
    command
}

/// Whether the kernel lets `zebra` have one.
fn try_apart() -> Result<(), String> {
    let output = apart(OsStr::new("true")).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("setpriv cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| {
        format!(
            "user {USER} may have no user namespace, which zebra needs: {}; see the settings \
             kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces",
            said.trim()
        )
    })
}

/// The host's UDP sockets (proc_net(5)).
const UDP: &str = "/proc/net/udp";
const TAKEN: &str = "another program takes BFD's UDP ports 3784 and 4784, such as the bfdd of service frr: end that, or \
                     leave out bfd";

/// Whether a program has a port of BFD's, as [`UDP`] says it. Two would each get a part of what comes.
fn takes_bfd(sockets: &str) -> bool {
    let mut locals = sockets.lines().filter_map(|line| line.split_whitespace().nth(1));
    locals.any(|local| BFD_PORTS.iter().any(|port| local.ends_with(port)))
}

/// Gives `bgpd` lines of configuration, and then one within a family's addresses.
fn configure(run: &Path, lines: Vec<String>, family: Family, last: &str) -> Result<(), String> {
    let number = fs::read_to_string(Frr.config_file(run)).unwrap_or_default();
    let router = number.lines().find(|line| line.starts_with("router bgp "));
    let router = router.ok_or("bgpd's configuration is gone")?;
    let mut words = vec!["configure terminal"];
    words.extend(lines.iter().map(String::as_str));
    let family = format!("address-family {} unicast", family.word());
    words.extend([router, &family, last]);
    vtysh(run, &words).map(drop)
}

/// Gives `bgpd` orders, one after the other. Returns the answer.
fn vtysh(run: &Path, orders: &[&str]) -> Result<String, String> {
    let folder = folder(run).display().to_string();
    let run = run.display().to_string();
    let program = [
        "vtysh",
        "--vty_socket",
        &folder,
        "--config_dir",
        &run,
        "-d",
        "bgpd",
    ];
    let words: Vec<&str> = orders.iter().flat_map(|order| ["-c", *order]).collect();
    order(&Order {
        program: &program.map(str::to_owned),
        words: &words,
        daemon: &Frr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_configuration_names_each_router_and_passes_nothing_on() {
        let speaker = super::super::tests::speaker();
        let text = config(&super::super::tests::sessions(&speaker));
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let count = |line: &str| lines.iter().filter(|one| **one == line).count();
        assert_eq!(count("router bgp 65001"), 1);
        assert_eq!(count("bgp router-id 192.0.2.1"), 1);
        assert_eq!(count("neighbor 192.0.2.253 ebgp-multihop 2"), 1);
        assert_eq!(count("neighbor 192.0.2.253 password se\"c\\ret"), 1);
        assert_eq!(count("neighbor 192.0.2.253 remote-as 4200000000"), 1);
        for router in ["192.0.2.254", "192.0.2.253"] {
            for say in [
                "port 1790",
                "activate",
                "route-map nothing in",
                "route-map own out",
            ] {
                assert_eq!(count(&format!("neighbor {router} {say}")), 1, "{text}");
            }
        }
        assert_eq!(Frr.programs(&speaker), ["zebra", "bgpd"]);
        assert!(!text.contains("bfd"));
        let with_bfd = Speaker {
            daemon: state::Daemon::Frr {
                bfd: Some(Bfd {
                    interval_ms: 250,
                    multiplier: 4,
                }),
            },
            ..speaker
        };
        let text = config(&super::super::tests::sessions(&with_bfd));
        assert_eq!(text.matches(" bfd 4 250 250\n").count(), 2, "{text}");
        assert_eq!(Frr.programs(&with_bfd), ["zebra", "bfdd", "bgpd"]);
    }

    #[test]
    fn ipv6_is_added_to_sessions_that_announce_it() {
        let [without, with] = super::super::tests::without_and_with_v6(config);
        assert!(!without.contains("ipv6"), "{without}");
        let added = family(&super::super::tests::speaker(), Family::V6);
        assert_eq!(with.replacen(&added, "", 1), without);
        for line in [
            "address-family ipv6 unicast",
            "neighbor 192.0.2.253 activate",
            "neighbor 192.0.2.253 attribute-unchanged next-hop",
            "neighbor 192.0.2.253 route-map nothing in",
            "neighbor 192.0.2.253 route-map own out",
        ] {
            assert!(added.lines().any(|one| one.trim() == line), "{added}");
        }
    }

    #[test]
    fn who_has_a_port_of_bfd_is_seen() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let line = |port: &str| {
            format!("{head}  9: 00000000:{port} 00000000:0EC8 07 00000000:00000000 00:00000000\n")
        };
        assert!(
            !takes_bfd(head) && !takes_bfd(&line("0044")),
            "theirs is another one's"
        );
        assert!(takes_bfd(&line("0EC8")) && takes_bfd(&line("12B0")));
        assert_eq!([0x0EC8, 0x12B0], [3784, 4784]);
    }

    #[test]
    fn what_is_no_neighbour_is_not_silent() {
        let text = r#"{"192.0.2.254": {"bgpState": "Established", "neighborCapabilities": {"multiprotocolExtensions": {
            "ipv4Unicast": {"advertisedAndReceived": true}, "ipv6Unicast": {"advertised": true}}}},
            "192.0.2.251": {"bgpState": "Established", "neighborCapabilities": {"multiprotocolExtensions": {
            "ipv4Unicast": {"advertisedAndReceived": true}, "ipv6Unicast": {"advertisedAndReceived": true}}}},
            "192.0.2.253": {"bgpState": "Active"},
            "192.0.2.252": {}, "eth0": {"bgpState": "Idle"}, "count": 3}"#;
        let silent = silent(read(text).unwrap());
        let routers = |last: &[u8]| last.iter().map(|last| Ipv4Addr::new(192, 0, 2, *last)).collect();
        let (sessions, without_v6) = (routers(&[252, 253]), routers(&[254]));
        assert_eq!(silent, Silent { sessions, without_v6 });
    }

    #[test]
    fn none_of_the_programs_takes_orders_by_tcp() {
        for name in Frr.all_programs() {
            let command = Frr.command(Path::new("/run/kuafu"), name);
            let words: Vec<_> = command.get_args().collect();
            assert!(words.windows(2).any(|pair| pair == ["-P", "0"]), "{words:?}");
        }
    }

    #[test]
    fn what_an_announcement_carries_is_set_by_a_route_map_of_its_name() {
        assert_eq!(carried(&[]), None);
        let attributes = ["community", "65000:100,65000:200", "med", "50"].map(str::to_owned);
        let (name, sets) = carried(&attributes).unwrap();
        assert_eq!(name, "community=65000:100,65000:200=med=50");
        assert_eq!(sets, ["set community 65000:100 65000:200", "set metric 50"]);
        let (name, sets) = carried(&["nexthop", "2001:db8::1"].map(str::to_owned)).unwrap();
        assert_eq!(name, "nexthop=2001:db8::1");
        assert_eq!(sets, ["set ipv6 next-hop global 2001:db8::1"]);
    }
}
