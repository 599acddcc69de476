//! The host as a balancer alone, without a backbone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use kuafu_dataplane::balancer::{GATEWAY, facts};
use kuafu_dataplane::bpf::Bpf;
use kuafu_model::contents::{BalancedService, Balancer, Contents, balancer};
use kuafu_pipeline::header::ipv4::TCP;
use kuafu_pipeline::map::{Be32, ConnectionIds, IpKey, Neighbour, NextHop, NodeConfig, Wrap};

use super::host::{self, HERE, SERVER};

pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(super) const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub(super) const BY_IPIP: u16 = 7001;
pub(super) const BY_GUE: u16 = 7002;
const HERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
const GUE: u16 = 6080;
const RING: u32 = 65_537;

/// Fills the maps.
pub(super) fn fill(bpf: &Bpf, interface: u32) -> Result<()> {
    let server = IpKey::v4(SERVER.into());
    let by_gue = NextHop::direct(Wrap::Gue1, server, GUE, GATEWAY);
    let by_ipip = NextHop::direct(Wrap::Ipip, server, 0, GATEWAY);
    let by_ip6ip6 = NextHop::direct(Wrap::Ipip, IpKey::from(IpAddr::from(SERVER_V6)), 0, GATEWAY);
    let balanced = Balancer {
        node: NodeConfig {
            local: Be32::new(HERE.into()),
            local6: IpKey::from(IpAddr::from(HERE_V6)),
            mtu: 1500,
            ..NodeConfig::default()
        },
        services: vec![
            service(IpKey::v4(ADDRESS.into()), BY_IPIP, by_ipip),
            service(IpKey::v4(ADDRESS.into()), BY_GUE, by_gue),
            service(IpKey::from(IpAddr::from(ADDRESS_V6)), BY_IPIP, by_ip6ip6),
        ],
        policy: 0,
        connection_ids: ConnectionIds::default(),
        quic_servers: Vec::new(),
    };
    let facts = facts(bpf.maps.capacities(), 250, 0);
    let contents = balancer(&balanced, &facts, None)?;
    for batch in contents.update_from(&Contents::default()).batches() {
        bpf.maps.write(&batch)?;
    }
    let neighbour = Neighbour {
        macs: host::macs(),
        interface,
    };
    Ok(bpf.maps.neighbours.set(&GATEWAY, &neighbour)?)
}

fn service(address: IpKey, port: u16, target: NextHop) -> BalancedService {
    BalancedService {
        address,
        protocol: TCP,
        port,
        policy: 0,
        largest: 1500,
        targets: vec![(target, 1)],
        ring: RING,
    }
}
