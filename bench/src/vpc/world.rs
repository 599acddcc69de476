//! Two hosts on an underlay, a tenant's machine on each.
//!
//! ```text
//! machine a ── port ─ host a ─ underlay ─── underlay ─ host b ─ port ── machine b
//! ```

use std::net::Ipv4Addr;

use anyhow::Result;
use ipnetwork::Ipv4Network;
use kuafu_lab::Namespace;
use kuafu_lab::link::{End, Mac, veth};

/// Names of namespaces begin so.
pub(super) const PREFIX: &str = "kuafu-bench";
/// Of the machines' and the hosts' devices.
pub(super) const PORT: &str = "port";
pub(super) const UNDERLAY: &str = "underlay";
/// In the machines.
const MACHINE_DEVICE: &str = "eth0";
pub(super) const UNDERLAY_MTU: u32 = 1500;
/// Leaves room for VXLAN over IPv4.
pub(super) const PORT_MTU: u32 = UNDERLAY_MTU - 50;
pub(super) const VNI: u32 = 77;

/// One end: a host and the machine behind it.
pub(super) struct Side {
    pub(super) host: Namespace,
    pub(super) machine: Namespace,
    pub(super) host_address: Ipv4Addr,
    pub(super) address: Ipv4Addr,
    pub(super) mac: Mac,
    pub(super) underlay_mac: Mac,
}

/// Both ends, wired; how packets come from one host to the other is the contestant's.
pub(super) struct World {
    pub(super) a: Side,
    pub(super) b: Side,
}

impl World {
    /// Namespaces and links; `name` tells contestants apart.
    pub(super) fn new(name: &str) -> Result<Self> {
        let (a, b) = (Side::new(name, 1)?, Side::new(name, 2)?);
        veth(&underlay(&a)?, &underlay(&b)?, UNDERLAY_MTU)?;
        Ok(Self { a, b })
    }

    /// Both ends, each with its other.
    pub(super) fn sides(&self) -> [(&Side, &Side); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }
}

impl Side {
    fn new(name: &str, number: u8) -> Result<Self> {
        let side = Self {
            host: Namespace::create(PREFIX, &format!("{name}-host-{number}"))?,
            machine: Namespace::create(PREFIX, &format!("{name}-machine-{number}"))?,
            host_address: Ipv4Addr::new(192, 0, 2, number),
            address: Ipv4Addr::new(10, 0, 0, number),
            mac: Mac([0x02, 0, 0, 0, 0, number]),
            underlay_mac: Mac([0x02, 0, 0, 0, 1, number]),
        };
        let mut machine = End::new(&side.machine, MACHINE_DEVICE);
        machine.addresses = vec![Ipv4Network::new(side.address, 24)?];
        machine.mac = Some(side.mac);
        veth(&machine, &End::new(&side.host, PORT), PORT_MTU)?;
        Ok(side)
    }
}

fn underlay(side: &Side) -> Result<End<'_>> {
    let mut end = End::new(&side.host, UNDERLAY);
    end.addresses = vec![Ipv4Network::new(side.host_address, 24)?];
    end.mac = Some(side.underlay_mac);
    Ok(end)
}
