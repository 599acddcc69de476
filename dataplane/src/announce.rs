//! Addresses that this host announces: by ARP, by a command, or by BGP.
//!
//! ```text
//! state, servers, controller -> Announcing (with the host's thread) -> Orders -> Announcer (its own thread)
//!           what not to answer for <-'      <----- Shared: standings, contested <------'   `-> lease, on disk
//! ```
//!
//! The maps answer ARP requests by themselves; what else an announcement takes is done here, one after the other, by a
//! thread that the host's thread never waits for. What was done is in the lease, so that an agent that starts does none of
//! it again. While no agent renews it, the prober's process withdraws what it names ([`supervise`]).

mod bgp;
mod claims;
mod hook;
mod lease;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kuafu_model::HostState;
use kuafu_model::health::serves;
use kuafu_model::state::{Announcement, Way};
use kuafu_proto::v1;

use self::bgp::{Bgp, Route};
use self::claims::Claims;
use self::hook::Hooks;
use self::lease::Lease;
use crate::error::{Error, Result};
use crate::host::Host;

pub use self::lease::supervise;

/// How often the thread looks at what goes on.
const STEP: Duration = Duration::from_millis(200);
/// A controller to which this host has been connected for so long has said what it had to say.
const HEARD: Duration = Duration::from_millis(500);

/// What is to be announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Orders {
    /// The host's name.
    node: String,
    /// Its address on the underlay.
    local: Option<Ipv4Addr>,
    /// To which address of this host's own routers send what they know of IPv6.
    next_hop6: Option<Ipv6Addr>,
    /// The underlay's interface and Ethernet address.
    underlay: (u32, [u8; 6]),
    /// Whether the controller can be heard.
    connected: bool,
    /// What the state says, each with what keeps it from being announced.
    all: Vec<(Announcement, Option<String>)>,
}

impl Orders {
    /// What is to be announced, and nothing speaks against it.
    fn due(&self) -> impl Iterator<Item = &Announcement> {
        let due = self
            .all
            .iter()
            .filter(|(one, withheld)| one.here && withheld.is_none());
        due.map(|(one, _)| one)
    }
}

/// What the thread tells.
#[derive(Debug, Default)]
struct Shared {
    /// How each announcement stands, by its local address; what is not here is announced.
    wrong: BTreeMap<IpAddr, String>,
    /// Addresses that another host has claimed while the controller could not be heard.
    contested: BTreeSet<IpAddr>,
}

type Told = Arc<Mutex<Shared>>;

fn look(told: &Told) -> MutexGuard<'_, Shared> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part that is with the host's thread.
pub(crate) struct Announcing {
    orders: Sender<Orders>,
    told: Told,
    /// What was ordered last.
    ordered: Orders,
    /// The addresses that this host holds, with their terms.
    holds: BTreeMap<IpAddr, u64>,
    /// Since when the controller is connected.
    connected: Option<Instant>,
    /// Without a controller there is nothing to hear.
    has_controller: bool,
}

impl Announcing {
    /// Starts the thread, which keeps its files in `run`. It ends with this value.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn start(run: &Path, has_controller: bool) -> Result<Self> {
        let (orders, ordered) = channel();
        let told = Told::default();
        let lease = Lease::read(run);
        let holds = lease.arp.iter().chain(&lease.hooks);
        // Of one that has run out others may hold everything.
        let holds = holds.filter(|_| !lease.has_run_out());
        let holds = holds.map(|(address, term)| (*address, *term)).collect();
        let announcer = Announcer::new(run.to_owned(), lease, Arc::clone(&told));
        thread::Builder::new()
            .name("announce".to_owned())
            .spawn(move || announcer.run(&ordered))
            .map_err(Error::io("start the thread that announces"))?;
        Ok(Self {
            orders,
            told,
            ordered: Orders::default(),
            holds,
            connected: None,
            has_controller,
        })
    }

    /// The controller is connected, or not any more.
    pub(crate) fn connected(&mut self, is_so: bool) {
        self.connected = is_so.then(Instant::now);
    }

    /// For which addresses of a state this host does not answer ARP requests, whatever that says.
    pub(crate) fn let_go(&self, state: &HostState) -> BTreeSet<IpAddr> {
        let answered = state.announcements.iter().filter(|one| one.is_answered());
        let let_go = answered.filter(|one| self.may_be_anothers(one).is_some());
        let_go.map(|one| one.local).collect()
    }

    /// Why another host may hold an address that this one is to hold: it did not hold it yet, and the controller, whose
    /// word that is, cannot be heard; or another one has claimed it meanwhile.
    fn may_be_anothers(&self, one: &Announcement) -> Option<&'static str> {
        let is_heard = self.connected.is_some_and(|since| since.elapsed() >= HEARD);
        let held = self.holds.get(&one.local) == Some(&one.term);
        if is_heard || !self.has_controller {
            None
        } else if look(&self.told).contested.contains(&one.local) {
            Some(CONTESTED)
        } else {
            (!held).then_some(UNHEARD)
        }
    }

    /// Orders what a host's state and servers make of its announcements, where that has changed.
    pub(crate) fn order(&mut self, host: &Host) {
        let Some(state) = host.state() else {
            return;
        };
        let withheld = |one: &Announcement| match one.way {
            _ if !one.here => None,
            Way::Arp | Way::Hook { .. } => self.may_be_anothers(one).map(str::to_owned),
            Way::Bgp { .. } => (!serves(state, host.servers(), one.local)).then(|| UNSERVED.to_owned()),
        };
        let has_v6 = state.announcements.iter().any(bgp::is_route_of_v6);
        let all = state.announcements.iter();
        let orders = Orders {
            node: state.node.name.clone(),
            local: Some(state.node.local),
            next_hop6: has_v6.then(|| host.next_hop6()).flatten(),
            underlay: (host.facts().underlay, host.facts().arp.mac),
            connected: self.connected.is_some(),
            all: all.map(|one| (one.clone(), withheld(one))).collect(),
        };
        let held = orders.due().filter(|one| one.has_holder());
        self.holds = held.map(|one| (one.local, one.term)).collect();
        if orders != self.ordered {
            self.ordered = orders.clone();
            // Without the thread nothing is announced any more, and the lease runs out.
            let _ = self.orders.send(orders);
        }
    }

    /// How each announcement stands.
    pub(crate) fn statuses(&self) -> Vec<v1::AnnouncementStatus> {
        let told = look(&self.told);
        let status = |(one, withheld): &(Announcement, Option<String>)| {
            let wrong = told.wrong.get(&one.local);
            let (standing, reason) = match (one.here, withheld, wrong) {
                (.., Some(why)) if why.starts_with(bgp::STILL) => ("announced", why.clone()),
                (false, ..) => ("standby", String::new()),
                (true, Some(why), _) => ("withheld", why.clone()),
                (true, None, Some(why)) if why == hook::RUNS => ("withheld", why.clone()),
                (true, None, Some(why)) if why.starts_with(bgp::PARTLY) => ("announced", why.clone()),
                (true, None, Some(why)) => ("failed", why.clone()),
                (true, None, None) => ("announced", String::new()),
            };
            v1::AnnouncementStatus {
                address: Route::of(one.public, one.length).to_string(),
                reach: word(&one.way).to_owned(),
                standing: standing.to_owned(),
                reason,
            }
        };
        self.ordered.all.iter().map(status).collect()
    }
}

const CONTESTED: &str = "another host claims it, and the controller cannot be heard";
const UNHEARD: &str = "the controller cannot be heard yet: another host may hold it";
const UNSERVED: &str = "no server behind it serves";

const fn word(way: &Way) -> &'static str {
    match way {
        Way::Arp => "arp",
        Way::Hook { .. } => "hook",
        Way::Bgp { .. } => "bgp",
    }
}

/// Ends the BGP daemon that an agent has started over the files in `run`, if it runs, and forgets what was announced.
/// Returns its name, if it ran.
pub(crate) fn stop(run: &Path) -> Vec<&'static str> {
    lease::forget(run);
    bgp::stop(run)
}

/// The thread.
struct Announcer {
    run: PathBuf,
    told: Told,
    orders: Orders,
    lease: Lease,
    claims: Claims,
    hooks: Hooks,
    bgp: Bgp,
}

impl Announcer {
    fn new(run: PathBuf, lease: Lease, told: Told) -> Self {
        Self {
            bgp: Bgp::new(&run),
            run,
            told,
            orders: Orders::default(),
            lease,
            claims: Claims::default(),
            hooks: Hooks::default(),
        }
    }

    /// Until nobody can order anything any more. What was announced stays.
    fn run(mut self, ordered: &Receiver<Orders>) {
        let mut has_orders = false;
        loop {
            match ordered.recv_timeout(STEP) {
                Ok(orders) => {
                    self.orders = ordered.try_iter().last().unwrap_or(orders);
                    has_orders = true;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // Before, it is not known what is to stay.
            if has_orders {
                self.step(Instant::now());
            }
        }
    }

    fn step(&mut self, now: Instant) {
        if self.lease.has_run_out() {
            // The agent stood still: what it named is withdrawn from BGP, or is being so. Who held an address by ARP has no news for its
            // neighbours, and somebody else may hold it now.
            self.bgp.look_again();
        }
        let mut wrong = BTreeMap::new();
        let contested = self.claims.step(now, &self.orders, &mut self.lease, &mut wrong);
        self.hooks.step(now, &self.orders, &mut self.lease, &mut wrong);
        self.bgp.step(now, &self.orders, &mut self.lease, &mut wrong);
        let kept = self.lease.renew(&self.run);
        if let Err(error) = kept {
            let fault = format!("the lease cannot be written: {error}");
            for one in self.orders.due() {
                wrong.entry(one.local).or_insert_with(|| fault.clone());
            }
        }
        let mut told = look(&self.told);
        let is_news = |(address, fault): &(&IpAddr, &String)| {
            *fault != hook::RUNS && told.wrong.get(*address) != Some(*fault)
        };
        for (address, fault) in wrong.iter().filter(is_news) {
            tracing::warn!(%address, fault, "an address is not announced as it should be");
        }
        told.wrong = wrong;
        if self.orders.connected {
            told.contested.clear();
        }
        told.contested.extend(contested);
    }
}
