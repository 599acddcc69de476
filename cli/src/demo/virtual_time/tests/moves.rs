//! How long a pair takes to leave a path that loses, to come back to one that is whole again, and to take a new one.

use super::*;

/// The relay of the small world's game.
const RELAY: &str = "taipei";
/// The shortest outage after which a return is asked for.
const OUTAGE: Duration = Duration::from_secs(15);

/// The median of five seeds.
fn median(what: &str, of: impl Fn(u64) -> Duration) -> Duration {
    let mut times: Vec<Duration> = (1..=5).map(of).collect();
    times.sort_unstable();
    println!("{what} after {times:?}");
    times[2]
}

/// How long until the game's path has the relay, or has it no more.
fn until(cluster: &mut Cluster, relayed: bool) -> Duration {
    let began = cluster.world.now();
    while route(cluster, &GAMES[0]).path.contains(&RELAY.to_owned()) != relayed {
        assert!(
            cluster.world.now() < began + MINUTE,
            "{:?}",
            route(cluster, &GAMES[0])
        );
        cluster.run(PACE).unwrap();
    }
    cluster.world.now() - began
}

/// The lines between the relay and the exit lose so many packets.
fn lose(cluster: &mut Cluster, share: f64) {
    let [from, to] = [RELAY, "cape-town"].map(|name| site(cluster, name));
    for (from, to) in [(from, to), (to, from)] {
        cluster.world.apply(Change::Loss { from, to, share });
    }
}

#[test]
fn a_leg_that_loses_five_in_a_hundred_is_left_within_two_seconds() {
    let left = |seed| {
        let (mut cluster, ..) = playing(seed, 100, Answers::ByClock);
        lose(&mut cluster, 0.05);
        until(&mut cluster, false)
    };
    assert!(median("left", left) < 2 * S);
}

#[test]
fn after_a_loss_that_is_over_the_pair_is_back_within_ten_seconds() {
    let back = |seed| {
        let (mut cluster, ..) = playing(seed, 100, Answers::ByClock);
        lose(&mut cluster, 0.05);
        until(&mut cluster, false);
        cluster.run(OUTAGE).unwrap();
        lose(&mut cluster, 0.0);
        until(&mut cluster, true)
    };
    assert!(median("back", back) < 10 * S);
}

#[test]
fn after_an_outage_the_pair_is_back_within_ten_seconds() {
    let back = |seed| {
        let (mut cluster, ..) = playing(seed, 100, Answers::ByClock);
        let relay = site(&cluster, RELAY);
        cluster.world.apply(Change::Kill(relay));
        cluster.run(OUTAGE).unwrap();
        assert!(!route(&cluster, &GAMES[0]).path.contains(&RELAY.to_owned()));
        cluster.world.apply(Change::Heal(relay));
        until(&mut cluster, true)
    };
    assert!(median("back", back) < 10 * S);
}

#[test]
fn a_new_relay_carries_within_five_seconds() {
    let carries = |seed| {
        let mut cluster = started(&WorldSpec { seed, ..small() }, Some(RELAY), &GAMES[..1]);
        play(&mut cluster, &GAMES[0], 100, Answers::ByClock);
        cluster.run(WARM + Duration::from_millis(seed * 170)).unwrap();
        let relay = site(&cluster, RELAY);
        let nodes = intent::nodes(&cluster.world).unwrap();
        cluster.apply(&nodes).unwrap();
        cluster.run(S).unwrap();
        let began = cluster.world.now();
        cluster.join(relay, RELAY).unwrap();
        let chosen = until(&mut cluster, true);
        let entry = site(&cluster, GAMES[0].entry);
        while !cluster.world.pop(entry).unwrap().sends_over(RELAY) {
            cluster.run(PACE).unwrap();
        }
        println!("seed {seed}: chosen after {chosen:?}");
        cluster.world.now() - began
    };
    assert!(median("carrying", carries) < 5 * S);
}
