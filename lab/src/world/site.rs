//! A host of the world: its addresses, its namespace, and the NAT before it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;

use ipnetwork::Ipv4Network;

use super::spec::{Coordinates, Role, SiteSpec};
use crate::error::{Error, Result};
use crate::link::{End, Mac, Offloads, veth};
use crate::netns::Namespace;
use crate::process::Process;
use crate::sweep::end_processes_in;
use crate::wan::{SiteId, Socket};

/// An address as others see it and as the host itself does. They differ behind a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// What others send to.
    pub public: Ipv4Addr,
    /// What the host sees.
    pub local: Ipv4Addr,
}

/// Which device a hardware address belongs to; part of the address.
#[derive(Debug, Clone, Copy)]
enum Device {
    Host = 1,
    Wire = 2,
    RouterOut = 3,
    RouterIn = 4,
}

/// A host of the world.
///
/// Its underlay device is `eth0` with one address and a default route to the first of the subnet; spare
/// addresses are routed to it but not configured. Site number `n` (from 1) has the public subnet
/// 198.18.`n`.0/24 of the benchmark range (RFC 2544): the wire at .1, the host at .2, spare ones from .10.
/// Behind a NAT the host has 192.168.`n`.0/24 with the same last bytes, and a router between it and the
/// wire translates each address in both directions.
#[derive(Debug)]
pub struct Site {
    id: SiteId,
    name: String,
    role: Role,
    region: String,
    coordinates: Option<Coordinates>,
    number: u8,
    address: Address,
    spare: Vec<Address>,
    nat: bool,
    hosts: Option<Hosts>,
}

/// The namespaces of a site that exists. The host goes before its router.
#[derive(Debug)]
struct Hosts {
    host: Namespace,
    _router: Option<Namespace>,
}

impl Site {
    /// The underlay device of every host.
    pub const DEVICE: &'static str = "eth0";

    /// The site with index `index` of a world, not yet built.
    pub(super) fn plan(index: u8, spec: &SiteSpec) -> Self {
        let number = index + 1;
        let address = |last: u8| {
            let public = Ipv4Addr::new(198, 18, number, last);
            let local = if spec.nat {
                Ipv4Addr::new(192, 168, number, last)
            } else {
                public
            };
            Address { public, local }
        };
        Self {
            id: SiteId::new(index.into()),
            name: spec.name.clone(),
            role: spec.role,
            region: spec.region.clone(),
            coordinates: spec.coordinates,
            number,
            address: address(2),
            spare: (10..10 + spec.spare).map(address).collect(),
            nat: spec.nat,
            hosts: None,
        }
    }

    /// Its number on the wire.
    pub fn id(&self) -> SiteId {
        self.id
    }

    /// Its name in the world file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its place in the latency matrix.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Where it is on a map.
    pub fn coordinates(&self) -> Option<Coordinates> {
        self.coordinates
    }

    /// The host's own address.
    pub fn address(&self) -> Address {
        self.address
    }

    /// More addresses, routed to the host and not configured there.
    pub fn spare(&self) -> &[Address] {
        &self.spare
    }

    /// Whether a 1:1 NAT stands before it.
    pub fn nat(&self) -> bool {
        self.nat
    }

    /// The host's gateway: the wire, or the NAT's router.
    pub fn gateway(&self) -> Ipv4Addr {
        in_subnet_of(self.address.local, 1)
    }

    /// Where the host lives.
    ///
    /// # Errors
    /// It was destroyed.
    pub fn namespace(&self) -> Result<&Namespace> {
        let gone = || Error::Destroyed {
            site: self.name.clone(),
        };
        self.hosts.as_ref().map(|hosts| &hosts.host).ok_or_else(gone)
    }

    /// Starts a program on the host.
    ///
    /// # Errors
    /// It was destroyed, or the program cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.namespace()?.spawn(command)
    }

    /// Where the wire reaches it.
    pub(super) fn socket(&self) -> Socket {
        let far_end = if self.nat { Device::RouterOut } else { Device::Host };
        let spare = self.spare.iter().map(|address| address.public);
        Socket {
            device: self.wire_device(),
            mac: self.mac(Device::Wire),
            peer: self.mac(far_end),
            addresses: spare.chain([self.address.public]).collect(),
        }
    }

    /// Makes the namespaces and the links between them and the wire's.
    pub(super) fn build(&mut self, prefix: &str, wire: &Namespace, mtu: u32) -> Result<()> {
        let host = Namespace::create(prefix, &self.name)?;
        let device = self.wire_device();
        let tap = End {
            mac: Some(self.mac(Device::Wire)),
            offloads: Offloads::WireTap,
            ..End::new(wire, &device)
        };
        let end = self.wire_end(&host, Self::DEVICE, Device::Host, self.address.local)?;
        let router = if self.nat {
            let router = Namespace::create(prefix, &format!("{}-nat", self.name))?;
            let out = self.wire_end(&router, "wan0", Device::RouterOut, self.address.public)?;
            veth(&tap, &out, mtu)?;
            veth(&self.inner_end(&router)?, &end, mtu)?;
            self.translate(&router)?;
            Some(router)
        } else {
            veth(&tap, &end, mtu)?;
            None
        };
        self.hosts = Some(Hosts {
            host,
            _router: router,
        });
        Ok(())
    }

    /// Takes the host away at once, with all that runs there and the cable to the wire.
    pub(super) fn destroy(&mut self, wire: &Namespace) -> Result<()> {
        let Some(hosts) = self.hosts.take() else {
            return Ok(());
        };
        wire.ip([format!("link del {}", self.wire_device())])?;
        end_processes_in(&[hosts.host.name().to_owned()]);
        Ok(())
    }

    fn wire_device(&self) -> String {
        format!("site{}", self.number)
    }

    /// The hardware address of its underlay device.
    pub fn hardware(&self) -> Mac {
        self.mac(Device::Host)
    }

    /// The hardware address of its gateway.
    pub fn gateway_hardware(&self) -> Mac {
        self.mac(if self.nat { Device::RouterIn } else { Device::Wire })
    }

    /// Its own address and the spare ones.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.spare.iter().chain([&self.address])
    }

    fn mac(&self, device: Device) -> Mac {
        Mac([0x02, 0x4b, 0x46, device as u8, 0, self.number])
    }

    /// The end of a cable that leads towards the wire.
    fn wire_end<'a>(
        &self,
        namespace: &'a Namespace,
        device: &'a str,
        kind: Device,
        address: Ipv4Addr,
    ) -> Result<End<'a>> {
        Ok(End {
            mac: Some(self.mac(kind)),
            addresses: vec![subnet(address)?],
            gateway: Some(in_subnet_of(address, 1)),
            offloads: Offloads::Wire,
            ..End::new(namespace, device)
        })
    }

    /// The router's end towards the host.
    fn inner_end<'a>(&self, router: &'a Namespace) -> Result<End<'a>> {
        Ok(End {
            mac: Some(self.mac(Device::RouterIn)),
            addresses: vec![subnet(self.gateway())?],
            offloads: Offloads::WireTap,
            ..End::new(router, "lan0")
        })
    }

    /// Makes `router` translate every address of the site, both ways (NAT 1:1, RFC 2663 §4.1.1).
    fn translate(&self, router: &Namespace) -> Result<()> {
        router.sysctl("net/ipv4/ip_forward", "1")?;
        let via = self.address.local;
        router.ip(self
            .spare
            .iter()
            .map(|spare| format!("route add {} via {via} dev lan0", spare.local)))?;
        router.nft(&self.ruleset())
    }

    fn ruleset(&self) -> String {
        let (mut inward, mut outward) = (String::new(), String::new());
        for Address { public, local } in self.addresses() {
            // Writing to a string cannot fail.
            let _ = write!(inward, "{public} : {local}, ");
            let _ = write!(outward, "{local} : {public}, ");
        }
        format!(
            "table ip nat {{
                chain in {{
                    type nat hook prerouting priority dstnat;
                    iifname wan0 dnat to ip daddr map {{ {inward} }}
                }}
                chain out {{
                    type nat hook postrouting priority srcnat;
                    oifname wan0 snat to ip saddr map {{ {outward} }}
                }}
            }}"
        )
    }
}

fn subnet(address: Ipv4Addr) -> Result<Ipv4Network> {
    Ipv4Network::new(address, 24).map_err(|error| Error::World(error.to_string()))
}

fn in_subnet_of(address: Ipv4Addr, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, last)
}
