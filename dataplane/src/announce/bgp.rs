//! BGP: a daemon that speaks it for this host is started, found again, told what to announce.
//!
//! It does not end with the agent, which finds it by the files with its programs' numbers, and what it announces by the
//! lease. It dials, and takes no connections: nothing else of the host's BGP is in its way.

mod frr;
mod gobgp;
mod password;
mod process;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kuafu_model::state::{self, Announcement, Speaker, Way};
use serde::Deserialize;

use self::frr::Frr;
use self::gobgp::Gobgp;
pub(super) use self::route::Route;
use super::Orders;
use super::lease::Lease;
use crate::family::Family;

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
/// After a daemon could not be started, or has ended at once.
const PAUSE: Duration = Duration::from_secs(5);
/// Seconds after which a router that hears nothing withdraws, and between two keepalives.
const HOLD: [u32; 2] = [9, 3];
/// Seconds between two attempts to reach a router.
const RETRY_S: u32 = 2;
/// A daemon that takes no withdrawal for so long is ended: as long as a router waits that hears nothing.
pub(super) const STUCK: Duration = Duration::from_secs(9);

/// What an announcement's next hop is called, where it is not the session's own address.
const NEXT_HOP: &str = "nexthop";
/// Why an announcement of IPv6 cannot be made.
const NO_NEXT_HOP: &str = "this host has no address of IPv6 that routers can send to: give its link one, beside the link's own \
                           and those announced";

/// How a fault begins beside which an address is announced to other routers.
pub(super) const PARTLY: &str = "not to all routers: ";
/// The same of an address that is announced still, and shall not be.
pub(super) const STILL: &str = "it is to be withdrawn: ";

/// What differs between the daemons that speak BGP. Files of theirs are in `run`.
trait Daemon: Sync {
    /// Its name, for people.
    fn name(&self) -> &'static str;

    /// What is to be said where it is not installed.
    fn absent(&self) -> &'static str;

    /// All programs that it may consist of. The last one speaks.
    fn all_programs(&self) -> &'static [&'static str];

    /// Those that a speaker needs, in the order in which they start.
    fn programs(&self, speaker: &Speaker) -> Vec<&'static str>;

    /// How one of them is started.
    fn command(&self, run: &Path, program: &str) -> Command;

    /// Whether one that was started has come so far that the next one finds it.
    fn has_started(&self, _run: &Path, _program: &str) -> bool {
        true
    }

    /// Where the text of its configuration is kept, in a folder that is root's alone.
    fn config_file(&self, run: &Path) -> PathBuf;

    /// The text of that.
    fn config(&self, sessions: &Sessions<'_>) -> String;

    /// Whether it can be started on this host. An error says what is in the way.
    fn is_ready(&self, run: &Path, speaker: &Speaker) -> Result<(), String>;

    /// Writes all that the programs read.
    fn lay_out(&self, run: &Path, config: &str) -> io::Result<()>;

    /// Removes that, and what else its programs leave.
    fn clear(&self, run: &Path);

    /// Announces a route, or what its announcement carries from now on: names and values in turns.
    fn announce(&self, run: &Path, route: Route, attributes: &[String]) -> Result<(), String>;

    /// Withdraws a route; one that is not announced is none.
    fn withdraw(&self, run: &Path, route: Route) -> Result<(), String>;

    /// The routes of a family that it announces.
    fn routes(&self, run: &Path, family: Family) -> Result<BTreeSet<Route>, String>;

    /// The routers that do not hear all that it announces.
    fn silent(&self, run: &Path) -> Result<Silent, String>;
}

/// How a host speaks with its routers.
struct Sessions<'a> {
    speaker: &'a Speaker,
    /// The host's own address.
    local: Ipv4Addr,
    /// The routers' passwords, by their addresses.
    passwords: BTreeMap<Ipv4Addr, String>,
    /// Whether they carry IPv6, too.
    has_v6: bool,
}

/// Routers that do not hear all that is announced.
#[derive(Debug, Default, PartialEq, Eq)]
struct Silent {
    /// Those without a session.
    sessions: BTreeSet<Ipv4Addr>,
    /// Those whose sessions do not carry IPv6.
    without_v6: BTreeSet<Ipv4Addr>,
}

impl Silent {
    /// What keeps routes of a family from some of these routers, if something does.
    fn fault(&self, family: Family, routers: usize) -> Option<String> {
        let shown = |routers: &BTreeSet<Ipv4Addr>| {
            let routers: Vec<String> = routers.iter().map(Ipv4Addr::to_string).collect();
            (!routers.is_empty()).then(|| routers.join(", "))
        };
        let without_v6 = Some(&self.without_v6).filter(|_| family == Family::V6);
        let count = self.sessions.len() + without_v6.map_or(0, BTreeSet::len);
        let faults: Vec<String> = [
            shown(&self.sessions).map(|routers| format!("no BGP session with {routers}")),
            without_v6
                .and_then(shown)
                .map(|routers| format!("no IPv6 in the BGP session with {routers}: activate it there")),
        ]
        .into_iter()
        .flatten()
        .collect();
        let some = if count < routers { PARTLY } else { "" };
        (count > 0).then(|| format!("{some}{}", faults.join("; ")))
    }
}

const DAEMONS: [&dyn Daemon; 2] = [&Gobgp, &Frr];

const fn daemon(speaker: &Speaker) -> &'static dyn Daemon {
    match speaker.daemon {
        state::Daemon::Gobgp => &Gobgp,
        state::Daemon::Frr { .. } => &Frr,
    }
}

/// The speaker of this host.
pub(super) struct Bgp {
    run: PathBuf,
    /// What this agent has started: to be waited for when it ends.
    children: Vec<Child>,
    /// When a program was started last.
    started: Option<Instant>,
    /// When routes and sessions were looked at last.
    looked: Option<Instant>,
    /// When it could not be started, and why.
    failed: Option<(Instant, String)>,
    /// Who does not hear it; `None`: not known yet.
    silent: Option<Result<Silent, String>>,
    /// The configuration at the last step: one that changes is waited for.
    wanted: String,
    /// Since when it takes no withdrawal.
    stuck: Option<Instant>,
}

impl Bgp {
    pub(super) fn new(run: &Path) -> Self {
        Self {
            run: run.to_owned(),
            children: Vec::new(),
            started: None,
            looked: None,
            failed: None,
            silent: None,
            wanted: String::new(),
            stuck: None,
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
        wrong: &mut BTreeMap<IpAddr, String>,
    ) {
        let mut speakers = orders.all.iter().filter_map(|(one, _)| speaker(one));
        let (Some(speaker), Some(local)) = (speakers.next(), orders.local) else {
            if DAEMONS.iter().any(|one| is_known(*one, &self.run)) {
                self.end(lease);
            }
            lease.routes.clear();
            return;
        };
        let due: BTreeMap<Route, Vec<String>> = orders
            .due()
            .filter_map(|one| route(one, orders.next_hop6))
            .collect();
        if orders.next_hop6.is_none() {
            let nowhere = orders.due().filter(|one| is_route_of_v6(one));
            wrong.extend(nowhere.map(|one| (one.local, NO_NEXT_HOP.to_owned())));
        }
        let has_v6 = orders.all.iter().any(|(one, _)| is_route_of_v6(one));
        let ready = self.ensure(now, daemon(speaker), (speaker, has_v6), (local, lease));
        // One that runs by an earlier configuration is told what is due all the same, be it another daemon: above all
        // what is not.
        let brought = match DAEMONS.iter().find(|one| runs(**one, &self.run)) {
            Some(running) => self.bring_about(now, (*running, has_v6), &due, lease),
            None => {
                // One that has ended has withdrawn all.
                lease.routes.clear();
                Err(format!("{} does not run", daemon(speaker).name()))
            }
        };
        if let Err(fault) = &brought {
            let still = lease.routes.keys().filter(|route| !due.contains_key(*route));
            wrong.extend(still.map(|route| (route.first(), format!("{STILL}{fault}"))));
        }
        self.end_if_stuck(now, brought.is_err(), &due, lease);
        let done = ready.and(brought);
        let fault = |route: &Route| match (&done, &self.silent) {
            (Err(fault), _) | (Ok(()), Some(Err(fault))) => Some(fault.clone()),
            (Ok(()), Some(Ok(silent))) => silent.fault(route.family(), speaker.peers.len()),
            (Ok(()), None) => None,
        };
        wrong.extend(
            due.keys()
                .filter_map(|route| Some((route.first(), fault(route)?))),
        );
    }

    /// Ends a daemon that has not taken a withdrawal for long: its routers withdraw all, and it is started anew.
    fn end_if_stuck(
        &mut self,
        now: Instant,
        has_failed: bool,
        due: &BTreeMap<Route, Vec<String>>,
        lease: &mut Lease,
    ) {
        if !has_failed || lease.routes.keys().all(|route| due.contains_key(route)) {
            self.stuck = None;
        } else if now.saturating_duration_since(*self.stuck.get_or_insert(now)) >= STUCK {
            tracing::warn!("a withdrawal from BGP has failed for long: the daemon is ended");
            self.end(lease);
        }
    }

    /// Has the daemon run by its configuration, and no other one.
    fn ensure(
        &mut self,
        now: Instant,
        daemon: &dyn Daemon,
        (speaker, has_v6): (&Speaker, bool),
        (local, lease): (Ipv4Addr, &mut Lease),
    ) -> Result<(), String> {
        self.children
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        let mut config = daemon.config(&Sessions {
            speaker,
            local,
            passwords: password::all(speaker)?,
            has_v6,
        });
        let mut programs = daemon.programs(speaker);
        for name in &programs {
            // One that another version of the agent has started otherwise is started anew.
            let _ = writeln!(config, "# {:?}", daemon.command(&self.run, name));
        }
        let is_same = fs::read_to_string(daemon.config_file(&self.run)).is_ok_and(|text| text == config);
        let is_settled = is_same || self.wanted == config;
        self.wanted.clone_from(&config);
        if !is_settled && DAEMONS.iter().any(|one| runs(*one, &self.run)) {
            // A file with a password may be half written.
            return Ok(());
        }
        let ended = |name: &&str| process::running(&self.run, name).is_none();
        let missing = programs.iter().copied().find(|name| ended(name));
        if let (true, None) = (is_same, missing) {
            return Ok(());
        }
        if let Some((at, why)) = &self.failed
            && now - *at < PAUSE
        {
            return Err(why.clone());
        }
        if let (true, Some(name), Some(started)) = (is_same, missing, self.started)
            && now.saturating_duration_since(started) < PAUSE
        {
            let why = format!("{name} has ended: {}", process::last_words(&self.run, name));
            self.failed = Some((now, why.clone()));
            return Err(why);
        }
        // Before one that works is ended for it.
        if let Err(why) = daemon.is_ready(&self.run, speaker) {
            self.failed = Some((now, why.clone()));
            return Err(why);
        }
        if is_same && programs.last().is_some_and(|speaks| !ended(speaks)) {
            programs.retain(ended);
        } else {
            self.end(lease);
            let laid_out = daemon.lay_out(&self.run, &config);
            laid_out.map_err(|error| self.not_started(now, daemon, &error))?;
        }
        for name in programs {
            let child = process::start(&self.run, name, daemon.command(&self.run, name));
            let child = child.map_err(|error| self.not_started(now, daemon, &error))?;
            tracing::info!(pid = child.id(), "{name} is started");
            self.children.push(child);
            let is_over =
                || daemon.has_started(&self.run, name) || process::running(&self.run, name).is_none();
            if !process::within(process::START, is_over) {
                let why = io::Error::other(format!("{name} takes no connections"));
                return Err(self.not_started(now, daemon, &why));
            }
        }
        self.started = Some(now);
        self.looked = None;
        self.failed = None;
        Ok(())
    }

    /// Why it could not be started, which is said for a while.
    fn not_started(&mut self, now: Instant, daemon: &dyn Daemon, error: &io::Error) -> String {
        let why = format!("{} cannot be started: {error}", daemon.name());
        self.failed = Some((now, why.clone()));
        why
    }

    /// Makes its routes those that are due. What it has is asked for now and then; in between the lease knows it.
    fn bring_about(
        &mut self,
        now: Instant,
        (daemon, has_v6): (&dyn Daemon, bool),
        due: &BTreeMap<Route, Vec<String>>,
        lease: &mut Lease,
    ) -> Result<(), String> {
        let pause = match &self.silent {
            Some(Ok(silent)) if silent.sessions.is_empty() => LOOK,
            _ => LOOK_SOON,
        };
        if self.looked.is_none_or(|looked| now - looked >= pause) {
            let mut has = daemon.routes(&self.run, Family::V4)?;
            if has_v6 || lease.routes.keys().any(|route| route.family() == Family::V6) {
                has.extend(daemon.routes(&self.run, Family::V6)?);
            }
            lease.routes.retain(|route, _| has.contains(route));
            for route in has.iter().filter(|route| !due.contains_key(*route)) {
                daemon.withdraw(&self.run, *route)?;
            }
            for name in daemon.all_programs() {
                process::keep_short(&self.run, name);
            }
            self.looked = Some(now);
            // What it does not understand of sessions is told, and keeps no route from being withdrawn.
            self.silent = Some(daemon.silent(&self.run));
        }
        let gone: Vec<Route> = lease.routes.keys().copied().collect();
        for route in gone.into_iter().filter(|route| !due.contains_key(route)) {
            daemon.withdraw(&self.run, route)?;
            tracing::info!(address = %route, "withdrawn from BGP");
            lease.routes.remove(&route);
            // Many take longer than it lasts. That it cannot be written is told at the end.
            let _ = lease.renew(&self.run);
        }
        for (route, attributes) in due {
            if lease.routes.get(route) != Some(attributes) {
                daemon.announce(&self.run, *route, attributes)?;
                tracing::info!(address = %route, "announced by BGP");
                lease.routes.insert(*route, attributes.clone());
                let _ = lease.renew(&self.run);
            }
        }
        Ok(())
    }

    /// Ends all that an agent of this host has started: nothing is announced any more.
    fn end(&mut self, lease: &mut Lease) {
        stop(&self.run);
        lease.routes.clear();
        for mut child in self.children.drain(..) {
            // Whatever the file says of it.
            let _ = child.kill();
            let _ = child.wait();
        }
        self.silent = None;
        self.stuck = None;
    }
}

/// How the host speaks, where an announcement says so.
const fn speaker(announcement: &Announcement) -> Option<&Speaker> {
    match &announcement.way {
        Way::Bgp { speaker, .. } => Some(speaker),
        Way::Arp | Way::Hook { .. } => None,
    }
}

/// Whether it is a route of IPv6.
pub(super) const fn is_route_of_v6(announcement: &Announcement) -> bool {
    announcement.local.is_ipv6() && speaker(announcement).is_some()
}

/// A route, and what its announcement carries, names and values in turns; of IPv6 its next hop, without which there is
/// none.
fn route(announcement: &Announcement, next_hop6: Option<Ipv6Addr>) -> Option<(Route, Vec<String>)> {
    let Way::Bgp { communities, med, .. } = &announcement.way else {
        return None;
    };
    let communities = Some(communities.join(",")).filter(|text| !text.is_empty());
    let communities = communities.map(|text| ["community".to_owned(), text]);
    let med = med.map(|med| ["med".to_owned(), med.to_string()]);
    let next_hop = match announcement.local {
        IpAddr::V4(_) => None,
        IpAddr::V6(_) => Some([NEXT_HOP.to_owned(), next_hop6?.to_string()]),
    };
    let attributes = next_hop.into_iter().chain(communities).chain(med);
    let attributes = attributes.flatten().collect();
    Some((Route::of(announcement.local, announcement.length), attributes))
}

/// Whether an agent has started some of it, and nobody has ended that in order.
fn is_known(daemon: &dyn Daemon, run: &Path) -> bool {
    let mut programs = daemon.all_programs().iter();
    programs.any(|name| process::is_known(run, name)) || daemon.config_file(run).exists()
}

/// Whether the program of it runs that speaks.
fn runs(daemon: &dyn Daemon, run: &Path) -> bool {
    let speaks = daemon.all_programs().last();
    speaks.is_some_and(|name| process::running(run, name).is_some())
}

/// Ends what an agent has started over these files, if it runs, and removes them. Its routers withdraw what it has
/// announced. Returns the names of what ran.
pub(super) fn stop(run: &Path) -> Vec<&'static str> {
    let mut stopped = Vec::new();
    for daemon in DAEMONS {
        // Who speaks ends first: it takes its leave of the routers.
        let programs = daemon.all_programs().iter().rev();
        if programs.filter(|name| process::stop(run, name)).count() > 0 {
            stopped.push(daemon.name());
        }
        daemon.clear(run);
    }
    stopped
}

/// Withdraws a route from the daemon that runs; one that has ended has withdrawn all.
pub(super) fn withdraw(run: &Path, route: Route) -> Result<(), String> {
    let mut daemons = DAEMONS.iter().filter(|daemon| runs(**daemon, run));
    daemons.try_for_each(|daemon| daemon.withdraw(run, route))
}

/// Whether the shell would find a program of that name.
fn is_in_path(name: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// Writes a file that its owner alone can read.
fn keep_private(path: &Path, text: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    if let Some((user, group)) = owner {
        fchown(&file, Some(user), Some(group))?;
    }
    file.write_all(text.as_bytes())
}

fn read<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("its answer is not understood: {error}"))
}

/// An order to a daemon.
struct Order<'a> {
    /// What takes it, and how that finds the daemon.
    program: &'a [String],
    words: &'a [&'a str],
    daemon: &'a dyn Daemon,
}

/// Gives it. Returns the answer.
fn order(order: &Order<'_>) -> Result<String, String> {
    let shown = [&order.program[..1].concat(), " ", &order.words.join(" ")].concat();
    let failed = |why: &dyn std::fmt::Display| format!("{shown}: {why}");
    let mut command = Command::new("timeout");
    command.arg(LIMIT_S).args(order.program).args(order.words);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(&error))?;
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Some(LATE) => Err(failed(&format_args!("{} does not answer", order.daemon.name()))),
        Some(NOT_FOUND) => Err(order.daemon.absent().to_owned()),
        _ => Err(failed(&said.trim())),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kuafu_model::state::Router;

    pub(super) fn speaker() -> Speaker {
        Speaker {
            daemon: state::Daemon::Gobgp,
            number: 65_001,
            peers: vec![
                Router {
                    address: Ipv4Addr::new(192, 0, 2, 254),
                    number: 65_000,
                    multihop: None,
                    password_file: None,
                },
                Router {
                    address: Ipv4Addr::new(192, 0, 2, 253),
                    number: 4_200_000_000,
                    multihop: Some(2),
                    password_file: Some("/etc/kuafu/bgp-password".to_owned()),
                },
            ],
            port: 1790,
        }
    }

    /// A host that speaks so, and is to announce nothing.
    fn orders(speaker: Speaker) -> Orders {
        let announcement = Announcement {
            local: ADDRESS.into(),
            public: ADDRESS.into(),
            length: 32,
            here: false,
            term: 1,
            way: Way::Bgp {
                speaker,
                communities: Vec::new(),
                med: None,
            },
        };
        Orders {
            local: Some(Ipv4Addr::new(192, 0, 2, 1)),
            all: vec![(announcement, None)],
            ..Orders::default()
        }
    }

    /// Starts something of gobgpd's name in `run`, which takes no orders.
    pub(in crate::announce) fn start_deaf(run: &Path) -> Child {
        let program = run.join("gobgpd");
        fs::copy("/usr/bin/sleep", &program).unwrap();
        let mut command = Command::new(program);
        command.arg("1000");
        let child = process::start(run, "gobgpd", command).unwrap();
        assert!(runs(&Gobgp, run));
        child
    }

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 83);

    /// The other daemon cannot be configured: there is no password.
    #[test]
    fn one_that_cannot_be_replaced_and_takes_no_withdrawal_is_ended() {
        let run = tempfile::tempdir().unwrap();
        let mut deaf = start_deaf(run.path());
        let mut speaker = speaker();
        speaker.daemon = state::Daemon::Frr { bfd: None };
        speaker.peers[1].password_file = Some(run.path().join("none").display().to_string());
        let (orders, began) = (orders(speaker), Instant::now());
        let (mut bgp, mut lease) = (Bgp::new(run.path()), Lease::default());
        lease.routes.insert(Route::of(ADDRESS.into(), 32), Vec::new());
        for after in [Duration::ZERO, STUCK - LOOK_SOON, STUCK] {
            let mut wrong = BTreeMap::new();
            assert!(runs(&Gobgp, run.path()), "{after:?}");
            bgp.step(began + after, &orders, &mut lease, &mut wrong);
            assert!(wrong[&IpAddr::from(ADDRESS)].starts_with(STILL), "{wrong:?}");
        }
        assert!(!runs(&Gobgp, run.path()));
        assert!(lease.routes.is_empty());
        let mut wrong = BTreeMap::new();
        bgp.step(began + STUCK, &orders, &mut lease, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        deaf.wait().unwrap();
    }

    #[test]
    fn without_a_daemon_nothing_is_to_be_withdrawn() {
        let run = tempfile::tempdir().unwrap();
        let mut speaker = speaker();
        speaker.peers[1].password_file = Some(run.path().join("none").display().to_string());
        let (mut bgp, mut lease) = (Bgp::new(run.path()), Lease::default());
        lease.routes.insert(Route::of(ADDRESS.into(), 32), Vec::new());
        let mut wrong = BTreeMap::new();
        bgp.step(Instant::now(), &orders(speaker), &mut lease, &mut wrong);
        assert!(wrong.is_empty() && lease.routes.is_empty(), "{wrong:?}");
    }

    /// Its file alone is left of a start that failed.
    #[test]
    fn a_configuration_that_stayed_behind_is_removed() {
        let run = tempfile::tempdir().unwrap();
        for daemon in DAEMONS {
            keep_private(&daemon.config_file(run.path()), "", None).unwrap();
            assert!(is_known(daemon, run.path()));
            Bgp::new(run.path()).step(
                Instant::now(),
                &Orders::default(),
                &mut Lease::default(),
                &mut BTreeMap::new(),
            );
            assert!(!daemon.config_file(run.path()).exists());
        }
    }

    #[test]
    fn an_announcement_of_ipv6_carries_its_next_hop_and_is_none_without() {
        let mut orders = orders(speaker());
        let (one, _) = &mut orders.all[0];
        let six: IpAddr = "2001:db8:5::".parse().unwrap();
        (one.local, one.public, one.length, one.here) = (six, six, 120, true);
        let hop = "2001:db8::1".parse().unwrap();
        let carried = ["nexthop", "2001:db8::1"].map(str::to_owned).to_vec();
        assert_eq!(route(one, Some(hop)), Some((Route::of(six, 120), carried)));
        assert_eq!(route(one, None), None);
        one.local = ADDRESS.into();
        assert_eq!(
            route(one, None).unwrap().1,
            [""; 0],
            "a session's own address does"
        );
        one.local = six;
        let run = tempfile::tempdir().unwrap();
        orders.all[0].0.way = Way::Bgp {
            speaker: Speaker {
                peers: Vec::new(),
                ..speaker()
            },
            communities: Vec::new(),
            med: None,
        };
        let (mut bgp, mut wrong) = (Bgp::new(run.path()), BTreeMap::new());
        // Whatever becomes of the daemon.
        bgp.failed = Some((Instant::now(), "it is not tried".to_owned()));
        bgp.step(Instant::now(), &orders, &mut Lease::default(), &mut wrong);
        assert_eq!(wrong, [(six, NO_NEXT_HOP.to_owned())].into());
    }

    #[test]
    fn a_session_without_ipv6_is_a_fault_of_its_routes_alone() {
        let router = |last| Ipv4Addr::new(192, 0, 2, last);
        let silent = Silent {
            sessions: [router(254)].into(),
            without_v6: [router(253)].into(),
        };
        let fault = |family| silent.fault(family, 2).unwrap();
        assert_eq!(
            fault(Family::V4),
            "not to all routers: no BGP session with 192.0.2.254"
        );
        assert_eq!(
            fault(Family::V6),
            "no BGP session with 192.0.2.254; no IPv6 in the BGP session with 192.0.2.253: activate it there"
        );
        assert_eq!(Silent::default().fault(Family::V6, 2), None);
    }

    /// Of that speaker.
    pub(super) fn sessions(speaker: &Speaker) -> Sessions<'_> {
        Sessions {
            speaker,
            local: Ipv4Addr::new(192, 0, 2, 1),
            passwords: [(Ipv4Addr::new(192, 0, 2, 253), "se\"c\\ret".to_owned())].into(),
            has_v6: false,
        }
    }

    /// The configuration of sessions without IPv6, and with it.
    pub(super) fn without_and_with_v6(config: impl Fn(&Sessions<'_>) -> String) -> [String; 2] {
        let speaker = speaker();
        [false, true].map(|has_v6| {
            config(&Sessions {
                has_v6,
                ..sessions(&speaker)
            })
        })
    }
}
