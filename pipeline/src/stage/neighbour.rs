//! Neighbour discovery, answered on the host for addresses that it holds: what [`arp`](super::arp) is for IPv4.

use super::{IP, L4_V6, sanity};
use crate::checksum;
use crate::header::neighbour::{LinkAddress, Neighbour};
use crate::header::{Ethernet, Ipv6, ipv6};
use crate::map::{IpKey, Mac, MacPair, policy};
use crate::program::edge::whole;
use crate::{Event, Frame, Next, Outcome, Tables};

/// Octets up to the options, and with the one that there is.
const BARE: usize = 78;
const WITH_ADDRESS: usize = 86;
/// Hops that only a neighbour's message has left.
const HOPS: u8 = 255;

/// A solicitation for an address that this host holds is answered with the underlay's Ethernet address. All else is the
/// host's own, so that nothing is refused: so is what is not right (RFC 4861, section 7.1.1), and the question of who
/// wants the address itself, from no address (RFC 4862, section 5.4).
///
/// # Errors
/// Of what would be answered, `NoRoom`.
#[inline(always)]
pub fn at_edge<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<BARE>() else {
        return Ok(Next::Pass);
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
        return Ok(Next::Pass);
    }
    let covered = covered + Ipv6::pseudo_header(source, ip.destination(), behind, ipv6::ICMP);
    let mac = match whole(tables, target) {
        Some(whole) if whole.has(policy::ANSWER_ARP) => whole.mac(),
        _ => return Ok(Next::Pass),
    };
    let pseudo = Ipv6::pseudo_header(target, source, behind, ipv6::ICMP);
    let is_answered = match behind {
        // Who asks all says how it is reached; a neighbour that is asked whether it is still there knows that.
        24 if !is_to_group => is_right(covered) && answer(frame, pseudo),
        32 => answer_with_address(frame, mac, (covered, pseudo)),
        _ => false,
    };
    let Some(head) = frame.head::<BARE>().filter(|_| is_answered) else {
        return Ok(Next::Pass);
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
    Ok(Next::Transmit(interface))
}

/// Whether a checksum fits what it covers.
#[inline(always)]
const fn is_right(covered: u64) -> bool {
    checksum::fold_words(covered) == 0xffff
}

#[inline(always)]
fn answer<F: Frame>(frame: &mut F, pseudo: u64) -> bool {
    let Some(head) = frame.head::<BARE>() else {
        return false;
    };
    Neighbour::at::<L4_V6, BARE>(head).answer(false, pseudo);
    true
}

/// The same of a message whose only option says how its sender is reached.
#[inline(always)]
fn answer_with_address<F: Frame>(frame: &mut F, mac: Mac, (covered, pseudo): (u64, u64)) -> bool {
    let Some(head) = frame.head::<WITH_ADDRESS>() else {
        return false;
    };
    let mut option = LinkAddress::at::<BARE, WITH_ADDRESS>(head);
    if !option.is_of_source() || !is_right(covered + option.covered()) {
        return false;
    }
    option.write(mac);
    let rest = pseudo + option.covered();
    Neighbour::at::<L4_V6, WITH_ADDRESS>(head).answer(true, rest);
    true
}
