//! Neighbour discovery, answered on the host for addresses that it holds: what [`arp`](super::arp) is for IPv4.

use super::{IP, L4_V6, sanity};
use crate::checksum;
use crate::header::neighbour::{LinkAddress, Neighbour};
use crate::header::{Ethernet, Ipv6, ipv6};
use crate::map::{IpKey, MacPair, policy};
use crate::program::edge::whole;
use crate::{Event, Frame, Reason, Tables};

/// Octets up to the options, and with the one that there is.
const BARE: usize = 78;
const WITH_ADDRESS: usize = 86;
/// Hops that only a neighbour's message has left.
const HOPS: u8 = 255;

/// Whether this is a solicitation for an address that this host holds; it is answered in the same frame, with the
/// underlay's Ethernet address. All else is the host's own, so that nothing is refused: so is what is not right (RFC 4861,
/// section 7.1.1), and the question of who wants the address itself, from no address (RFC 4862, section 5.4).
///
/// # Errors
/// Of what is answered `Truncated`, `NoRoom`.
#[inline(always)]
pub fn is_answered<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<bool, Reason> {
    let octets = frame.len();
    let Some(head) = frame.head::<BARE>() else {
        return Ok(false);
    };
    let ethernet = Ethernet::at::<0, BARE>(head);
    let (asker, is_to_group) = (ethernet.source(), ethernet.is_to_group());
    let message = Neighbour::at::<L4_V6, BARE>(head);
    let (is_solicitation, target, covered) = (message.is_solicitation(), message.target(), message.covered());
    let ip = Ipv6::at::<IP, BARE>(head);
    let (source, behind) = (ip.source(), ip.payload_length());
    let is_discovery = ip.version() == 6 && ip.next_header() == ipv6::ICMP && ip.hop_limit() == HOPS;
    // Keys hold IPv4 addresses so, and nobody asks for them here.
    let is_asked = is_discovery && is_solicitation && target.as_v4().is_none();
    if !is_asked || source == IpKey::default() {
        return Ok(false);
    }
    let covered = covered + Ipv6::pseudo_header(source, ip.destination(), behind, ipv6::ICMP);
    let mac = match whole(tables, target) {
        Some(whole) if whole.has(policy::ANSWER_ARP) => whole.mac(),
        _ => return Ok(false),
    };
    let pseudo = Ipv6::pseudo_header(target, source, behind, ipv6::ICMP);
    match behind {
        // Who asks all says how it is reached; a neighbour that is asked whether it is still there knows that.
        24 if !is_to_group && is_right(covered) => {
            let Some(head) = frame.head::<BARE>() else {
                return Ok(false);
            };
            Neighbour::at::<L4_V6, BARE>(head).answer(false, pseudo);
        }
        32 => {
            let Some(head) = frame.head::<WITH_ADDRESS>() else {
                return Ok(false);
            };
            let mut option = LinkAddress::at::<BARE, WITH_ADDRESS>(head);
            if !option.is_of_source() || !is_right(covered + option.covered()) {
                return Ok(false);
            }
            option.write(mac);
            let rest = pseudo + option.covered();
            Neighbour::at::<L4_V6, WITH_ADDRESS>(head).answer(true, rest);
        }
        _ => return Ok(false),
    }
    let Some(head) = frame.head::<BARE>() else {
        return Err(Reason::Truncated);
    };
    Ethernet::at::<0, BARE>(head).set_addresses(MacPair::new(asker, mac));
    Ipv6::at::<IP, BARE>(head).write(&ipv6::Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_length: behind,
        next_header: ipv6::ICMP,
        hop_limit: HOPS,
        source: target,
        destination: source,
    });
    sanity::exact(frame, behind as u32 + (L4_V6 - IP) as u32)?;
    tables.count(Event::ArpAnswered, octets);
    Ok(true)
}

/// Whether a checksum fits what it covers.
#[inline(always)]
const fn is_right(covered: u64) -> bool {
    checksum::fold_words(covered) == 0xffff
}
