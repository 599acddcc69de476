//! The few bytes of a frame that a wire looks at.

use std::net::Ipv4Addr;

use crate::link::Mac;

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Geneve's port and its O bit, of control packets (RFC 8926).
const GENEVE_PORT: u16 = 6081;
const GENEVE_CONTROL: u8 = 0x80;
const ARP_LENGTH: usize = ETHERNET + 28;
/// Ethernet and IPv4, request (RFC 826).
const ARP_REQUEST: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];

/// What a frame wants of the wire.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// To be carried to this IPv4 address, the outermost destination.
    Carry(Ipv4Addr),
    /// To be told the hardware address behind an IPv4 address.
    Resolve,
    /// Nothing that the wire does: other protocols, announcements, broken headers.
    Nothing,
}

/// Reads the headers of an Ethernet frame.
pub(crate) fn wanted(frame: &[u8]) -> Wanted {
    match frame.get(12..ETHERNET) {
        Some(kind) if kind == ETHERTYPE_IPV4 => destination(frame).map_or(Wanted::Nothing, Wanted::Carry),
        Some(kind) if kind == ETHERTYPE_ARP && is_question(frame) => Wanted::Resolve,
        _ => Wanted::Nothing,
    }
}

/// Whether a frame is a data packet of Geneve over IPv4 without options.
pub(crate) fn is_geneve_data(frame: &[u8]) -> bool {
    let Some(head) = frame.get(..ETHERNET + 30) else {
        return false;
    };
    let is_udp = head[12..14] == ETHERTYPE_IPV4 && head[14] == 0x45 && head[23] == 17;
    is_udp && head[36..38] == GENEVE_PORT.to_be_bytes() && head[43] & GENEVE_CONTROL == 0
}

/// The answer to an ARP request that [`wanted`] recognised: every address is behind `mac`.
pub(crate) fn arp_reply(request: &[u8], mac: Mac) -> [u8; ARP_LENGTH] {
    let mut reply = [0; ARP_LENGTH];
    reply.copy_from_slice(&request[..ARP_LENGTH]);
    set_addresses(&mut reply, mac_at(request, 22), mac);
    reply[21] = 2;
    reply[22..28].copy_from_slice(&mac.0);
    reply[28..32].copy_from_slice(&request[38..42]);
    reply[32..42].copy_from_slice(&request[22..32]);
    reply
}

/// Writes the Ethernet addresses of the last hop.
pub(crate) fn set_addresses(frame: &mut [u8], to: Mac, from: Mac) {
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
}

fn destination(frame: &[u8]) -> Option<Ipv4Addr> {
    let header = frame.get(ETHERNET..ETHERNET + 20)?;
    let address: [u8; 4] = header[16..20].try_into().ok()?;
    (header[0] >> 4 == 4).then(|| address.into())
}

/// An ARP request that expects an answer: no probe (RFC 5227: sender 0.0.0.0) and no announcement.
fn is_question(frame: &[u8]) -> bool {
    frame.len() >= ARP_LENGTH
        && frame[ETHERNET..22] == ARP_REQUEST
        && frame[28..32] != [0; 4]
        && frame[28..32] != frame[38..42]
}

fn mac_at(frame: &[u8], offset: usize) -> Mac {
    let mut mac = [0; 6];
    mac.copy_from_slice(&frame[offset..offset + 6]);
    Mac(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(ETHERTYPE_ARP);
        frame.extend(ARP_REQUEST);
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend(target);
        frame
    }

    #[test]
    fn an_arp_question_is_answered_with_the_wires_address() {
        let frame = request([10, 0, 0, 2], [10, 0, 0, 1]);
        assert_eq!(wanted(&frame), Wanted::Resolve);
        let reply = arp_reply(&frame, Mac([2, 9, 9, 9, 9, 9]));
        let expected = [
            2, 0, 0, 0, 0, 1, 2, 9, 9, 9, 9, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 9, 9, 9, 9, 9, 10, 0, 0, 1,
            2, 0, 0, 0, 0, 1, 10, 0, 0, 2,
        ];
        assert_eq!(reply, expected);
        assert_eq!(wanted(&reply), Wanted::Nothing);
    }

    #[test]
    fn probes_and_announcements_are_not_answered() {
        assert_eq!(wanted(&request([0; 4], [10, 0, 0, 1])), Wanted::Nothing);
        assert_eq!(wanted(&request([10, 0, 0, 1], [10, 0, 0, 1])), Wanted::Nothing);
    }

    #[test]
    fn ipv4_is_carried_and_anything_cut_is_not() {
        let mut frame = vec![0; 34];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        frame[14] = 0x45;
        frame[30..34].copy_from_slice(&[198, 18, 3, 2]);
        assert_eq!(wanted(&frame), Wanted::Carry(Ipv4Addr::new(198, 18, 3, 2)));
        for length in 0..frame.len() {
            assert_eq!(wanted(&frame[..length]), Wanted::Nothing);
        }
        let arp = request([10, 0, 0, 2], [10, 0, 0, 1]);
        for length in 0..arp.len() {
            assert_eq!(wanted(&arp[..length]), Wanted::Nothing);
        }
    }
}
