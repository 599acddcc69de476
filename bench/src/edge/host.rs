//! The host that is measured: relay, entry and exit at once.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::Result;
use ipnetwork::Ipv4Network;
use kuafu_dataplane::bpf::Bpf;
use kuafu_lab::Namespace;
use kuafu_lab::link::{End, veth};
use kuafu_model::contents::{ArpFacts, Contents, HostFacts, contents};
use kuafu_model::health::Servers;
use kuafu_model::kinds::PortRange;
use kuafu_model::state::{
    Host, HostState, LegKey, LegState, PairState, PathState, ServiceState, SlotAction, SlotState, Target,
    TargetState,
};
use kuafu_pipeline::header::ipv4::UDP;
use kuafu_pipeline::map::{Mac, MacPair, Neighbour};

pub(super) const BACKBONE_PORT: u16 = 6081;
pub(super) const EPOCH: u8 = 1;
/// Every octet of the legs' keys.
pub(super) const ARRIVING: u8 = 1;
const LEAVING: u8 = 2;
/// The host, who sends to it, and to whom it sends on.
pub(super) const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const BEFORE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(super) const NEXT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// Where a path passes, where one ends, and the next node's.
pub(super) const RELAYED: u32 = 5;
pub(super) const ENDING: u32 = 6;
pub(super) const NEXT_LABEL: u32 = 9;
/// Accelerators: one enters here, one leaves here.
pub(super) const ENTERING: u32 = 100;
pub(super) const LEAVING_HERE: u32 = 101;
pub(super) const ACCELERATED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(super) const LISTENER: u16 = 7000;

const DEVICE: &str = "underlay";

pub(super) fn macs() -> MacPair {
    MacPair::new(
        Mac::from_octets([2, 0, 0, 0, 0, 1]),
        Mac::from_octets([2, 0, 0, 0, 0, 2]),
    )
}

/// A namespace whose underlay leads to the server; that interface's number.
pub(super) fn namespace() -> Result<(Namespace, u32)> {
    let namespace = Namespace::create("kuafu-bench", "edge")?;
    let mut near = End::new(&namespace, DEVICE);
    near.addresses = vec![Ipv4Network::new(HERE, 24)?];
    veth(&near, &End::new(&namespace, "far"), 1500)?;
    namespace.ip([format!(
        "neigh replace {SERVER} lladdr 02:00:00:00:00:80 nud permanent dev {DEVICE}"
    )])?;
    namespace.sysctl(&format!("net/ipv4/conf/{DEVICE}/forwarding"), "1")?;
    let interface = namespace.index_of(DEVICE)?;
    Ok((namespace, interface))
}

/// Fills the maps.
pub(super) fn fill(bpf: &Bpf, interface: u32) -> Result<()> {
    let facts = HostFacts {
        underlay: interface,
        underlay_mtu: 1500,
        incarnation: 0,
        hand_over: 0,
        local6: None,
        hz: 250,
        interfaces: BTreeMap::new(),
        capacities: bpf.maps.capacities(),
        now: 0,
        servers: Servers::default(),
        cookie_key: [0; 2],
        arp: ArpFacts::default(),
    };
    let contents = contents(&state(), &facts, None)?;
    for batch in contents.update_from(&Contents::default()).batches() {
        bpf.maps.write(&batch)?;
    }
    for number in contents.neighbours.keys() {
        let neighbour = Neighbour {
            macs: macs(),
            interface,
        };
        bpf.maps.neighbours.set(number, &neighbour)?;
    }
    Ok(())
}

pub(super) fn state() -> HostState {
    HostState {
        slots: vec![
            slot(RELAYED, SlotAction::Relay(leg())),
            slot(
                ENDING,
                SlotAction::Exit {
                    twin: 1,
                    window: 1,
                    answers: 1,
                },
            ),
        ],
        paths: vec![PathState {
            index: 1,
            id: 1,
            nodes: Vec::new(),
            near: false,
            leg: leg(),
        }],
        pairs: vec![PairState {
            index: 1,
            peer: "next".to_owned(),
            class: "game".to_owned(),
            premium: false,
            duplicate: false,
            primary: Some(1),
            backup: None,
        }],
        services: vec![
            service((ENTERING, LISTENER), false, Target::Pair(1)),
            service(
                (LEAVING_HERE, LISTENER),
                true,
                Target::Server {
                    address: SERVER,
                    port: None,
                },
            ),
        ],
        ..HostState::blank(
            "bench".to_owned(),
            1,
            Host {
                id: 1,
                name: "host".to_owned(),
                local: HERE,
                public: HERE,
                overlay: Ipv4Addr::new(100, 64, 0, 1),
                udp_port: BACKBONE_PORT,
                nat_ports: Some(10_000..=29_999),
            },
        )
    }
}

fn slot(label: u32, action: SlotAction) -> SlotState {
    SlotState {
        label,
        source: BEFORE,
        keys: vec![key(ARRIVING)],
        action,
    }
}

fn leg() -> LegState {
    LegState {
        keys: vec![key(LEAVING)],
        label: NEXT_LABEL,
        address: NEXT,
        port: BACKBONE_PORT,
        source_port: 50_002,
    }
}

fn key(octet: u8) -> LegKey {
    LegKey {
        epoch: EPOCH,
        key: [octet; 16],
    }
}

pub(super) fn service((vni, port): (u32, u16), at_exit: bool, target: Target) -> ServiceState {
    ServiceState {
        name: format!("accelerator-{vni}"),
        at_exit,
        whole_address: true,
        targets: vec![TargetState::unchecked(1, target)],
        ..ServiceState::blank(vni, ACCELERATED.into(), (UDP, PortRange::literal(port, port)))
    }
}
