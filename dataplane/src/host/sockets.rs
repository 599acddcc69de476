//! The sockets of the thread's network namespace, as the kernel lists them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::{Error, Result};

/// What the kernel says of a connection, and of a socket that takes whatever comes.
pub(super) const ESTABLISHED: u8 = 1;
pub(super) const LISTENS: u8 = 10;
pub(super) const UNCONNECTED: u8 = 7;

/// A socket. Addresses of IPv4 are such also where the socket is of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: u8,
}

/// All of a protocol: `tcp` or `udp`.
///
/// # Errors
/// `Io` where the kernel's tables cannot be read.
pub(super) fn all(protocol: &str) -> Result<Vec<Socket>> {
    let mut all = Vec::new();
    for version in ["", "6"] {
        // Of the thread, whose network may be another than the process's.
        let path = format!("/proc/thread-self/net/{protocol}{version}");
        let text = match fs::read_to_string(&path) {
            // No IPv6 here.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text.map_err(Error::io(format!("read {path}")))?,
        };
        all.extend(text.lines().skip(1).filter_map(socket));
    }
    Ok(all)
}

fn socket(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    Some(Socket {
        local: end(fields.next()?)?,
        remote: end(fields.next()?)?,
        state: u8::from_str_radix(fields.next()?, 16).ok()?,
    })
}

/// An address as the kernel prints it: words in the machine's order.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        _ => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
        }
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(octets: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(octets))
    }

    #[test]
    fn a_line_is_a_socket() {
        let (ours, theirs) = (hex([192, 0, 2, 1]), hex([192, 0, 2, 9]));
        let rest = "00000000:00000000";
        let found = socket(&format!("  0: {ours}:C001 {theirs}:1D10 01 {rest}")).unwrap();
        assert_eq!(found.local, "192.0.2.1:49153".parse().unwrap());
        assert_eq!(found.remote, "192.0.2.9:7440".parse().unwrap());
        assert_eq!(found.state, ESTABLISHED);
        let mapped = format!("0000000000000000{}{theirs}", hex([0, 0, 0xff, 0xff]));
        let any = "0".repeat(32);
        let found = socket(&format!("  1: {mapped}:1D10 {any}:0000 0A {rest}")).unwrap();
        assert_eq!(found.local, "192.0.2.9:7440".parse().unwrap());
        assert!(found.remote.ip().is_unspecified() && found.state == LISTENS);
        assert_eq!(socket("  2: nothing"), None);
    }
}
