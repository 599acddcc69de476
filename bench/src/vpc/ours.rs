//! Ours: the programs and maps of an agent on both hosts, written as the agent writes them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kuafu_dataplane::bpf::{Bpf, Link, Pins, Sizes, XdpMode};
use kuafu_model::contents::{ArpFacts, Batch, Contents, HostFacts, contents};
use kuafu_model::health::Servers;
use kuafu_model::state::{Host, HostState, PortState, RemoteEndpoint, VtepState};
use kuafu_pipeline::map::{Mac, MacPair, Neighbour};

use super::world::{PORT, Side, UNDERLAY, UNDERLAY_MTU, VNI, World};

const BPFFS: &str = "/sys/fs/bpf";
const BACKBONE_PORT: u16 = 6081;

/// Programs on the devices of one host. They stay as long as the value.
pub(super) struct Connected {
    pins: Pins,
    bpf: Bpf,
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Err(error) = self.pins.remove_all() {
            eprintln!("kuafu-bench: {error}");
        }
    }
}

/// Loads the programs on both hosts, lets them know each other, and attaches what an agent attaches: the edge by
/// generic XDP and the decapsulation on the underlay, the port's program on the port.
pub(super) fn connect(world: &World) -> Result<[Connected; 2]> {
    let [(a, b), _] = world.sides();
    Ok([host(a, b)?, host(b, a)?])
}

fn host(side: &Side, other: &Side) -> Result<Connected> {
    let root = Path::new(BPFFS).join(format!("kuafu-bench-{}", std::process::id()));
    let pins = Pins::new(&root, side.host.name());
    let bpf = Bpf::load_pinned(&pins, &Sizes::default())?;
    let connected = Connected { pins, bpf };
    let (underlay, port) = (side.host.index_of(UNDERLAY)?, side.host.index_of(PORT)?);
    let facts = HostFacts {
        hand_over: 0,
        local6: None,
        underlay,
        underlay_mtu: UNDERLAY_MTU,
        incarnation: 1,
        hz: 250,
        interfaces: BTreeMap::from([(PORT.to_owned(), port)]),
        capacities: connected.bpf.maps.capacities(),
        now: 0,
        servers: Servers::default(),
        cookie_key: [0; 2],
        arp: ArpFacts::default(),
    };
    let contents = contents(&state(side, other), &facts, None)?;
    let neighbour = Neighbour {
        macs: MacPair::new(mac(other.underlay_mac), mac(side.underlay_mac)),
        interface: underlay,
    };
    for batch in contents.update_from(&Contents::default()).batches() {
        write(&connected.bpf, &batch, &neighbour)?;
    }
    side.host.run(|| attach(&connected, underlay, port))??;
    Ok(connected)
}

fn attach(connected: &Connected, underlay: u32, port: u32) -> Result<()> {
    let (programs, folder) = (&connected.bpf.programs, connected.pins.links());
    let pin = |name: &str| -> PathBuf { folder.join(name) };
    let of_underlay = (underlay, UNDERLAY);
    Link::attach(&programs.edge, of_underlay, XdpMode::Generic, &pin("edge"))?;
    Link::attach(
        &programs.underlay,
        of_underlay,
        XdpMode::Generic,
        &pin("underlay"),
    )?;
    Link::attach(&programs.port, (port, PORT), XdpMode::Generic, &pin("port"))?;
    Ok(())
}

/// Writes a batch. Every neighbour is the other host.
fn write(bpf: &Bpf, batch: &Batch<'_>, neighbour: &Neighbour) -> Result<()> {
    let maps = &bpf.maps;
    if let Batch::Neighbours(hosts) = batch {
        hosts
            .iter()
            .try_for_each(|(number, _)| maps.neighbours.set(number, neighbour))?;
    }
    Ok(maps.write(batch)?)
}

fn state(side: &Side, other: &Side) -> HostState {
    HostState {
        ports: vec![PortState {
            name: "machine".to_owned(),
            vni: VNI,
            address: side.address,
            mac: side.mac.0,
            interface: PORT.to_owned(),
            mtu: None,
            serves: Vec::new(),
        }],
        endpoints: vec![RemoteEndpoint {
            vni: VNI,
            address: other.address,
            mac: other.mac.0,
            host: other.host_address,
        }],
        vteps: vec![VtepState {
            vni: VNI,
            address: other.host_address,
        }],
        ..HostState::blank(
            "bench".to_owned(),
            1,
            Host {
                id: 1,
                name: side.host.name().to_owned(),
                local: side.host_address,
                public: side.host_address,
                overlay: Ipv4Addr::new(100, 64, 0, 1),
                udp_port: BACKBONE_PORT,
                nat_ports: None,
            },
        )
    }
}

const fn mac(mac: kuafu_lab::link::Mac) -> Mac {
    Mac::from_octets(mac.0)
}

/// Packets that the programs of both hosts dropped.
pub(super) fn drops(connected: &[Connected; 2]) -> Result<u64> {
    let mut packets = 0;
    for host in connected {
        for reason in kuafu_pipeline::Reason::ALL {
            let of_cpus = host.bpf.maps.drops.get(*reason as u32).context("a counter")?;
            packets += of_cpus.iter().map(|drop| drop.packets).sum::<u64>();
        }
    }
    Ok(packets)
}
