//! `kuafu0`: the host's own port in the system VPC, from which probes leave.
//!
//! A veth pair: the prober sends on `kuafu0`, and the port program takes the packets where they arrive, at the other
//! end. What the edge has for the prober goes the same way back. Health checks leave by it too (`checks`).

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;

use kuafu_model::HostState;
use kuafu_model::state::PortState;

use super::net::Net;
use crate::error::{Error, Result};
use crate::sys;

/// The end that the prober sends on, and the port's name in the state.
pub const NAME: &str = "kuafu0";
/// The end that the port program is attached to.
pub const PORT: &str = "kuafu0p";
/// The system VPC.
const SYSTEM_VNI: u32 = 1;
/// Length of the system VPC's prefix: 100.64.0.0/10.
const PREFIX: u8 = 10;
/// Whatever an underlay carries is handed over here.
const MTU: u32 = 65_535;
/// `ETHTOOL_STXCSUM`, `ETHTOOL_SSG`, `ETHTOOL_STSO` and `ETHTOOL_SGSO`: packets leave as they are sent.
const OFFLOADS: [u32; 4] = [0x17, 0x19, 0x1f, 0x24];
/// `ETHTOOL_SGRO`. XDP redirects into a veth only where the end that receives has it. It joins nothing here (see
/// [`Net::quiet_up`]): a health check's segments would be larger than the underlay carries.
const GRO: u32 = 0x2c;

/// Makes the pair, where it is not there, and gives it its settings and the overlay's address; `has_v6`: IPv6 is sent by
/// it. Returns its ends, the port's second.
pub(super) fn ensure(net: &Net, overlay: Ipv4Addr, has_v6: bool) -> Result<(u32, u32)> {
    let (own, port) = match (net.named(NAME)?, net.named(PORT)?) {
        (Some(own), Some(port)) => (own.index, port.index),
        _ => make(net)?,
    };
    for (name, index, has_v6) in [(NAME, own, has_v6), (PORT, port, false)] {
        quiet(name, has_v6)?;
        net.quiet_up(index, MTU)?;
    }
    if !net.only_address(own, overlay)? {
        net.add_address(own, overlay, PREFIX)?;
    }
    Ok((own, port))
}

fn make(net: &Net) -> Result<(u32, u32)> {
    net.remove_device(NAME)?;
    net.remove_device(PORT)?;
    net.add_pair(NAME, PORT)?;
    match (net.named(NAME)?, net.named(PORT)?) {
        (Some(own), Some(port)) => Ok((own.index, port.index)),
        _ => Err(Error::io(format!("make {NAME}"))(ErrorKind::NotFound.into())),
    }
}

/// Nothing but what the host sends by it leaves it, and as it is.
fn quiet(name: &str, has_v6: bool) -> Result<()> {
    // Where IPv6 is sent, still no address of its own, nor anything by itself. Where it is switched off, so are routes.
    let settings: &[(&str, &str)] = if has_v6 {
        &[("addr_gen_mode", "1"), ("accept_ra", "0"), ("disable_ipv6", "0")]
    } else {
        &[("disable_ipv6", "1")]
    };
    for (setting, value) in settings {
        match fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{setting}"), value) {
            // A kernel without IPv6.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            written => written.map_err(Error::io(format!("set {setting} of IPv6 on {name}")))?,
        }
    }
    let off = OFFLOADS.map(|command| (command, 0));
    for (command, value) in off.into_iter().chain([(GRO, 1)]) {
        match sys::ethtool(name, command, value) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            switched => switched.map_err(Error::io(format!("switch an offload of {name}")))?,
        }
    }
    Ok(())
}

/// Removes the pair; whether it was there.
pub(crate) fn remove(net: &Net) -> Result<bool> {
    net.remove_device(NAME)
}

/// A state with the host's own port, which the controller leaves to the host.
#[must_use]
pub fn with_port(state: &HostState) -> HostState {
    let mut state = state.clone();
    if !state.ports.iter().any(|port| port.interface == NAME) {
        state.ports.push(PortState {
            name: NAME.to_owned(),
            vni: SYSTEM_VNI,
            address: state.node.overlay,
            mac: [0; 6],
            interface: NAME.to_owned(),
            mtu: None,
            serves: Vec::new(),
        });
    }
    state
}
