//! A site's 1:1 NAT (RFC 2663 §4.1.1): its router writes the other address of each pair, and what checksums say.

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};

use crate::world::{Address, Site};

const ETHERNET: usize = 14;

/// The source of what leaves, as others see it.
pub(super) fn outwards(frame: &mut [u8], site: &Site) {
    translate(frame, |packet| {
        let known = find(site, |address| address.local == packet.src_addr());
        known.map(|address| packet.set_src_addr(address.public))
    });
}

/// The destination of what arrives, as the host itself sees it.
pub(super) fn inwards(frame: &mut [u8], site: &Site) {
    translate(frame, |packet| {
        let known = find(site, |address| address.public == packet.dst_addr());
        known.map(|address| packet.set_dst_addr(address.local))
    });
}

fn find(site: &Site, is: impl Fn(&Address) -> bool) -> Option<Address> {
    site.addresses().find(|address| is(address)).copied()
}

/// What is no whole IPv4 packet stays as it is.
fn translate(frame: &mut [u8], write: impl FnOnce(&mut Ipv4Packet<&mut [u8]>) -> Option<()>) {
    let Some(octets) = frame.get_mut(ETHERNET..) else {
        return;
    };
    let Ok(mut packet) = Ipv4Packet::new_checked(octets) else {
        return;
    };
    if write(&mut packet).is_none() {
        return;
    }
    packet.fill_checksum();
    let (ends, protocol) = ([packet.src_addr(), packet.dst_addr()], packet.next_header());
    seal(packet.payload_mut(), protocol, ends.map(IpAddress::from));
}

/// The checksum of TCP, and that of UDP where it has one.
fn seal(payload: &mut [u8], protocol: IpProtocol, [from, to]: [IpAddress; 2]) {
    match protocol {
        IpProtocol::Udp => {
            if let Ok(mut udp) = UdpPacket::new_checked(payload)
                && udp.checksum() != 0
            {
                udp.fill_checksum(&from, &to);
            }
        }
        IpProtocol::Tcp => {
            if let Ok(mut tcp) = TcpPacket::new_checked(payload) {
                tcp.fill_checksum(&from, &to);
            }
        }
        _ => {}
    }
}
