//! Flows keep their targets.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kuafu_dataplane::bpf::Program;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

use super::instance::{
    ALL, FLOWS, Pinned, client, config, forwarded, moved, reset, skipped, target, targets, tcp, udp_from,
};

/// The target of each flow, by a packet in its midst or its first one.
fn all_targets(program: &Program, syn: bool) -> Vec<Ipv4Addr> {
    (0..FLOWS)
        .map(|number| forwarded(program, &tcp(number, syn)))
        .collect()
}

fn on_cpu(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

#[test]
fn flows_keep_their_targets_when_the_ring_changes_and_on_another_cpu() {
    if skipped() {
        return;
    }
    let before = config(&targets(100, &[]));
    let pinned = Pinned::new("flows", &before);
    let other = Pinned::new("other", &before);
    let (program, others) = (pinned.program(), other.program());
    on_cpu(0);
    let first = all_targets(&program, true);
    let again = all_targets(&program, false);
    assert_eq!(
        moved(&first, &again),
        (0, ALL),
        "second packets, which are remembered"
    );
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus > 1 {
        on_cpu(1);
        assert_eq!(
            moved(&first, &all_targets(&program, false)),
            (0, ALL),
            "on another CPU"
        );
    }
    let by_ring = all_targets(&others, true);
    assert_eq!(
        moved(&first, &by_ring),
        (0, ALL),
        "another instance, by the ring alone"
    );

    let gone: Ipv4Addr = target(7).parse().unwrap();
    let after = config(&targets(100, &[7]));
    pinned.configure(&after);
    other.configure(&after);
    let later = all_targets(&program, false);
    let (mut of_gone, mut unmoved) = (0, 0);
    for (before, after) in first.iter().zip(&later) {
        if *before == gone {
            assert_ne!(*after, gone);
            of_gone += 1;
        } else {
            assert_eq!(before, after, "a tracked flow to another target");
            unmoved += 1;
        }
    }
    println!("removed one of 100 targets: {of_gone} flows moved, {unmoved} stayed");
    // The other instance never saw those flows begin: the ring before tells it where they belong.
    let elsewhere: Vec<_> = (0..FLOWS)
        .filter(|number| first[*number as usize] != gone)
        .map(|number| forwarded(&others, &tcp(number, false)) == first[number as usize])
        .collect();
    assert!(
        elsewhere.iter().all(|same| *same),
        "{} of {}",
        elsewhere.iter().filter(|same| **same).count(),
        elsewhere.len()
    );

    // New flows follow the new ring, which is the same at both, also where somebody had reset them before they began.
    (FLOWS..FLOWS + 10_000).for_each(|number| {
        forwarded(&program, &reset(number));
    });
    let new = |program: &Program| -> Vec<Ipv4Addr> {
        (FLOWS..FLOWS + 10_000)
            .map(|number| forwarded(program, &tcp(number, true)))
            .collect()
    };
    assert_eq!(moved(&new(&program), &new(&others)), (0, 10_000));
    let slots = pinned.ring(&after, "web");
    assert_eq!(slots.len(), 65_537);
    let mut counts: HashMap<&String, u32> = HashMap::new();
    slots
        .iter()
        .for_each(|slot| *counts.entry(slot).or_default() += 1);
    assert_eq!((counts.len(), counts.get(&target(7))), (99, None));
    assert!(
        counts.values().all(|count| (661..=663).contains(count)),
        "{counts:?}"
    );

    // And back: what moved to others in the meantime stays there.
    pinned.configure(&before);
    assert_eq!(moved(&later, &all_targets(&program, false)), (0, ALL));
}

#[test]
fn udp_flows_are_remembered_with_their_second_packet_and_drain_with_weight_0() {
    if skipped() {
        return;
    }
    let before = config(&targets(10, &[]));
    let pinned = Pinned::new("udp", &before);
    let program = pinned.program();
    let all = || -> Vec<Ipv4Addr> {
        (0..FLOWS)
            .map(|number| forwarded(&program, &udp_from(client(number), b"x")))
            .collect()
    };
    let first = all();
    assert_eq!(moved(&first, &all()), (0, ALL));
    let mut weights = targets(10, &[]);
    weights[3]["weight"] = json!(0);
    pinned.configure(&config(&weights));
    assert_eq!(
        moved(&first, &all()),
        (0, ALL),
        "a target of weight 0 keeps what it has"
    );
    let drained: Ipv4Addr = target(3).parse().unwrap();
    let new: Vec<_> = (FLOWS..FLOWS + 10_000)
        .map(|number| forwarded(&program, &tcp(number, true)))
        .collect();
    assert!(!new.contains(&drained), "and takes nothing new");
    pinned.configure(&config(&targets(10, &[3])));
    let moved = all();
    assert!(!moved.contains(&drained));
    let others = first.iter().zip(&moved).filter(|(before, _)| **before != drained);
    assert!(others.into_iter().all(|(before, after)| before == after));
}

#[test]
fn a_flood_of_first_packets_moves_no_established_flow() {
    if skipped() {
        return;
    }
    let pinned = Pinned::new("flood", &config(&targets(10, &[])));
    let program = pinned.program();
    let established: Vec<_> = (0..10_000)
        .map(|number| forwarded(&program, &tcp(number, true)))
        .collect();
    let again = |_| -> Vec<Ipv4Addr> {
        (0..10_000)
            .map(|number| forwarded(&program, &tcp(number, false)))
            .collect()
    };
    assert_eq!(moved(&established, &again(0)), (0, 10_000));
    for number in 0..200_000 {
        forwarded(&program, &tcp(100_000 + number, true));
        forwarded(&program, &udp_from(client(100_000 + number), b"x"));
    }
    pinned.configure(&config(&targets(11, &[])));
    assert_eq!(moved(&established, &again(1)), (0, 10_000));
}

#[test]
fn a_ring_of_a_thousand_targets_is_swapped_under_load_without_a_loss() {
    if skipped() {
        return;
    }
    let with = |without: &[u32]| {
        let mut config = config(&targets(1000, without));
        config["ring_size"] = json!(131_071);
        config
    };
    let pinned = Pinned::new("swap", &with(&[]));
    let program = pinned.program();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut packets, start) = (0u32, Instant::now());
            while !done.load(Ordering::Relaxed) {
                // Of each flow a first packet and a later one; flows come again.
                forwarded(&program, &tcp(packets / 2 % 50_000, packets % 2 == 0));
                packets += 1;
            }
            (packets, start.elapsed())
        });
        for round in 0..6 {
            pinned.configure(&with(if round % 2 == 0 { &[3, 500] } else { &[] }));
        }
        done.store(true, Ordering::Relaxed);
        let (packets, took) = load.join().unwrap();
        println!("{packets} packets in {took:?} over six swaps, none lost");
    });
}
