//! Everything between a host's state and its kernel: devices, programs, maps, neighbours, settings.
//!
//! What is brought into force stays in force when the value is dropped: programs, links and maps are pinned, and the
//! next [`Host`] adopts them.

mod checks;
mod control;
mod incarnation;
mod links;
mod listening;
mod neighbours;
mod net;
mod overlay;
mod sockets;
mod sweep;
mod sysctl;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kuafu_model::HostState;
use kuafu_model::contents::{ArpFacts, Batch, Contents, HostFacts, contents, recovered};
use kuafu_model::health::{self, Servers};
use kuafu_model::state::{PortState, ServiceState};
use kuafu_pipeline::map::policy;
use kuafu_proto::v1;
use ring::rand::SecureRandom;

use crate::bpf::{Bpf, Clock, Maps, Pins, Sizes, XdpMode};
use crate::error::{Error, Result};
use crate::family::Family;
use crate::read;
pub(crate) use checks::stop as stop_checks;
use links::{Links, Wanted};
use neighbours::Neighbours;
pub use net::Device;
pub(crate) use net::Net;
pub(crate) use overlay::remove as remove_overlay;
pub use overlay::{NAME as OVERLAY_DEVICE, PORT as OVERLAY_PORT, with_port};
pub(crate) use sysctl::Sysctls;

/// The largest MTU whose packets XDP can have in one piece: a page less headroom and what the kernel keeps at its end.
const ONE_PIECE: u32 = 3_400;
/// How often, and how many times, new neighbours are looked at before what names them is written.
const LOOK: (Duration, u32) = (Duration::from_millis(10), 20);

/// The protocol's number.
const TCP: u8 = 6;

/// The device of that name, in the network of the calling thread; not to be asked from within a tokio runtime.
///
/// # Errors
/// Netlink fails.
pub fn device(name: &str) -> Result<Option<Device>> {
    Net::new()?.named(name)
}

/// How a host is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The host's name.
    pub node: String,
    /// Where programs, links and maps are pinned.
    pub pins: Pins,
    /// Where the incarnation and the settings that were changed are kept: `/var/lib/kuafu`.
    pub data: PathBuf,
    /// How the edge is attached; `None`: as the device allows.
    pub xdp: Option<XdpMode>,
    /// How many entries the maps get when they are made.
    pub sizes: Sizes,
}

/// A program on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The program's name.
    pub name: String,
    /// The device.
    pub interface: String,
    /// Where on it, in the words of [`LinkKind::hook`](crate::bpf::LinkKind::hook).
    pub hook: &'static str,
    /// The program's number in the kernel.
    pub id: u32,
}

/// A host: what its kernel was told, and the means to tell it more.
///
/// It belongs to the network namespace of the thread that opened it, and is to be used by threads of that namespace
/// alone. Its calls block, and have a runtime of their own: from async code call them by `spawn_blocking`.
#[derive(Debug)]
pub struct Host {
    options: Options,
    bpf: Bpf,
    clock: Clock,
    net: Net,
    sysctls: Sysctls,
    links: Links,
    neighbours: Neighbours,
    facts: HostFacts,
    contents: Contents,
    /// Servers that get no packets, with whom no connection is left.
    cut: sweep::Down,
    state: Option<HostState>,
    /// Addresses that are not answered for, although the state says so.
    let_go: BTreeSet<IpAddr>,
}

/// What a state finds on this host.
struct Ground {
    underlay: Device,
    facts: HostFacts,
}

/// A secret for SYN cookies, another one with each start.
fn cookie_key() -> Result<[u64; 2]> {
    let mut halves = [[0; 8]; 2];
    for half in &mut halves {
        let filled = ring::rand::SystemRandom::new().fill(half);
        let none = |_| io::Error::other("the system gives no random bytes");
        filled
            .map_err(none)
            .map_err(Error::io("draw a secret for SYN cookies"))?;
    }
    Ok(halves.map(u64::from_ne_bytes))
}

impl Host {
    /// Loads the programs over the maps that are pinned, or over new ones. No packet is treated otherwise than before.
    ///
    /// # Errors
    /// What the kernel refuses, with its reason; `Foreign` where a pinned map is of another shape.
    pub fn open(options: Options) -> Result<Self> {
        let pins = &options.pins;
        let are_kept = Maps::open(pins).is_ok() || pins.has_other_layouts()?;
        // Before there are new maps.
        let anew = (!are_kept)
            .then(|| incarnation::next(&options.data, None))
            .transpose()?;
        let bpf = Bpf::load_pinned(pins, &options.sizes)?;
        let of_maps = bpf.maps.node.get(&0)?.unwrap_or_default().incarnation;
        let incarnation = match anew {
            Some(anew) => anew,
            None => incarnation::next(&options.data, Some(of_maps))?,
        };
        let contents = read::contents(&bpf.maps)?;
        let mut neighbours = Neighbours::default();
        neighbours.adopt(&bpf.maps, &contents.neighbours)?;
        let clock = Clock::new()?;
        Ok(Self {
            net: Net::new()?,
            sysctls: Sysctls::recorded(&options.data)?,
            links: Links::new(pins.clone()),
            facts: HostFacts {
                underlay: contents.node.underlay,
                local6: None,
                underlay_mtu: contents.node.mtu.into(),
                incarnation,
                hz: clock.hz(),
                interfaces: BTreeMap::new(),
                hand_over: contents.node.hand_over,
                capacities: bpf.maps.capacities(),
                now: 0,
                servers: Servers::default(),
                cookie_key: cookie_key()?,
                arp: ArpFacts::default(),
            },
            clock,
            neighbours,
            contents,
            cut: sweep::Down::default(),
            state: None,
            let_go: BTreeSet::new(),
            bpf,
            options,
        })
    }

    /// Makes a state true: devices, programs, settings and maps. A port whose device is not there yet waits for it.
    ///
    /// # Errors
    /// Why the host cannot satisfy it; then what was in force stays in force.
    pub fn apply(&mut self, state: &HostState) -> Result<()> {
        let before = match self.state {
            None => Servers {
                down: recovered(state, &self.contents),
                ..Servers::default()
            },
            Some(_) => self.facts.servers.clone(),
        };
        let ground = self.survey(state, before.of(state))?;
        self.refuse_taken_ports(state)?;
        self.establish(state, ground)?;
        self.state = Some(state.clone());
        Ok(())
    }

    /// Shares flows out by what is known of the servers now: leaves out those that are down, and takes those back that
    /// serve again.
    ///
    /// # Errors
    /// What keeps it from doing so; then they are shared out as before.
    pub fn share_out(&mut self, servers: Servers) -> Result<()> {
        let Some(state) = self.state.take() else {
            return Ok(());
        };
        let done = self
            .survey(&state, servers)
            .and_then(|ground| self.establish(&state, ground));
        self.state = Some(state);
        done
    }

    /// For these addresses no ARP requests are answered from the next look at the state on, whatever it says. Returns whether
    /// they are others than before.
    pub fn let_go(&mut self, addresses: BTreeSet<IpAddr>) -> bool {
        let before = std::mem::replace(&mut self.let_go, addresses);
        before != self.let_go
    }

    /// What is known of the servers, as flows are shared out now.
    #[must_use]
    pub fn servers(&self) -> &Servers {
        &self.facts.servers
    }

    /// Looks after what is in force, each second: devices that came or went, neighbours. Returns what is wrong.
    ///
    /// # Errors
    /// What keeps it from looking at all.
    pub fn tick(&mut self) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        if let Some(state) = self.state.take() {
            let looked = self.look_after(&state);
            self.state = Some(state);
            faults.extend(looked.err().map(|error| error.to_string()));
        }
        self.neighbours.refresh(&self.net, &self.bpf.maps)?;
        faults.extend(self.neighbours.faults());
        faults.extend(self.lacks_source_of_v6());
        faults.extend(self.taken_of_v6()?);
        Ok(faults)
    }

    /// Addresses of the underlay's own that listeners take from the host: manifests do not know them.
    fn taken_of_v6(&self) -> Result<Vec<String>> {
        let services = self.state.iter().flat_map(|state| &state.services);
        let taken = services.filter(|service| service.whole_address && !service.at_exit);
        let taken: BTreeMap<Ipv6Addr, &str> = taken
            .filter_map(|service| match service.local {
                IpAddr::V6(local) => Some((local, service.name.as_str())),
                IpAddr::V4(_) => None,
            })
            .collect();
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let own = self.net.global_of(self.facts.underlay)?;
        let fault = |address: &Ipv6Addr| {
            let name = taken.get(address)?;
            Some(format!(
                "{name} takes all that comes to {address}, an address of this host's own: choose another one for its pool"
            ))
        };
        Ok(own.iter().filter_map(fault).collect())
    }

    /// That there are servers of IPv6, and no address to send to them from.
    fn lacks_source_of_v6(&self) -> Option<String> {
        let mut neighbours = self.contents.neighbours.values();
        let server = neighbours.find(|neighbour| neighbour.is_ipv6())?;
        self.facts.local6.is_none().then(|| {
            format!("no address of this host's own leads to {server}: give its link an IPv6 address beside the link's own")
        })
    }

    /// Removes connections that were idle for too long. Returns how many.
    ///
    /// # Errors
    /// `Io`.
    pub fn sweep(&mut self) -> Result<usize> {
        sweep::cut(&self.bpf.maps, &self.cut)?;
        sweep::sweep(&self.bpf.maps, &self.clock, self.state.as_ref())
    }

    /// The servers of services that scale, and their open flows.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn scaled_flows(&self) -> Result<Vec<v1::ServerFlows>> {
        let Some(state) = &self.state else {
            return Ok(Vec::new());
        };
        read::scaled(&self.bpf.maps, &self.clock, &self.contents, state)
    }

    /// The state in force; `None` until one was applied by this value.
    #[must_use]
    pub fn state(&self) -> Option<&HostState> {
        self.state.as_ref()
    }

    /// What the maps hold.
    #[must_use]
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The maps.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        &self.bpf.maps
    }

    /// The programs' clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What the host itself knows.
    #[must_use]
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// How often, modulo 16, the host has lost its maps.
    #[must_use]
    pub fn incarnation(&self) -> u32 {
        self.facts.incarnation
    }

    /// What is attached.
    #[must_use]
    pub fn programs(&self) -> Vec<Attached> {
        self.links.attached()
    }

    /// The address from which packets go to servers of IPv6: the one from which the host itself would send to the first.
    fn source_of_v6(&self, state: &HostState) -> Result<Option<Ipv6Addr>> {
        let servers = health::targets(state).filter_map(|(_, target)| match target.target.server() {
            Some(IpAddr::V6(server)) => Some(server),
            _ => None,
        });
        servers
            .min()
            .map_or(Ok(None), |server| self.net.source_to(server))
    }

    /// An address of this host's own to which routers can send what is announced of IPv6: the one from which it sends to
    /// servers, or else one of the underlay's. None that is announced itself leads here.
    pub(crate) fn next_hop6(&self) -> Option<Ipv6Addr> {
        let announced = |address: &Ipv6Addr| {
            let mut all = self.state.iter().flat_map(|state| &state.announcements);
            all.any(|one| one.covers((*address).into()))
        };
        let of_underlay = || {
            let addresses = self.net.global_of(self.facts.underlay).unwrap_or_default();
            addresses.into_iter().find(|address| !announced(address))
        };
        let source = self.facts.local6.filter(|address| !announced(address));
        source.or_else(of_underlay)
    }

    /// What a state finds here: the underlay, and the devices of its ports that are there.
    fn survey(&self, state: &HostState, servers: Servers) -> Result<Ground> {
        let local = state.node.local;
        let underlay = self.net.with_address(local)?.ok_or(Error::NoUnderlay(local))?;
        let numbered = |name: &String| {
            let number = nix::net::if_::if_nametoindex(name.as_str()).ok()?;
            Some((name.clone(), number))
        };
        let names = state.ports.iter().map(|port| &port.interface);
        let mut interfaces: BTreeMap<String, u32> = names.filter_map(numbered).collect();
        // Before it is made, any number does to see whether the state can be satisfied.
        let overlay = nix::net::if_::if_nametoindex(overlay::PORT).unwrap_or(u32::MAX);
        interfaces.insert(overlay::NAME.to_owned(), overlay);
        let facts = HostFacts {
            underlay: underlay.index,
            local6: self.source_of_v6(state)?,
            underlay_mtu: underlay.mtu,
            arp: ArpFacts {
                mac: underlay.mac,
                let_go: self.let_go.clone(),
            },
            interfaces,
            hand_over: nix::net::if_::if_nametoindex(overlay::NAME).unwrap_or_default(),
            servers: Servers {
                ended: health::ended(state, since_1970_s()),
                ..servers
            },
            ..self.facts.clone()
        };
        Ok(Ground { underlay, facts })
    }

    /// Refuses ports for the exit that a program of this host listens on, when they are new.
    fn refuse_taken_ports(&self, state: &HostState) -> Result<()> {
        let Some(range) = &state.node.nat_ports else {
            return Ok(());
        };
        let node = &self.contents.node;
        if (node.first_port, node.last_port) == (*range.start(), *range.end()) {
            return Ok(());
        }
        match listening::in_range(range, state.node.local)? {
            None => Ok(()),
            Some(port) => Err(Error::PortInUse {
                first: *range.start(),
                last: *range.end(),
                port,
            }),
        }
    }

    /// Refuses a state that would take away a connection to the controller's port.
    ///
    /// # Errors
    /// [`Error::Cut`]; else why it cannot be known.
    pub(crate) fn refuse_cut(&self, state: &HostState, controller_port: u16) -> Result<()> {
        for control in control::connections(controller_port)? {
            let device = self
                .net
                .step_to(control.remote.into())?
                .map(|step| step.interface);
            let cut = |what: String, over: String| Err(Error::Cut { what, over });
            let numbered = |name: &str| nix::net::if_::if_nametoindex(name).ok();
            let taken = |port: &&PortState| device.is_some() && numbered(&port.interface) == device;
            if let Some(port) = state.ports.iter().find(taken) {
                let what = format!("port/{} takes {}", port.name, port.interface);
                return cut(what, port.interface.clone());
            }
            let (local, over) = (control.local, format!("TCP port {}", control.local.port()));
            let nat = state.node.nat_ports.as_ref();
            if let Some(range) = nat.filter(|range| range.contains(&local.port()))
                && state.node.local == *local.ip()
            {
                let what = format!("nat_ports {}-{}", range.start(), range.end());
                return cut(format!("{what} covers port {}", local.port()), over);
            }
            let ours = |service: &&ServiceState| {
                let is_one = service.ports.numbers().contains(&local.port());
                (service.local, service.protocol) == (IpAddr::V4(*local.ip()), TCP) && is_one
            };
            if let Some(service) = state.services.iter().find(ours) {
                let kind = if service.own { "service" } else { "accelerator" };
                return cut(format!("a listener of {kind}/{}", service.name), over);
            }
        }
        Ok(())
    }

    /// Brings about what a state asks of this host, in an order in which a refusal leaves what was.
    fn establish(&mut self, state: &HostState, mut ground: Ground) -> Result<()> {
        let whole = with_port(state);
        ground.facts.now = self.clock.jiffies()?;
        let mut next = contents(&whole, &ground.facts, Some(&self.contents))?;
        let has_v6 = checks::are_wanted(state, Family::V6);
        let (own, port) = overlay::ensure(&self.net, state.node.overlay, has_v6)?;
        let facts = &mut ground.facts;
        let before = std::mem::replace(&mut facts.hand_over, own);
        let port_before = facts.interfaces.insert(overlay::NAME.to_owned(), port);
        if (before, port_before) != (own, Some(port)) {
            drop(next);
            next = contents(&whole, &ground.facts, Some(&self.contents))?;
        }
        let wanted = wanted(&self.bpf, &ground);
        self.links.attach(&self.net, &wanted, self.options.xdp)?;
        self.sysctls.forward(&ground.underlay.name)?;
        let range = state.node.nat_ports.as_ref();
        self.sysctls
            .reserve(range.map(|range| (*range.start(), *range.end())))?;
        self.lead_checks(state, &ground.facts)?;
        let written = write_all(
            &self.bpf.maps,
            &mut self.neighbours,
            &self.net,
            &self.contents,
            &next,
        );
        written?;
        self.contents = next;
        self.facts = ground.facts;
        self.links.keep_only(&wanted)?;
        self.cut = sweep::Down::of(state, &self.facts.servers);
        // What this misses the next sweep finds.
        sweep::cut(&self.bpf.maps, &self.cut)?;
        checks::keep_only(&self.net, state)
    }

    /// Follows devices that came, went or changed.
    fn look_after(&mut self, state: &HostState) -> Result<()> {
        self.answer_again()?;
        let ground = self.survey(state, self.facts.servers.clone())?;
        if ground.facts == self.facts && !self.links.is_one_gone() {
            // Whoever manages the network may have removed what it did not know.
            return self.lead_checks(state, &self.facts);
        }
        self.establish(state, ground)
    }

    /// Answers for addresses again that were withdrawn while this agent stood still.
    fn answer_again(&self) -> Result<()> {
        let services = self.contents.services.iter();
        for (key, whole) in services.filter(|(key, whole)| key.protocol == 0 && whole.has(policy::ANSWER_ARP))
        {
            let found = self.bpf.maps.services.get(key)?;
            if found.is_some_and(|found| !found.has(policy::ANSWER_ARP)) {
                self.bpf.maps.services.set(key, whole)?;
            }
        }
        Ok(())
    }

    /// Leads health checks to the programs, where the state has any that take that way.
    fn lead_checks(&self, state: &HostState, facts: &HostFacts) -> Result<()> {
        checks::lead(&self.net, state, facts.hand_over, facts.underlay_mtu)
    }
}

/// By the host's clock; where that is before 1970, 0.
fn since_1970_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// Where programs belong: the edge and VXLAN on the underlay, the ports' program on each port that is there.
fn wanted<'b>(bpf: &'b Bpf, ground: &Ground) -> Vec<Wanted<'b>> {
    let (programs, underlay) = (&bpf.programs, &ground.underlay);
    let edge = if underlay.mtu > ONE_PIECE {
        &programs.edge_frags
    } else {
        &programs.edge
    };
    let on_underlay = [("edge", edge), ("underlay", &programs.underlay)].map(|(role, program)| Wanted {
        program,
        role,
        interface: underlay.index,
        name: underlay.name.clone(),
    });
    let on_port = |(name, interface): (&String, &u32)| Wanted {
        program: &programs.port,
        role: "port",
        interface: *interface,
        name: if name == overlay::NAME {
            overlay::PORT.to_owned()
        } else {
            name.clone()
        },
    };
    let ports = ground.facts.interfaces.iter().map(on_port);
    on_underlay.into_iter().chain(ports).collect()
}

/// Writes what leads from one contents to the next; where that fails, what leads back.
fn write_all(
    maps: &Maps,
    neighbours: &mut Neighbours,
    net: &Net,
    before: &Contents,
    next: &Contents,
) -> Result<()> {
    let update = next.update_from(before);
    let written = update
        .batches()
        .try_for_each(|batch| write_one(maps, neighbours, net, &batch));
    if written.is_err() {
        for batch in before.update_from(next).batches() {
            // As far as it goes: the error that is told is the first.
            let _ = write_one(maps, neighbours, net, &batch);
        }
    }
    written
}

fn write_one(maps: &Maps, neighbours: &mut Neighbours, net: &Net, batch: &Batch<'_>) -> Result<()> {
    match batch {
        Batch::Neighbours(hosts) => {
            neighbours.keep(maps, hosts)?;
            look_for(hosts, maps, neighbours, net)
        }
        Batch::ForgetNeighbours(numbers) => neighbours.forget(maps, numbers),
        batch => maps.write(batch),
    }
}

/// Gives new neighbours a moment to answer, so that the packets of what is written next find them. One that is silent
/// keeps nothing back.
fn look_for(hosts: &[(u32, IpAddr)], maps: &Maps, neighbours: &mut Neighbours, net: &Net) -> Result<()> {
    let (pause, times) = LOOK;
    for _ in 0..times {
        neighbours.look_for(net, maps, hosts)?;
        if neighbours.are_known(hosts) {
            break;
        }
        std::thread::sleep(pause);
    }
    Ok(())
}
