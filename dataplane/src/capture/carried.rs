//! What a packet carries inside another.

use kuafu_pipeline::header::{Ethernet, Geneve, Ipv4, Udp, Vxlan, ethernet, geneve, ipv4, vxlan};

/// Octets of Ethernet, IPv4 without options and UDP.
const OUTER: usize = 42;
/// IPv4, five words.
const PLAIN: u8 = 0x45;

/// A packet inside a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried<'p> {
    /// On the backbone: Geneve with Kuafu's option, then an IP packet.
    Backbone {
        /// Geneve's header and the option; whether its tag is right is not asked.
        header: geneve::Header,
        /// The IP packet.
        packet: &'p [u8],
    },
    /// In a VPC: VXLAN, then an Ethernet frame.
    Vpc {
        /// The VPC's number.
        vni: u32,
        /// The frame.
        frame: &'p [u8],
    },
}

impl<'p> Carried<'p> {
    /// What a frame carries, if it is one of these two.
    #[must_use]
    pub fn of(frame: &'p [u8]) -> Option<Self> {
        let mut outer: [u8; OUTER] = *frame.first_chunk()?;
        let ip = Ipv4::at::<14, OUTER>(&mut outer);
        let is_udp = ip.version_and_length() == PLAIN && ip.protocol() == ipv4::UDP && !ip.is_fragment();
        if !is_udp || Ethernet::at::<0, OUTER>(&mut outer).ethertype() != ethernet::IPV4 {
            return None;
        }
        let rest = frame.get(OUTER..)?;
        if Udp::at::<34, OUTER>(&mut outer).destination() == vxlan::PORT {
            let (head, frame) = rest.split_first_chunk::<{ Vxlan::LEN }>()?;
            let vni = Vxlan::at::<0, { Vxlan::LEN }>(&mut { *head }).vni()?;
            return Some(Self::Vpc { vni, frame });
        }
        let (head, packet) = rest.split_first_chunk::<{ Geneve::LEN }>()?;
        let header = Geneve::at::<0, { Geneve::LEN }>(&mut { *head }).read()?;
        Some(Self::Backbone { header, packet })
    }

    /// What is inside, as an Ethernet frame: an IP packet gets a header without addresses.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        match self {
            Self::Vpc { frame, .. } => frame.to_vec(),
            Self::Backbone { packet, .. } => {
                let mut frame = vec![0; Ethernet::LEN];
                frame[12..].copy_from_slice(&ethernet::IPV4.to_be_bytes());
                frame.extend_from_slice(packet);
                frame
            }
        }
    }
}
