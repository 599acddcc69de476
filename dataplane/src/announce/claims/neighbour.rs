//! Neighbour discovery of IPv6 addresses that this host holds, beside the answers that the maps give (RFC 4861): the
//! groups in which they are asked for, and claims, ours and others'.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use kuafu_pipeline::header::neighbour::{LinkAddress, Neighbour};
use kuafu_pipeline::header::{Ethernet, Ipv6, ethernet, ipv6};
use kuafu_pipeline::map::{IpKey, Mac, MacPair};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, recvmsg,
    send, setsockopt, socket, sockopt,
};

use crate::sys;

/// Octets of a frame with an advertisement and its option, and of that alone.
const FRAME: usize = 86;
const MESSAGE: usize = 32;
/// Hops that only a neighbour's message has left.
const HOPS: u8 = 255;
/// All of a link (RFC 4291, section 2.7.1), and the Ethernet address of that group.
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// What is sent and heard on a device.
pub(super) struct Neighbours {
    interface: u32,
    /// Sends frames, hears nothing.
    frames: OwnedFd,
    /// Hears ICMPv6.
    messages: OwnedFd,
    /// Is in the groups, so that the device takes what is sent there.
    member: UdpSocket,
    groups: BTreeSet<Ipv6Addr>,
}

impl Neighbours {
    pub(super) fn open(interface: u32) -> io::Result<Self> {
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
        let messages = socket(AddressFamily::Inet6, kind, flags, SockProtocol::IcmpV6)?;
        let name = if_indextoname(interface)?;
        let name = name.to_string_lossy().into_owned();
        setsockopt(&messages, sockopt::BindToDevice, &name.into())?;
        setsockopt(&messages, sockopt::Ipv6RecvHopLimit, &true)?;
        Ok(Self {
            interface,
            frames: sys::packet_socket(interface, 0)?,
            messages,
            member: UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
            groups: BTreeSet::new(),
        })
    }

    pub(super) const fn is_of(&self, interface: u32) -> bool {
        self.interface == interface
    }

    /// Is in the groups in which these are asked for, and in no others.
    pub(super) fn follow(&mut self, held: impl Iterator<Item = Ipv6Addr>) -> io::Result<()> {
        let groups: BTreeSet<Ipv6Addr> = held.map(group).collect();
        for left in self.groups.difference(&groups) {
            // Of a device that has gone it is in none.
            let _ = self.member.leave_multicast_v6(left, self.interface);
        }
        for joined in groups.difference(&self.groups) {
            match self.member.join_multicast_v6(joined, self.interface) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                joined => joined?,
            }
        }
        self.groups = groups;
        Ok(())
    }

    /// Tells all neighbours that this Ethernet address has it. A device that is down loses it.
    pub(super) fn claim(&self, address: Ipv6Addr, mac: [u8; 6]) {
        let _ = send(
            self.frames.as_raw_fd(),
            &claim(address, mac),
            MsgFlags::MSG_DONTWAIT,
        );
    }

    /// The addresses that others have claimed since.
    pub(super) fn heard(&self, own: [u8; 6]) -> io::Result<BTreeSet<IpAddr>> {
        let mut addresses = BTreeSet::new();
        loop {
            let mut message = [0; MESSAGE];
            let mut room = [IoSliceMut::new(&mut message)];
            let mut control = cmsg_space!(i32);
            let flags = MsgFlags::MSG_DONTWAIT;
            let received =
                recvmsg::<SockaddrIn6>(self.messages.as_raw_fd(), &mut room, Some(&mut control), flags);
            let (length, hops) = match received {
                Ok(received) => {
                    let mut told = received.cmsgs()?;
                    let hops = told.find_map(|told| match told {
                        ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
                        _ => None,
                    });
                    (received.bytes, hops)
                }
                Err(Errno::EAGAIN) => return Ok(addresses),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            // The kernel has looked at its checksum.
            if length == MESSAGE && hops == Some(HOPS.into()) {
                addresses.extend(claimed(&mut message, own).map(IpAddr::from));
            }
        }
    }
}

/// The group in which an address is asked for (RFC 4291, section 2.7.1).
fn group(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// An unsolicited advertisement (RFC 4861, section 7.2.6).
fn claim(address: Ipv6Addr, mac: [u8; 6]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    let (address, mac) = (IpKey::v6(address.octets()), Mac::from_octets(mac));
    let all = IpKey::v6(ALL.octets());
    let mut head = Ethernet::at::<0, FRAME>(&mut frame);
    head.set_addresses(MacPair::new(Mac::from_octets(ALL_MAC), mac));
    head.set_ethertype(ethernet::IPV6);
    let length = u16::try_from(MESSAGE).unwrap_or_default();
    Ipv6::at::<14, FRAME>(&mut frame).write(&ipv6::Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_length: length,
        next_header: ipv6::ICMP,
        hop_limit: HOPS,
        source: address,
        destination: all,
    });
    let mut option = LinkAddress::at::<78, FRAME>(&mut frame);
    option.write(mac);
    let rest = option.covered() + Ipv6::pseudo_header(address, all, length, ipv6::ICMP);
    Neighbour::at::<54, FRAME>(&mut frame).claim(address, rest);
    frame
}

/// The address that an advertisement claims for somebody else.
fn claimed(message: &mut [u8; MESSAGE], own: [u8; 6]) -> Option<Ipv6Addr> {
    let mac = LinkAddress::at::<24, MESSAGE>(message).of_target()?;
    let advertisement = Neighbour::at::<0, MESSAGE>(message);
    let is_claim = advertisement.is_claim() && mac != Mac::from_octets(own);
    is_claim.then(|| advertisement.target().octets().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12_34, 0x5678);
    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_address_is_asked_for_in_the_group_of_its_end() {
        let expected = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff34, 0x5678);
        assert_eq!(group(ADDRESS), expected);
    }

    #[test]
    fn a_claim_is_an_advertisement_that_names_its_sender_to_others_alone() {
        let frame = claim(ADDRESS, OWN);
        let sliced = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else {
            panic!("{sliced:?}");
        };
        assert_eq!(ip.header().destination_addr(), ALL);
        let Some(etherparse::TransportSlice::Icmpv6(icmp)) = &sliced.transport else {
            panic!("{sliced:?}");
        };
        assert!(icmp.is_checksum_valid(ADDRESS.octets(), ALL.octets()));
        assert_eq!((icmp.type_u8(), icmp.code_u8()), (136, 0));
        assert_eq!(frame[58] & 0xe0, 0x20, "it overrides, and was not solicited");
        let mut message: [u8; MESSAGE] = frame[54..].try_into().unwrap();
        assert_eq!(claimed(&mut message, [2, 0, 0, 0, 0, 8]), Some(ADDRESS));
        assert_eq!(claimed(&mut message, OWN), None, "its own");
        // The answer to somebody who asked.
        message[4] = 0x60;
        assert_eq!(claimed(&mut message, [2, 0, 0, 0, 0, 8]), None);
    }
}
