//! What is known of servers: who is down, begins slowly, is near, has ended.

use super::*;

/// The exit with three servers that are checked, at two ports.
fn checked() -> HostState {
    let mut state = state();
    let check = Arc::new(Check {
        service: "game".into(),
        ask: Ask::A2s,
        port: None,
        interval_ms: 1000,
        timeout_ms: 1000,
        rise: 2,
        fall: 3,
        least_percent: 0,
        slow_start_s: 0,
    });
    let mut one = service(true, 2);
    for target in &mut one.targets {
        let Target::Server { port, .. } = &mut target.target else {
            panic!("a server")
        };
        // Each listener's own.
        *port = None;
        target.check = Some(check.clone());
    }
    let other = ServiceState {
        ports: PortRange::literal(7001, 7001),
        ..one.clone()
    };
    state.services = vec![one, other];
    state
}

/// The first server's number, and who is asked there, by port.
fn first_server(state: &HostState, contents: &Contents) -> (u32, Vec<Subject>) {
    let mut numbers = contents.targets.iter();
    let (number, _) = numbers
        .find(|(_, hop)| hop.address == IpKey::v4(u32::from(ip(203, 0, 113, 1))))
        .expect("a number");
    let asked = subjects(state).into_iter();
    let asked = asked.filter(|subject| subject.server == ip(203, 0, 113, 1));
    (*number, asked.collect())
}

#[test]
fn a_server_that_is_down_at_one_port_is_left_out_and_known_again() {
    let state = checked();
    let before = compiled(&state, None);
    let (number, asked) = first_server(&state, &before);
    assert_eq!(asked.len(), 2);
    let mut host = facts();
    host.servers.down.insert(asked[0].clone());
    let after = contents(&state, &host, Some(&before)).unwrap();
    let ring = |contents: &Contents, port| {
        let service = contents.services[&key(100, port, 17)];
        contents.rings[&service.first].clone()
    };
    for port in [7000, 7001] {
        assert!(ring(&before, port).contains(&number));
        assert!(
            !ring(&after, port).contains(&number),
            "both listeners: it is one target"
        );
    }
    let member = MemberKey {
        vni: 100,
        target: number,
    };
    assert!(before.members.contains_key(&member) && !after.members.contains_key(&member));
    assert!(after.targets.contains_key(&number), "by it the server is asked");
    assert_eq!(recovered(&state, &before), BTreeSet::new());
    assert_eq!(recovered(&state, &after), asked.into_iter().collect());
    let nothing = Contents::default();
    assert_eq!(
        recovered(&state, &nothing),
        BTreeSet::new(),
        "nothing was in force"
    );
    // Where none serves, all are used.
    host.servers.down = subjects(&state);
    let none = contents(&state, &host, Some(&after)).unwrap();
    assert_eq!(ring(&none, 7000), ring(&before, 7000));
}

#[test]
fn who_is_asked_has_the_numbers_of_its_targets() {
    let state = checked();
    let before = compiled(&state, None);
    let (number, asked) = first_server(&state, &before);
    let numbers = contents_of::checked(&state, &before);
    assert_eq!(numbers.keys().cloned().collect::<BTreeSet<_>>(), subjects(&state));
    for subject in &asked {
        assert_eq!(numbers[subject], BTreeSet::from([number]), "at both ports");
    }
    // Who is down keeps it.
    let mut host = facts();
    host.servers.down.insert(asked[0].clone());
    let after = contents(&state, &host, Some(&before)).unwrap();
    assert_eq!(contents_of::checked(&state, &after), numbers);
    assert!(contents_of::checked(&state, &Contents::default()).is_empty());
}

#[test]
fn a_server_that_starts_has_a_part_of_its_share() {
    let state = checked();
    let (whole, mut host) = (compiled(&state, None), facts());
    let (number, asked) = first_server(&state, &whole);
    host.servers.starting = asked.into_iter().map(|subject| (subject, 20)).collect();
    let starting = contents(&state, &host, Some(&whole)).unwrap();
    let slots = |contents: &Contents| {
        let service = contents.services[&key(100, 7000, 17)];
        let ring = &contents.rings[&service.first];
        (ring.iter().filter(|slot| **slot == number).count(), ring.len())
    };
    let ((third, all), (eleventh, size)) = (slots(&whole), slots(&starting));
    // 100 of 300, and 20 of 220.
    assert!(
        third.abs_diff(all / 3) <= 1 && eleventh.abs_diff(size / 11) <= 1,
        "{third}, {eleventh}"
    );
}

/// An entry that is the exit of one group, two servers of which are near it and two far, beside a pair to the other's, whose
/// weight is that of all four.
fn near_and_far() -> HostState {
    let mut state = state();
    let mut one = service(false, 4);
    one.targets[0].weight = 4;
    for (target, rank) in one.targets[1..].iter_mut().zip([0, 0, 1, 1]) {
        (target.group, target.rank, target.check) = (1, rank, checked().services[0].targets[0].check.clone());
    }
    state.services = vec![one];
    state
}

#[test]
fn near_servers_take_what_their_group_has_beside_a_pair() {
    let (state, mut host) = (near_and_far(), facts());
    // For each server how much of the ring is its, in percent, and that of the pair.
    let percents = |host: &HostFacts| -> [usize; 5] {
        let contents = contents(&state, host, None).unwrap();
        let ring = &contents.rings[&contents.services[&key(0, 7000, 17)].first];
        assert_eq!(
            contents.members.len() + host.servers.down.len(),
            5,
            "far ones keep their flows"
        );
        let of = |is_it: &dyn Fn(&NextHop) -> bool| {
            let slots = ring.iter().filter(|slot| is_it(&contents.targets[slot]));
            (slots.count() * 100 + ring.len() / 2) / ring.len()
        };
        let server = |last| of(&|hop| hop.address == IpKey::v4(u32::from(ip(203, 0, 113, last))));
        let pair = of(&|hop| hop.kind() == HopKind::Path);
        [server(2), server(3), server(4), server(5), pair]
    };
    assert_eq!(percents(&host), [25, 25, 0, 0, 50]);
    let asked: Vec<Subject> = subjects(&state).into_iter().collect();
    let of = |last| {
        let mut asked = asked.iter();
        asked
            .find(|subject| subject.server == ip(203, 0, 113, last))
            .unwrap()
            .clone()
    };
    // While they start the near ones get three fifths of the group's 320, and the far ones the rest.
    host.servers.starting = [(of(2), 60), (of(3), 60)].into();
    assert_eq!(percents(&host), [13, 13, 9, 9, 56]);
    host.servers.down = [of(3)].into();
    host.servers.starting.clear();
    assert_eq!(percents(&host), [43, 0, 0, 0, 57]);
    host.servers.down = [of(2), of(3)].into();
    assert_eq!(percents(&host), [0, 0, 17, 17, 67]);
}

#[test]
fn an_exit_without_any_weight_uses_what_it_has() {
    let mut state = checked();
    for service in &mut state.services {
        service.targets.iter_mut().for_each(|target| target.weight = 0);
    }
    let exit = compiled(&state, None);
    assert_eq!(exit.services[&key(100, 7000, 17)].size, 4093);
    for service in &mut state.services {
        (service.at_exit, service.own) = (false, true);
    }
    let own = compiled(&state, None);
    assert_eq!(own.services[&key(0, 7000, 17)].size, 0, "nothing new");
    assert!(own.members.values().all(|takes| *takes == KEEPS) && own.members.len() == 3);
}

#[test]
fn who_has_ended_gets_nothing_and_where_all_have_nothing_is_left() {
    let (mut state, mut host) = (checked(), facts());
    for service in &mut state.services {
        service.targets.iter_mut().for_each(|target| target.weight = 0);
    }
    let all: Vec<_> = targets(&state)
        .map(|(service, target)| (service.vni, target.target))
        .collect();
    host.servers.ended = [all[0]].into();
    let others = contents(&state, &host, None).unwrap();
    assert_ne!(others.services[&key(100, 7000, 17)].size, 0);
    assert_eq!(others.members.len(), 2);
    host.servers.ended = all.into_iter().collect();
    let nothing = contents(&state, &host, Some(&others)).unwrap();
    assert_eq!(nothing.services[&key(100, 7000, 17)].size, 0);
    assert!(nothing.members.is_empty());
}
