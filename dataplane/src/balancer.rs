//! The edge as a balancer on its own: pinned, without an agent, reached by whoever holds the pin.

use std::path::Path;

use kuafu_model::contents::{self, ArpFacts, Balancer, Capacities, Contents, HostFacts};
use kuafu_model::health::Servers;
use kuafu_pipeline::map::{Mac, MacPair, Neighbour};

use crate::bpf::{Bpf, Clock, Pins, Sizes};
use crate::error::Result;
use crate::read;

/// The neighbour behind which all targets are.
pub const GATEWAY: u32 = 1;

/// A pinned edge and its maps.
#[derive(Debug)]
pub struct Instance {
    bpf: Bpf,
    before: Contents,
    clock: Clock,
}

impl Instance {
    /// The instance whose program is pinned at `path`, with maps in the folder `<path>-maps`; a new one where there is
    /// none, whose rings have room for `ring_slots`.
    ///
    /// # Errors
    /// `Object` and `Program` where the kernel refuses; `Foreign` where maps of another shape are pinned; `Io`.
    pub fn open(path: &Path, ring_slots: u32) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let root = path.parent().unwrap_or_else(|| Path::new("/"));
        let pins = Pins::new(root, &format!("{name}-maps"));
        let bpf = Bpf::load_pinned(&pins, &sizes(ring_slots))?;
        pins.replace(&bpf.programs.edge, path)?;
        let before = Contents {
            neighbours: Default::default(),
            ..read::contents(&bpf.maps)?
        };
        Ok(Self {
            bpf,
            before,
            clock: Clock::new()?,
        })
    }

    /// Balances so from now on; flows keep their targets where these stay.
    ///
    /// # Errors
    /// `State` where the maps have no room; then what was in force stays in force. `Io`.
    pub fn configure(&mut self, balancer: &Balancer, gateway: Mac) -> Result<()> {
        let maps = &self.bpf.maps;
        let facts = facts(maps.capacities(), self.clock.hz(), self.clock.jiffies()?);
        let next = contents::balancer(balancer, &facts, Some(&self.before))?;
        let neighbour = Neighbour {
            macs: MacPair::new(gateway, Mac::default()),
            interface: 0,
        };
        maps.neighbours.set(&GATEWAY, &neighbour)?;
        let update = next.update_from(&self.before);
        update.batches().try_for_each(|batch| maps.write(&batch))?;
        self.before = next;
        Ok(())
    }
}

/// What a balancer's contents are made for.
#[must_use]
pub fn facts(capacities: Capacities, hz: u64, now: u64) -> HostFacts {
    HostFacts {
        underlay: 0,
        underlay_mtu: u32::from(u16::MAX),
        incarnation: 0,
        hz,
        interfaces: Default::default(),
        hand_over: 0,
        local6: None,
        capacities,
        now,
        servers: Servers::default(),
        cookie_key: [0; 2],
        arp: ArpFacts::default(),
    }
}

/// Nothing of a backbone or a VPC.
fn sizes(ring_slots: u32) -> Sizes {
    let capacities = Capacities {
        ports: 1,
        endpoints: 1,
        senders: 1,
        vteps: 1,
        neighbours: 2,
        slots: 1,
        paths: 1,
        pairs: 1,
        windows: 1,
        own_windows: 1,
        rings: ring_slots,
        limits: 1,
        shields: 1,
        listed: 1,
        ..Capacities::default()
    };
    Sizes {
        capacities,
        connections: 1,
        verified: 1,
        ..Sizes::of_host()
    }
}
