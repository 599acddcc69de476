//! One node, its daemons of BGP, and two routers.

#[path = "peering/scene.rs"]
mod scene;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kuafu_lab::Signal;

use super::common::{skipped, soon};
use scene::{ADDRESS, FIRST, LEFT6, PREFIX6, SECOND, SECOND_BEHIND, SECRET, Scene, TOLD, TOLD6};

/// For what is to stay as it is.
const WHILE: Duration = Duration::from_secs(1);

#[test]
fn frr_speaks_bgp_as_gobgp_does() {
    let Some(mut scene) = scene() else { return };
    gobgp_speaks(&scene);
    scene.speak("daemon: frr");
    frr_speaks(&scene);
    without_an_address_of_ipv6_the_prefix_is_withdrawn(&scene);
    a_drained_node_withdraws(&scene);
    bfd_notices_a_node_that_stands_still(&scene);
    nothing_stays_behind(&mut scene);
}

/// The same, with all that daemons and agents may come to.
#[test]
#[ignore = "a minute and a half: cargo xtask soak peering"]
fn soak_peering() {
    let Some(mut scene) = scene() else { return };
    gobgp_speaks(&scene);
    a_silent_router_is_a_fault(&mut scene);
    let programs = a_missing_daemon_is_a_fault_until_it_is_there(&mut scene);
    one_that_cannot_start_leaves_the_other(&scene, &programs);
    symlink("/usr/bin/unshare", programs.join("unshare")).unwrap();
    frr_speaks(&scene);
    a_restart_of_the_agent_changes_nothing(&mut scene);
    one_program_that_dies_is_started_again(&scene);
    a_drained_node_withdraws(&scene);
    without_an_agent_the_address_is_withdrawn(&mut scene);
    bfd_notices_a_node_that_stands_still(&scene);
    nothing_stays_behind(&mut scene);
}

fn gobgp_speaks(scene: &Scene) {
    scene.until_told_to(&[FIRST, SECOND]);
    assert_eq!(scene.programs(), ["gobgpd"]);
    assert_eq!(scene.next_hops(), [LEFT6.to_string(), LEFT6.to_string()]);
    what_a_router_tells_goes_no_further(scene);
    the_password_is_nowhere_to_be_seen(scene);
}

fn frr_speaks(scene: &Scene) {
    another_daemon_takes_over(scene);
    assert_eq!(scene.next_hops(), [LEFT6.to_string(), LEFT6.to_string()]);
    nothing_of_it_listens(scene);
    what_a_router_tells_goes_no_further(scene);
    the_password_is_nowhere_to_be_seen(scene);
}

fn nothing_stays_behind(scene: &mut Scene) {
    scene.uninstall();
    assert_eq!(scene.programs(), [""; 0]);
    let left: Vec<_> = fs::read_dir(scene.run_folder()).map_or_else(
        |_| Vec::new(),
        |entries| entries.map(|entry| entry.unwrap().file_name()).collect(),
    );
    let of_bgp = [
        "frr",
        "bgpd.pid",
        "bfdd.pid",
        "zebra.pid",
        "bgpd.log",
        "bfdd.log",
        "zebra.log",
        "bgpd.conf",
        "vtysh.conf",
    ];
    assert!(
        left.iter().all(|name| !of_bgp.iter().any(|one| name == *one)),
        "{left:?}"
    );
}

fn scene() -> Option<Scene> {
    if skipped() || !scene::is_installed() {
        return None;
    }
    Some(Scene::build())
}

/// The second router tells networks: the first hears nothing of it, nor does the node's kernel.
fn what_a_router_tells_goes_no_further(scene: &Scene) {
    soon("the second router has told its networks", || {
        scene.second_tells().then_some(())
    });
    thread::sleep(WHILE);
    assert_eq!(
        scene.known_to_first(),
        [format!("{ADDRESS}/32"), PREFIX6.to_owned()]
    );
    let kernel = scene.kernel();
    assert!(!kernel.contains(TOLD) && !kernel.contains(TOLD6), "{kernel}");
}

/// One of two says nothing: the address is announced, and that is told.
fn a_silent_router_is_a_fault(scene: &mut Scene) {
    scene.second_speaks(false);
    let fault = format!("not to all routers: no BGP session with {SECOND_BEHIND}");
    scene.until_said("announced", &fault);
    let told = scene.ask(&["status"]).unwrap_or_else(|told| told);
    assert!(
        told.contains(&format!("{ADDRESS} is announced by bgp, but {fault}")),
        "{told}"
    );
}

/// An agent that finds no gobgpd says so, and uses it as soon as it is there. Returns where it finds programs.
fn a_missing_daemon_is_a_fault_until_it_is_there(scene: &mut Scene) -> PathBuf {
    scene.kill("agent");
    scene.end("gobgpd");
    let elsewhere = scene.programs_without("gobgp");
    scene.start_with("agent", Some(&elsewhere));
    let fault = "gobgpd is not installed: apt install gobgpd";
    scene.until_said("failed", fault);
    let told = scene.ask(&["status"]).unwrap_or_else(|told| told);
    assert!(
        told.contains(&format!("{ADDRESS} is not announced by bgp: {fault}")),
        "{told}"
    );
    scene.second_speaks(true);
    for name in ["gobgpd", "gobgp"] {
        symlink(Path::new("/usr/bin").join(name), elsewhere.join(name)).unwrap();
    }
    scene.until_told_to(&[FIRST, SECOND]);
    scene.until("announced");
    elsewhere
}

/// GoBGP goes on where FRR cannot follow, and withdraws all the same.
fn one_that_cannot_start_leaves_the_other(scene: &Scene, programs: &Path) {
    let before = scene.numbers();
    fs::remove_file(programs.join("unshare")).unwrap();
    scene.speak("daemon: frr");
    scene.until_said(
        "failed",
        "zebra needs unshare, which is missing: apt install util-linux",
    );
    drained_and_back(scene);
    assert_eq!(scene.numbers(), before, "the same one");
}

fn drained_and_back(scene: &Scene) {
    scene.ask(&["drain", "node/left"]).unwrap();
    scene.until_told_to(&[]);
    scene.ask(&["drain", "node/left", "--undo"]).unwrap();
    scene.until_told_to(&[FIRST, SECOND]);
}

/// FRR's daemons take orders by their sockets alone, while those of the router listen.
fn nothing_of_it_listens(scene: &Scene) {
    let listens = |host, name: &str| scene.listeners(host).contains(&format!("\"{name}\""));
    for name in scene.programs() {
        assert!(!listens("left", &name), "{}", scene.listeners("left"));
        assert!(listens(FIRST, &name), "{}", scene.listeners(FIRST));
    }
}

/// FRR's daemons instead of GoBGP. What other programs of their kind have put into the kernel stays as it is.
fn another_daemon_takes_over(scene: &Scene) {
    let before = scene.kernel();
    soon("FRR speaks", || {
        (scene.programs() == ["bgpd", "zebra"]).then_some(())
    });
    scene.until_told_to(&[FIRST, SECOND]);
    assert_eq!(scene.communities(), "65000:100 65000:200");
    thread::sleep(WHILE);
    assert_eq!(scene.kernel(), before, "zebra changes nothing");
    let link = scene.standing();
    assert_eq!(link, ("announced".to_owned(), String::new()));
}

fn a_restart_of_the_agent_changes_nothing(scene: &mut Scene) {
    let before = (scene.numbers(), scene.since());
    scene.kill("agent");
    thread::sleep(Duration::from_secs(1));
    scene.start("agent");
    scene.until("announced");
    thread::sleep(WHILE);
    assert_eq!((scene.numbers(), scene.since()), before, "the same, and as old");
}

/// `zebra` has no part in what is announced; `bgpd` comes back with all.
fn one_program_that_dies_is_started_again(scene: &Scene) {
    let since = scene.since();
    let before = scene.numbers();
    scene.end("zebra");
    soon("zebra is back", || {
        let now = scene.numbers();
        let is_another = *now.get("zebra")? != before["zebra"];
        (is_another && now["bgpd"] == before["bgpd"]).then_some(())
    });
    thread::sleep(WHILE);
    assert_eq!(scene.since(), since, "the route is as old as before");
    scene.end("bgpd");
    soon("bgpd is back", || {
        (scene.numbers().get("bgpd")? != &before["bgpd"]).then_some(())
    });
    scene.until_told_to(&[FIRST, SECOND]);
}

/// There is nowhere to send its packets to. The address of IPv4 stays.
fn without_an_address_of_ipv6_the_prefix_is_withdrawn(scene: &Scene) {
    let since = scene.since();
    scene.address_of_v6("del", 64);
    scene.until_known(&[FIRST, SECOND], &[]);
    soon("that is told", || {
        let [v4, (standing, reason)] = scene.standings();
        let is_told = standing == "failed" && reason.starts_with("this host has no address of IPv6");
        (v4 == ("announced".to_owned(), String::new()) && is_told).then_some(())
    });
    // No way leads to the server: the link's address is the next hop all the same.
    scene.address_of_v6("add", 128);
    scene.until_told_to(&[FIRST, SECOND]);
    assert_eq!(scene.next_hops(), [LEFT6.to_string(), LEFT6.to_string()]);
    scene.address_of_v6("del", 128);
    scene.address_of_v6("add", 64);
    scene.until_told_to(&[FIRST, SECOND]);
    scene.until("announced");
    assert_eq!(scene.since(), since, "the sessions stayed");
}

/// Be it that its configuration cannot be made any more.
fn a_drained_node_withdraws(scene: &Scene) {
    let file = scene.password_file();
    let rights = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    rights(0o640);
    scene.until_said("failed", "others than its owner may use");
    drained_and_back(scene);
    rights(0o600);
    scene.until("announced");
}

fn without_an_agent_the_address_is_withdrawn(scene: &mut Scene) {
    scene.kill("agent");
    let killed = Instant::now();
    scene.until_told_to(&[]);
    println!(
        "{ADDRESS} is withdrawn {:?} after the agent was killed",
        killed.elapsed()
    );
    assert_eq!(scene.programs(), ["bgpd", "zebra"], "the sessions stay");
    scene.start("agent");
    scene.until_told_to(&[FIRST, SECOND]);
}

/// The node's daemons stand still, their connections stay: the router with BFD withdraws, while BGP would wait on.
fn bfd_notices_a_node_that_stands_still(scene: &Scene) {
    scene.speak("daemon: frr, bfd: true");
    soon("BFD runs", || {
        (scene.programs() == ["bfdd", "bgpd", "zebra"]).then_some(())
    });
    soon("BFD is up at the router", || {
        (scene.bfd()["status"] == "up").then_some(())
    });
    scene.until_told_to(&[FIRST, SECOND]);
    nothing_of_it_listens(scene);
    for name in ["bfdd", "bgpd"] {
        scene.signal(name, Signal::SIGSTOP);
    }
    let stopped = Instant::now();
    soon("the router withdraws", || {
        scene.known_to_first().is_empty().then_some(())
    });
    println!(
        "the router with BFD withdraws {:?} after the node's daemons stood still (hold time 9 s)",
        stopped.elapsed()
    );
    let bfd = scene.bfd();
    assert_eq!(bfd["status"], "down", "{bfd}");
    assert_eq!(bfd["diagnostic"], "control detection time expired", "{bfd}");
    let session = scene.session();
    assert_eq!(session["lastNotificationReason"], "Cease/BFD Down", "{session}");
    for name in ["bfdd", "bgpd"] {
        scene.signal(name, Signal::SIGCONT);
    }
    scene.until_told_to(&[FIRST, SECOND]);
    assert_eq!(scene.bfd()["status"], "up");
}

/// Both routers have a session by what is said of them, and the password is nowhere to be seen.
fn the_password_is_nowhere_to_be_seen(scene: &Scene) {
    let seen = [
        scene.ask(&["get", "addresspool/bgp", "-o", "yaml"]).unwrap(),
        scene.ask(&["status", "-o", "json"]).unwrap(),
        scene.ask(&["history"]).unwrap(),
        scene.logs(),
    ];
    assert!(seen[0].contains("password_file"), "{}", seen[0]);
    assert!(seen.iter().all(|text| !text.contains(SECRET)), "{seen:?}");
    let there = ["gobgpd.toml", "bgpd.conf", "frr/bgpd.conf"];
    let there: Vec<_> = there
        .into_iter()
        .filter(|name| scene.run_folder().join(name).exists())
        .collect();
    let is_of_one = there == ["gobgpd.toml"] || there == ["bgpd.conf", "frr/bgpd.conf"];
    assert!(is_of_one, "of one daemon: {there:?}");
    for name in there {
        let path = scene.run_folder().join(name);
        assert!(fs::read_to_string(&path).unwrap().contains(SECRET));
        let rights = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(rights & 0o777, 0o600);
    }
}
