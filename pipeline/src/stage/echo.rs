//! Echo requests to a service's address are answered here: its servers never see them.

use super::{IP, L4, L4_V6, TTL, sanity};
use crate::checksum::Change;
use crate::header::ipv4::{Fields, ICMP};
use crate::header::{Ethernet, Icmp, Ipv4, Ipv6, icmp, ipv6};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Octets up to the end of ICMP's header.
const HEADERS: usize = 42;
/// The same of ICMPv6.
const HEADERS_V6: usize = 62;

/// Turns an echo request into its reply, back out of the interface on which it came. The answer is no larger than the
/// question, so there is nothing to limit.
///
/// # Errors
/// `Truncated`, `BadLength`, `BadChecksum` (of the IP header), `Ttl`, `Martian`; `NoRoom`.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<HEADERS>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv4::at::<IP, HEADERS>(head);
    let (length, source, destination) = (ip.total_length() as u32, ip.source(), ip.destination());
    if !ip.checksum_is_right() {
        return Err(Reason::BadChecksum);
    }
    if ip.ttl() == 0 {
        return Err(Reason::Ttl);
    }
    if sanity::is_martian(source) || source == destination {
        return Err(Reason::Martian);
    }
    if length < 28 || length + IP as u32 > octets {
        return Err(Reason::BadLength);
    }
    let fields = Fields {
        tos: ip.tos(),
        total_length: length as u16,
        ttl: TTL,
        protocol: ICMP,
        source: destination,
        destination: source,
    };
    Ipv4::at::<IP, HEADERS>(head).write(&fields);
    reply(
        &mut Icmp::at::<L4, HEADERS>(head),
        [icmp::ECHO_REQUEST, icmp::ECHO_REPLY],
    );
    Ethernet::at::<0, HEADERS>(head).turn_round();
    sanity::exact(frame, length)?;
    tables.count(Event::EchoAnswered, octets);
    Ok(Next::Transmit(interface))
}

/// The same of IPv6. Source and destination are covered by the checksum, which does not mind which is which.
///
/// # Errors
/// `Truncated`, `NoRoom`; those of [`sanity::length_v6`]; `BadLength` where there is no whole header of ICMPv6.
#[inline(always)]
pub fn answer_v6<F: Frame, T: Tables>(frame: &mut F, tables: &T, interface: u32) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<HEADERS_V6>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv6::at::<IP, HEADERS_V6>(head);
    let (behind, hops, ends) = (
        ip.payload_length(),
        ip.hop_limit(),
        [ip.source(), ip.destination()],
    );
    let fields = ipv6::Fields {
        traffic_class: ip.traffic_class(),
        flow_label: 0,
        payload_length: behind,
        next_header: ipv6::ICMP,
        hop_limit: TTL,
        source: ends[1],
        destination: ends[0],
    };
    let length = sanity::length_v6(octets, behind as u32, hops, ends)?;
    if behind < 8 {
        return Err(Reason::BadLength);
    }
    Ipv6::at::<IP, HEADERS_V6>(head).write(&fields);
    let kinds = [icmp::ECHO_REQUEST_V6, icmp::ECHO_REPLY_V6];
    reply(&mut Icmp::at::<L4_V6, HEADERS_V6>(head), kinds);
    Ethernet::at::<0, HEADERS_V6>(head).turn_round();
    sanity::exact(frame, length)?;
    tables.count(Event::EchoAnswered, octets);
    Ok(Next::Transmit(interface))
}

/// Makes a message of the first kind one of the second.
#[inline(always)]
fn reply(message: &mut Icmp<'_>, kinds: [u8; 2]) {
    message.set_kind(kinds[1]);
    let [before, after] = kinds.map(|kind| (kind as u16) << 8);
    message.correct(Change::none().half(before, after));
}
