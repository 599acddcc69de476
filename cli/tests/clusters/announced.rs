//! Addresses that hosts announce by BGP, by ARP and by a command: who holds them when hosts, agents and servers die.

#[path = "announced/rack.rs"]
pub mod rack;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kuafu_lab::Signal;

use super::common::{skipped, soon};
use rack::{ALL, ARP, BGP, BGP_PREFIX, HOOK, Long, NODES, OF_PREFIXES, Rack, SERVERS, SIX, address};

/// For what is to stay as it is.
const WHILE: Duration = Duration::from_secs(3);
/// Long connections to each address.
const CONNECTIONS: usize = 20;
const HELD: [&str; 3] = ["announced", "announced", "announced"];
const NOT_HELD: [&str; 3] = ["standby", "standby", "announced"];

#[test]
fn announced_addresses_follow_who_lives() {
    let Some(mut rack) = rack() else { return };
    println!("{}", rack.ask(&["status"]).unwrap());
    let [left, right] = NODES;
    a_prefix_is_one_route(&rack, &NODES, "announced");
    let mut long = connections(&rack);
    a_restart_of_an_agent_moves_nothing(&mut rack, right);
    a_holder_dies(&mut rack, left, right);
    all_echo(&mut long, "after a holder died");
    it_comes_back_and_holds_nothing(&mut rack, left, right);
    a_drained_holder_hands_over(&mut rack, right, left);
    all_echo(&mut long, "in the end");
    the_last_servers_failure_withdraws(&rack, left);
}

#[test]
fn announced_addresses_do_without_agents_and_controller() {
    let Some(mut rack) = rack() else { return };
    let [left, right] = NODES;
    let mut long = connections(&rack);
    without_an_agent_all_goes(&mut rack, left, right);
    all_echo(&mut long, "after an agent died for good");
    a_restart_of_the_controller_moves_nothing(&mut rack, right, left);
    a_holder_that_is_cut_off_lets_go(&mut rack, right, left);
    an_agent_that_stood_still_claims_nothing(&mut rack, left, right);
    all_echo(&mut long, "in the end");
}

/// A rack where all addresses are announced, the first node holds what one holds, and both servers answer.
fn rack() -> Option<Rack> {
    if skipped() {
        return None;
    }
    if Command::new("gobgpd").arg("--version").output().is_err() {
        kuafu_lab::skip("the router speaks BGP by `gobgpd` (apt-get install gobgpd)");
        return None;
    }
    let rack = Rack::build();
    rack.until_led(&NODES);
    rack.until("left", HELD);
    rack.until("right", NOT_HELD);
    let of_four = ALL.into_iter().chain(OF_PREFIXES).map(IpAddr::from);
    for address in of_four.chain([SIX.into()]) {
        soon(&format!("both servers answer at {address}"), || {
            let who: BTreeSet<String> = (0..20).filter_map(|_| rack.who(address)).collect();
            (who.len() == SERVERS.len()).then_some(())
        });
    }
    Some(rack)
}

/// Of the prefix the router is told one route, by these nodes, whose agents say how it stands.
fn a_prefix_is_one_route(rack: &Rack, nodes: &[&str], standing: &str) {
    let routes = if nodes.is_empty() { 0 } else { 2 };
    let wanted = (routes, nodes.iter().map(|node| address(node)).collect());
    soon("the prefix is one route, the address the other", || {
        (rack.routes_of_prefix() == wanted).then_some(())
    });
    for node in NODES {
        soon("it is shown as one", || {
            let (is, _) = rack.own_standings(node)?.remove(BGP_PREFIX)?;
            (is == standing).then_some(())
        });
    }
}

fn connections(rack: &Rack) -> Vec<Long> {
    let all = ALL.into_iter().map(IpAddr::from).chain([SIX.into()]);
    all.flat_map(|to| rack.connections(to, CONNECTIONS)).collect()
}

/// An agent is killed and started: what it announces by BGP is as old as before, and no request fails.
fn a_restart_of_an_agent_moves_nothing(rack: &mut Rack, node: &str) {
    let before = rack.routes();
    let failed = rack.under_load(&[BGP], |rack| {
        rack.kill(node, "agent");
        thread::sleep(Duration::from_secs(1));
        rack.start(node, "agent");
        rack.until(node, NOT_HELD);
        thread::sleep(WHILE);
    });
    assert_eq!(failed, [""; 0]);
    assert_eq!(rack.routes(), before, "the routes are the same, and as old");
}

/// The agent of a holder dies for good, and nothing else does: what it holds goes to the other at once, and the prober's
/// process withdraws what it announced.
fn without_an_agent_all_goes(rack: &mut Rack, holder: &str, other: &str) {
    rack.kill(holder, "agent");
    let killed = Instant::now();
    rack.until(other, HELD);
    println!(
        "{ARP} and {HOOK} are held by the other {:?} after the agent was killed",
        killed.elapsed()
    );
    assert!(rack.answers_arp(holder), "its programs do not know yet");
    soon("the lease runs out", || (rack.routes().len() == 1).then_some(()));
    let after = killed.elapsed();
    println!("{BGP} is withdrawn {after:?} after the agent was killed");
    assert!(after > Duration::from_secs(8), "a restart of an agent takes less");
    assert!(!rack.answers_arp(holder));
    rack.until_led(&[other]);
    rack.start(holder, "agent");
    rack.until(holder, NOT_HELD);
    rack.until_led(&NODES);
    assert!(!rack.answers_arp(holder) && rack.answers_arp(other));
}

/// A holder loses its link, and all its processes: its addresses go to the other node, and connections go on.
fn a_holder_dies(rack: &mut Rack, holder: &str, other: &str) {
    let cut = rack.destroy(holder);
    thread::scope(|scope| {
        let rack = &*rack;
        for address in [IpAddr::from(ARP), HOOK.into(), SIX.into()] {
            scope.spawn(move || {
                let answered = rack.until_answered(address, cut);
                println!("{address} answers {answered:?} after the holder's link was cut");
            });
        }
        scope.spawn(move || {
            rack.until_led(&[other]);
            let elapsed = cut.elapsed();
            println!("{BGP} leads to the other alone {elapsed:?} after it (hold time 9 s)");
        });
    });
    rack.until(other, HELD);
}

fn it_comes_back_and_holds_nothing(rack: &mut Rack, node: &str, holder: &str) {
    let failed = rack.under_load(&[ARP, HOOK], |rack| {
        rack.restore(node);
        rack.until(node, NOT_HELD);
        thread::sleep(WHILE);
        rack.until(node, NOT_HELD);
        rack.until(holder, HELD);
        assert!(rack.is_found_by_arp(holder), "who comes back claims nothing");
    });
    assert_eq!(failed, [""; 0]);
    rack.until_led(&NODES);
}

/// What a drained node holds goes to the other, and no request fails.
fn a_drained_holder_hands_over(rack: &mut Rack, holder: &str, other: &str) {
    let node = format!("node/{holder}");
    let failed = rack.under_load(&[ARP, HOOK], |rack| {
        let drained = Instant::now();
        rack.ask(&["drain", &node]).unwrap();
        println!("drained after {:?}", drained.elapsed());
        rack.until(other, HELD);
        thread::sleep(WHILE);
    });
    assert_eq!(failed, [""; 0]);
    rack.until(holder, ["standby"; 3]);
    rack.until_led(&[other]);
    assert!(rack.who(BGP).is_some());
    rack.ask(&["drain", &node, "--undo"]).unwrap();
    rack.until(holder, NOT_HELD);
    rack.until_led(&NODES);
}

fn a_restart_of_the_controller_moves_nothing(rack: &mut Rack, holder: &str, other: &str) {
    let failed = rack.under_load(&ALL, |rack| {
        rack.kill("control", "controller");
        thread::sleep(WHILE);
        rack.start("control", "controller");
        thread::sleep(WHILE);
        rack.until(holder, HELD);
        rack.until(other, NOT_HELD);
    });
    assert_eq!(failed, [""; 0]);
}

/// A holder without its controller hears the next one's claim, and answers no more; nobody notices.
fn a_holder_that_is_cut_off_lets_go(rack: &mut Rack, holder: &str, other: &str) {
    let failed = rack.under_load(&[ARP, HOOK], |rack| {
        rack.isolate(holder, true);
        rack.until(other, HELD);
        soon("it lets go", || {
            let (standing, reason) = rack.own_standings(holder)?.remove(&ARP.to_string())?;
            let is_so = standing == "withheld" && reason.starts_with("another host claims it");
            is_so.then_some(())
        });
        assert!(!rack.answers_arp(holder));
        rack.isolate(holder, false);
        rack.until(holder, NOT_HELD);
    });
    assert_eq!(failed, [""; 0]);
}

/// The agent of a holder stands still for longer than its lease: all that it announces goes. When it goes on it announces
/// by BGP again, and claims nothing of what is another's now.
fn an_agent_that_stood_still_claims_nothing(rack: &mut Rack, holder: &str, other: &str) {
    rack.until_led(&NODES);
    let claims = rack.claims(holder);
    rack.signal(holder, "agent", Signal::SIGSTOP);
    let stopped = Instant::now();
    rack.until(other, HELD);
    rack.until_led(&[other]);
    assert!(!rack.answers_arp(holder), "the lease has run out");
    println!(
        "{BGP} is withdrawn {:?} after the agent stood still",
        stopped.elapsed()
    );
    rack.signal(holder, "agent", Signal::SIGCONT);
    rack.until(holder, NOT_HELD);
    rack.until_led(&NODES);
    thread::sleep(WHILE);
    rack.until(other, HELD);
    assert!(!rack.answers_arp(holder) && rack.answers_arp(other));
    let claimed = format!("who-has {ARP}");
    assert!(!claims.text().contains(&claimed), "{}", claims.text());
    // Where it does claim, that is heard.
    let node = format!("node/{other}");
    rack.ask(&["drain", &node]).unwrap();
    soon("it claims what comes to it", || {
        claims.text().contains(&claimed).then_some(())
    });
    rack.ask(&["drain", &node, "--undo"]).unwrap();
    rack.until_led(&NODES);
}

/// After this, other hosts lead flows that they have not seen by the ring before, for 600 s.
fn the_last_servers_failure_withdraws(rack: &Rack, holder: &str) {
    rack.until_led(&NODES);
    rack.cut("one", true);
    thread::sleep(WHILE);
    rack.until_led(&NODES);
    rack.cut("two", true);
    let cut = Instant::now();
    soon("BGP withdraws", || rack.routes().is_empty().then_some(()));
    let elapsed = cut.elapsed();
    println!("{BGP} is withdrawn {elapsed:?} after the last server's link was cut (three checks of 300 ms)");
    rack.until(holder, ["announced", "announced", "withheld"]);
    a_prefix_is_one_route(rack, &[], "withheld");
    for server in SERVERS {
        rack.cut(server, false);
    }
    rack.until_led(&NODES);
    rack.until(holder, HELD);
    let of_four = ALL.into_iter().chain(OF_PREFIXES).map(IpAddr::from);
    for address in of_four.chain([SIX.into()]) {
        soon("it answers again", || rack.who(address));
    }
}

fn all_echo(long: &mut [Long], when: &str) {
    let began = Instant::now();
    let lost: Vec<String> = long
        .iter_mut()
        .filter_map(|one| Some(format!("{one:?}: {}", one.echoes().err()?)))
        .collect();
    assert_eq!(lost, [""; 0], "connections {when}");
    println!(
        "all {} connections go on {when}, within {:?}",
        long.len(),
        began.elapsed()
    );
}
