//! A packet of the backbone at a relay, and the relay.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use kuafu_dataplane::bpf::Bpf;
use kuafu_model::contents::{Capacities, HostFacts, contents};
use kuafu_model::state::{Host, HostState, LegKey, LegState, SlotAction, SlotState};
use kuafu_pipeline::header::geneve::{Covered, Header, Word};
use kuafu_pipeline::header::ipv4::{Fields, UDP};
use kuafu_pipeline::header::{Ethernet, Geneve, Ipv4, Udp, ethernet};
use kuafu_pipeline::map::{Mac, MacPair, Neighbour};
use kuafu_pipeline::siphash::Key;

/// Ethernet, IPv4, UDP, Geneve with the option: in front of the inner packet.
const OUTER: usize = 74;
/// The inner packet: IPv4, UDP and 28 octets, as games send them.
const INNER: usize = 56;
pub(super) const OCTETS: usize = OUTER + INNER;
/// The kernel runs tests as if packets came from the loopback device.
const INTERFACE: u32 = 1;

const BACKBONE_PORT: u16 = 6081;
const TTL: u8 = 60;
const LABEL: u32 = 5;
const NEXT_LABEL: u32 = 9;
const EPOCH: u8 = 1;
/// Every octet of the legs' keys.
const ARRIVING: u8 = 1;
const LEAVING: u8 = 2;
const ENTRY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const RELAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const EXIT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// The packet as the relay must send it on differs in these: time to live and label.
pub(super) fn is_relayed(packet: &mut [u8]) -> bool {
    let Some(head) = packet.first_chunk_mut::<OUTER>() else {
        return false;
    };
    let ip = Ipv4::at::<14, OUTER>(head);
    let to_exit = ip.ttl() == TTL - 1 && ip.destination() == u32::from(EXIT);
    let label = Geneve::at::<42, OUTER>(head)
        .read()
        .map(|header| header.word().label());
    to_exit && label == Some(NEXT_LABEL)
}

/// A packet of the entry's, tagged for the relay.
pub(super) fn packet() -> Result<[u8; OCTETS]> {
    let mut packet = [0; OCTETS];
    let (outer, inner) = packet.split_at_mut(OUTER);
    let octets = u16::try_from(OCTETS - 14)?;
    let head: &mut [u8; OUTER] = outer.try_into()?;
    let body: &mut [u8; INNER] = inner.try_into()?;
    Ipv4::at::<0, INNER>(body).write(&Fields {
        tos: 0,
        total_length: u16::try_from(INNER)?,
        ttl: 64,
        protocol: UDP,
        source: u32::from(Ipv4Addr::new(203, 0, 113, 7)),
        destination: u32::from(Ipv4Addr::new(198, 51, 100, 1)),
    });
    Udp::at::<20, INNER>(body).write(4000, 7000, u16::try_from(INNER - 20)?);

    let mut ethernet = Ethernet::at::<0, OUTER>(head);
    ethernet.set_addresses(macs());
    ethernet.set_ethertype(ethernet::IPV4);
    Ipv4::at::<14, OUTER>(head).write(&Fields {
        tos: 0,
        total_length: octets,
        ttl: TTL,
        protocol: UDP,
        source: ENTRY.into(),
        destination: RELAY.into(),
    });
    Udp::at::<34, OUTER>(head).write(50_009, BACKBONE_PORT, octets - 20);
    let word = Word::new(LABEL, 0, 0, EPOCH.into(), false);
    let header = Header::new(false, 101, word, 9, 0);
    let half = u64::from_le_bytes([ARRIVING; 8]);
    let arriving = Key { k0: half, k1: half };
    let tag = Covered::new(&header, first_words(body)?).tag(arriving);
    Geneve::at::<42, OUTER>(head).write(&header, tag);
    Ok(packet)
}

fn first_words(body: &[u8; INNER]) -> Result<[u64; 5]> {
    let (words, _) = body.as_chunks::<8>();
    let words = words.first_chunk::<5>().context("the tag covers 40 octets")?;
    Ok(words.map(u64::from_le_bytes))
}

fn macs() -> MacPair {
    MacPair::new(
        Mac::from_octets([2, 0, 0, 0, 0, 1]),
        Mac::from_octets([2, 0, 0, 0, 0, 2]),
    )
}

/// Makes the loaded programs a relay between entry and exit.
pub(super) fn fill(bpf: &Bpf) -> Result<()> {
    let facts = HostFacts {
        hand_over: 0,
        underlay: INTERFACE,
        underlay_mtu: 1500,
        incarnation: 0,
        interfaces: BTreeMap::new(),
        capacities: Capacities::default(),
    };
    let contents = contents(&state(), &facts, None)?;
    bpf.maps.node.set(&0, &contents.node)?;
    bpf.maps.slots.set_all(&contents.slots)?;
    for number in contents.neighbours.keys() {
        let neighbour = Neighbour {
            macs: macs(),
            interface: INTERFACE,
        };
        bpf.maps.neighbours.set(number, &neighbour)?;
    }
    Ok(())
}

fn state() -> HostState {
    HostState {
        cluster: "bench".to_owned(),
        revision: 1,
        node: Host {
            id: 1,
            name: "relay".to_owned(),
            local: RELAY,
            public: RELAY,
            overlay: Ipv4Addr::new(100, 64, 0, 1),
            udp_port: BACKBONE_PORT,
            nat_ports: None,
        },
        ports: Vec::new(),
        endpoints: Vec::new(),
        vteps: Vec::new(),
        slots: vec![SlotState {
            label: LABEL,
            source: ENTRY,
            keys: vec![keys(ARRIVING)],
            action: SlotAction::Relay(LegState {
                keys: vec![keys(LEAVING)],
                label: NEXT_LABEL,
                address: EXIT,
                port: BACKBONE_PORT,
                source_port: 50_002,
            }),
        }],
        paths: Vec::new(),
        pairs: Vec::new(),
        services: Vec::new(),
    }
}

fn keys(octet: u8) -> LegKey {
    LegKey {
        epoch: EPOCH,
        key: [octet; 16],
    }
}
