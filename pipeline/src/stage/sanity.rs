//! Sanity of a packet that is Kuafu's: what the host's own stack would have checked.

use super::flow::{Flow, Part};
use super::{IP, L4, fragment};
use crate::header::{Ipv4, Tcp, Udp, ipv4, tcp};
use crate::{Frame, Reason, Tables};

/// What later stages want to know of a sane packet.
#[derive(Clone, Copy, Debug)]
pub struct Sane {
    /// Octets in the IP packet.
    pub length: u32,
    /// The same, or octets in the first fragment of its datagram where that had more: what is sent on behind that must
    /// not overtake it.
    pub largest: u32,
    /// Flags of TCP, else 0.
    pub tcp_flags: u32,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
}

/// Checks lengths, checksum, time to live, source address and transport header of an IPv4 packet without options; what
/// the link padded stays until it is [cut off](exact). `vni` is that under which a fragment's datagram is known.
///
/// # Errors
/// `Truncated`, `BadLength`, `BadChecksum`, `Ttl`, `Martian`, `BadTcp`; those of [`fragment`].
#[inline(always)]
pub fn check<F: Frame, T: Tables>(frame: &mut F, tables: &T, vni: u32, flow: &Flow) -> Result<Sane, Reason> {
    let frame_length = frame.len();
    let Some(head) = frame.head::<42>() else {
        return Err(Reason::Truncated);
    };
    let ip = Ipv4::at::<IP, 42>(head);
    if !ip.checksum_is_right() {
        return Err(Reason::BadChecksum);
    }
    if ip.ttl() == 0 {
        return Err(Reason::Ttl);
    }
    if is_martian(flow.source) || flow.source == flow.destination {
        return Err(Reason::Martian);
    }
    let (length, dont_fragment) = (ip.total_length() as u32, ip.dont_fragment());
    if length + IP as u32 > frame_length {
        return Err(Reason::BadLength);
    }
    let tcp_flags = match flow.part {
        Part::Whole if flow.protocol == ipv4::TCP => tcp(frame, length)?,
        Part::Whole => udp(frame, length)?,
        _ => fragment::check(frame, tables, vni, flow, length, tcp)?,
    };
    Ok(Sane {
        length,
        largest: match flow.part {
            Part::Later(first) => length.max(first as u32),
            _ => length,
        },
        tcp_flags,
        dont_fragment,
    })
}

/// Cuts off what the link padded, so that the frame holds an IP packet of `length` octets and no more.
///
/// # Errors
/// `NoRoom`.
#[inline(always)]
pub fn exact<F: Frame>(frame: &mut F, length: u32) -> Result<(), Reason> {
    let exact = length + IP as u32;
    if exact < frame.len() && !frame.resize(exact) {
        return Err(Reason::NoRoom);
    }
    Ok(())
}

#[inline(always)]
fn udp<F: Frame>(frame: &mut F, length: u32) -> Result<u32, Reason> {
    let Some(head) = frame.head::<42>() else {
        return Err(Reason::Truncated);
    };
    let octets = Udp::at::<L4, 42>(head).length() as u32;
    if octets < 8 || octets + 20 > length {
        Err(Reason::BadLength)
    } else {
        Ok(0)
    }
}

#[inline(always)]
fn tcp<F: Frame>(frame: &mut F, length: u32) -> Result<u32, Reason> {
    let Some(head) = frame.head::<54>() else {
        return Err(Reason::Truncated);
    };
    let tcp = Tcp::at::<L4, 54>(head);
    let (octets, flags) = (tcp.header_length(), tcp.flags());
    if octets < 20 || octets + 20 > length {
        return Err(Reason::BadTcp);
    }
    let opposed = flags & tcp::SYN != 0 && flags & (tcp::FIN | tcp::RST) != 0;
    if opposed || flags & (tcp::SYN | tcp::RST | tcp::ACK) == 0 {
        Err(Reason::BadTcp)
    } else {
        Ok(flags as u32)
    }
}

/// "This network", loopback, multicast and reserved addresses (RFC 6890).
#[inline(always)]
#[must_use]
pub const fn is_martian(source: u32) -> bool {
    matches!(source >> 24, 0 | 127 | 224..)
}
