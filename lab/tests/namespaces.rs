//! Namespaces, links and processes: they work, and nothing stays.

#![allow(clippy::unwrap_used, reason = "tests state facts")]

mod common;

use std::fs;
use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{pass, prefix, skipped, udp};
use kuafu_lab::link::{End, Offloads, veth};
use kuafu_lab::{Namespace, Signal, leftovers, sweep};

/// Two namespaces joined by a veth pair, `10.9.0.1` and `10.9.0.2`.
fn pair(prefix: &str, offloads: Offloads) -> (Namespace, Namespace) {
    let a = Namespace::create(prefix, "a").unwrap();
    let b = Namespace::create(prefix, "b").unwrap();
    let end = |namespace, address: &str| End {
        addresses: vec![address.parse().unwrap()],
        offloads,
        ..End::new(namespace, "eth0")
    };
    veth(&end(&a, "10.9.0.1/24"), &end(&b, "10.9.0.2/24"), 1500).unwrap();
    (a, b)
}

#[test]
fn a_pair_of_namespaces_talks() {
    if skipped() {
        return;
    }
    for offloads in [Offloads::Kernel, Offloads::Wire, Offloads::WireTap] {
        let (a, b) = pair(&prefix("talk"), offloads);
        let (here, there) = (udp(&a, "10.9.0.1:0"), udp(&b, "10.9.0.2:7000"));
        let peer = pass(&here, there.local_addr().unwrap(), &there, "hello");
        assert_eq!(peer, here.local_addr().unwrap());
        pass(&there, peer, &here, "and back");
    }
}

#[test]
fn only_the_network_of_the_work_is_another() {
    if skipped() {
        return;
    }
    let namespace = Namespace::create(&prefix("sys"), "a").unwrap();
    // Other tests' namespaces come and go meanwhile, each a mount of its own.
    let mount_points = || {
        let all = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let lasting = all.lines().filter(|line| !line.contains(" - nsfs "));
        lasting.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(namespace.run(mount_points).unwrap(), mount_points());
    let outside = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    namespace.run(|| UdpSocket::bind(outside)).unwrap().unwrap();
}

#[test]
fn nothing_stays_after_drop_nor_after_a_panic() {
    if skipped() {
        return;
    }
    let prefix = prefix("drop");
    let (a, b) = pair(&prefix, Offloads::Kernel);
    assert_eq!(leftovers(&prefix).unwrap().namespaces.len(), 2);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _both = (a, b);
        panic!("on purpose");
    }));
    assert!(panic.is_err());
    let left = leftovers(&prefix).unwrap();
    assert!(left.is_empty(), "{left}");
}

#[test]
fn processes_run_inside_and_end_with_their_value() {
    if skipped() {
        return;
    }
    let prefix = prefix("process");
    let namespace = Namespace::create(&prefix, "a").unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let mut process = namespace.spawn(sleep).unwrap();
    assert_eq!(leftovers(&prefix).unwrap().processes, [process.id()]);
    assert_eq!(process.wait(Duration::from_millis(1)).unwrap(), None);
    let path = format!("/proc/{}", process.id());
    drop(process);
    assert!(!fs::exists(path).unwrap());

    let mut shell = Command::new("sh");
    shell
        .args([
            "-c",
            "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done",
        ])
        .stdout(Stdio::piped());
    let mut process = namespace.spawn(shell).unwrap();
    let mut ready = [0; 5];
    std::io::Read::read_exact(&mut process.take_stdout().unwrap(), &mut ready).unwrap();
    assert_eq!(process.stop(Duration::from_secs(5)).unwrap().code(), Some(7));
}

#[test]
fn a_process_outlives_the_thread_that_asked_for_it() {
    if skipped() {
        return;
    }
    let namespace = Namespace::create(&prefix("thread"), "a").unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let spawned = thread::scope(|scope| scope.spawn(|| namespace.spawn(sleep).unwrap()).join());
    let mut process = spawned.unwrap();
    assert_eq!(process.wait(Duration::from_millis(50)).unwrap(), None);
    process.signal(Signal::SIGKILL).unwrap();
    assert!(process.wait(Duration::from_secs(5)).unwrap().is_some());
}

#[test]
fn a_program_that_hangs_is_ended() {
    if skipped() {
        return;
    }
    let namespace = Namespace::create(&prefix("hang"), "a").unwrap();
    let mut hang = Command::new("sh");
    hang.args(["-c", "sleep 1000 & sleep 1000"]);
    let error = namespace.output(hang, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.to_string(), "sh did not end within 0 s");
}

#[test]
fn what_a_program_says_is_waited_for() {
    if skipped() {
        return;
    }
    let namespace = Namespace::create(&prefix("line"), "a").unwrap();
    let log = std::env::temp_dir().join(format!("{}.log", prefix("line")));
    let shell = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        namespace.spawn_logged(shell, &log).unwrap()
    };
    let mut process = shell("sleep 0.1; echo listening on 7 >&2; sleep 1000");
    let line = process.await_line("listening", Duration::from_secs(10)).unwrap();
    assert_eq!(line, "listening on 7");
    let mut ended = shell("echo going; exit 1");
    let error = ended.await_line("never", Duration::from_secs(10)).unwrap_err();
    fs::remove_file(&log).unwrap();
    assert!(
        error.to_string().starts_with("sh ended without saying \"never\""),
        "{error}"
    );
}

#[test]
fn bad_names_and_bad_commands_are_refused() {
    if skipped() {
        return;
    }
    let prefix = prefix("bad");
    assert!(Namespace::create(&prefix, "../a").is_err());
    let namespace = Namespace::create(&prefix, "a").unwrap();
    let twice = Namespace::create(&prefix, "a").unwrap_err().to_string();
    assert!(twice.contains("File exists"), "{twice}");
    let error = namespace
        .ip(["link set lo up", "link set nothing up"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("nothing"), "{error}");
}

/// Run by [`a_killed_run_is_swept`] in a process of its own: builds and waits to be killed.
#[test]
#[ignore = "the victim of a_killed_run_is_swept"]
fn victim() {
    let Ok(prefix) = std::env::var("KUAFU_LAB_VICTIM") else {
        return;
    };
    let (a, _b) = pair(&prefix, Offloads::Kernel);
    let host = Namespace::host().unwrap();
    let device = format!("{prefix}-h");
    veth(&End::new(&host, &device), &End::new(&a, "to-host"), 1500).unwrap();
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let _process = a.spawn(sleep).unwrap();
    println!("built");
    thread::sleep(Duration::from_secs(30));
}

#[test]
fn a_killed_run_is_swept() {
    if skipped() {
        return;
    }
    let prefix = format!("kv{}", std::process::id());
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "victim", "--nocapture"])
        .env("KUAFU_LAB_VICTIM", &prefix)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while leftovers(&prefix).unwrap().links.is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();

    let found = sweep(&prefix).unwrap();
    assert_eq!(found.namespaces, [format!("{prefix}-a"), format!("{prefix}-b")]);
    assert_eq!(found.links, [format!("{prefix}-h")]);
    let left = leftovers(&prefix).unwrap();
    assert!(left.is_empty(), "{left}");
}
