//! Hand-checked decisions.

use super::*;
use crate::cost::TrafficClass;
use crate::estimate::LegStats;

mod explain;

fn node(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

fn leg(from: u16, to: u16) -> LegId {
    LegId {
        from: node(from),
        to: node(to),
    }
}

fn path(nodes: &[u16]) -> Path {
    let [entry, relays @ .., exit] = nodes else {
        panic!("a path has two ends")
    };
    let relays: Vec<NodeId> = relays.iter().map(|&number| node(number)).collect();
    Path::new(node(*entry), &relays, node(*exit))
}

/// Entry 1, exit 2, relays from 3 on.
struct World {
    steering: Steering,
    input: Input,
}

impl World {
    /// ms of direct and of the path over each relay, its 1 ms of transit included.
    fn new(direct: u32, relays: &[u32]) -> Self {
        let pair = PairInput {
            id: PairId(1),
            entry: node(1),
            exit: node(2),
            class: TrafficClass::Game,
        };
        let input = Input {
            pairs: vec![pair],
            ..Input::default()
        };
        let mut world = Self {
            steering: Steering::new(Config::default()),
            input,
        };
        world.costs(direct, relays);
        world
    }

    fn costs(&mut self, direct: u32, relays: &[u32]) {
        self.input.legs.clear();
        self.both(1, 2, direct * 1000);
        for (number, cost) in (3..).zip(relays) {
            self.both(1, number, cost * 500 - 500);
            self.both(number, 2, cost * 500 - 500);
        }
        let last = 2 + u16::try_from(relays.len()).unwrap();
        for number in (1..=last).skip(self.input.nodes.len()) {
            self.input.nodes.push(NodeInput::new(node(number)));
        }
    }

    fn both(&mut self, from: u16, to: u16, rtt_us: u32) {
        for leg in [leg(from, to), leg(to, from)] {
            self.input.legs.push(LegInput {
                leg,
                stats: LegStats {
                    rtt_us,
                    ..LegStats::default()
                },
            });
        }
    }

    /// A tick so many ms after the last.
    fn tick(&mut self, after_ms: u64, events: Vec<Event>) -> Vec<Change> {
        self.input.now = self.input.now.after(after_ms);
        self.input.events = events;
        let changes = self.steering.tick(&self.input);
        let text = serde_json::to_string(&self.input).unwrap();
        assert_eq!(serde_json::from_str::<Input>(&text).unwrap(), self.input);
        changes
    }

    /// Ticks of a second without events, up to and with the first change.
    fn seconds_to_change(&mut self, most: u32) -> Option<(u32, Change)> {
        (1..=most).find_map(|second| self.tick(1000, vec![]).pop().map(|change| (second, change)))
    }

    fn why(&self) -> Why {
        self.steering.decision(PairId(1)).unwrap().why.clone()
    }

    fn primary(&self) -> Path {
        self.steering
            .decision(PairId(1))
            .unwrap()
            .primary
            .clone()
            .unwrap()
            .path
    }
}

#[test]
fn the_first_choice_is_made_at_once_with_its_backup() {
    let mut world = World::new(300, &[250, 240]);
    let change = world.tick(1000, vec![]).pop().unwrap();
    assert_eq!(
        (change.primary, change.backup),
        (Some(path(&[1, 4, 2])), Some(path(&[1, 3, 2])))
    );
    assert_eq!(
        change.why,
        Why::RelayBest {
            gain_us: Some(60_000)
        }
    );
    assert_eq!(world.tick(1000, vec![]), []);
}

#[test]
fn a_relay_that_becomes_dear_is_left_for_a_cheaper_one() {
    let mut world = World::new(400, &[100, 110]);
    world.input.pairs[0].class = TrafficClass::Bulk;
    world.tick(1000, vec![]);
    assert_eq!(world.primary(), path(&[1, 3, 2]));
    // 200 ms a dollar, for what it sends on there and back.
    world.input.nodes[2].usd_per_gb = 0.3;
    let (second, change) = world.seconds_to_change(20).unwrap();
    assert!(second >= 3, "{second}");
    assert_eq!(change.primary, Some(path(&[1, 4, 2])));
    let decision = world.steering.decision(PairId(1)).unwrap();
    assert_eq!(decision.backup.as_ref().unwrap().cost.us(), 160_000);
}

#[test]
fn direct_stays_and_says_why() {
    let mut world = World::new(20, &[110]);
    world.tick(1000, vec![]);
    assert_eq!(
        (world.primary(), world.why()),
        (
            path(&[1, 2]),
            Why::DirectBest {
                margin_us: Some(90_000)
            }
        )
    );
    let mut world = World::new(200, &[191]);
    world.tick(1000, vec![]);
    let gate = Why::GateNotReached {
        gain_us: 9_000,
        needed_us: 10_000,
    };
    assert_eq!((world.primary(), world.why()), (path(&[1, 2]), gate.clone()));
    assert_eq!(gate.to_string(), "a relay gains 9.0 ms, the gate is 10.0 ms");
    let mut world = World::new(200, &[190]);
    world.tick(1000, vec![]);
    assert_eq!(world.primary(), path(&[1, 3, 2]));
    let mut world = World::new(200, &[]);
    world.tick(1000, vec![]);
    assert_eq!(world.why(), Why::DirectBest { margin_us: None });
}

#[test]
fn a_move_takes_a_tenth_on_three_ticks_and_ten_seconds() {
    let mut world = World::new(300, &[200, 260]);
    world.tick(40_000, vec![]);
    world.tick(29_500, vec![]);
    world.costs(300, &[200, 181]);
    assert_eq!(world.tick(1000, vec![]), []);
    assert_eq!(
        world.why(),
        Why::Hysteresis {
            gain_us: 19_000,
            needed_us: 20_000
        }
    );
    world.costs(300, &[200, 180]);
    world.tick(1000, vec![]);
    assert_eq!(world.why(), Why::Confirming { ticks: 1, of: 3 });
    // A tick that an event made does not confirm.
    world.tick(10, vec![]);
    assert_eq!(world.why(), Why::Confirming { ticks: 1, of: 3 });
    let (seconds, change) = world.seconds_to_change(5).unwrap();
    assert_eq!((seconds, change.primary), (2, Some(path(&[1, 4, 2]))));
    // Back again: confirmed after three, but it dwells for ten.
    world.costs(300, &[120, 180]);
    world.tick(3000, vec![]);
    world.tick(1000, vec![]);
    world.tick(1000, vec![]);
    let until = world.input.now.after(5_000);
    assert_eq!(world.why(), Why::Dwell { until });
    assert_eq!(world.seconds_to_change(9).unwrap().0, 5);
}

#[test]
fn a_new_node_is_not_dwelt_against() {
    let mut world = World::new(300, &[200]);
    world.tick(1000, vec![]);
    world.tick(1000, vec![]);
    world.costs(300, &[200, 100]);
    let moved = (1..=4).find(|_| {
        world
            .tick(1000, vec![])
            .iter()
            .any(|c| c.primary == Some(path(&[1, 4, 2])))
    });
    assert_eq!(moved, Some(3));
}

#[test]
fn a_relay_gives_way_when_its_gain_is_below_half_the_gate() {
    let mut world = World::new(300, &[200]);
    world.tick(1000, vec![]);
    world.costs(208, &[200]);
    assert_eq!(world.seconds_to_change(20), None);
    assert_eq!(world.why(), Why::RelayBest { gain_us: Some(8_000) });
    world.costs(204, &[200]);
    let (seconds, change) = world.seconds_to_change(20).unwrap();
    assert_eq!((seconds, change.primary), (3, Some(path(&[1, 2]))));
}

#[test]
fn a_dead_path_a_drain_and_an_alarm_move_at_once() {
    let start = || {
        let mut world = World::new(300, &[200, 250]);
        world.tick(1000, vec![]);
        world
    };
    let mut world = start();
    let dead = path(&[1, 3, 2]);
    let backup = path(&[1, 4, 2]);
    let died = [&dead, &backup].map(|path| Event::PathDown { path: path.clone() });
    let change = world.tick(10, died.to_vec()).pop().unwrap();
    assert_eq!(change.primary, Some(path(&[1, 2])), "the backup is dead as well");

    let mut world = start();
    let died = Event::PathDown { path: dead.clone() };
    assert_eq!(
        world.tick(10, vec![died.clone()]),
        [],
        "the backup takes its packets"
    );
    assert_eq!(world.why(), Why::OverBackup);
    let back = Event::PathUp { path: dead.clone() };
    assert_eq!(world.tick(400, vec![back]), []);
    assert_eq!(world.tick(100, vec![died]), []);
    let change = world.tick(500, vec![]).pop().unwrap();
    assert_eq!(
        (change.primary, change.backup),
        (Some(backup), Some(path(&[1, 2])))
    );
    assert_eq!(
        change.why,
        Why::Bypass {
            cause: Cause::PathDown
        }
    );
    // Repaired after 15 s: back within 10 s, however often.
    for _ in 0..5 {
        assert_eq!(world.tick(9_000, vec![]), []);
        world.tick(6_000, vec![Event::PathUp { path: dead.clone() }]);
        assert!(world.seconds_to_change(9).is_some());
        assert_eq!(world.primary(), dead);
        world.tick(1000, vec![Event::PathDown { path: dead.clone() }]);
        world.tick(1000, vec![]);
        assert_eq!(world.primary(), path(&[1, 4, 2]));
    }

    let mut world = start();
    world.input.nodes[2].draining = true;
    let change = world.tick(1000, vec![]).pop().unwrap();
    assert_eq!(
        change.why,
        Why::Bypass {
            cause: Cause::Drain { node: node(3) }
        }
    );
    assert_eq!(
        (change.primary, change.backup),
        (Some(path(&[1, 4, 2])), Some(path(&[1, 2])))
    );

    let mut world = start();
    let alarm = Event::Alarm {
        leg: leg(2, 3),
        loss_ppm: 50_000,
    };
    let change = world.tick(10, vec![alarm]).pop().unwrap();
    assert_eq!(
        (change.primary, change.why),
        (
            Some(path(&[1, 4, 2])),
            Why::Bypass {
                cause: Cause::Alarm { leg: leg(2, 3) }
            },
        )
    );
}

#[test]
fn a_pair_that_had_to_leave_its_path_and_moved_on_does_not_dwell_before_it_returns() {
    let mut world = World::new(300, &[200, 250, 260]);
    world.tick(1000, vec![]);
    // Until no node is new.
    world.tick(40_000, vec![]);
    let (dead, leg, loss_ppm) = (path(&[1, 3, 2]), leg(1, 3), 900_000);
    let died = [
        Event::PathDown { path: dead.clone() },
        Event::Alarm { leg, loss_ppm },
    ];
    world.tick(10, died.to_vec());
    world.tick(500, vec![]);
    assert_eq!(world.primary(), path(&[1, 4, 2]));
    world.tick(10_000, vec![]);
    world.costs(300, &[200, 250, 222]);
    assert_eq!(
        world.seconds_to_change(3).unwrap().1.primary,
        Some(path(&[1, 5, 2]))
    );
    world.costs(300, &[190, 250, 222]);
    world.tick(100, vec![Event::AlarmOver { leg }]);
    assert_eq!(world.seconds_to_change(2).unwrap().1.primary, Some(dead));
    // What it left by choice it does dwell before it takes again.
    world.costs(300, &[190, 250, 150]);
    assert_eq!(world.seconds_to_change(20).unwrap().0, 10);
}

#[test]
fn a_path_with_an_alarm_of_its_own_is_left_and_avoided() {
    let mut world = World::new(300, &[250, 240]);
    world.tick(1000, vec![]);
    let alarm = |nodes: &[u16]| Event::PathAlarm {
        path: path(nodes),
        loss_ppm: 50_000,
    };
    let change = world.tick(10, vec![alarm(&[1, 4, 2])]).pop().unwrap();
    assert_eq!(
        (change.primary, change.backup),
        (Some(path(&[1, 3, 2])), Some(path(&[1, 2])))
    );
    let cause = Cause::PathAlarm;
    assert_eq!(change.why, Why::Bypass { cause });
    // Over 3 with 5 % of loss (102.6 ms) is worse than direct.
    let change = world.tick(10, vec![alarm(&[1, 3, 2])]).pop().unwrap();
    assert_eq!((change.primary, change.backup), (Some(path(&[1, 2])), None));
    // Where all have one, nothing moves.
    assert_eq!(world.tick(10, vec![alarm(&[1, 2])]), []);
    assert_eq!(world.seconds_to_change(590), None);
    world.seconds_to_change(15);
    world.seconds_to_change(15);
    assert_eq!(world.primary(), path(&[1, 4, 2]), "forgotten");
}

#[test]
fn a_pair_that_may_send_copies_keeps_a_lossy_backup_where_there_is_no_other() {
    let mut world = World::new(300, &[295]);
    world.input.duplication.insert(PairId(1), Duplication::OnLoss);
    world.tick(1000, vec![]);
    let alarm = Event::PathAlarm {
        path: path(&[1, 2]),
        loss_ppm: 50_000,
    };
    let change = world.tick(10, vec![alarm]).pop().unwrap();
    assert_eq!(
        (change.primary, change.backup),
        (Some(path(&[1, 3, 2])), Some(path(&[1, 2])))
    );
}

#[test]
fn the_alarm_of_a_leg_explains_that_of_its_path() {
    let mut world = World::new(300, &[250]);
    world.tick(1000, vec![]);
    let (leg, loss_ppm) = (leg(2, 3), 30_000);
    let path_alarm = Event::PathAlarm {
        path: path(&[1, 3, 2]),
        loss_ppm,
    };
    world.tick(10, vec![path_alarm.clone()]);
    assert_eq!(world.primary(), path(&[1, 2]));
    world.tick(1000, vec![Event::Alarm { leg, loss_ppm }]);
    world.tick(1000, vec![path_alarm]);
    assert_eq!(world.seconds_to_change(20), None);
    world.tick(1000, vec![Event::AlarmOver { leg }]);
    let (seconds, change) = world.seconds_to_change(5).unwrap();
    assert_eq!((seconds, change.primary), (2, Some(path(&[1, 3, 2]))));
}

#[test]
fn an_alarm_without_a_better_path_moves_nothing() {
    let mut world = World::new(300, &[200]);
    world.tick(1000, vec![]);
    // Half of 2000 ms · −ln 0.95 is 51 ms: 251 is still better than 300.
    let alarm = Event::Alarm {
        leg: leg(1, 3),
        loss_ppm: 50_000,
    };
    assert_eq!(world.tick(10, vec![alarm]), []);
    assert_eq!(world.primary(), path(&[1, 3, 2]));
    assert_eq!(world.tick(10, vec![Event::AlarmOver { leg: leg(1, 3) }]), []);
}

#[test]
fn nothing_usable_moves_nothing() {
    let mut world = World::new(300, &[200]);
    world.tick(1000, vec![]);
    world.input.legs.clear();
    world.tick(1000, vec![]);
    assert_eq!(
        (world.primary(), world.why()),
        (path(&[1, 3, 2]), Why::FailStatic)
    );
    let mut world = World::new(300, &[]);
    world.input.legs.clear();
    assert_eq!(world.tick(1000, vec![]), []);
    assert_eq!(world.why(), Why::NoPath);
}

#[test]
fn a_pair_whose_exit_is_dead_is_left_without_a_path_until_there_is_one() {
    let mut world = World::new(300, &[]);
    world.tick(1000, vec![]);
    world.input.legs.clear();
    assert_eq!(world.seconds_to_change(60), None, "nobody says that it is dead");
    assert_eq!(world.why(), Why::FailStatic);
    world.input.dead.insert(leg(1, 2));
    world.tick(1000, vec![]);
    let (seconds, change) = world.seconds_to_change(20).unwrap();
    assert_eq!((seconds, change.primary, change.why), (10, None, Why::NoPath));
    assert_eq!(world.seconds_to_change(20), None);
    world.input.dead.clear();
    world.costs(300, &[]);
    let change = world.tick(1000, vec![]).pop();
    assert_eq!(change.unwrap().primary, Some(path(&[1, 2])));
}

#[test]
fn too_many_moves_are_damped() {
    let mut world = World::new(300, &[200, 260]);
    world.tick(1000, vec![]);
    let mut moves = 0;
    for round in 0..12 {
        world.costs(300, if round % 2 == 0 { &[200, 150] } else { &[100, 150] });
        for _ in 0..13 {
            let before = world.primary();
            world.tick(1000, vec![]);
            moves += u32::from(world.primary() != before);
        }
    }
    assert!((4..=8).contains(&moves), "{moves} moves in 156 s");
    assert!(matches!(world.why(), Why::Damped { .. }) || moves < 12);
}

#[test]
fn what_is_no_longer_listed_is_forgotten() {
    let mut world = World::new(300, &[200]);
    world.tick(1000, vec![]);
    let pair = world.input.pairs.remove(0);
    assert_eq!(world.tick(1000, vec![]), []);
    assert!(world.steering.decisions().next().is_none());
    world.input.pairs.push(PairInput {
        entry: node(9),
        ..pair
    });
    assert_eq!(world.tick(1000, vec![]), []);
}

#[test]
fn a_forbidden_relay_is_left_at_once_and_never_a_part_of_a_backup() {
    let mut world = World::new(300, &[200, 240, 250]);
    world.tick(1000, vec![]);
    assert_eq!(world.primary(), path(&[1, 3, 2]));
    let forbid = |relays: &[u16]| relays.iter().map(|&relay| node(relay)).collect();
    world.input.forbidden.insert(PairId(1), forbid(&[3, 4]));
    let change = world.tick(1000, vec![]).pop().unwrap();
    assert_eq!(change.primary, Some(path(&[1, 5, 2])));
    assert_eq!(change.backup, Some(path(&[1, 2])));
    assert_eq!(
        change.why.to_string(),
        "moved at once: node 3 must not relay any more"
    );
    world.input.forbidden.insert(PairId(1), forbid(&[3, 4, 5]));
    assert_eq!(
        world.tick(1000, vec![]).pop().unwrap().primary,
        Some(path(&[1, 2]))
    );
    world.input.forbidden.clear();
    let back = (0..20).any(|_| {
        world.tick(1000, vec![]);
        world.primary() == path(&[1, 3, 2])
    });
    assert!(back, "{}", world.why());
}

#[test]
fn pairs_of_other_classes_weigh_otherwise() {
    let mut world = World::new(300, &[250]);
    let game = world.input.pairs[0];
    world.input.pairs.push(PairInput {
        id: PairId(2),
        class: TrafficClass::Bulk,
        ..game
    });
    world.input.nodes[2].usd_per_gb = 1.0;
    let changes = world.tick(1000, vec![]);
    assert_eq!(changes[0].primary, Some(path(&[1, 3, 2])));
    // Two legs, half of 200 ms each.
    assert_eq!(changes[1].primary, Some(path(&[1, 2])));
}

#[test]
fn packets_take_both_paths_while_the_one_in_use_loses_some() {
    let mut world = World::new(100, &[110]);
    let twice = |world: &mut World, loss_ppm: u32, wanted: Duplication| {
        world.input.duplication = BTreeMap::from([(PairId(1), wanted)]);
        for listed in world
            .input
            .legs
            .iter_mut()
            .filter(|listed| listed.leg == leg(2, 1))
        {
            listed.stats.loss_ppm = loss_ppm;
        }
        let before = world
            .steering
            .decision(PairId(1))
            .and_then(|decision| decision.primary.clone());
        let changes = world.tick(1000, vec![]);
        let decided = world.steering.decision(PairId(1)).unwrap().duplicate;
        assert!(changes.iter().all(|change| change.duplicate == decided));
        assert!(
            before.is_none_or(|before| before.path == world.primary()),
            "a copy moves nothing"
        );
        decided
    };
    assert!(!twice(&mut world, 0, Duplication::OnLoss));
    assert!(!twice(&mut world, 5_000, Duplication::OnLoss));
    assert!(twice(&mut world, 6_000, Duplication::OnLoss), "one way is enough");
    assert!(twice(&mut world, 3_000, Duplication::OnLoss), "until half of it");
    assert!(!twice(&mut world, 2_500, Duplication::OnLoss));
    assert!(!twice(&mut world, 6_000, Duplication::Never));
    assert!(twice(&mut world, 0, Duplication::Always));

    let mut far = World::new(100, &[122]);
    assert!(!twice(&mut far, 6_000, Duplication::OnLoss), "21 ms apart");
    let mut alone = World::new(100, &[]);
    assert!(
        !twice(&mut alone, 6_000, Duplication::Always),
        "there is no other"
    );
}
