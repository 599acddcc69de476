//! What is looked at.

use super::check::{Check, State};
use super::machine::{Machine, is_bpffs};
use super::tcx::{self, Tcx};
use super::{KERNEL, clock};

/// Numbers of capabilities (capabilities(7)).
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const BPF: u32 = 39;

/// Every check, in the order in which one needs the other.
pub(super) fn checks(machine: &Machine) -> Vec<Check> {
    let capabilities = capabilities(machine);
    let permitted = capabilities.state == State::Ok;
    vec![
        kernel(machine),
        tcx(machine, permitted),
        btf(machine),
        jit(machine),
        bpffs(machine),
        capabilities,
        veth(machine),
        ports(machine),
        underlay(machine),
        clock::check(machine),
    ]
}

/// Major and minor of a release such as `6.12.41+deb13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(machine: &Machine) -> Check {
    let Some(release) = machine.release() else {
        return Check::fail(
            "kernel",
            "its release cannot be read",
            "mount /proc: mount -t proc proc /proc",
        );
    };
    let least = format!("{}.{}", KERNEL.0, KERNEL.1);
    match version(&release) {
        Some(version) if version >= KERNEL => Check::ok("kernel", format!("Linux {release}")),
        Some(_) => {
            let found = format!("Linux {release}; {least} or later is needed, for tcx and what follows it");
            Check::fail("kernel", found, newer_kernel(machine, &release))
        }
        None => Check::warn(
            "kernel",
            format!("Linux {release}, a version of another form"),
            format!("{least} or later"),
        ),
    }
}

/// The line that brings a newer kernel. Debian 12 has 6.12 in its security archive, under names of their own.
fn newer_kernel(machine: &Machine, release: &str) -> String {
    let system = machine.text("/etc/os-release").unwrap_or_default();
    let says = |line: &str| system.lines().any(|known| known.replace('"', "") == line);
    let flavour = ["cloud-amd64", "cloud-arm64", "rt-amd64", "amd64", "arm64"];
    let flavour = flavour
        .into_iter()
        .find(|flavour| release.ends_with(flavour))
        .unwrap_or("amd64");
    match (says("ID=debian"), says("VERSION_ID=12")) {
        (true, true) => format!(
            "apt-get update && apt-get install linux-image-6.12-{flavour} && reboot   (from Debian 12's security archive, \
             suite bookworm-security)"
        ),
        (true, false) => format!("apt-get update && apt-get install linux-image-{flavour} && reboot"),
        // An initramfs does not say what it is of; Debian's kernels carry their names.
        _ if release.contains("-amd64") || release.contains("-arm64") => format!(
            "on Debian 12: apt-get update && apt-get install linux-image-6.12-{flavour} && reboot   (from its security \
             archive)"
        ),
        _ => format!("install Linux {}.{} or later", KERNEL.0, KERNEL.1),
    }
}

fn tcx(machine: &Machine, permitted: bool) -> Check {
    const NAME: &str = "tcx";
    let fix = || newer_kernel(machine, &machine.release().unwrap_or_default());
    match tcx::look(machine, permitted) {
        Tcx::Attached => Check::ok(NAME, "a program was attached and detached"),
        Tcx::Named => Check::ok(
            NAME,
            "the kernel names it; not tried without CAP_BPF and CAP_NET_ADMIN",
        ),
        Tcx::Missing(why) => {
            let found = format!("missing: ports attach by it, and this kernel has none ({why})");
            Check::fail(NAME, found, fix())
        }
        Tcx::Unknown => Check::fail(
            NAME,
            "neither tried nor named: no permission, and no BTF to read",
            fix(),
        ),
    }
}

fn btf(machine: &Machine) -> Check {
    if machine.has("/sys/kernel/btf/vmlinux") {
        return Check::ok("btf", "/sys/kernel/btf/vmlinux");
    }
    let fix = if machine.has("/sys/kernel") {
        "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian's are"
    } else {
        "mount /sys: mount -t sysfs sys /sys"
    };
    Check::fail("btf", "no /sys/kernel/btf/vmlinux", fix)
}

fn jit(machine: &Machine) -> Check {
    let key = "net.core.bpf_jit_enable";
    match machine.text("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => Check::warn(
            "jit",
            format!("{key} is 0: programs are interpreted, slowly"),
            format!("sysctl -w {key}=1"),
        ),
        Some(value) => Check::ok("jit", format!("{key} is {value}")),
        None => Check::ok("jit", "always on"),
    }
}

fn bpffs(machine: &Machine) -> Check {
    const PLACE: &str = "/sys/fs/bpf";
    let path = machine.path(PLACE);
    if is_bpffs(&path) {
        return Check::ok("bpffs", PLACE);
    }
    // The kernel says the same where statfs(2) is not to be trusted.
    let mounts = machine.text("/proc/self/mounts").unwrap_or_default();
    let mounted = |line: &str| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(PLACE) && words.next() == Some("bpf")
    };
    if mounts.lines().any(mounted) {
        return Check::ok("bpffs", PLACE);
    }
    if machine.has(PLACE) {
        return Check::ok("bpffs", format!("the agent will mount it at {PLACE}"));
    }
    let fix = "mount /sys: mount -t sysfs sys /sys";
    Check::fail("bpffs", format!("there is no {PLACE} to mount it at"), fix)
}

fn capabilities(machine: &Machine) -> Check {
    const NAME: &str = "capabilities";
    let status = machine.text("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()) else {
        return match machine.is_this() && nix::unistd::geteuid().is_root() {
            true => Check::ok(NAME, "root"),
            false => Check::fail(NAME, "cannot be read", "mount /proc: mount -t proc proc /proc"),
        };
    };
    let has = |number: u32| effective >> number & 1 == 1;
    let missing: Vec<&str> = [
        ("CAP_BPF", has(BPF) || has(SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(NET_ADMIN)),
    ]
    .into_iter()
    .filter_map(|(name, present)| (!present).then_some(name))
    .collect();
    if missing.is_empty() {
        return Check::ok(NAME, "CAP_BPF and CAP_NET_ADMIN");
    }
    Check::fail(
        NAME,
        format!("missing: {}", missing.join(", ")),
        "run it as root, or by the units of the package",
    )
}

fn veth(machine: &Machine) -> Check {
    const NAME: &str = "veth";
    if machine.has("/sys/module/veth") {
        return Check::ok(NAME, "loaded");
    }
    let release = machine.release().unwrap_or_default();
    let listed = |list: &str| {
        machine
            .holds(&format!("/lib/modules/{release}/{list}"), b"/veth.ko")
            .unwrap_or(false)
    };
    if listed("modules.builtin") || listed("modules.dep") {
        return Check::ok(NAME, "comes with this kernel");
    }
    if !machine.has(&format!("/lib/modules/{release}")) {
        return Check::warn(
            NAME,
            "this kernel has no list of modules; whether veth is built in shows when a port is made",
            "CONFIG_VETH=y",
        );
    }
    Check::warn(NAME, "the module is not loaded and not found", "modprobe veth")
}

/// The exit's NAT takes 10000-29999 unless its node says otherwise.
fn ports(machine: &Machine) -> Check {
    const NAME: &str = "ports";
    let key = "net.ipv4.ip_local_port_range";
    let Some(range) = machine.text("/proc/sys/net/ipv4/ip_local_port_range") else {
        return Check::warn(
            NAME,
            format!("{key} cannot be read"),
            "mount /proc: mount -t proc proc /proc",
        );
    };
    let first = range
        .split_whitespace()
        .next()
        .and_then(|first| first.parse::<u16>().ok());
    match first {
        Some(first) if first <= 29_999 => Check::warn(
            NAME,
            format!(
                "the host's own connections begin at port {first}, among an exit's NAT ports (10000-29999)"
            ),
            format!("sysctl -w {key}=\"32768 60999\", or other nat_ports in the node's manifest"),
        ),
        _ => Check::ok(
            NAME,
            format!("the host's own connections use {}", range.replace('\t', "-")),
        ),
    }
}

/// The device of the default route.
pub(super) fn default_device(machine: &Machine) -> Option<String> {
    let routes = machine.text("/proc/net/route").unwrap_or_default();
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let device = words.next()?;
        (words.next()? == "00000000").then(|| device.to_owned())
    })
}

/// The device of the default route: VXLAN takes 50 octets of its MTU, the backbone 60.
fn underlay(machine: &Machine) -> Check {
    const NAME: &str = "underlay";
    let Some(device) = default_device(machine) else {
        return Check::warn(
            NAME,
            "no default route; other hosts may be out of reach",
            "ip route add default via GATEWAY",
        );
    };
    let mtu = machine
        .text(&format!("/sys/class/net/{device}/mtu"))
        .and_then(|mtu| mtu.parse::<u32>().ok());
    match mtu {
        None => Check::ok(NAME, device),
        Some(mtu) if mtu < 636 => Check::fail(
            NAME,
            format!("{device} has MTU {mtu}"),
            format!("ip link set {device} mtu 1500"),
        ),
        Some(mtu) => Check::ok(
            NAME,
            format!("{device}, MTU {mtu}: ports {}, backbone {}", mtu - 50, mtu - 60),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.12.41+deb13-amd64"), Some((6, 12)));
        assert_eq!(version("6.1.0-35-amd64"), Some((6, 1)));
        assert_eq!(version("next"), None);
        assert!(version("10.0-x") >= Some(KERNEL));
    }

    #[test]
    fn a_check_that_fails_says_what_helps() {
        let machine = Machine::at(Path::new("/nonexistent"));
        for check in checks(&machine)
            .into_iter()
            .filter(|check| check.state == State::Fail)
        {
            assert!(check.fix.is_some(), "{check:?}");
        }
    }
}
