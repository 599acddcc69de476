//! ICMP errors about rewritten packets (RFC 5508 §4): the quote is rewritten too.

use super::flow::Flow;
use super::{IP, L4};
use crate::checksum::Change;
use crate::header::{Icmp, Ipv4, Ipv6, Udp, ipv4};
use crate::map::{Connection, IpKey};
use crate::{Frame, Reason};

/// Offset of the quoted IP header.
const QUOTE: usize = 42;
/// Offset of the eight octets behind it.
const QUOTED_L4: usize = 62;
/// Octets up to there.
const WHOLE: usize = 70;
/// The same three of ICMPv6.
const QUOTE_V6: usize = 62;
const QUOTED_L4_V6: usize = 102;
const WHOLE_V6: usize = 110;

/// The flow of the packet that an ICMP error quotes.
///
/// # Errors
/// `Truncated`; `BadLength` where it quotes no TCP or UDP packet with its ports.
#[inline(always)]
pub fn quoted<F: Frame>(frame: &mut F) -> Result<Flow, Reason> {
    let Some(head) = frame.head::<WHOLE>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv4::at::<QUOTE, WHOLE>(head);
    let readable = ip.version_and_length() == 0x45 && !ip.is_fragment();
    if !readable || !matches!(ip.protocol(), ipv4::TCP | ipv4::UDP) {
        return Err(Reason::BadLength);
    }
    Ok(Flow::at::<QUOTE, QUOTED_L4, WHOLE>(head))
}

/// The flow of the packet that an ICMPv6 error quotes.
///
/// # Errors
/// `Truncated`; `BadLength` where it quotes no TCP or UDP packet with its ports right behind the header.
#[inline(always)]
pub fn quoted_v6<F: Frame>(frame: &mut F) -> Result<Flow<IpKey>, Reason> {
    let Some(head) = frame.head::<WHOLE_V6>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv6::at::<QUOTE_V6, WHOLE_V6>(head);
    if ip.version() != 6 || !matches!(ip.next_header(), ipv4::TCP | ipv4::UDP) {
        return Err(Reason::BadLength);
    }
    Ok(Flow::of_v6::<QUOTE_V6, QUOTED_L4_V6, WHOLE_V6>(head))
}

/// Rewrites an error about a packet of the other direction: it leaves like a packet of `connection`, and quotes the
/// packet as its receiver had sent it.
///
/// # Errors
/// `Truncated`.
#[inline(always)]
pub fn apply<F: Frame>(frame: &mut F, connection: &Connection) -> Result<(), Reason> {
    let Some(head) = frame.head::<WHOLE>() else {
        return Err(Reason::Truncated);
    };
    let (source, destination) = (connection.source.low(), connection.destination.low());
    Ipv4::at::<IP, WHOLE>(head).readdress(source, destination);
    let mut ip = Ipv4::at::<QUOTE, WHOLE>(head);
    let is_udp = ip.protocol() == ipv4::UDP;
    let (addresses, header) = ip.requote(destination, source);
    let mut quoted = Udp::at::<QUOTED_L4, WHOLE>(head);
    let (from, to) = (connection.destination_port.get(), connection.source_port.get());
    let ports = Change::none()
        .half(quoted.source(), from)
        .half(quoted.destination(), to);
    quoted.set_ports(from, to);
    let rewritten = addresses.and(ports);
    let checksum = if is_udp {
        quoted.correct(rewritten)
    } else {
        Change::none()
    };
    Icmp::at::<L4, WHOLE>(head).correct(rewritten.and(header).and(checksum));
    Ok(())
}
