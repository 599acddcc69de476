//! Services on their own: what the edge needs to balance, without the rest of a host's state.

use kuafu_pipeline::map::{Be16, IpKey, NextHop, NodeConfig, QuicServerKey, Service, ServiceKey, policy};

use super::error::fits;
use super::service::{Listener, Share, all_ports, numbers, place};
use super::{Contents, Error, HostFacts, ring};

/// What a host balances.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    /// The host itself.
    pub node: NodeConfig,
    /// What is listened on.
    pub services: Vec<BalancedService>,
    /// Bits of [`policy`] that each service's whole address gets. What no listener takes there is the host's own.
    pub policy: u32,
    /// The server of each id in connection ids.
    pub quic_servers: Vec<(u64, NextHop)>,
}

/// A listener and its targets.
#[derive(Clone, Debug)]
pub struct BalancedService {
    /// Its address.
    pub address: IpKey,
    /// TCP or UDP.
    pub protocol: u8,
    /// Its port; 0: all ports that no other one listens on.
    pub port: u16,
    /// Bits of [`policy`].
    pub policy: u32,
    /// Octets in the largest IP packet that is sent on.
    pub largest: u32,
    /// Where it leads, with weights.
    pub targets: Vec<(NextHop, u32)>,
    /// Slots of its ring: a prime.
    pub ring: u32,
}

impl Balancer {
    /// A service's targets; of QUIC also those that its connection ids may name, which get no other flow.
    fn targets(&self, service: &BalancedService) -> Vec<(NextHop, Share)> {
        let targets = service.targets.iter();
        let mut targets: Vec<_> = targets
            .map(|(hop, weight)| (*hop, Share::of(u64::from(*weight))))
            .collect();
        if service.policy & policy::QUIC != 0 {
            targets.extend(self.quic_servers.iter().map(|(_, hop)| (*hop, Share::Keeps)));
        }
        targets
    }
}

impl BalancedService {
    /// Its name in the table of services.
    #[must_use]
    pub const fn key(&self) -> ServiceKey {
        ServiceKey {
            address: self.address,
            vni: 0,
            port: Be16::new(self.port),
            protocol: self.protocol,
            spare: 0,
        }
    }
}

/// The maps' contents for a balancer. A service that was there before keeps its number, and so its flows.
///
/// # Errors
/// [`Error`] names the service that finds no room, or that is there twice.
pub fn balancer(
    balancer: &Balancer,
    host: &HostFacts,
    previous: Option<&Contents>,
) -> Result<Contents, Error> {
    let empty = Contents::default();
    let previous = previous.unwrap_or(&empty);
    let mut contents = Contents {
        node: balancer.node,
        ..Contents::default()
    };
    let vnis = vnis(&balancer.services, previous);
    let listener = |(service, vni): (&BalancedService, &u32)| Listener {
        keys: vec![service.key()],
        value: Service {
            vni: *vni,
            policy: service.policy,
            largest: service.largest,
            ..Service::default()
        },
        targets: balancer.targets(service),
        size: Some(service.ring),
    };
    let listeners = balancer.services.iter().zip(&vnis).map(listener).collect();
    place(&mut contents, listeners, previous, host)?;
    let numbers = numbers(&contents);
    let of_quic = balancer.services.iter().zip(&vnis);
    for (_, vni) in of_quic.filter(|(service, _)| service.policy & policy::QUIC != 0) {
        let servers = balancer.quic_servers.iter();
        contents.quic_targets.extend(servers.filter_map(|(id, hop)| {
            Some((QuicServerKey::new(*vni, *id), *numbers.get(&ring::identity(hop))?))
        }));
    }
    for service in &balancer.services {
        whole_address(&mut contents, service, balancer.policy);
    }
    fits(
        "quic_targets",
        contents.quic_targets.len(),
        host.capacities.quic_targets,
    )?;
    fits("services", contents.services.len(), host.capacities.services)?;
    Ok(contents)
}

/// A number for each service: the one that it had, else one that no other has or had.
fn vnis(services: &[BalancedService], previous: &Contents) -> Vec<u32> {
    let most = previous.services.values().map(|service| service.vni).max();
    let mut next = most.unwrap_or(0) + 1;
    let number = |service: &BalancedService| match previous.services.get(&service.key()) {
        Some(before) => before.vni,
        None => {
            next += 1;
            next - 1
        }
    };
    services.iter().map(number).collect()
}

/// The entry of a service's whole address.
fn whole_address(contents: &mut Contents, service: &BalancedService, common: u32) {
    let key = ServiceKey {
        address: service.address,
        ..ServiceKey::default()
    };
    let whole = contents.services.entry(key).or_default();
    whole.policy |= common | policy::OPEN;
    if service.port == 0 {
        whole.policy |= all_ports(service.protocol);
    }
}
