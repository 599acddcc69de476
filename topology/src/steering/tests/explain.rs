//! Hand-checked explanations.

use super::*;
use crate::cost::Cost;
use crate::steering::{BackupWhy, Explanation, Fate, Known, LostLeg, Reason, Rejected, explain};

fn known(world: &World) -> Known {
    Known {
        input: world.input.clone(),
        lost: Vec::new(),
        standing: world.steering.standing(),
        held: world.steering.held().collect(),
    }
}

fn explained(known: &Known) -> Explanation {
    explain(&Config::default(), known, known.input.pairs[0]).unwrap()
}

fn reasons<'a>(of: &'a [Rejected], nodes: &[u16]) -> &'a [Reason] {
    let listed = of.iter().find(|one| one.path.path == path(nodes));
    &listed
        .unwrap_or_else(|| panic!("{nodes:?} is not listed"))
        .reasons
}

#[test]
fn the_next_five_are_listed_by_cost_and_direct_beside_them() {
    let mut world = World::new(200, &[100, 101, 102, 103, 104, 105, 106]);
    world.tick(0, vec![]);
    let explained = explained(&known(&world));
    let chosen = explained.chosen.unwrap();
    assert_eq!((chosen.path, chosen.cost.us()), (path(&[1, 3, 2]), 100_000));
    let listed: Vec<Path> = explained.next.iter().map(|one| one.path.path.clone()).collect();
    let relays = [4, 5, 6, 7, 8].map(|relay| path(&[1, relay, 2]));
    assert_eq!(listed[..5], relays);
    assert_eq!(listed[5..], [path(&[1, 2])]);
    assert_eq!(
        reasons(&explained.next, &[1, 5, 2]),
        [Reason::Dearer { us: 2_000 }]
    );
    assert!(explained.barred.is_empty());
    let backup = explained.backup.unwrap();
    assert_eq!(backup.path.path, path(&[1, 4, 2]));
    assert_eq!(backup.why, BackupWhy::Best);
    assert_eq!(backup.other, Some((path(&[1, 5, 2]), Cost::from_us(102_000))));
}

#[test]
fn terms_add_up_to_the_cost() {
    let mut world = World::new(400, &[100]);
    for leg in &mut world.input.legs {
        leg.stats.jitter_us = 1_000;
        leg.stats.loss_ppm = 10_000;
    }
    world.input.pairs[0].class = TrafficClass::Bulk;
    world.input.nodes[2].usd_per_gb = 0.05;
    world.tick(0, vec![]);
    let chosen = explained(&known(&world)).chosen.unwrap();
    let sum: f64 = chosen
        .legs
        .iter()
        .flat_map(|leg| [leg.forward.unwrap(), leg.reverse.unwrap()])
        .map(|way| way.terms.us() / 2.0)
        .sum();
    let relays: u32 = chosen.relays.iter().map(|(_, transit)| transit.us()).sum();
    assert!((f64::from(chosen.cost.us()) - sum - f64::from(relays)).abs() <= 1.0);
    let first = chosen.legs[0];
    assert_eq!(first.forward.unwrap().terms.price_ms, 0.0, "node 1 has no price");
    assert_eq!(
        first.reverse.unwrap().terms.price_ms,
        10.0,
        "200 ms a dollar, of node 3"
    );
    assert_eq!(first.forward.unwrap().terms.jitter_us, 500.0);
    assert_eq!(first.forward.unwrap().fate, Fate::Measured);
}

#[test]
fn what_gains_too_little_waits_at_the_gate() {
    let mut world = World::new(100, &[96, 98]);
    world.tick(0, vec![]);
    let explained = explained(&known(&world));
    assert!(matches!(
        explained.held.why,
        Why::GateNotReached { gain_us: 4_000, .. }
    ));
    for (relay, gain_us) in [(3, 4_000), (4, 2_000)] {
        let why = Why::GateNotReached {
            gain_us,
            needed_us: 5_000,
        };
        assert_eq!(reasons(&explained.next, &[1, relay, 2]), [Reason::Waits { why }]);
    }
}

#[test]
fn what_is_better_waits_for_hysteresis_confirmations_and_dwell() {
    let mut world = World::new(200, &[90, 100, 150, 150]);
    world.tick(0, vec![]);
    let path_ = path(&[1, 3, 2]);
    world.tick(59_500, vec![Event::PathDown { path: path_ }]);
    world.tick(500, vec![]);
    world.costs(200, &[90, 100, 93, 94]);
    world.tick(1_000, vec![]);
    let why = |gain_us| Why::Hysteresis {
        gain_us,
        needed_us: 10_000,
    };
    let small = explained(&known(&world));
    assert_eq!(small.held.why, why(7_000));
    assert_eq!(
        reasons(&small.next, &[1, 5, 2]),
        [Reason::Waits { why: why(7_000) }]
    );
    assert_eq!(
        reasons(&small.next, &[1, 6, 2]),
        [Reason::Waits { why: why(6_000) }]
    );

    world.costs(200, &[90, 100, 80, 81]);
    world.tick(1_000, vec![]);
    let first = explained(&known(&world));
    let confirming = Why::Confirming { ticks: 1, of: 3 };
    assert_eq!(
        reasons(&first.next, &[1, 5, 2]),
        [Reason::Waits { why: confirming }]
    );
    let before = Reason::NotFirst {
        path: path(&[1, 5, 2]),
    };
    assert_eq!(reasons(&first.next, &[1, 6, 2]), [before]);
    world.tick(1_000, vec![]);
    world.tick(1_000, vec![]);
    let dwell = Why::Dwell {
        until: Millis(70_000),
    };
    assert_eq!(
        reasons(&explained(&known(&world)).next, &[1, 5, 2]),
        [Reason::Waits { why: dwell }]
    );
}

#[test]
fn what_is_barred_would_be_better_and_says_by_what() {
    let mut world = World::new(200, &[90, 80, 70, 60, 150]);
    world.input.nodes[2].draining = true;
    world.input.nodes[3].relay = false;
    let forbidden = BTreeSet::from([node(5)]);
    world.input.forbidden.insert(PairId(1), forbidden);
    let mut known_ = {
        let dead = |one: &LegInput| one.leg.from == node(6) || one.leg.to == node(6);
        let (lost, legs) = world.input.legs.iter().partition(|one| dead(one));
        world.input.legs = legs;
        world.tick(0, vec![]);
        let lost: Vec<LegInput> = lost;
        let mut known = known(&world);
        known.lost = lost
            .iter()
            .map(|one| LostLeg {
                leg: one.leg,
                stats: one.stats,
                is_dead: one.leg.from == node(6),
            })
            .collect();
        known
    };
    let explained_ = explained(&known_);
    assert_eq!(explained_.chosen.unwrap().path, path(&[1, 7, 2]));
    let barred = &explained_.barred;
    assert_eq!(reasons(barred, &[1, 3, 2]), [Reason::Drains { node: node(3) }]);
    assert_eq!(reasons(barred, &[1, 4, 2]), [Reason::Late { node: node(4) }]);
    assert_eq!(reasons(barred, &[1, 5, 2]), [Reason::Forbidden { node: node(5) }]);
    let legs = [
        Reason::Silent { leg: leg(1, 6) },
        Reason::Dead { leg: leg(6, 1) },
        Reason::Dead { leg: leg(6, 2) },
        Reason::Silent { leg: leg(2, 6) },
    ];
    assert_eq!(reasons(barred, &[1, 6, 2]), legs);
    let listed = barred.iter().find(|one| one.path.path == path(&[1, 6, 2]));
    let cost = listed.unwrap().path.legs[0];
    assert!(!cost.cost.is_usable());
    assert_eq!(cost.forward.unwrap().terms.rtt_us, 29_500.0, "as it last was");

    known_.lost.clear();
    let unknown = explained(&known_).unknown;
    assert_eq!(unknown, [leg(1, 6), leg(2, 6), leg(6, 1), leg(6, 2)]);
}

#[test]
fn a_direct_path_that_was_never_measured_is_listed() {
    let mut world = World::new(200, &[90]);
    let straight = |one: &LegInput| [leg(1, 2), leg(2, 1)].contains(&one.leg);
    world.input.legs.retain(|one| !straight(one));
    world.tick(0, vec![]);
    let barred = explained(&known(&world)).barred;
    assert_eq!(
        reasons(&barred, &[1, 2]),
        [
            Reason::Unknown { leg: leg(1, 2) },
            Reason::Unknown { leg: leg(2, 1) }
        ]
    );
    assert_eq!(barred[0].path.legs[0].forward, None);
}

#[test]
fn deaths_alarms_and_losses_of_a_path_are_named() {
    let mut world = World::new(200, &[90, 100, 99]);
    world.tick(0, vec![]);
    let down = path(&[1, 3, 2]);
    world.tick(500, vec![Event::PathDown { path: down }]);
    let explained_ = explained(&known(&world));
    assert_eq!(explained_.held.why, Why::OverBackup);
    world.tick(500, vec![]);
    let explained_ = explained(&known(&world));
    assert_eq!(
        explained_.held.why,
        Why::Bypass {
            cause: Cause::PathDown
        }
    );
    let since = Millis(500);
    assert_eq!(reasons(&explained_.barred, &[1, 3, 2]), [Reason::Down { since }]);

    let alarm = Event::Alarm {
        leg: leg(4, 1),
        loss_ppm: 50_000,
    };
    world.tick(1_000, vec![alarm]);
    let explained_ = explained(&known(&world));
    assert_eq!(explained_.chosen.unwrap().path, path(&[1, 5, 2]));
    // Half of 2000 ms of -ln 0.95 is 51.3 ms, so it costs 151.3 ms.
    let alarmed = [
        Reason::Alarm {
            leg: leg(4, 1),
            loss_ppm: 50_000,
        },
        Reason::Dearer { us: 52_293 },
    ];
    assert_eq!(reasons(&explained_.next, &[1, 4, 2]), alarmed);

    let path_alarm = Event::PathAlarm {
        path: path(&[1, 5, 2]),
        loss_ppm: 100_000,
    };
    let over = Event::AlarmOver { leg: leg(4, 1) };
    world.tick(1_000, vec![over, path_alarm]);
    let explained_ = explained(&known(&world));
    let lossy = Reason::Lossy { loss_ppm: 100_000 };
    assert_eq!(reasons(&explained_.barred, &[1, 5, 2]), [lossy]);
    assert_eq!(explained_.chosen.unwrap().path, path(&[1, 4, 2]));
}

#[test]
fn a_backup_says_what_it_shares_and_what_keeps_it() {
    let mut world = World::new(300, &[90, 95, 110]);
    for relay in [2, 3] {
        world.input.nodes[relay].provider = "p".to_owned();
    }
    world.tick(0, vec![]);
    let backup = explained(&known(&world)).backup.unwrap();
    // 95 + 20 for the shared provider is more than 110.
    assert_eq!((backup.path.path, backup.score.us()), (path(&[1, 5, 2]), 110_000));
    assert_eq!(backup.other, Some((path(&[1, 4, 2]), Cost::from_us(115_000))));
    world.costs(300, &[90, 85, 110]);
    world.tick(1_000, vec![]);
    let backup = explained(&known(&world)).backup.unwrap();
    let kept = BackupWhy::Hysteresis {
        gain_us: 5_000,
        needed_us: 11_000,
    };
    assert_eq!(backup.why, kept);
}

#[test]
fn a_pair_that_nobody_uses_is_explained_as_if() {
    let mut world = World::new(200, &[90]);
    world.tick(0, vec![]);
    let known = known(&world);
    let of = |entry, exit| {
        let pair = PairInput {
            id: PairId(0),
            entry: node(entry),
            exit: node(exit),
            class: TrafficClass::Voice,
        };
        explain(&Config::default(), &known, pair)
    };
    let explained = of(2, 3).unwrap();
    assert_eq!(explained.chosen.unwrap().path, path(&[2, 3]));
    assert!(matches!(explained.held.why, Why::DirectBest { .. }));
    assert_eq!(of(1, 1), None);
    assert_eq!(of(1, 9), None);
}
