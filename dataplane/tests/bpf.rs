//! The typed layer over the kernel's maps, programs and links, as root.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use kuafu_dataplane::bpf::{Bpf, Clock, Maps, Pins, Sizes, TestRun};
use kuafu_model::contents::Capacities;
use kuafu_pipeline::Reason;
use kuafu_pipeline::map::{Be32, IpKey, Mac, NodeConfig, Port, VtepKey};

/// What `XDP_PASS`, `TCX_NEXT` and `TC_ACT_SHOT` are.
const XDP_PASS: u32 = 2;
const TCX_NEXT: u32 = u32::MAX;
const SHOT: u32 = 2;
const LOOPBACK: u32 = 1;

fn unavailable() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        kuafu_lab::skip("BPF needs root");
    }
    !root
}

fn small() -> Sizes {
    Sizes {
        capacities: Capacities {
            endpoints: 1024,
            senders: 4096,
            rings: 4096,
            slots: 4096,
            ..Capacities::default()
        },
        connections: 1024,
        tracked: 1024,
        verified: 1024,
    }
}

#[test]
fn maps_keep_what_is_written() {
    if unavailable() {
        return;
    }
    let maps = Bpf::load(&small()).unwrap().maps;
    assert_eq!(maps.capacities(), small().capacities);
    let keys: Vec<_> = (1..=3000)
        .map(|vni| VtepKey {
            vni,
            address: Be32::new(7),
        })
        .collect();
    maps.senders.set_all(keys.iter().map(|key| (key, &1))).unwrap();
    assert_eq!(maps.senders.count().unwrap(), 3000);
    let mut seen = 0;
    maps.senders.for_each(|_, one| seen += one).unwrap();
    assert_eq!(seen, 3000);
    maps.senders.delete(&keys[0]).unwrap();
    maps.senders.delete(&keys[0]).unwrap();
    assert_eq!(maps.senders.get(&keys[0]).unwrap(), None);
    let mut rings = 0;
    maps.rings.set(&4095, &9).unwrap();
    maps.rings
        .for_each(|index, value| rings += u32::from(value == 0) + index / 4095)
        .unwrap();
    assert_eq!(rings, 4096, "4095 empty slots, and the last one");
}

#[test]
fn programs_run_over_test_frames() {
    if unavailable() {
        return;
    }
    let bpf = Bpf::load(&small()).unwrap();
    let frame = [0; 64];
    let run = TestRun::once(&frame, LOOPBACK);
    for edge in [&bpf.programs.edge, &bpf.programs.edge_frags] {
        assert_eq!(
            edge.test_run(&run).unwrap().verdict,
            XDP_PASS,
            "no node, no opinion"
        );
    }
    for tcx in [&bpf.programs.port, &bpf.programs.underlay] {
        assert_eq!(tcx.test_run(&run).unwrap().verdict, TCX_NEXT);
    }
    let node = NodeConfig {
        local: Be32::new(0x0a00_0001),
        mtu: 1500,
        ..NodeConfig::default()
    };
    let port = Port {
        address: IpKey::v4(0x0a01_0001),
        vni: 7,
        mac: Mac::from_octets([2, 0, 0, 0, 0, 1]),
        mtu: 1450,
        spare: 0,
    };
    bpf.maps.node.set(&0, &node).unwrap();
    bpf.maps.ports.set(&LOOPBACK, &port).unwrap();
    let run = bpf.programs.port.test_run(&run).unwrap();
    assert_eq!((run.verdict, run.frame.as_slice()), (SHOT, &frame[..]));
    let drops = bpf.maps.drops.get(Reason::Spoofed as u32).unwrap();
    assert_eq!(drops.iter().map(|drop| drop.packets).sum::<u64>(), 1);
    let last = drops.iter().find(|drop| drop.packets == 1).unwrap();
    assert_eq!((last.interface, last.length), (LOOPBACK, 64));
}

#[test]
fn pinned_maps_are_adopted_and_removed() {
    if unavailable() {
        return;
    }
    let root = std::path::Path::new("/sys/fs/bpf").join(format!("kuafu-test-{}", std::process::id()));
    let pins = Pins::new(&root, "a");
    let cleanup = Cleanup(&pins);
    let first = Bpf::load_pinned(&pins, &small()).unwrap();
    first.maps.rings.set(&3, &33).unwrap();
    drop(first);
    assert_eq!(Maps::open(&pins).unwrap().rings.get(&3).unwrap(), Some(33));
    let second = Bpf::load_pinned(&pins, &Sizes::default()).unwrap();
    assert_eq!(second.maps.rings.get(&3).unwrap(), Some(33));
    assert_eq!(second.maps.rings.capacity(), 4096, "a pinned map keeps its size");
    drop(cleanup);
    assert!(!root.exists());
}

struct Cleanup<'p>(&'p Pins);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        self.0.remove_all().unwrap();
    }
}

#[test]
fn the_clock_ticks() {
    if unavailable() {
        return;
    }
    let clock = Clock::new().unwrap();
    let first = clock.jiffies().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(clock.jiffies().unwrap() > first);
    assert!([100, 250, 300, 1000].contains(&clock.hz()));
}
