//! The way to the next certificate, and the way out.

use super::*;

/// Whether a node's agent may connect with a certificate.
fn is_taken(world: &mut World, node: &str, certificate: &[u8]) -> bool {
    let mut hello = world.hello(node, 0);
    hello.certificate = certificate.to_vec();
    let session = hello.session;
    match world.core.handle_hello(0, hello) {
        Ok(commands) => {
            world.carry_out(commands);
            world.core.handle_disconnected(0, session);
            true
        }
        Err(refusal) => {
            assert!(matches!(refusal, SessionRefusal::OldCertificate { .. }));
            false
        }
    }
}

#[test]
fn the_last_certificate_counts_until_the_next_is_shown() {
    let (mut world, _) = three();
    let osaka: Name = "osaka".parse().unwrap();
    let commands = world.core.handle_renewed(&osaka, b"second");
    world.carry_out(commands);
    let mut world = world.restart();
    assert!(
        is_taken(&mut world, "osaka", b"osaka"),
        "the answer may have been lost"
    );
    let commands = world.core.handle_renewed(&osaka, b"third");
    world.carry_out(commands);
    assert!(
        !is_taken(&mut world, "osaka", b"second"),
        "it was asked for again"
    );
    assert!(is_taken(&mut world, "osaka", b"third"));
    assert!(!is_taken(&mut world, "osaka", b"osaka"));
    let mut world = world.restart();
    assert!(!is_taken(&mut world, "osaka", b"osaka"));
    assert!(is_taken(&mut world, "osaka", b"third"));
}

#[test]
fn who_joins_anew_has_no_use_for_what_was_renewed() {
    let (mut world, _) = three();
    let osaka: Name = "osaka".parse().unwrap();
    let commands = world.core.handle_renewed(&osaka, b"second");
    world.carry_out(commands);
    world.join("osaka");
    assert!(!is_taken(&mut world, "osaka", b"second"));
    assert!(is_taken(&mut world, "osaka", b"osaka"));
}

#[test]
fn a_node_leaves_unless_something_refers_to_it() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    let osaka: Name = "osaka".parse().unwrap();
    let refused = world.core.handle_leave(0, &osaka, Terms::default()).unwrap_err();
    let words = refused.fields()[0].message.clone();
    assert!(words.contains("addresspool/asia"), "{words}");
    let taipei: Name = "taipei".parse().unwrap();
    let commands = world.core.handle_leave(0, &taipei, Terms::default()).unwrap();
    world.carry_out(commands);
    assert_eq!(agents[1].take(&mut world), ["close"]);
    assert!(world.core.objects(None, Some("taipei")).is_empty());
    assert!(!is_taken(&mut world, "taipei", b"taipei"));
}

#[test]
fn a_node_that_wishes_to_leave_is_passed_by_nothing_first() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    for _ in 0..5 {
        steering::second(&mut world, &mut agents);
    }
    let [osaka, taipei]: [Name; 2] = ["osaka", "taipei"].map(|node| node.parse().unwrap());
    let both = ["osaka", "cape-town"].map(|node| node.parse::<Name>().unwrap());
    let passing = |world: &World| {
        let mut from = world.core.passing(&taipei);
        from.sort_by(|a, b| b.cmp(a));
        from
    };
    assert_eq!(passing(&world), both, "a path each way");

    let before = world.core.intent().clone();
    let refused = world.core.handle_drain(world.now, &osaka, Terms::default());
    assert!(
        refused.unwrap_err().fields()[0]
            .message
            .contains("addresspool/asia")
    );
    assert_eq!(
        world.core.intent(),
        &before,
        "what cannot leave is not drained either"
    );

    let commands = world
        .core
        .handle_drain(world.now, &taipei, Terms::default())
        .unwrap();
    world.carry_out(commands);
    assert!(world.core.intent().nodes()[&taipei].spec.drain);
    assert_eq!(passing(&world), both, "until every host has let it go");
    let again = world
        .core
        .handle_drain(world.now, &taipei, Terms::default())
        .unwrap();
    assert_eq!(again, [], "asked again, nothing is done");
    for _ in 0..3 {
        steering::second(&mut world, &mut agents);
    }
    assert_eq!(passing(&world), []);
    assert_eq!(world.core.route_views().remove(0).path, ["osaka", "cape-town"]);
}

#[test]
fn a_member_that_is_not_declared_leaves_too() {
    let mut world = World::new();
    world.join("osaka");
    let mut agent = world.connect("osaka", 0);
    let osaka: Name = "osaka".parse().unwrap();
    let commands = world.core.handle_leave(0, &osaka, Terms::default()).unwrap();
    world.carry_out(commands);
    assert_eq!(agent.take(&mut world), ["close"]);
    assert!(!is_taken(&mut world.restart(), "osaka", b"osaka"));
}

#[test]
fn another_store_with_the_same_entries_is_the_same_controller() {
    let (mut world, mut agents) = three();
    world.apply(ACCELERATOR).unwrap();
    settle(&mut world, &mut agents);
    let backup = crate::backup::Backup::of(&world.store, world.now).unwrap();
    let backup = crate::backup::Backup::from_bytes(&backup.to_bytes()).unwrap();
    // What comes after the backup is lost.
    world
        .apply("kind: Vpc\nmetadata: {name: red}\nspec: {cidr: 10.0.0.0/24}")
        .unwrap();
    let mut store = Memory::default();
    backup.restore(&mut store).unwrap();
    let mut world = World::over(store);
    for (node, agent) in ["osaka", "taipei", "cape-town"].into_iter().zip(&mut agents) {
        agent.session = world.connect(node, agent.revision()).session;
        assert_eq!(agent.take(&mut world), [""; 0], "{node} has what it should have");
    }
    assert!(world.core.objects(None, Some("red")).is_empty());
    let newest = agents.iter().map(Agent::revision).max().unwrap();
    world
        .apply("kind: Vpc\nmetadata: {name: blue}\nspec: {cidr: 10.0.0.0/24}")
        .unwrap();
    assert!(
        world.core.revision() > newest + 1_000,
        "no revision means two things"
    );
}
