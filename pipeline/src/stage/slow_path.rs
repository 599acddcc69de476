//! The slow path: a packet that must be fragmented goes over the backbone by way of the prober.
//!
//! The edge hands it to the prober's interface, with the way that it chose in place of the Ethernet addresses
//! ([`Errand`]). The prober cuts it ([`crate::cut`]) and sends each piece back by `kuafu0` with the same errand and the
//! mark [`MARK`]; the port program sends it on as a packet of its own, numbered and tagged as every other. Fragments
//! that must not overtake the first one of their datagram take the same way, in order.
//!
//! What comes back is believed: only this host's root can put a frame on `kuafu0` and a mark on it, and it could write
//! the maps just as well.

use super::enter::backbone_mtu;
use super::{IP, send};
use crate::header::errand::{self, Way};
use crate::header::{Errand, Ethernet, Ipv4, ethernet};
use crate::map::NodeConfig;
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// The socket mark of what comes back. No path has this index.
pub const MARK: u32 = u32::MAX;
/// Octets up to the end of the IP header.
const HEADER: usize = 34;

/// Hands a packet to the prober. What is larger than the underlay carries came over no wire: a host has put segments
/// together, and their checksum is not there.
///
/// # Errors
/// `NeedsFragmentation` where the prober is away, or has enough to do.
#[inline(always)]
pub fn hand_over<F: Frame, T: Tables>(frame: &mut F, tables: &T, node: &NodeConfig, way: &Way) -> Outcome {
    let octets = frame.len();
    if octets > node.mtu as u32 + IP as u32 {
        return Err(Reason::NeedsFragmentation);
    }
    let taken = tables
        .fragmenter()
        .and_then(|at| at.take(tables, tables.jiffies()));
    let (Some(interface), Some(head)) = (taken, frame.head::<14>()) else {
        return Err(Reason::NeedsFragmentation);
    };
    Errand::at::<0, 14>(head).cut(way, backbone_mtu(node));
    Ethernet::at::<0, 14>(head).set_ethertype(errand::ETHERTYPE);
    tables.count(Event::Fragmented, octets);
    Ok(Next::Transmit(interface))
}

/// Sends what the prober has cut over the pair of its errand.
///
/// # Errors
/// `NotAProbe` where it is no IPv4 packet as the prober sends it; those of [`send`].
#[inline(always)]
pub fn take_back<F: Frame, T: Tables>(frame: &mut F, tables: &T, node: &NodeConfig) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<HEADER>() else {
        return Err(Reason::NotAProbe);
    };
    let ethertype = Ethernet::at::<0, HEADER>(head).ethertype();
    let Some((way, _)) = Errand::at::<0, HEADER>(head).to_cut() else {
        return Err(Reason::NotAProbe);
    };
    let ip = Ipv4::at::<IP, HEADER>(head);
    let is_whole = ip.version_and_length() == 0x45 && ip.total_length() as u32 + IP as u32 == octets;
    if ethertype != ethernet::IPV4 || !is_whole {
        return Err(Reason::NotAProbe);
    }
    send::over_pair(frame, tables, node, way.pair, (way.vni, way.reply))
}
