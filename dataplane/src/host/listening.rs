//! Which ports programs of this host listen on.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::error::{Error, Result};

/// A port of the range on which a socket of this host takes packets for `local`.
///
/// # Errors
/// `Io` where the kernel's tables cannot be read.
pub(super) fn in_range(range: &RangeInclusive<u16>, local: Ipv4Addr) -> Result<Option<u16>> {
    for (table, state) in [("tcp", "0A"), ("udp", "07"), ("tcp6", "0A"), ("udp6", "07")] {
        // Of the thread, whose network may be another than the process's.
        let path = format!("/proc/thread-self/net/{table}");
        let text = match fs::read_to_string(&path) {
            // No IPv6 here.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            text => text.map_err(Error::io(format!("read {path}")))?,
        };
        let mut ports = text.lines().skip(1).filter_map(|line| port(line, state, local));
        if let Some(port) = ports.find(|port| range.contains(port)) {
            return Ok(Some(port));
        }
    }
    Ok(None)
}

/// The port of a line whose socket is in this state, at `local` or at any address.
fn port(line: &str, state: &str, local: Ipv4Addr) -> Option<u16> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    if fields.nth(1)? != state {
        return None;
    }
    let own = format!("{:08X}", u32::from_ne_bytes(local.octets()));
    let is_any = address.bytes().all(|digit| digit == b'0');
    let is_mapped = address.len() == 32 && address.ends_with(&own);
    if !is_any && address != own && !is_mapped {
        return None;
    }
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_told_from_others() {
        let local = Ipv4Addr::new(127, 0, 0, 1);
        let line =
            |address: &str, state: &str| format!("  0: {address} 00000000:0000 {state} 00000000:00000000");
        let own = format!("{:08X}:2710", u32::from_ne_bytes(local.octets()));
        assert_eq!(port(&line(&own, "0A"), "0A", local), Some(10_000));
        assert_eq!(port(&line("00000000:2710", "0A"), "0A", local), Some(10_000));
        assert_eq!(
            port(&line("00000000000000000000000000000000:2710", "07"), "07", local),
            Some(10_000)
        );
        assert_eq!(port(&line(&own, "01"), "0A", local), None, "connected");
        assert_eq!(port(&line("0500000A:2710", "0A"), "0A", local), None, "elsewhere");
    }
}
