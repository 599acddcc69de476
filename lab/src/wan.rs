//! The wide-area network: a wire in userspace between sites, with a delay line per direction.
//!
//! It lives on a thread of its own inside a namespace that holds one veth end per site, sees every frame
//! through `AF_PACKET`, and hands it out at the site that has the outermost IPv4 destination when its time
//! has come. It is a *wire*: it changes nothing but the Ethernet addresses of the last hop, keeps the order
//! of each direction, and refuses what no network card would send (frames above the MTU, open checksums).
//! It answers ARP for every address. What it did is in its [`Report`].

mod carrier;
mod delay;
mod frame;
mod line;
mod log;
mod seed;
mod wire;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::{Error, Result};
use crate::link::Mac;
use crate::netns::Namespace;
pub(crate) use carrier::Carrier;
pub use delay::DelayLaw;
pub(crate) use frame::{Wanted, arp_reply, set_addresses, wanted};
pub use line::LineConfig;
pub use log::{Slice, WireLog};
pub use seed::Seed;
pub(crate) use wire::longest;
use wire::{Request, Wire};

/// How long the wire may take to answer; it sleeps at most until the next frame, so this is a fault.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A site of the wire: an index into what [`Wan::start`] was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(u16);

impl SiteId {
    /// The site at `index`.
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Its index.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// Where a site is plugged in.
#[derive(Debug, Clone)]
pub struct Socket {
    /// The veth end in the wire's namespace.
    pub device: String,
    /// That end's hardware address: what ARP answers and what frames come from.
    pub mac: Mac,
    /// The hardware address of the site's end: where frames go.
    pub peer: Mac,
    /// The addresses whose packets go to this site.
    pub addresses: Vec<Ipv4Addr>,
}

/// Something that happens to the wire, by hand or by schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// From this instant the site neither sends nor receives: what it sends is dropped, and what arrives at
    /// it, also if it was under way. What it had sent before arrives.
    Kill(SiteId),
    /// It does again.
    Heal(SiteId),
    /// The share of frames lost in one direction, 0 to 1.
    Loss {
        /// Where the frames come from.
        from: SiteId,
        /// Where they go.
        to: SiteId,
        /// The share.
        share: f64,
    },
    /// The share of Geneve's data packets lost in one direction, 0 to 1: those without the O bit (RFC 8926). A router
    /// that passes probes on and loses what it should carry.
    DataLoss {
        /// Where the frames come from.
        from: SiteId,
        /// Where they go.
        to: SiteId,
        /// The share.
        share: f64,
    },
    /// A delay on top of one direction's law. When it falls, frames wait for those before them.
    ExtraDelay {
        /// Where the frames come from.
        from: SiteId,
        /// Where they go.
        to: SiteId,
        /// The addition.
        extra: Duration,
    },
    /// A limit for one direction, in bits per second, or none.
    Rate {
        /// Where the frames come from.
        from: SiteId,
        /// Where they go.
        to: SiteId,
        /// The limit.
        bps: Option<u64>,
    },
}

/// What a wire is made of.
#[derive(Debug)]
pub struct WanConfig {
    /// The longest IP packet, in bytes.
    pub mtu: u32,
    /// The seed of the losses.
    pub seed: Seed,
    /// The sites; a [`SiteId`] is an index of this list.
    pub sockets: Vec<Socket>,
    /// The lines from each site to each, row by row: `lines[from * sites + to]`.
    pub lines: Vec<LineConfig>,
    /// What happens by itself, at times since the start.
    pub events: Vec<(Duration, Change)>,
}

/// How many frames came to which end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entered with an IPv4 destination that some site has.
    pub entered: u64,
    /// Handed out.
    pub delivered: u64,
    /// Lost by the line's shares of loss.
    pub lost: u64,
    /// Dropped because their sender or receiver was killed.
    pub killed: u64,
    /// Dropped because the line's rate would have made them wait too long.
    pub rate_limited: u64,
    /// Refused: longer than the MTU.
    pub too_big: u64,
    /// Refused: the checksum was left to hardware.
    pub open_checksum: u64,
    /// No site has the destination.
    pub no_route: u64,
    /// ARP requests answered.
    pub resolved: u64,
    /// Neither IPv4 nor a question.
    pub ignored: u64,
    /// Too many frames were under way.
    pub overflow: u64,
    /// The kernel dropped them because the wire read too slowly.
    pub overrun: u64,
    /// The receiving device did not take them: it is down, gone, or its queue is full.
    pub refused: u64,
}

/// How late frames were handed out.
#[derive(Debug, Clone)]
pub struct Lateness(Histogram<u64>);

impl Lateness {
    /// The time that the share `quantile` of the frames did not exceed; zero if there were none.
    pub fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(quantile))
    }

    /// The worst.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The frames measured.
    pub fn frames(&self) -> u64 {
        self.0.len()
    }
}

impl std::fmt::Display for Lateness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (p50, p99) = (self.quantile(0.5).as_micros(), self.quantile(0.99).as_micros());
        write!(
            f,
            "late p50 {p50} µs, p99 {p99} µs, max {} µs",
            self.max().as_micros()
        )
    }
}

/// What the wire did since it started.
#[derive(Debug, Clone)]
pub struct Report {
    /// The time since the start.
    pub elapsed: Duration,
    /// The frames, by their end.
    pub counters: Counters,
    /// How late they were: the emulator's own error, to be shown beside every result.
    pub lateness: Lateness,
    /// The delays that were applied.
    pub log: WireLog,
}

/// A running wire. Dropping it stops it.
#[derive(Debug)]
pub struct Wan {
    started: Instant,
    sites: usize,
    requests: Sender<Request>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Wan {
    /// Starts the wire in `namespace`, where the devices of `config` exist.
    ///
    /// # Errors
    /// A number of lines that is not the square of the number of sites, an event at a site that is not
    /// there, a device that is missing, no permission.
    pub fn start(namespace: &Namespace, config: WanConfig) -> Result<Self> {
        let sites = config.sockets.len();
        if config.lines.len() != sites * sites {
            return Err(Error::Lines {
                sites,
                lines: config.lines.len(),
            });
        }
        config
            .events
            .iter()
            .try_for_each(|(_, change)| check(change, sites))?;
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC);
        let bell = Arc::new(bell.map_err(Error::errno("make an eventfd"))?);
        let (requests, inbox) = channel();
        let (ready, opened) = channel();
        let (started, entrance, rung) = (Instant::now(), namespace.entrance()?, Arc::clone(&bell));
        let run = move || match entrance.enter().and_then(|()| Wire::open(config, started)) {
            Ok(wire) => {
                let _ = ready.send(Ok(()));
                wire.run(&inbox, &rung);
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = thread::Builder::new().name("wan".into()).spawn(run);
        let thread = thread.map_err(Error::io("start the wire's thread"))?;
        let wan = Self {
            started,
            sites,
            requests,
            bell,
            thread: Some(thread),
        };
        opened.recv().map_err(|_| Error::WireStopped)??;
        Ok(wan)
    }

    /// When it started: the zero of every time in reports and logs.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Lets `change` happen now, and returns when it did, since the start.
    ///
    /// # Errors
    /// A site that is not there; the wire has stopped.
    pub fn apply(&self, change: Change) -> Result<Duration> {
        check(&change, self.sites)?;
        self.ask(|answer| Request::Change(change, answer))
    }

    /// [`Change::Kill`], now.
    pub fn kill(&self, site: SiteId) -> Result<Duration> {
        self.apply(Change::Kill(site))
    }

    /// [`Change::Heal`], now.
    pub fn heal(&self, site: SiteId) -> Result<Duration> {
        self.apply(Change::Heal(site))
    }

    /// [`Change::Loss`], now.
    pub fn set_loss(&self, from: SiteId, to: SiteId, share: f64) -> Result<Duration> {
        self.apply(Change::Loss { from, to, share })
    }

    /// [`Change::DataLoss`], now.
    pub fn set_data_loss(&self, from: SiteId, to: SiteId, share: f64) -> Result<Duration> {
        self.apply(Change::DataLoss { from, to, share })
    }

    /// [`Change::ExtraDelay`], now.
    pub fn set_extra_delay(&self, from: SiteId, to: SiteId, extra: Duration) -> Result<Duration> {
        self.apply(Change::ExtraDelay { from, to, extra })
    }

    /// [`Change::Rate`], now.
    pub fn set_rate(&self, from: SiteId, to: SiteId, bps: Option<u64>) -> Result<Duration> {
        self.apply(Change::Rate { from, to, bps })
    }

    /// Plugs a site in again whose device went away and was made anew, under the same name.
    ///
    /// # Errors
    /// The device is missing, or the wire has stopped.
    pub fn attach(&self, site: SiteId) -> Result<()> {
        check(&Change::Heal(site), self.sites)?;
        self.ask(|answer| Request::Attach(site, answer))?
    }

    /// The time since it started.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How many frames came to which end so far; cheaper than the whole [`Wan::report`].
    ///
    /// # Errors
    /// The wire has stopped.
    pub fn counters(&self) -> Result<Counters> {
        self.ask(Request::Counters)
    }

    /// What it did so far. The log is copied, which takes the wire about 0.1 ms a minute and busy site.
    ///
    /// # Errors
    /// The wire has stopped.
    pub fn report(&self) -> Result<Report> {
        self.ask(Request::Report)
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T> {
        let (answer, answered) = channel();
        self.requests
            .send(request(answer))
            .map_err(|_| Error::WireStopped)?;
        self.ring();
        answered
            .recv_timeout(ANSWER_LIMIT)
            .map_err(|_| Error::WireStopped)
    }

    fn ring(&self) {
        // It can fail only when the bell has rung 2⁶⁴ times unheard.
        let _ = self.bell.write(1);
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Stop);
        self.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether all sites of `change` are among the `sites`.
fn check(change: &Change, sites: usize) -> Result<()> {
    let named = match *change {
        Change::Kill(site) | Change::Heal(site) => [site, site],
        Change::Loss { from, to, .. }
        | Change::DataLoss { from, to, .. }
        | Change::ExtraDelay { from, to, .. }
        | Change::Rate { from, to, .. } => [from, to],
    };
    match named.into_iter().find(|site| site.index() >= sites) {
        Some(site) => Err(Error::NoSite {
            index: site.index(),
            sites,
        }),
        None => Ok(()),
    }
}
