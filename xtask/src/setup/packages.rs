//! The one list of Debian packages that the tasks need.

use super::Need;

/// A Debian package, the tasks that need it, and what for.
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) needs: &'static [Need],
    pub(super) why: &'static str,
}

const TEST: &[Need] = &[Need::Test];
const BENCH: &[Need] = &[Need::Bench];
pub(super) const BPF: &[Need] = &[Need::Test, Need::Ebpf];
const WORLD: &[Need] = &[Need::Test, Need::Demo, Need::Bench];

pub(super) const PACKAGES: &[Package] = &[
    package(
        "rustc-web",
        BPF,
        "the compiler of the BPF object: its LLVM is bpf-linker's",
    ),
    package("rust-web-src", BPF, "core's source, built for the BPF target"),
    package(
        "rust-web-clippy",
        TEST,
        "lints of ebpf/, by the compiler that builds it",
    ),
    package("llvm-22", BPF, "llvm-strip and llvm-objdump for the BPF object"),
    package("iproute2", WORLD, "namespaces and links of the lab"),
    package(
        "nftables",
        WORLD,
        "the 1:1 NAT in front of two points of presence",
    ),
    package("ethtool", WORLD, "offloads of the lab's links"),
    package("iputils-ping", TEST, "the first packet through a VPC"),
    package(
        "iperf3",
        BENCH,
        "TCP through a VPC and through the kernel's vxlan",
    ),
    package(
        "tcpdump",
        TEST,
        "the capture at a player's machine; compiles filters",
    ),
    package("tshark", TEST, "the independent decoder of VXLAN and Geneve"),
    package("mtr-tiny", TEST, "a traceroute through an accelerator"),
    package(
        "chocolate-doom",
        TEST,
        "a game that knows nothing of Kuafu: client and server",
    ),
    package("freedm", TEST, "the game's levels"),
    package(
        "gobgpd",
        TEST,
        "speaks BGP for a host, and is the router beside it",
    ),
    package(
        "frr",
        TEST,
        "speaks BGP and BFD for a host, and is the router beside it",
    ),
    package("qemu-system-x86", TEST, "guests with Debian's own kernels"),
    package("busybox-static", TEST, "the guests' root file system"),
    package("cpio", TEST, "packs the guests' root file system"),
];

const fn package(name: &'static str, needs: &'static [Need], why: &'static str) -> Package {
    Package { name, needs, why }
}
