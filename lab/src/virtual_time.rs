//! The world in virtual time: no root, no sockets, no namespaces, and the same from run to run.
//!
//! Sites, delays, losses and events are the world file's, and the wire's own lines ([`crate::wan`]) carry the frames.
//! A player or a server is a [`Guest`], a stack of smoltcp; what is at a point of presence is whoever uses the world
//! to say, as a [`Host`]. Time passes from event to event, so ten minutes take as long as their packets take to
//! compute.

mod guest;
mod nat;

use std::ops::Deref;
use std::time::Duration;

use crate::error::Result;
use crate::stream::Trace;
use crate::wan::{
    Carrier, Change, Counters, SiteId, Wanted, WireLog, arp_reply, longest, set_addresses, wanted,
};
use crate::world::{Latencies, Role, Site, Sites, WorldSpec, plan, unknown};
pub use guest::{Guest, StreamId};

/// What is at a site. Times are since the world's start.
pub trait Host {
    /// A frame has arrived. What it makes the host send goes into `out`.
    fn receive(&mut self, now: Duration, frame: Vec<u8>, out: &mut Vec<Vec<u8>>);
    /// Does what is due by now.
    fn work(&mut self, now: Duration, out: &mut Vec<Vec<u8>>);
    /// When something is due; `None`: not before a frame arrives.
    fn next(&mut self) -> Option<Duration>;
}

enum Place<P> {
    Pop(P),
    Guest(Box<Guest>),
}

/// A world whose points of presence are `P`s.
pub struct World<P> {
    carrier: Carrier,
    longest: usize,
    sites: Sites,
    places: Vec<Place<P>>,
    /// When each place has something to do.
    due: Vec<Option<Duration>>,
    now: Duration,
}

impl<P> std::fmt::Debug for World<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "World {{ sites: {}, now: {:?} }}", self.places.len(), self.now)
    }
}

impl<P: Host> World<P> {
    /// The world of a file; `pop` makes what is at each of its nodes.
    ///
    /// # Errors
    /// A region that `latencies` does not know.
    pub fn build(spec: &WorldSpec, latencies: &Latencies, pop: impl Fn(&Site) -> P) -> Result<Self> {
        let (sites, config) = plan(spec, latencies)?;
        let place = |site: &Site| match site.role() {
            Role::Node => Place::Pop(pop(site)),
            _ => Place::Guest(Box::new(Guest::new(site, spec.mtu))),
        };
        Ok(Self {
            carrier: Carrier::new(&config),
            longest: longest(spec.mtu),
            places: sites.0.iter().map(place).collect(),
            due: vec![None; sites.0.len()],
            sites,
            now: Duration::ZERO,
        })
    }

    /// The time since the start.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The point of presence at a site; `None`: there is none.
    pub fn pop(&mut self, site: SiteId) -> Option<&mut P> {
        match self.places.get_mut(site.index())? {
            Place::Pop(pop) => Some(pop),
            Place::Guest(_) => None,
        }
    }

    /// The player or server with this name.
    ///
    /// # Errors
    /// There is none.
    pub fn guest(&mut self, name: &str) -> Result<&mut Guest> {
        let index = self.site(name)?.id().index();
        match &mut self.places[index] {
            Place::Guest(guest) => Ok(guest),
            Place::Pop(_) => Err(unknown(name)),
        }
    }

    /// What a stream of the player with this name has sent and received.
    ///
    /// # Errors
    /// There is no such player.
    pub fn trace(&mut self, player: &str, stream: StreamId) -> Result<Trace> {
        Ok(self.guest(player)?.trace(stream).clone())
    }

    /// Lets something happen to the wire, now.
    pub fn apply(&mut self, change: Change) {
        self.carrier.apply(change);
    }

    /// Whether a site sends and receives.
    pub fn is_alive(&self, site: SiteId) -> bool {
        self.carrier.is_alive(site.index())
    }

    /// How long what is sent now from one site to another is under way.
    pub fn delay(&mut self, from: SiteId, to: SiteId) -> Duration {
        let now_ns = nanoseconds(self.now);
        Duration::from_nanos(self.carrier.delay_ns(from.index(), to, now_ns))
    }

    /// How many frames came to which end.
    pub fn counters(&self) -> Counters {
        self.carrier.counters
    }

    /// The delays that were applied.
    pub fn log(&self) -> &WireLog {
        self.carrier.log()
    }

    /// Lets time pass until then.
    pub fn run_until(&mut self, end: Duration) {
        for place in 0..self.places.len() {
            // Whoever uses the world may have given it something to do.
            self.look(place);
        }
        loop {
            let wire = self.carrier.next().map(Duration::from_nanos);
            let places = self.due.iter().flatten().copied();
            let next = places.chain(wire).min().unwrap_or(end).max(self.now);
            if next > end {
                break;
            }
            self.now = next;
            self.step();
            if next == end && self.is_idle_at(end) {
                break;
            }
        }
        self.now = end;
    }

    fn is_idle_at(&self, now: Duration) -> bool {
        let wire = self.carrier.next().map(Duration::from_nanos);
        let mut all = self.due.iter().flatten().copied().chain(wire);
        all.all(|due| due > now)
    }

    /// Does all that is due now.
    fn step(&mut self) {
        let (now, now_ns) = (self.now, nanoseconds(self.now));
        self.carrier.let_events_happen(now_ns);
        while let Some((to, mut held)) = self.carrier.due(now_ns) {
            let site = &self.sites.0[to];
            set_addresses(&mut held.frame, site.hardware(), site.gateway_hardware());
            if site.nat() {
                nat::inwards(&mut held.frame, site);
            }
            self.carrier.delivered(&held, now_ns);
            let mut sent = Vec::new();
            self.places[to].host().receive(now, held.frame, &mut sent);
            self.send(to, sent);
        }
        for place in 0..self.places.len() {
            if self.due[place].is_some_and(|due| due <= now) {
                let mut sent = Vec::new();
                self.places[place].host().work(now, &mut sent);
                self.send(place, sent);
            }
        }
    }

    /// Takes frames from a site onto the wire; what it answers by itself goes back at once.
    fn send(&mut self, from: usize, mut frames: Vec<Vec<u8>>) {
        while !frames.is_empty() {
            let mut more = Vec::new();
            for frame in frames {
                if let Some(answer) = self.enter(from, frame) {
                    self.places[from].host().receive(self.now, answer, &mut more);
                }
            }
            frames = more;
        }
        self.look(from);
    }

    fn enter(&mut self, from: usize, mut frame: Vec<u8>) -> Option<Vec<u8>> {
        let (alive, site) = (self.carrier.is_alive(from), &self.sites.0[from]);
        let counters = &mut self.carrier.counters;
        match wanted(&frame) {
            _ if !alive => counters.killed += 1,
            _ if frame.len() > self.longest => counters.too_big += 1,
            Wanted::Nothing => counters.ignored += 1,
            Wanted::Resolve => {
                counters.resolved += 1;
                return Some(arp_reply(&frame, site.gateway_hardware()).to_vec());
            }
            Wanted::Carry(address) => match self.carrier.site_of(address) {
                None => self.carrier.counters.no_route += 1,
                Some(to) => {
                    if site.nat() {
                        nat::outwards(&mut frame, site);
                    }
                    self.carrier.carry(from, to, &frame, nanoseconds(self.now));
                }
            },
        }
        None
    }

    fn look(&mut self, place: usize) {
        self.due[place] = self.places[place].host().next();
    }
}

impl<P> Deref for World<P> {
    type Target = Sites;

    fn deref(&self) -> &Sites {
        &self.sites
    }
}

impl<P: Host> Place<P> {
    fn host(&mut self) -> &mut dyn Host {
        match self {
            Self::Pop(pop) => pop,
            Self::Guest(guest) => guest.as_mut(),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
