//! A world from a file: hosts in namespaces, measured latencies between them.
//!
//! ```no_run
//! use kuafu_lab::world::{DEMO, Latencies, World, WorldSpec};
//!
//! let world = World::up(&WorldSpec::parse(DEMO)?)?;
//! let osaka = world.site("osaka")?;
//! println!("{} is {}", osaka.name(), osaka.address().public);
//! world.wan().kill(world.site("montreal")?.id())?;
//! # Ok::<(), kuafu_lab::Error>(())
//! ```

mod latency;
mod site;
mod spec;

use std::ops::Deref;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::error::{Error, Result};
use crate::interrupt::Interruptible;
use crate::netns::Namespace;
use crate::sweep::{sweep, sweep_ended};
use crate::wan::{DelayLaw, LineConfig, Seed, SiteId, Wan, WanConfig};
pub use latency::Latencies;
pub use site::{Address, Site};
pub use spec::{Coordinates, EventSpec, LineSpec, Role, SiteSpec, WorldSpec};

/// The world of the demonstration: ten points of presence, players and servers.
pub const DEMO: &str = include_str!("../worlds/demo.yaml");
/// Two sites, one behind a NAT; its file shows every field.
pub const PAIR: &str = include_str!("../worlds/pair.yaml");

/// What the prefix of [`World::up`] starts with; the process id follows.
const OWN_PREFIX: &str = "kl";

/// A running world. Dropping it stops the wire and removes every namespace.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: the wire stops before its devices go, and the name is free last.
    wan: Wan,
    sites: Sites,
    wire: Namespace,
    prefix: String,
    mtu: u32,
    _on_interrupt: Interruptible,
    _claim: UnixDatagram,
}

impl World {
    /// Builds the world on AWS's latencies under a prefix of this process's own, and sweeps what killed
    /// processes left that built theirs so. One world at a time in a process; [`World::build`] takes any
    /// prefix and latencies.
    ///
    /// # Errors
    /// As [`World::build`].
    pub fn up(spec: &WorldSpec) -> Result<Self> {
        sweep_ended(OWN_PREFIX)?;
        let prefix = format!("{OWN_PREFIX}{}", std::process::id());
        Self::build(&prefix, spec, &Latencies::aws()?)
    }

    /// Builds the world; its namespaces are called `<prefix>-<site>`, and the wire's `<prefix>-wan`. What a
    /// killed run left under the prefix is swept first.
    ///
    /// # Errors
    /// A living run has the prefix; a region that `latencies` does not know; the kernel or a program
    /// refused something. What was built until then is gone again.
    pub fn build(prefix: &str, spec: &WorldSpec, latencies: &Latencies) -> Result<Self> {
        let claim = claim(prefix)?;
        let (mut sites, config) = plan(spec, latencies)?;
        sweep(prefix)?;
        let on_interrupt = Interruptible::new(prefix);
        let wire = Namespace::create(prefix, "wan")?;
        for site in &mut sites.0 {
            site.build(prefix, &wire, spec.mtu)?;
        }
        let wan = Wan::start(&wire, config)?;
        Ok(Self {
            wan,
            sites,
            wire,
            prefix: prefix.to_owned(),
            mtu: spec.mtu,
            _on_interrupt: on_interrupt,
            _claim: claim,
        })
    }

    /// The wire.
    pub fn wan(&self) -> &Wan {
        &self.wan
    }

    /// Where the host with this name lives.
    ///
    /// # Errors
    /// There is none, or it was destroyed.
    pub fn netns(&self, name: &str) -> Result<&Namespace> {
        self.site(name)?.namespace()
    }

    /// What its namespaces' names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Destroys a host as a power cut does: its namespace, all that runs there, and its cable. What was under
    /// way to it is lost; what it had sent arrives.
    ///
    /// # Errors
    /// There is no such site, or its cable cannot be removed.
    pub fn destroy(&mut self, name: &str) -> Result<()> {
        let site = self
            .sites
            .0
            .iter_mut()
            .find(|site| site.name() == name)
            .ok_or_else(|| unknown(name))?;
        site.destroy(&self.wire)
    }

    /// Brings a destroyed host back, bare: its namespace, addresses and cable, and nothing that runs.
    ///
    /// # Errors
    /// There is no such site, it exists, or it cannot be built.
    pub fn restore(&mut self, name: &str) -> Result<()> {
        let site = self
            .sites
            .0
            .iter_mut()
            .find(|site| site.name() == name)
            .ok_or_else(|| unknown(name))?;
        site.build(&self.prefix, &self.wire, self.mtu)?;
        self.wan.attach(site.id())
    }
}

/// The sites of a world, built or in virtual time.
#[derive(Debug)]
pub struct Sites(pub(crate) Vec<Site>);

impl Sites {
    /// Every site, in the file's order.
    pub fn sites(&self) -> &[Site] {
        &self.0
    }

    /// The sites with a role, in the file's order.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Site> {
        self.0.iter().filter(move |site| site.role() == role)
    }

    /// The site with this name.
    ///
    /// # Errors
    /// There is none.
    pub fn site(&self, name: &str) -> Result<&Site> {
        self.0
            .iter()
            .find(|site| site.name() == name)
            .ok_or_else(|| unknown(name))
    }

    /// The numbers on the wire of the sites with these names, in order: a path of its log.
    ///
    /// # Errors
    /// A name that no site has.
    pub fn path(&self, names: &[&str]) -> Result<Vec<SiteId>> {
        names.iter().map(|name| Ok(self.site(name)?.id())).collect()
    }
}

impl Deref for World {
    type Target = Sites;

    fn deref(&self) -> &Sites {
        &self.sites
    }
}

/// Takes the prefix for this process. The name is the kernel's (an abstract socket), so it is free again
/// however the process ends.
fn claim(prefix: &str) -> Result<UnixDatagram> {
    let address = SocketAddr::from_abstract_name(format!("kuafu-lab-{prefix}"));
    let claim = address.and_then(|address| UnixDatagram::bind_addr(&address));
    claim.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::InUse {
            prefix: prefix.to_owned(),
        },
        _ => Error::io(format!("claim the prefix {prefix}"))(error),
    })
}

/// The sites of a world and what is between them; nothing is built yet.
pub(crate) fn plan(spec: &WorldSpec, latencies: &Latencies) -> Result<(Sites, WanConfig)> {
    let numbered = (0..=u8::MAX).zip(&spec.sites);
    let sites: Vec<_> = numbered.map(|(index, site)| Site::plan(index, site)).collect();
    let config = WanConfig {
        mtu: spec.mtu,
        seed: Seed::new(spec.seed),
        sockets: sites.iter().map(Site::socket).collect(),
        lines: lines(spec, latencies)?,
        events: spec.changes()?,
    };
    Ok((Sites(sites), config))
}

/// The line of each direction, row by row.
fn lines(spec: &WorldSpec, latencies: &Latencies) -> Result<Vec<LineConfig>> {
    let weather = Seed::new(spec.seed).named("weather");
    let mut lines = Vec::with_capacity(spec.sites.len() * spec.sites.len());
    for from in &spec.sites {
        for to in &spec.sites {
            let apart = from.region != to.region;
            // Looked up in any case: a region that nobody knows is an error also when it is alone.
            let law = latencies.law(&from.region, &to.region, weather)?;
            let access = spec::duration("access_ms", (from.access_ms + to.access_ms) / 2.0, 1e-3)?;
            let law = if apart { law } else { DelayLaw::none() };
            lines.push(LineConfig {
                law,
                access,
                loss: 0.0,
                rate_bps: None,
            });
        }
    }
    Ok(lines)
}

pub(crate) fn unknown(name: &str) -> Error {
    Error::World(format!("no site is called {name:?}"))
}
