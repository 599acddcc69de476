//! How XDP will run on the underlay, and what would let it run in the driver.

use kuafu_dataplane::bpf::XdpMode;
use kuafu_dataplane::host::Device;

use super::check::Check;
use super::genetlink::{ask, attribute, find, number};
use super::machine::Machine;

const NAME: &str = "xdp";
/// What generic XDP costs: measured over veths beside a kernel vxlan device and bridge, in the same rounds.
const PRICE: &str = "generic comes after the kernel has made a buffer for each packet: 2.9 times the small packets of \
                     kernel vxlan instead of 4.6, and a VPC's TCP is 6 % slower";
/// What a driver can (linux/netdev.h): programs, redirects out of it, packets in several pieces.
const BASIC: u64 = 1;
const REDIRECT: u64 = 2;
const PIECES: u64 = 32;
/// The largest MTU whose packets are in one piece.
const ONE_PIECE: u32 = 3_400;

/// What is known of the underlay.
#[derive(Clone, Debug, Default)]
struct Facts {
    device: String,
    mtu: u32,
    is_veth: bool,
    /// What runs there now.
    runs: Option<XdpMode>,
    driver: Option<String>,
    /// What the driver says that it can; `None`: the kernel does not say.
    can: Option<u64>,
    /// The features that a virtio device and its driver agreed on, as sysfs has them: a digit for each.
    virtio: Option<String>,
    /// Queues in use, and how many there may be.
    queues: Option<(u32, u32)>,
    cpus: u32,
}

/// How XDP will run there.
pub(super) fn check(machine: &Machine, underlay: Option<&Device>) -> Check {
    match underlay {
        Some(device) => judge(&facts(machine, device)),
        None => Check::warn(
            NAME,
            "no default route, so no device to look at",
            "ip route add default via GATEWAY",
        ),
    }
}

fn facts(machine: &Machine, device: &Device) -> Facts {
    let below = |what: &str| format!("/sys/class/net/{}/device/{what}", device.name);
    // A veth has none; where another network's /sys is mounted, that may show a device of the same name.
    let driver = machine.points_to(&below("driver")).filter(|_| !device.is_veth);
    let virtio = driver.as_deref() == Some("virtio_net");
    Facts {
        device: device.name.clone(),
        mtu: device.mtu,
        is_veth: device.is_veth,
        runs: device.xdp,
        can: features(device.index),
        virtio: virtio.then(|| machine.text(&below("features"))).flatten(),
        queues: queues(device.index),
        driver,
        cpus: std::thread::available_parallelism()
            .map_or(1, |cpus| u32::try_from(cpus.get()).unwrap_or(u32::MAX)),
    }
}

/// `NETDEV_CMD_DEV_GET`: `NETDEV_A_DEV_XDP_FEATURES`.
fn features(index: u32) -> Option<u64> {
    let answer = ask("netdev", 1, &attribute(1, &index.to_ne_bytes()))?;
    Some(u64::from_ne_bytes(find(&answer, 3)?.try_into().ok()?))
}

/// `ETHTOOL_MSG_CHANNELS_GET`: combined ones, in use and at most.
fn queues(index: u32) -> Option<(u32, u32)> {
    const NESTED: u16 = 0x8000;
    let of = attribute(1, &index.to_ne_bytes());
    let answer = ask("ethtool", 17, &attribute(NESTED | 1, &of))?;
    Some((number(&answer, 9)?, number(&answer, 5)?))
}

fn judge(facts: &Facts) -> Check {
    let driver = facts
        .driver
        .as_deref()
        .unwrap_or(if facts.is_veth { "veth" } else { "no driver" });
    let who = format!("{} ({driver})", facts.device);
    if facts.runs == Some(XdpMode::Native) {
        return Check::ok(NAME, format!("{who} runs a program natively now"));
    }
    if facts.is_veth {
        let why = "generic, since native would quarter its TCP (`kuafu agent --xdp native` asks for it)";
        return Check::ok(NAME, format!("{who}: {why}; {PRICE}"));
    }
    if let Some((why, fix)) = obstacle(facts) {
        return Check::warn(NAME, format!("{who}: generic, since {why}; {PRICE}"), fix);
    }
    match facts.queues.filter(|_| facts.virtio.is_some()) {
        Some((used, most)) if used + facts.cpus > most => {
            let cpus = facts.cpus;
            let found = format!(
                "{who}: native, but CPUs share its queues to send, under a lock: it has {most}, {used} in use and one \
                 more for each of {cpus} CPUs are needed"
            );
            Check::warn(NAME, found, more_queues(facts, most))
        }
        _ => Check::ok(NAME, format!("{who}: native")),
    }
}

fn more_queues(facts: &Facts, most: u32) -> String {
    let cpus = facts.cpus;
    let there = format!("on the hypervisor, queues={} (QEMU: also mq=on)", 2 * cpus);
    match most.checked_sub(cpus) {
        Some(left @ 1..) => format!("ethtool -L {} combined {left}; or {there}", facts.device),
        _ => there,
    }
}

/// Why native XDP will be refused, and what helps.
fn obstacle(facts: &Facts) -> Option<(String, String)> {
    let Some(can) = facts.can else {
        let why = "the kernel does not say what its driver can".to_owned();
        return Some((why, "use a kernel of 6.12 or later".to_owned()));
    };
    if can & (BASIC | REDIRECT) != BASIC | REDIRECT {
        let fix =
            "a device whose driver has XDP, such as virtio_net, ena, gve, mlx5, ice, i40e, ixgbe or igb";
        return Some(("its driver has no XDP".to_owned(), fix.to_owned()));
    }
    if facts.mtu > ONE_PIECE && can & PIECES == 0 {
        let why = format!(
            "its driver does not take packets in pieces, and its MTU is {}",
            facts.mtu
        );
        return Some((why, format!("ip link set {} mtu {ONE_PIECE}", facts.device)));
    }
    facts.virtio.as_deref().and_then(virtio_obstacle)
}

/// What virtio_net refuses XDP for (`virtnet_xdp_set`): offloads of what is received that the hypervisor does for the
/// guest, where the guest has no way to switch them off; and buffers with the header alone.
fn virtio_obstacle(features: &str) -> Option<(String, String)> {
    const CTRL_GUEST_OFFLOADS: usize = 2;
    const MRG_RXBUF: usize = 15;
    const ANY_LAYOUT: usize = 27;
    const VERSION_1: usize = 32;
    const OFFLOADS: [(usize, &str); 7] = [
        (1, "guest_csum"),
        (7, "guest_tso4"),
        (8, "guest_tso6"),
        (9, "guest_ecn"),
        (10, "guest_ufo"),
        (54, "guest_uso4"),
        (55, "guest_uso6"),
    ];
    let has = |bit: usize| features.as_bytes().get(bit) == Some(&b'1');
    let offloads: Vec<&str> = OFFLOADS
        .iter()
        .filter(|(bit, _)| has(*bit))
        .map(|(_, name)| *name)
        .collect();
    if !has(CTRL_GUEST_OFFLOADS) && !offloads.is_empty() {
        let why = format!(
            "the hypervisor offers {} and no way to switch that off",
            offloads.join(", ")
        );
        let off: Vec<String> = offloads.iter().map(|name| format!("{name}=off")).collect();
        let fix = format!(
            "on the hypervisor, either ctrl_guest_offloads=on or {} (QEMU's names, of its virtio-net-pci)",
            off.join(",")
        );
        return Some((why, fix));
    }
    if has(MRG_RXBUF) && !has(ANY_LAYOUT) && !has(VERSION_1) {
        let why = "the device is of virtio before 1.0 without any_layout".to_owned();
        return Some((
            why,
            "on the hypervisor, disable-legacy=on,disable-modern=off (QEMU)".to_owned(),
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    /// Of a virtual machine monitor that offers offloads and no way to switch them off.
    const STUCK: &str = "11000101101110110000000000000100100000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";

    fn virtio(features: &str) -> Facts {
        Facts {
            device: "eth0".to_owned(),
            mtu: 1_500,
            driver: Some("virtio_net".to_owned()),
            can: Some(BASIC | REDIRECT | 4 | PIECES | 64),
            virtio: Some(features.to_owned()),
            queues: Some((2, 4)),
            cpus: 2,
            ..Facts::default()
        }
    }

    fn with(bit: usize) -> String {
        let mut features = STUCK.to_owned();
        features.replace_range(bit..=bit, "1");
        features
    }

    #[test]
    fn a_virtio_device_says_what_it_needs() {
        let check = judge(&virtio(STUCK));
        assert_eq!(check.state, State::Warn);
        assert!(
            check
                .found
                .contains("offers guest_csum, guest_tso4, guest_tso6, guest_ufo and"),
            "{check:?}"
        );
        assert!(check.fix.unwrap().contains("guest_tso4=off"));
        let good = virtio(&with(2));
        assert_eq!(judge(&good).state, State::Ok, "its offloads can be switched off");
        let few = Facts {
            queues: Some((2, 3)),
            ..good.clone()
        };
        let check = judge(&few);
        assert_eq!(check.state, State::Warn);
        assert!(check.fix.unwrap().starts_with("ethtool -L eth0 combined 1; or"));
        let one = Facts {
            queues: Some((1, 1)),
            ..good
        };
        assert!(
            judge(&one)
                .fix
                .unwrap()
                .starts_with("on the hypervisor, queues=4")
        );
    }

    #[test]
    fn a_driver_says_what_it_can() {
        let none = Facts {
            can: Some(0),
            virtio: None,
            ..virtio(STUCK)
        };
        assert!(judge(&none).found.contains("has no XDP"));
        let large = Facts {
            can: Some(BASIC | REDIRECT),
            mtu: 9_000,
            virtio: None,
            ..virtio(STUCK)
        };
        assert!(judge(&large).fix.unwrap().contains("mtu 3400"));
        let plain = Facts { mtu: 1_500, ..large };
        assert_eq!(judge(&plain).state, State::Ok);
        let veth = Facts {
            is_veth: true,
            driver: None,
            ..plain
        };
        assert!(judge(&veth).found.contains("eth0 (veth): generic"));
    }

    #[test]
    fn the_kernel_says_it_of_the_loopback_device() {
        assert_eq!(features(1), Some(0), "loopback has no XDP of its own");
    }
}
