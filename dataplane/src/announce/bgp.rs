//! Debian's `gobgpd`, which speaks BGP for this host: started, found again, told what to announce.
//!
//! It does not end with the agent, which finds it by the file with its number, and what it announces by the lease. It
//! dials, and takes no connections: nothing else of the host's BGP is in its way. Its orders come by a socket that is
//! root's alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kuafu_model::state::{Announcement, Speaker, Way};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use super::Orders;
use super::lease::Lease;

/// An order that is not done within this has failed.
const LIMIT_S: &str = "2";
/// What timeout(1) ends with where that was so, and where there is no such program.
const LATE: i32 = 124;
/// See [`LATE`].
const NOT_FOUND: i32 = 127;
/// How often its sessions and its routes are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// The same while a session is missing.
const LOOK_SOON: Duration = Duration::from_secs(1);
/// After `gobgpd` could not be started.
const PAUSE: Duration = Duration::from_secs(5);
/// For it to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const NAP: Duration = Duration::from_millis(20);
/// A session that is established (gobgp's `SessionState`).
const ESTABLISHED: u32 = 6;
/// Seconds after which a router that hears nothing withdraws, and between two keepalives.
const HOLD: [u32; 2] = [9, 3];
/// The socket by which it takes orders.
const SOCKET: &str = "gobgpd.sock";
const ABSENT: &str = "gobgpd is not installed: apt install gobgpd";

/// The speaker of this host.
pub(super) struct Bgp {
    run: PathBuf,
    /// Where this agent has started it: to be waited for when it ends.
    child: Option<Child>,
    /// When routes and sessions were looked at last.
    looked: Option<Instant>,
    /// When it could not be started, and why.
    failed: Option<(Instant, String)>,
    /// Routers without a session; `None`: not known yet.
    silent: Option<BTreeSet<Ipv4Addr>>,
}

impl Bgp {
    pub(super) fn new(run: &Path) -> Self {
        Self {
            run: run.to_owned(),
            child: None,
            looked: None,
            failed: None,
            silent: None,
        }
    }

    /// Routes may not be what the lease says.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    /// Announces what is due and withdraws what is not, and says what is wrong.
    pub(super) fn step(
        &mut self,
        now: Instant,
        orders: &Orders,
        lease: &mut Lease,
        wrong: &mut BTreeMap<Ipv4Addr, String>,
    ) {
        let mut speakers = orders.all.iter().filter_map(|(one, _)| speaker(one));
        let (Some(speaker), Some(local)) = (speakers.next(), orders.local) else {
            if number_file(&self.run).exists() {
                self.end();
            }
            lease.routes.clear();
            return;
        };
        let due: BTreeMap<Ipv4Addr, Vec<String>> = orders.due().filter_map(route).collect();
        let done = self
            .ensure(now, &config(speaker, local))
            .and_then(|()| self.bring_about(now, &due, lease));
        let fault = match (done, &self.silent) {
            (Err(fault), _) => Some(fault),
            (Ok(()), Some(silent)) if silent.len() == speaker.peers.len() => {
                let routers: Vec<String> = silent.iter().map(Ipv4Addr::to_string).collect();
                Some(format!("no BGP session with {}", routers.join(", ")))
            }
            (Ok(()), _) => None,
        };
        if let Some(fault) = fault {
            wrong.extend(due.into_keys().map(|address| (address, fault.clone())));
        }
    }

    /// Has `gobgpd` run by this configuration.
    fn ensure(&mut self, now: Instant, config: &str) -> Result<(), String> {
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(Some(_)))
        {
            self.child = None;
        }
        let path = config_file(&self.run);
        let is_same = fs::read_to_string(&path).is_ok_and(|text| text == config);
        if running(&self.run).is_some() && is_same {
            return Ok(());
        }
        if let Some((at, why)) = &self.failed
            && now - *at < PAUSE
        {
            return Err(why.clone());
        }
        self.end();
        let started = fs::write(&path, config).and_then(|()| start(&self.run));
        match started {
            Ok(child) => {
                tracing::info!(pid = child.id(), "gobgpd is started");
                self.child = Some(child);
                self.looked = None;
                self.failed = None;
                Ok(())
            }
            Err(error) => {
                let why = match error.kind() {
                    io::ErrorKind::NotFound => ABSENT.to_owned(),
                    _ => format!("gobgpd cannot be started: {error}"),
                };
                self.failed = Some((now, why.clone()));
                Err(why)
            }
        }
    }

    /// Makes its routes those that are due. What it has is asked for now and then; in between the lease knows it.
    fn bring_about(
        &mut self,
        now: Instant,
        due: &BTreeMap<Ipv4Addr, Vec<String>>,
        lease: &mut Lease,
    ) -> Result<(), String> {
        let pause = match &self.silent {
            Some(silent) if silent.is_empty() => LOOK,
            _ => LOOK_SOON,
        };
        if self.looked.is_none_or(|looked| now - looked >= pause) {
            let has = routes(&self.run)?;
            lease.routes.retain(|address, _| has.contains(address));
            for address in has.iter().filter(|address| !due.contains_key(*address)) {
                withdraw(&self.run, *address)?;
            }
            self.silent = Some(silent(&self.run)?);
            self.looked = Some(now);
        }
        let gone: Vec<Ipv4Addr> = lease.routes.keys().copied().collect();
        for address in gone.into_iter().filter(|address| !due.contains_key(address)) {
            withdraw(&self.run, address)?;
            tracing::info!(%address, "withdrawn from BGP");
            lease.routes.remove(&address);
        }
        for (address, attributes) in due {
            if lease.routes.get(address) != Some(attributes) {
                let prefix = format!("{address}/32");
                let add = ["global", "rib", "add", &prefix];
                let words = add.into_iter().chain(attributes.iter().map(String::as_str));
                gobgp(&self.run, &words.collect::<Vec<_>>())?;
                tracing::info!(%address, "announced by BGP");
                lease.routes.insert(*address, attributes.clone());
            }
        }
        Ok(())
    }

    /// Ends the one that an agent of this host has started.
    fn end(&mut self) {
        stop(&self.run);
        if let Some(mut child) = self.child.take() {
            // Whatever the file says of it.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.silent = None;
    }
}

/// How the host speaks, where an announcement says so.
const fn speaker(announcement: &Announcement) -> Option<&Speaker> {
    match &announcement.way {
        Way::Bgp { speaker, .. } => Some(speaker),
        Way::Arp | Way::Hook { .. } => None,
    }
}

/// A route: the address, and what its announcement carries, in gobgp's words.
fn route(announcement: &Announcement) -> Option<(Ipv4Addr, Vec<String>)> {
    let Way::Bgp { communities, med, .. } = &announcement.way else {
        return None;
    };
    let communities = Some(communities.join(",")).filter(|text| !text.is_empty());
    let communities = communities.map(|text| ["community".to_owned(), text]);
    let med = med.map(|med| ["med".to_owned(), med.to_string()]);
    let attributes = communities.into_iter().chain(med).flatten().collect();
    Some((announcement.local, attributes))
}

/// The configuration of a speaker, in TOML.
fn config(speaker: &Speaker, local: Ipv4Addr) -> String {
    let [hold, keepalive] = HOLD;
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{local}\"\n# It dials, and takes no connections.\nport = -1\n",
        speaker.number
    );
    for (address, number) in &speaker.peers {
        // Writing to a text succeeds.
        let _ = write!(
            text,
            "\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {number}\n\
             [neighbors.transport.config]\nlocal-address = \"{local}\"\nremote-port = {}\n\
             [neighbors.timers.config]\nconnect-retry = 5\nhold-time = {hold}\nkeepalive-interval = {keepalive}\n\
             idle-hold-time-after-reset = 1\n",
            speaker.port
        );
    }
    text + POLICY
}

/// It tells what it announces itself, and takes nothing: it is no way from one router to another.
const POLICY: &str = r#"
[global.apply-policy.config]
import-policy-list = ["own"]
default-import-policy = "reject-route"
export-policy-list = ["own"]
default-export-policy = "reject-route"

[[policy-definitions]]
name = "own"
[[policy-definitions.statements]]
[policy-definitions.statements.conditions.bgp-conditions]
route-type = "local"
[policy-definitions.statements.actions]
route-disposition = "accept-route"
"#;

fn config_file(run: &Path) -> PathBuf {
    run.join("gobgpd.toml")
}

/// The same as it and gobgp take it.
fn socket(run: &Path) -> String {
    format!("unix://{}", run.join(SOCKET).display())
}

fn number_file(run: &Path) -> PathBuf {
    run.join("gobgpd.pid")
}

/// Starts it so that it outlives the agent.
fn start(run: &Path) -> io::Result<Child> {
    let log = File::create(run.join("gobgpd.log"))?;
    let api = format!("--api-hosts={}", socket(run));
    let mut child = Command::new("gobgpd")
        .arg("-f")
        .arg(config_file(run))
        .args([api.as_str(), "--pprof-disable", "--log-plain"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    // Its name may still be this program's.
    let began = stat(child.id()).map_or(0, |(_, began)| began);
    let kept = fs::write(number_file(run), format!("{} {began}\n", child.id()));
    if kept.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    kept.map(|()| child)
}

/// The one that an agent of this host has started, if it runs: its process.
pub(super) fn running(run: &Path) -> Option<Pid> {
    let text = fs::read_to_string(number_file(run)).ok()?;
    let (number, when) = text.trim().split_once(' ')?;
    let number: u32 = number.parse().ok()?;
    (began(number)?.to_string() == when).then(|| i32::try_from(number).map(Pid::from_raw).ok())?
}

/// When a process of that number began (proc(5)), if it runs and is a gobgpd.
fn began(number: u32) -> Option<u64> {
    let (name, began) = stat(number)?;
    (name == "gobgpd").then_some(began)
}

/// Name and beginning of a process of that number, if it runs.
fn stat(number: u32) -> Option<(String, u64)> {
    let text = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let mut words = rest.split(' ');
    let is_dead = words.next()? == "Z";
    let began = words.nth(18)?.parse().ok()?;
    (!is_dead).then(|| (name.to_owned(), began))
}

/// Ends the `gobgpd` that an agent has started over these files, if it runs, and removes them. Its routers withdraw what
/// it has announced. Returns whether it ran.
pub(super) fn stop(run: &Path) -> bool {
    let found = running(run);
    if let Some(process) = found {
        let _ = kill(process, Signal::SIGTERM);
        // It removes its socket at the end: the next one's would go with it.
        let began = Instant::now();
        while running(run).is_some() && began.elapsed() < GRACE {
            thread::sleep(NAP);
        }
        if running(run).is_some() {
            let _ = kill(process, Signal::SIGKILL);
        }
    }
    for name in ["gobgpd.pid", "gobgpd.toml", "gobgpd.log", SOCKET] {
        let _ = fs::remove_file(run.join(name));
    }
    found.is_some()
}

/// Withdraws an address; one that is not announced is none.
pub(super) fn withdraw(run: &Path, address: Ipv4Addr) -> Result<(), String> {
    gobgp(run, &["global", "rib", "del", &format!("{address}/32")]).map(drop)
}

/// The addresses that it announces.
fn routes(run: &Path) -> Result<BTreeSet<Ipv4Addr>, String> {
    let text = gobgp(run, &["-j", "global", "rib"])?;
    let known: BTreeMap<String, serde_json::Value> = read(&text)?;
    let own = |(prefix, paths): (&String, &serde_json::Value)| {
        // What a router has told has it as its source.
        let paths = paths.as_array()?;
        let is_own = paths.iter().any(|path| path.get("source-id").is_none());
        prefix.strip_suffix("/32")?.parse().ok().filter(|_| is_own)
    };
    Ok(known.iter().filter_map(own).collect())
}

#[derive(Deserialize)]
struct Neighbour {
    conf: NeighbourConfig,
    #[serde(default)]
    state: NeighbourState,
}

#[derive(Deserialize)]
struct NeighbourConfig {
    neighbor_address: Ipv4Addr,
}

#[derive(Default, Deserialize)]
struct NeighbourState {
    #[serde(default)]
    session_state: u32,
}

/// The routers without a session.
fn silent(run: &Path) -> Result<BTreeSet<Ipv4Addr>, String> {
    let all: Vec<Neighbour> = read(&gobgp(run, &["-j", "neighbor"])?)?;
    let silent = all.iter().filter(|one| one.state.session_state != ESTABLISHED);
    Ok(silent.map(|one| one.conf.neighbor_address).collect())
}

fn read<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("gobgp says what is not understood: {error}"))
}

/// Gives `gobgpd` an order. Returns the answer.
fn gobgp(run: &Path, words: &[&str]) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("gobgp {}: {why}", words.join(" "));
    let mut command = Command::new("timeout");
    command
        .args([LIMIT_S, "gobgp", "--target", &socket(run)])
        .args(words);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(&error))?;
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(LATE) => Err(failed(&"gobgpd does not answer")),
        Some(NOT_FOUND) => Err(ABSENT.to_owned()),
        _ => Err(failed(&said.trim())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_each_router() {
        let speaker = Speaker {
            number: 65_001,
            peers: vec![
                (Ipv4Addr::new(192, 0, 2, 254), 65_000),
                (Ipv4Addr::new(192, 0, 2, 253), 4_200_000_000),
            ],
            port: 1790,
        };
        let text = config(&speaker, Ipv4Addr::new(192, 0, 2, 1));
        assert!(
            text.starts_with("[global.config]\nas = 65001\nrouter-id = \"192.0.2.1\"\n"),
            "{text}"
        );
        assert_eq!(text.matches("[[neighbors]]").count(), 2);
        assert_eq!(text.matches("remote-port = 1790\n").count(), 2);
        assert!(text.contains("peer-as = 4200000000\n"), "{text}");
        for default in ["import", "export"] {
            let rejects = format!("default-{default}-policy = \"reject-route\"\n");
            assert!(text.contains(&rejects), "others' routes go no further: {text}");
        }
    }

    #[test]
    fn a_file_with_a_number_names_no_other_process() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(running(run.path()), None);
        // This test is no gobgpd, whatever its number.
        fs::write(number_file(run.path()), format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(running(run.path()), None);
        assert!(!stop(run.path()));
        assert!(!number_file(run.path()).exists());
    }
}
