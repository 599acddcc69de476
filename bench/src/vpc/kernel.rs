//! The peer: the kernel's vxlan device and bridge.

use anyhow::Result;

use super::world::{PORT, PORT_MTU, Side, VNI, World};

/// Makes a vxlan device and a bridge with the port on both hosts.
pub(super) fn connect(world: &World) -> Result<()> {
    for (side, other) in world.sides() {
        bridge(side, other)?;
    }
    Ok(())
}

fn bridge(side: &Side, other: &Side) -> Result<()> {
    let (local, remote) = (side.host_address, other.host_address);
    side.host.ip([
        "link add bridge0 type bridge".to_owned(),
        format!(
            "link add vxlan0 mtu {PORT_MTU} type vxlan id {VNI} dstport 4789 local {local} remote {remote}"
        ),
        "link set vxlan0 master bridge0 up".to_owned(),
        format!("link set {PORT} master bridge0"),
        format!("link set bridge0 mtu {PORT_MTU} up"),
    ])?;
    Ok(())
}
