//! Sanity of a packet that is Kuafu's: what the host's own stack would have checked.

use super::flow::{Flow, Part};
use super::{IP, L4, L4_V6, fragment};
use crate::header::{Ipv4, Ipv6, Tcp, Udp, ipv4, tcp};
use crate::map::{HEARD, IpKey};
use crate::{Frame, Reason, Tables};

/// Octets up to the end of UDP's header in IPv6.
const V6: usize = 62;

/// What later stages want to know of a sane packet.
#[derive(Clone, Copy, Debug)]
pub struct Sane {
    /// Octets in the IP packet.
    pub length: u32,
    /// The same, or octets in the first fragment of its datagram where that had more: what is sent on behind that must
    /// not overtake it.
    pub largest: u32,
    /// Flags of TCP; of UDP [`HEARD`]; of a later fragment 0.
    pub tcp_flags: u32,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
}

impl Sane {
    /// Whether it may be its flow's first packet: a SYN, or UDP.
    #[inline(always)]
    #[must_use]
    pub const fn may_begin(&self) -> bool {
        self.tcp_flags & HEARD != 0 || tcp::begins(self.tcp_flags as u8)
    }
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
    let behind = length.saturating_sub(20);
    let tcp_flags = match flow.part {
        Part::Whole if flow.protocol == ipv4::TCP => tcp::<F, L4, 54>(frame, behind)? as u32,
        Part::Whole => {
            udp::<F, L4, 42>(frame, behind)?;
            HEARD
        }
        _ => fragment::check(frame, tables, vni, flow, length, |frame, length| {
            tcp::<F, L4, 54>(frame, length.saturating_sub(20)).map(u32::from)
        })?,
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

/// The same of an IPv6 packet without extension headers, with `behind` octets behind its header. Returns TCP's flags.
///
/// # Errors
/// `Truncated`, `BadLength`, `Ttl`, `Martian`, `BadTcp`; `BadChecksum` of UDP without one (RFC 8200, §8.1).
#[inline(always)]
pub fn check_v6<F: Frame>(frame: &mut F, flow: &Flow<IpKey>, behind: u32) -> Result<u8, Reason> {
    let frame_length = frame.len();
    let Some(head) = frame.head::<V6>() else {
        return Err(Reason::Truncated);
    };
    let has_checksum = Udp::at::<L4_V6, V6>(head).has_checksum();
    let hops = Ipv6::at::<IP, V6>(head).hop_limit();
    length_v6(frame_length, behind, hops, [flow.source, flow.destination])?;
    match flow.protocol {
        ipv4::TCP => tcp::<F, L4_V6, 74>(frame, behind),
        _ if !has_checksum => Err(Reason::BadChecksum),
        _ => udp::<F, L4_V6, V6>(frame, behind),
    }
}

/// Octets in an IPv6 packet of a sane header: with `behind` of them behind it, and these addresses.
///
/// # Errors
/// `BadLength`, `Ttl`, `Martian`.
#[inline(always)]
pub fn length_v6(
    frame_length: u32,
    behind: u32,
    hops: u8,
    [source, destination]: [IpKey; 2],
) -> Result<u32, Reason> {
    if hops == 0 {
        return Err(Reason::Ttl);
    }
    if is_martian_v6(source) || source == destination {
        return Err(Reason::Martian);
    }
    let length = behind + 40;
    if length + IP as u32 > frame_length {
        return Err(Reason::BadLength);
    }
    Ok(length)
}

#[inline(always)]
fn udp<F: Frame, const AT: usize, const N: usize>(frame: &mut F, behind: u32) -> Result<u8, Reason> {
    let Some(head) = frame.head::<N>() else {
        return Err(Reason::Truncated);
    };
    let octets = Udp::at::<AT, N>(head).length() as u32;
    if octets < 8 || octets > behind {
        Err(Reason::BadLength)
    } else {
        Ok(0)
    }
}

#[inline(always)]
fn tcp<F: Frame, const AT: usize, const N: usize>(frame: &mut F, behind: u32) -> Result<u8, Reason> {
    let Some(head) = frame.head::<N>() else {
        return Err(Reason::Truncated);
    };
    let tcp = Tcp::at::<AT, N>(head);
    let (octets, flags) = (tcp.header_length(), tcp.flags());
    if octets < 20 || octets > behind {
        return Err(Reason::BadTcp);
    }
    let opposed = flags & tcp::SYN != 0 && flags & (tcp::FIN | tcp::RST) != 0;
    if opposed || flags & (tcp::SYN | tcp::RST | tcp::ACK) == 0 {
        Err(Reason::BadTcp)
    } else {
        Ok(flags)
    }
}

/// "This network", loopback, multicast and reserved addresses (RFC 6890).
#[inline(always)]
#[must_use]
pub const fn is_martian(source: u32) -> bool {
    matches!(source >> 24, 0 | 127 | 224..)
}

/// Unspecified, loopback and other addresses below ::1:0:0:0:0, IPv4-mapped ones among them, link-local and multicast
/// (RFC 6890, RFC 4291).
#[inline(always)]
#[must_use]
pub const fn is_martian_v6(source: IpKey) -> bool {
    let [high, _] = source.halves();
    high == 0 || high >> 54 == 0xfe80 >> 6 || high >> 56 == 0xff
}
