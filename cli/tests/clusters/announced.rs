//! Addresses that hosts announce by BGP, by ARP and by a command: who holds them when hosts, agents and servers die.

#[path = "announced/rack.rs"]
mod rack;

use std::collections::BTreeSet;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::common::{skipped, soon};
use rack::{ALL, ARP, BGP, HOOK, Long, NODES, Rack, SERVERS};

/// For what is to stay as it is.
const WHILE: Duration = Duration::from_secs(3);
/// Long connections to each address.
const CONNECTIONS: usize = 20;
const HELD: [&str; 3] = ["announced", "announced", "announced"];
const NOT_HELD: [&str; 3] = ["standby", "standby", "announced"];

#[test]
fn announced_addresses_follow_who_lives_and_serves() {
    if skipped() {
        return;
    }
    if Command::new("gobgpd").arg("--version").output().is_err() {
        return kuafu_lab::skip("the router speaks BGP by `gobgpd` (apt-get install gobgpd)");
    }
    let began = Instant::now();
    let mut rack = Rack::build();
    rack.until_led(&NODES);
    rack.until("left", HELD);
    rack.until("right", NOT_HELD);
    println!("announced {:?} after nothing was there", began.elapsed());
    for address in ALL {
        soon(&format!("both servers answer at {address}"), || {
            let who: BTreeSet<String> = (0..20).filter_map(|_| rack.who(address)).collect();
            (who.len() == SERVERS.len()).then_some(())
        });
    }
    println!("{}", rack.ask(&["status"]).unwrap());
    a_restart_of_an_agent_moves_nothing(&mut rack);
    let mut long: Vec<Long> = ALL
        .iter()
        .flat_map(|to| rack.connections(*to, CONNECTIONS))
        .collect();
    without_an_agent_it_is_withdrawn(&mut rack);
    all_echo(&mut long, "after one of two was withdrawn");
    a_holder_dies(&mut rack, &mut long);
    it_comes_back_and_holds_nothing(&mut rack);
    a_drained_holder_hands_over(&mut rack);
    all_echo(&mut long, "in the end");
    the_last_servers_failure_withdraws(&rack);
}

/// An agent is killed and started: what it announces by BGP is as old as before, and no request fails.
fn a_restart_of_an_agent_moves_nothing(rack: &mut Rack) {
    let before = rack.routes();
    let failed = rack.under_load(&[BGP], |rack| {
        rack.kill("right", "agent");
        thread::sleep(Duration::from_secs(1));
        rack.start("right", "agent");
        rack.until("right", NOT_HELD);
        thread::sleep(WHILE);
    });
    assert_eq!(failed, [""; 0]);
    assert_eq!(rack.routes(), before, "the routes are the same, and as old");
}

/// After this, other hosts lead flows that they have not seen by the ring before, for 600 s.
fn the_last_servers_failure_withdraws(rack: &Rack) {
    rack.ask(&["drain", "node/right", "--undo"]).unwrap();
    rack.until_led(&NODES);
    rack.cut("one", true);
    thread::sleep(WHILE);
    rack.until_led(&NODES);
    rack.cut("two", true);
    let cut = Instant::now();
    soon("BGP withdraws", || rack.routes().is_empty().then_some(()));
    println!(
        "withdrawn {:?} after the last server's link was cut (three checks of 300 ms)",
        cut.elapsed()
    );
    rack.until("left", ["announced", "announced", "withheld"]);
    for server in SERVERS {
        rack.cut(server, false);
    }
    rack.until_led(&NODES);
    rack.until("left", HELD);
    for address in ALL {
        soon("it answers again", || rack.who(address));
    }
}

/// The agent of a node dies for good, and nothing else does: the prober's process withdraws what it announced.
fn without_an_agent_it_is_withdrawn(rack: &mut Rack) {
    rack.kill("right", "agent");
    let killed = Instant::now();
    soon("the lease runs out", || (rack.routes().len() == 1).then_some(()));
    let after = killed.elapsed();
    println!("withdrawn {after:?} after the agent was killed");
    assert!(after > Duration::from_secs(8), "a restart of an agent takes less");
    rack.until_led(&["left"]);
    assert!(rack.who(BGP).is_some());
    rack.start("right", "agent");
    rack.until("right", NOT_HELD);
    rack.until_led(&NODES);
}

/// A holder loses its link, and all its processes: its addresses go to the other node, and connections go on.
fn a_holder_dies(rack: &mut Rack, long: &mut [Long]) {
    let cut = rack.destroy("left");
    thread::scope(|scope| {
        let (rack, moved) = (&*rack, |name, to| {
            println!(
                "{name}: answered {:?} after the holder's link was cut",
                rack.until_answered(to, cut)
            )
        });
        scope.spawn(move || moved("arp", ARP));
        scope.spawn(move || moved("hook", HOOK));
        scope.spawn(move || {
            rack.until_led(&["right"]);
            println!(
                "bgp: led to the other alone {:?} after it (hold time 9 s)",
                cut.elapsed()
            );
        });
    });
    rack.until("right", HELD);
    all_echo(long, "after a holder died");
}

fn it_comes_back_and_holds_nothing(rack: &mut Rack) {
    let failed = rack.under_load(&[ARP, HOOK], |rack| {
        rack.restore("left");
        rack.until("left", NOT_HELD);
        thread::sleep(WHILE);
        rack.until("left", NOT_HELD);
        rack.until("right", HELD);
    });
    assert_eq!(failed, [""; 0]);
    rack.until_led(&NODES);
}

/// What a drained node holds goes to the other, and no request fails.
fn a_drained_holder_hands_over(rack: &mut Rack) {
    let failed = rack.under_load(&[ARP, HOOK], |rack| {
        let drained = Instant::now();
        rack.ask(&["drain", "node/right", "--wait", "0"])
            .unwrap_or_default();
        rack.until("left", HELD);
        println!("drained: held by the other {:?} later", drained.elapsed());
        thread::sleep(WHILE);
    });
    assert_eq!(failed, [""; 0]);
    rack.until("right", ["standby", "standby", "standby"]);
    rack.until_led(&["left"]);
    assert!(rack.who(BGP).is_some());
}

fn all_echo(long: &mut [Long], when: &str) {
    let began = Instant::now();
    let lost: Vec<String> = long
        .iter_mut()
        .filter_map(|one| one.echoes().err())
        .map(|error| error.to_string())
        .collect();
    assert_eq!(lost, [""; 0], "connections {when}");
    println!(
        "all {} connections go on {when}, within {:?}",
        long.len(),
        began.elapsed()
    );
}
