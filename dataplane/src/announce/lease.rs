//! The lease: what was announced, and until when that stays without an agent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use kuafu_pipeline::map::{IpKey, ServiceKey, policy};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::bgp::{self, Route};
use crate::bpf::{Maps, Pins};
use crate::error::{Error, Result};

/// For so long it stays from its last renewal on.
const LASTING_MS: u64 = 10_000;
/// How often it is renewed, and looked at.
const SECOND: Duration = Duration::from_secs(1);
/// How soon a stop is seen.
const NAP: Duration = Duration::from_millis(50);

/// What this host has announced, by local address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// Until when it stays, in milliseconds since the host's start.
    until_ms: u64,
    /// Addresses that are answered for, with their terms.
    pub(super) arp: BTreeMap<IpAddr, u64>,
    /// Those that a command brought here, with their terms.
    pub(super) hooks: BTreeMap<IpAddr, u64>,
    /// Routes that are announced by BGP, with what the announcements carry.
    pub(super) routes: BTreeMap<Route, Vec<String>>,
    #[serde(skip)]
    renewed: Option<Instant>,
    /// What is on disk but for the time.
    #[serde(skip)]
    written: Option<Box<Lease>>,
}

impl Lease {
    /// The one on disk; an empty one where there is none.
    pub(super) fn read(run: &Path) -> Self {
        let text = fs::read(file(run)).unwrap_or_default();
        let lease: Self = serde_json::from_slice(&text).unwrap_or_default();
        Self {
            written: (!text.is_empty()).then(Box::default),
            ..lease
        }
    }

    /// Whether it named something that stays no more.
    pub(super) fn has_run_out(&self) -> bool {
        let now = since_start_ms();
        let is_in_force = (now..=now + LASTING_MS).contains(&self.until_ms);
        let names_something = !self.arp.is_empty() || !self.routes.is_empty();
        names_something && !is_in_force
    }

    /// Puts it on disk when a second is over, and when it has changed.
    pub(super) fn renew(&mut self, run: &Path) -> io::Result<()> {
        let what = Self {
            until_ms: 0,
            renewed: None,
            written: None,
            ..self.clone()
        };
        if what == Self::default() {
            if self.written.take().is_some() {
                fs::remove_file(file(run))?;
            }
            return Ok(());
        }
        let is_same = self.written.as_deref() == Some(&what);
        if is_same && self.renewed.is_some_and(|renewed| renewed.elapsed() < SECOND) {
            return Ok(());
        }
        self.until_ms = since_start_ms() + LASTING_MS;
        self.write(run)?;
        self.renewed = Some(Instant::now());
        self.written = Some(Box::new(what));
        Ok(())
    }

    fn write(&self, run: &Path) -> io::Result<()> {
        let (path, text) = (file(run), serde_json::to_vec(self)?);
        let beside = path.with_extension("new");
        fs::write(&beside, text)?;
        fs::rename(beside, path)
    }
}

/// Removes it.
pub(super) fn forget(run: &Path) {
    let _ = fs::remove_file(file(run));
}

fn file(run: &Path) -> PathBuf {
    run.join("announced.json")
}

fn since_start_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Withdraws, until `stop` is true, what the lease in `run` names once no agent has renewed it for 10 s. To be run by a
/// process that does not end with the agent.
pub fn supervise(run: &Path, pins: &Pins, stop: &AtomicBool) {
    let mut looked = Instant::now();
    let mut failing: Option<Instant> = None;
    while !stop.load(Relaxed) {
        thread::sleep(NAP);
        if looked.elapsed() < SECOND {
            continue;
        }
        looked = Instant::now();
        let mut lease = Lease::read(run);
        if lease.has_run_out() {
            tracing::warn!(
                routes = lease.routes.len(),
                arp = lease.arp.len(),
                "no agent: addresses are withdrawn"
            );
            let is_stuck = failing.is_some_and(|since| since.elapsed() >= bgp::STUCK);
            failing = match withdraw(&mut lease, run, pins, is_stuck) {
                Ok(()) => None,
                Err(error) => {
                    tracing::error!(%error, "an address is not withdrawn; it is tried again");
                    failing.or_else(|| Some(Instant::now()))
                }
            };
        } else {
            failing = None;
        }
    }
}

/// Withdraws what a lease names, one kind whatever becomes of the other. A daemon of BGP that is stuck is ended: then its
/// routers withdraw.
fn withdraw(lease: &mut Lease, run: &Path, pins: &Pins, is_stuck: bool) -> Result<()> {
    let answered = answer_for_none(lease, pins);
    let mut routes = lease.routes.keys();
    let mut told = routes.try_for_each(|route| bgp::withdraw(run, *route));
    if told.is_err() && is_stuck {
        tracing::warn!("a withdrawal from BGP has failed for long: the daemon is ended");
        bgp::stop(run);
        told = Ok(());
    }
    if told.is_ok() {
        lease.routes.clear();
    }
    lease
        .write(run)
        .map_err(Error::io(format!("write {}", file(run).display())))?;
    answered.and(told.map_err(Error::Announce))
}

fn answer_for_none(lease: &mut Lease, pins: &Pins) -> Result<()> {
    if !lease.arp.is_empty() {
        let maps = Maps::open(pins)?;
        for address in lease.arp.keys() {
            answer_no_more(&maps, *address)?;
        }
        lease.arp.clear();
    }
    Ok(())
}

fn answer_no_more(maps: &Maps, address: IpAddr) -> Result<()> {
    let key = ServiceKey {
        address: IpKey::from(address),
        ..ServiceKey::default()
    };
    if let Some(mut whole) = maps.services.get(&key)? {
        whole.policy &= !policy::ANSWER_ARP;
        maps.services.set(&key, &whole)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const LOCALHOST: Route = Route::of(IpAddr::V4(Ipv4Addr::LOCALHOST), 32);

    #[test]
    fn a_lease_runs_out_and_names_what_is_to_be_withdrawn() {
        let run = tempfile::tempdir().unwrap();
        let mut lease = Lease::read(run.path());
        assert!(!lease.has_run_out(), "it names nothing");
        lease.renew(run.path()).unwrap();
        assert!(!file(run.path()).exists());
        lease
            .routes
            .insert(LOCALHOST, vec!["med".to_owned(), "5".to_owned()]);
        lease
            .routes
            .insert(Route::of(Ipv4Addr::new(203, 0, 113, 0).into(), 24), Vec::new());
        let six = IpAddr::from(Ipv6Addr::LOCALHOST);
        lease.routes.insert(Route::of(six, 128), Vec::new());
        lease.hooks.insert(Ipv4Addr::LOCALHOST.into(), 2);
        lease.hooks.insert(six, 3);
        lease.renew(run.path()).unwrap();
        let mut found = Lease::read(run.path());
        assert_eq!((&found.routes, &found.hooks), (&lease.routes, &lease.hooks));
        assert!(!found.has_run_out());
        for until_ms in [0, since_start_ms(), u64::MAX] {
            found.until_ms = until_ms.saturating_sub(1);
            assert!(
                found.has_run_out(),
                "{until_ms}: over, or of another start of the host"
            );
        }
        found.routes.clear();
        assert!(!found.has_run_out() && found.hooks == lease.hooks);
        found.hooks.clear();
        found.renew(run.path()).unwrap();
        assert!(!file(run.path()).exists(), "nothing is left to say");
    }
    #[test]
    fn a_daemon_that_takes_no_withdrawal_is_ended_at_last() {
        let run = tempfile::tempdir().unwrap();
        let mut deaf = bgp::tests::start_deaf(run.path());
        let mut lease = Lease::default();
        lease.routes.insert(LOCALHOST, Vec::new());
        let pins = Pins::new(run.path(), "left");
        assert!(withdraw(&mut lease, run.path(), &pins, false).is_err());
        assert_eq!(deaf.try_wait().unwrap(), None);
        assert!(!lease.routes.is_empty(), "it is tried again");
        withdraw(&mut lease, run.path(), &pins, true).unwrap();
        deaf.wait().unwrap();
        assert!(Lease::read(run.path()).routes.is_empty());
    }
}
