//! The host's own connections to its controller.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use crate::error::{Error, Result};

/// A connection: its end here, and the controller's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) local: SocketAddrV4,
    pub(super) remote: Ipv4Addr,
}

/// The established connections to a controller's port elsewhere.
///
/// # Errors
/// `Io` where the kernel's tables cannot be read.
pub(super) fn connections(port: u16) -> Result<Vec<Connection>> {
    let mut all = Vec::new();
    for table in ["tcp", "tcp6"] {
        // Of the thread, whose network may be another than the process's.
        let path = format!("/proc/thread-self/net/{table}");
        let text = match fs::read_to_string(&path) {
            // No IPv6 here.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text.map_err(Error::io(format!("read {path}")))?,
        };
        all.extend(text.lines().skip(1).filter_map(|line| connection(line, port)));
    }
    Ok(all)
}

fn connection(line: &str, port: u16) -> Option<Connection> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (socket(fields.next()?)?, socket(fields.next()?)?);
    let is_established = fields.next()? == "01";
    let is_control = is_established && remote.port() == port && !remote.ip().is_loopback();
    is_control.then_some(Connection {
        local,
        remote: *remote.ip(),
    })
}

/// An address as the kernel prints it: words in the machine's order.
fn socket(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = address.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let address = match address.len() {
        8 => Ipv4Addr::from(word(0)?),
        _ => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(octets).to_ipv4_mapped()?
        }
    };
    Some(SocketAddrV4::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(octets: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(octets))
    }

    #[test]
    fn a_connection_to_the_controller_is_told_from_others() {
        let (ours, theirs) = (hex([192, 0, 2, 1]), hex([192, 0, 2, 9]));
        let line = |remote: &str, port: &str, state: &str| {
            format!("  0: {ours}:C001 {remote}:{port} {state} 00000000:00000000")
        };
        let found = Connection {
            local: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 0xc001),
            remote: Ipv4Addr::new(192, 0, 2, 9),
        };
        assert_eq!(connection(&line(&theirs, "1D10", "01"), 7440), Some(found));
        assert_eq!(
            connection(&line(&theirs, "1D10", "0A"), 7440),
            None,
            "not connected"
        );
        assert_eq!(connection(&line(&theirs, "01BB", "01"), 7440), None, "elsewhere");
        let own = hex([127, 0, 0, 1]);
        assert_eq!(connection(&line(&own, "1D10", "01"), 7440), None, "on this host");
        let mapped = format!("0000000000000000{}{theirs}", hex([0, 0, 0xff, 0xff]));
        assert_eq!(
            socket(&format!("{mapped}:1D10")).map(|found| *found.ip()),
            Some(found.remote)
        );
    }
}
