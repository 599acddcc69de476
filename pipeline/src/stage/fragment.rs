//! Fragments: only the first one of a datagram has ports. The others are of the same flow, and nothing in them is
//! checked or rewritten but the IP header; that of the transport covers the whole datagram, so that its incremental
//! update in the first one is right for all.

use super::flow::{Flow, Part};
use super::{IP, L4};
use crate::header::{Ipv4, Udp, ipv4};
use crate::map::{FirstFragment, FragmentKey, HEARD};
use crate::{Frame, Reason, Tables};

/// Octets that stages read of a packet: up to the ports and what follows them.
const READ: usize = 42;
/// Octets up to the end of the IP header.
const HEADER: usize = 34;
/// Octets of an IP packet with a TCP header.
const WITH_TCP: u32 = 40;
/// Octets of TCP's header, which no second fragment may reach into (RFC 3128).
const TCP: u32 = 20;
/// Octets of payload in the largest datagram.
const LARGEST: u32 = 65_535 - 20;

/// The head of a last fragment that is shorter than what stages read: where its datagram is known, it is lengthened, as
/// a link would have padded it. Whoever checks its length cuts that off again.
///
/// # Errors
/// `Truncated` where it is anything else, `Fragment` where its datagram is not known; the frame is as it was.
#[inline(always)]
pub fn lengthened<'f, F: Frame, T: Tables>(
    frame: &'f mut F,
    tables: &T,
    vni: u32,
) -> Result<&'f mut [u8; READ], Reason> {
    let Some(head) = frame.head::<HEADER>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv4::at::<IP, HEADER>(head);
    let is_last = ip.version_and_length() == 0x45 && ip.fragment_offset() != 0 && !ip.more_fragments();
    if !is_last || !matches!(ip.protocol(), ipv4::TCP | ipv4::UDP) {
        return Err(Reason::Truncated);
    }
    if tables.fragment(&key(&ip, vni)).is_none() {
        return Err(Reason::Fragment);
    }
    if !frame.resize(READ as u32) {
        return Err(Reason::NoRoom);
    }
    frame.head::<READ>().ok_or(Reason::Truncated)
}

/// The flow of a fragment, given as its own octets say it: the ports of any but the first one are those that the first
/// one had. `None` where that was not seen lately.
#[inline(always)]
pub fn locate<F: Frame, T: Tables>(frame: &mut F, tables: &T, vni: u32, flow: &Flow) -> Option<Flow> {
    let head = frame.head::<HEADER>()?;
    let ip = Ipv4::at::<IP, HEADER>(head);
    if ip.fragment_offset() == 0 {
        return Some(Flow {
            part: Part::First,
            ..*flow
        });
    }
    let first = tables.fragment(&key(&ip, vni))?;
    let [source_port, destination_port] = first.ports(tables.nanoseconds())?;
    Some(Flow {
        source_port,
        destination_port,
        part: Part::Later(first.length as u16),
        ..*flow
    })
}

/// Sanity of a fragment whose IP packet has so many octets. The first one of a sane datagram is remembered. Returns
/// TCP's flags, as [`Sane`](super::sanity::Sane) has them.
///
/// # Errors
/// `BadLength` where it is no part of a datagram; `Fragment` where TCP's header is in pieces; `BadTcp`.
#[inline(always)]
pub fn check<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    vni: u32,
    flow: &Flow,
    length: u32,
    tcp: impl FnOnce(&mut F, u32) -> Result<u32, Reason>,
) -> Result<u32, Reason> {
    let Some(head) = frame.head::<READ>() else {
        return Err(Reason::Truncated);
    };
    let datagram = Udp::at::<L4, READ>(head).length() as u32 + 20;
    let ip = Ipv4::at::<IP, READ>(head);
    let (offset, more) = (ip.fragment_offset(), ip.more_fragments());
    let payload = length.saturating_sub(20);
    if payload == 0 || (more && payload & 7 != 0) || offset + payload > LARGEST {
        return Err(Reason::BadLength);
    }
    let is_tcp = flow.protocol == ipv4::TCP;
    if flow.part != Part::First {
        return if is_tcp && offset < TCP {
            Err(Reason::Fragment)
        } else {
            Ok(0)
        };
    }
    let flags = match is_tcp {
        true if length < WITH_TCP => return Err(Reason::Fragment),
        true => tcp(frame, length)?,
        // More of it follows than this one has.
        false if datagram <= length => return Err(Reason::BadLength),
        false => HEARD,
    };
    remember(frame, tables, vni, flow, length);
    Ok(flags)
}

/// Remembers the first fragment of a datagram for the others.
#[inline(always)]
pub fn remember<F: Frame, T: Tables>(frame: &mut F, tables: &T, vni: u32, flow: &Flow, length: u32) {
    if let Some(head) = frame.head::<HEADER>() {
        let key = key(&Ipv4::at::<IP, HEADER>(head), vni);
        let ports = [flow.source_port, flow.destination_port];
        tables.remember(&key, FirstFragment::new(tables.nanoseconds(), ports, length));
    }
}

#[inline(always)]
fn key(ip: &Ipv4<'_>, vni: u32) -> FragmentKey {
    FragmentKey::new(
        vni,
        [ip.source(), ip.destination()],
        ip.identification(),
        ip.protocol(),
    )
}
