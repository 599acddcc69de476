//! Anti-spoofing: a port sends as itself.

use super::IP;
use crate::header::{Ethernet, Ipv4};
use crate::map::{Mac, Port};
use crate::{Frame, Reason};

/// What the first headers of a port's frame say.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Ethertype.
    pub ethertype: u16,
    /// Whether the Ethernet destination is a group.
    pub to_group: bool,
    /// IPv4 source and destination; meaningless for other ethertypes.
    pub source: u32,
    /// IPv4 destination.
    pub destination: u32,
    /// IP version; meaningless for other ethertypes.
    pub version: u8,
}

/// Reads the first headers and checks the Ethernet source.
///
/// # Errors
/// `Truncated`; `Spoofed` where the Ethernet source is not the port's.
#[inline(always)]
pub fn read<F: Frame>(frame: &mut F, port: &Port) -> Result<Sender, Reason> {
    let Some(head) = frame.head::<34>() else {
        return Err(Reason::Truncated);
    };
    let ethernet = Ethernet::at::<0, 34>(head);
    let (ethertype, to_group) = (ethernet.ethertype(), ethernet.is_group());
    if ethernet.source() != port.mac {
        return Err(Reason::Spoofed);
    }
    let ip = Ipv4::at::<IP, 34>(head);
    Ok(Sender {
        ethertype,
        to_group,
        source: ip.source(),
        destination: ip.destination(),
        version: ip.version_and_length() >> 4,
    })
}

/// Checks the addresses of an IPv4 packet.
///
/// # Errors
/// `UnknownProtocol` where it is not IPv4 after all, `Spoofed` where the source is not the port's, `Multicast` where
/// the destination is no single host.
#[inline(always)]
pub fn check(sender: &Sender, port: &Port) -> Result<(), Reason> {
    if sender.version != 4 {
        return Err(Reason::UnknownProtocol);
    }
    if sender.source != port.address.low() {
        return Err(Reason::Spoofed);
    }
    is_for_one(sender)
}

/// Checks the destination.
///
/// # Errors
/// `Multicast` where it is no single host.
#[inline(always)]
pub fn is_for_one(sender: &Sender) -> Result<(), Reason> {
    if sender.to_group || sender.destination >> 28 >= 0xe {
        return Err(Reason::Multicast);
    }
    Ok(())
}

/// Addresses a frame to an endpoint's own Ethernet address, whatever the sender wrote.
#[inline(always)]
pub fn address_to<F: Frame>(frame: &mut F, mac: Mac) -> Result<(), Reason> {
    let Some(head) = frame.head::<14>() else {
        return Err(Reason::Truncated);
    };
    Ethernet::at::<0, 14>(head).set_destination(mac);
    Ok(())
}
