//! Generic netlink (linux/genetlink.h): a question to the kernel, and its answer.

use std::os::fd::AsRawFd;

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// Octets of the two headers of a message.
const HEADERS: usize = 20;
const REQUEST: u16 = 1;
/// The kind of message that says what went wrong.
const ERROR: u16 = 2;
/// The family that names the others; its command that finds one, and attributes of that.
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The attributes of what the kernel's family `name` answers; nothing where it has no such family, or no answer.
pub(super) fn ask(name: &str, command: u8, attributes: &[u8]) -> Option<Vec<u8>> {
    let named = [name.as_bytes(), &[0]].concat();
    let family = exchange(CONTROL, GET_FAMILY, &attribute(FAMILY_NAME, &named))?;
    let family = u16::from_ne_bytes(find(&family, FAMILY_ID)?.try_into().ok()?);
    exchange(family, command, attributes)
}

/// An attribute as a message holds it.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// The value of the first attribute of a kind.
pub(super) fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let (head, _) = attributes.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..length)?;
        // The upper two bits say how to read the value.
        if u16::from_ne_bytes([c, d]) & 0x3fff == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// The value of an attribute that is a number of 32 bits.
pub(super) fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_ne_bytes(find(attributes, kind)?.try_into().ok()?))
}

fn exchange(family: u16, command: u8, attributes: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(HEADERS + attributes.len()).ok()?;
    let mut question = length.to_ne_bytes().to_vec();
    question.extend(family.to_ne_bytes());
    question.extend(REQUEST.to_ne_bytes());
    // Number and sender; then command, version.
    question.extend([0; 8]);
    question.extend([command, 1, 0, 0]);
    question.extend(attributes);
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )
    .ok()?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(1)).ok()?;
    send(socket.as_raw_fd(), &question, MsgFlags::empty()).ok()?;
    let mut answer = vec![0; 1 << 16];
    let received = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
    let message = answer.get(..received)?;
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let length = u32::from_ne_bytes(message.get(..4)?.try_into().ok()?);
    if kind == ERROR {
        return None;
    }
    Some(message.get(HEADERS..usize::try_from(length).ok()?)?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others() {
        let all = [attribute(2, b"ab\0"), attribute(1, &7_u32.to_ne_bytes())].concat();
        assert_eq!((number(&all, 1), find(&all, 2)), (Some(7), Some(&b"ab\0"[..])));
        assert_eq!(find(&all, 3), None);
        for end in 0..all.len() {
            assert_eq!(number(&all[..end], 1), None);
        }
        assert_eq!(find(&[0, 0, 9, 0, 1], 1), None, "a length of nothing");
    }

    #[test]
    fn the_kernel_knows_its_own_family() {
        let own = ask("nlctrl", GET_FAMILY, &attribute(FAMILY_NAME, b"nlctrl\0")).unwrap();
        assert_eq!(find(&own, FAMILY_NAME), Some(&b"nlctrl\0"[..]));
        assert_eq!(ask("no_such_family", 1, &[]), None);
    }
}
