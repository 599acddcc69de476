//! The host as a balancer alone, without a backbone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use kuafu_dataplane::balancer::{GATEWAY, facts};
use kuafu_dataplane::bpf::Bpf;
use kuafu_model::contents::{BalancedService, Balancer, Contents, balancer};
use kuafu_pipeline::header::ipv4::TCP;
use kuafu_pipeline::map::{
    AdmittedKey, Be32, IpKey, Mac, Neighbour, NextHop, NodeConfig, Rate, Shield, Tunnel, Wrap, guard,
    listed_key,
};

use super::host::{self, HERE, SERVER};
use super::packet::CLIENT;

pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(super) const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
pub(super) const BY_IPIP: u16 = 7001;
pub(super) const BY_GUE: u16 = 7002;
pub(super) const BY_VXLAN: u16 = 7008;
/// Behind shields: one that asks for cookies, one that wants admitted clients, one that admits all, one with lists, and
/// one whose sources may begin nothing more.
pub(super) const ASKING: u16 = 7003;
pub(super) const CLOSED: u16 = 7004;
pub(super) const ADMITTING: u16 = 7005;
pub(super) const BLOCKING: u16 = 7006;
pub(super) const SLOW: u16 = 7007;
/// Networks of 256 addresses on the list.
pub(super) const LISTED: u32 = 100_000;
const HERE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);
const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
const GUE: u16 = 6080;
const RING: u32 = 65_537;

/// Fills the maps.
pub(super) fn fill(bpf: &Bpf, interface: u32) -> Result<()> {
    let server = IpKey::v4(SERVER.into());
    let by_gue = NextHop::direct(Wrap::Gue1, server, GUE, GATEWAY);
    let by_ipip = NextHop::direct(Wrap::Ipip, server, 0, GATEWAY);
    let tunnel = Tunnel {
        host: SERVER.into(),
        vni: 77,
        mac: Mac::new(0x0200_0000, 7),
    };
    let by_vxlan = NextHop::tunnelled(tunnel, GATEWAY);
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
            service(IpKey::v4(ADDRESS.into()), BY_VXLAN, by_vxlan),
            service(IpKey::from(IpAddr::from(ADDRESS_V6)), BY_IPIP, by_ip6ip6),
            service(IpKey::v4(ADDRESS.into()), ASKING, by_ipip),
            service(IpKey::v4(ADDRESS.into()), CLOSED, by_ipip),
            service(IpKey::v4(ADDRESS.into()), ADMITTING, by_ipip),
            service(IpKey::v4(ADDRESS.into()), BLOCKING, by_ipip),
            service(IpKey::v4(ADDRESS.into()), SLOW, by_ipip),
        ],
        policy: 0,
        quic_servers: Vec::new(),
    };
    let facts = facts(bpf.maps.capacities(), 250, 0);
    let mut contents = balancer(&balanced, &facts, None)?;
    shield(&mut contents);
    for batch in contents.update_from(&Contents::default()).batches() {
        bpf.maps.write(&batch)?;
    }
    let neighbour = Neighbour {
        macs: host::macs(),
        interface,
    };
    bpf.maps.neighbours.set(&GATEWAY, &neighbour)?;
    // Whose addresses begin as the client's does, and who are many.
    let client = u32::from(CLIENT);
    for host in 0..=u16::MAX.into() {
        let key = AdmittedKey {
            vni: ADMITTING.into(),
            client: client | host,
        };
        bpf.maps.admitted.set(&key, &u64::MAX)?;
    }
    Ok(())
}

/// Gives the services behind shields theirs.
fn shield(contents: &mut Contents) {
    const UP: u32 = guard::ENFORCES | guard::ALWAYS;
    let none = Rate {
        cost: 1 << 40,
        depth: 1,
    };
    let shields = [
        (ASKING, UP | guard::COOKIES, Rate::default()),
        (CLOSED, UP | guard::ADMISSION, Rate::default()),
        (ADMITTING, UP | guard::ADMISSION, Rate::default()),
        (BLOCKING, UP, Rate::default()),
        (SLOW, UP, none),
    ];
    for (number, (port, flags, source)) in (1..).zip(shields) {
        let services = contents.services.iter_mut();
        for (_, service) in services.filter(|(key, _)| key.port.get() == port) {
            service.shield = number;
        }
        let shield = Shield {
            vni: port.into(),
            flags,
            blocked: u32::from(port == BLOCKING),
            source,
            ..Shield::default()
        };
        contents.shields.insert(number, shield);
    }
    // The client's own among them.
    let first = (u32::from(CLIENT) >> 8).saturating_sub(LISTED / 2);
    for network in first..first + LISTED {
        contents.listed.insert(listed_key(network << 8, 24), 1);
        *contents.list_marks.entry(network >> 6).or_default() |= 1 << (network & 63);
    }
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
