//! Virtual Ethernet between namespaces, and the offloads that decide what a frame looks like on it.

use std::fmt;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use crate::error::{Error, Result};
use crate::netns::Namespace;
use crate::sys;
use crate::xdp::listen_to_xdp;

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One end of a veth pair.
#[derive(Debug, Clone)]
pub struct End<'a> {
    /// Where it lives.
    pub namespace: &'a Namespace,
    /// The device's name, at most 15 bytes.
    pub device: &'a str,
    /// Its hardware address; the kernel draws one if there is none.
    pub mac: Option<Mac>,
    /// Its addresses with their subnets.
    pub addresses: Vec<Ipv4Network>,
    /// Where its default route leads.
    pub gateway: Option<Ipv4Addr>,
    /// What its hardware claims to do.
    pub offloads: Offloads,
}

impl<'a> End<'a> {
    /// An end without addresses and with the kernel's offloads.
    pub fn new(namespace: &'a Namespace, device: &'a str) -> Self {
        Self {
            namespace,
            device,
            mac: None,
            addresses: Vec::new(),
            gateway: None,
            offloads: Offloads::Kernel,
        }
    }
}

/// How a veth end treats frames longer than the MTU and unfinished checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offloads {
    /// As the kernel makes it: super-packets cross whole, checksums are left open. Fast.
    #[default]
    Kernel,
    /// As a plain network card: what the host sends is segmented and its checksums are complete before it
    /// reaches the device.
    Wire,
    /// The far end of a wire: as `Wire`, and ready to take what the peer sends by XDP_TX or redirect: a veth
    /// loses that unless its receiver polls (GRO on) and has an XDP program, here one that passes
    /// everything. Nothing is merged: what arrives is what was sent.
    WireTap,
}

/// Makes a veth pair between two ends, both up, with `mtu` bytes of IP packet. It goes away with either
/// namespace. No IPv6 link-local address is made, so an idle link is silent.
///
/// # Errors
/// A name that is taken or too long, a missing namespace, no permission.
pub fn veth(a: &End<'_>, b: &End<'_>, mtu: u32) -> Result<()> {
    let (host, peer) = (a.device, b.device);
    // By number of an open namespace: the host's own has no name that `ip` could resolve.
    let create = format!(
        "link add {host} mtu {mtu}{} type veth peer name {peer} mtu {mtu}{} netns {}",
        hardware(a),
        hardware(b),
        b.namespace.reference(),
    );
    a.namespace.ip([create])?;
    configure(a)?;
    configure(b)
}

fn hardware(end: &End<'_>) -> String {
    end.mac.map(|mac| format!(" address {mac}")).unwrap_or_default()
}

fn configure(end: &End<'_>) -> Result<()> {
    let device = end.device;
    let mut lines = vec![format!("link set {device} addrgenmode none")];
    lines.extend(
        end.addresses
            .iter()
            .map(|address| format!("addr add {address} dev {device}")),
    );
    if end.offloads == Offloads::WireTap {
        // GRO must be on, and this bound keeps it from ever joining two frames.
        lines.push(format!("link set {device} gro_max_size 1"));
    }
    lines.push(format!("link set {device} up"));
    lines.extend(
        end.gateway
            .map(|gateway| format!("route add default via {gateway} dev {device}")),
    );
    end.namespace.ip(lines)?;
    for (feature, on) in features(end.offloads) {
        set_offload(end.namespace, device, *feature, *on)?;
    }
    if end.offloads == Offloads::WireTap {
        let listening = end.namespace.run(|| listen_to_xdp(device))?;
        listening.map_err(Error::io(format!(
            "prepare {device} in {} for XDP",
            end.namespace.name()
        )))?;
    }
    Ok(())
}

/// An offload that can be switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// The device completes the checksums of what is sent.
    TxChecksum,
    /// The device segments TCP. Follows `TxChecksum` when that goes off.
    Tso,
    /// The stack segments as late as it can.
    Gso,
    /// The stack joins what it receives; on a veth it also makes the receiver poll.
    Gro,
}

impl Feature {
    /// The `ETHTOOL_S…` command of `linux/ethtool.h`.
    fn command(self) -> u32 {
        match self {
            Self::TxChecksum => 0x17,
            Self::Tso => 0x1f,
            Self::Gso => 0x24,
            Self::Gro => 0x2c,
        }
    }
}

/// Switches one offload of a device, as `ethtool -K` does.
///
/// # Errors
/// There is no such device, or it cannot do what shall be on.
pub fn set_offload(namespace: &Namespace, device: &str, feature: Feature, on: bool) -> Result<()> {
    let set = namespace.run(|| sys::ethtool(device, feature.command(), u32::from(on)))?;
    match set {
        // TSO goes away by itself, for good, where the peer has an XDP program.
        Err(error) if !on && error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        set => set.map_err(Error::io(format!(
            "set {feature:?} of {device} in {}",
            namespace.name()
        ))),
    }
}

fn features(offloads: Offloads) -> &'static [(Feature, bool)] {
    match offloads {
        Offloads::Kernel => &[],
        Offloads::Wire => &[(Feature::Tso, false), (Feature::TxChecksum, false)],
        Offloads::WireTap => &[
            (Feature::Tso, false),
            (Feature::TxChecksum, false),
            (Feature::Gro, true),
        ],
    }
}
