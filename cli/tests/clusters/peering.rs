//! One node, its daemons of BGP, and two routers.

#[path = "peering/scene.rs"]
mod scene;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kuafu_lab::Signal;

use super::common::{skipped, soon};
use scene::{ADDRESS, FIRST, SECOND, SECOND_BEHIND, SECRET, Scene, TOLD};

/// For what is to stay as it is.
const WHILE: Duration = Duration::from_secs(1);

#[test]
fn frr_speaks_bgp_as_gobgp_does() {
    let Some(mut scene) = scene() else { return };
    scene.until_told_to(&[FIRST, SECOND]);
    what_a_router_tells_goes_no_further(&scene);
    the_password_is_nowhere_to_be_seen(&scene);
    a_silent_router_is_a_fault(&mut scene);
    a_missing_daemon_is_a_fault_until_it_is_there(&mut scene);
    another_daemon_takes_over(&scene);
    what_a_router_tells_goes_no_further(&scene);
    the_password_is_nowhere_to_be_seen(&scene);
    a_restart_of_the_agent_changes_nothing(&mut scene);
    one_program_that_dies_is_started_again(&scene);
    a_drained_node_withdraws(&scene);
    without_an_agent_the_address_is_withdrawn(&mut scene);
    bfd_notices_a_node_that_stands_still(&scene);
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
        "zebra.log",
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

/// The second router tells a network: the first hears nothing of it, nor does the node's kernel.
fn what_a_router_tells_goes_no_further(scene: &Scene) {
    soon("the second router has told its network", || {
        scene.second_tells().then_some(())
    });
    thread::sleep(WHILE);
    assert_eq!(scene.known_to_first(), [format!("{ADDRESS}/32")]);
    assert!(!scene.kernel().contains(TOLD), "{}", scene.kernel());
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

/// An agent that finds no gobgpd says so, and uses it as soon as it is there.
fn a_missing_daemon_is_a_fault_until_it_is_there(scene: &mut Scene) {
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
}

/// FRR's daemons instead of GoBGP. What other programs of their kind have put into the kernel stays as it is.
fn another_daemon_takes_over(scene: &Scene) {
    let before = scene.kernel();
    assert_eq!(scene.programs(), ["gobgpd"]);
    scene.speak("daemon: frr");
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

/// Be it that its configuration cannot be made any more.
fn a_drained_node_withdraws(scene: &Scene) {
    let file = scene.password_file();
    let rights = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    rights(0o640);
    scene.until_said("failed", "others than its owner may use");
    scene.ask(&["drain", "node/left"]).unwrap();
    scene.until_told_to(&[]);
    scene.ask(&["drain", "node/left", "--undo"]).unwrap();
    scene.until_told_to(&[FIRST, SECOND]);
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
    let configs = ["gobgpd.toml", "frr/bgpd.conf"].map(|name| scene.run_folder().join(name));
    let there: Vec<_> = configs.iter().filter(|path| path.exists()).collect();
    assert_eq!(there.len(), 1, "of one daemon");
    assert!(fs::read_to_string(there[0]).unwrap().contains(SECRET));
    assert_eq!(
        fs::metadata(there[0]).unwrap().permissions().mode() & 0o777,
        0o600
    );
}
