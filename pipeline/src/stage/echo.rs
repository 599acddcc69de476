//! Echo requests to a service's address are answered here: its servers never see them.

use super::{IP, L4, TTL};
use crate::checksum::Change;
use crate::header::ipv4::{Fields, ICMP};
use crate::header::{Ethernet, Icmp, Ipv4, icmp};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Octets up to the end of ICMP's header.
const HEADERS: usize = 42;

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
    if super::sanity::is_martian(source) || source == destination {
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
    let mut message = Icmp::at::<L4, HEADERS>(head);
    message.set_kind(icmp::ECHO_REPLY);
    let kinds = [icmp::ECHO_REQUEST, icmp::ECHO_REPLY].map(|kind| (kind as u16) << 8);
    message.correct(Change::none().half(kinds[0], kinds[1]));
    Ethernet::at::<0, HEADERS>(head).turn_round();
    if length + (IP as u32) < octets && !frame.resize(length + IP as u32) {
        return Err(Reason::NoRoom);
    }
    tables.count(Event::EchoAnswered, octets);
    Ok(Next::Transmit(interface))
}
