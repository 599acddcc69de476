//! Debian's kernels as guests: what Kuafu does on the oldest kernel that it runs on, and on one before that.
//!
//! Needs root, qemu and the kernels that `cargo xtask setup` brings; says what was skipped elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; what tests share is used in parts"
)]

#[path = "../../model/tests/common/mod.rs"]
mod common;
#[path = "guest/inside.rs"]
mod inside;
#[path = "../../dataplane/tests/cases/kernel.rs"]
mod kernel;
#[path = "../src/verb/get/backend/lines.rs"]
mod lines;
#[path = "guest/servers.rs"]
mod servers;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kuafu_lab::guest::{Guest, Kernel, Outcome};

const KUAFU: &str = env!("CARGO_BIN_EXE_kuafu");
/// The maps at their usual sizes, and a file system in memory.
const MEMORY_MIB: u32 = 1024;

/// A guest with `kuafu`; `None`, and why, where there can be none.
fn guest(series: &str, script: &str) -> Option<Guest> {
    let kernel = Kernel::find(series).inspect_err(|why| kuafu_lab::skip(why));
    let mut guest = Guest::new(kernel.ok()?, script);
    guest.memory_mib = MEMORY_MIB;
    guest.modules = vec!["veth".into()];
    guest.program(Path::new(KUAFU), "/kuafu").unwrap();
    Some(guest)
}

/// Each has a core to itself, as its limit assumes: they are emulated.
static ALONE: Mutex<()> = Mutex::new(());

fn run(guest: &Guest) -> Outcome {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = guest.run().unwrap();
    println!("{}", outcome.serial);
    outcome
}

#[test]
fn before_tcx_doctor_refuses_and_names_the_line_that_helps() {
    let Some(guest) = guest("6.1", "/kuafu doctor") else {
        return;
    };
    let outcome = run(&guest);
    assert_eq!(outcome.status, Some(3));
    let tcx = outcome.serial.lines().find(|line| line.contains("tcx"));
    assert!(tcx.is_some_and(|line| line.contains("missing") || line.contains("needed")));
    let helps = "apt-get install linux-image-6.12-cloud-amd64";
    assert!(outcome.serial.contains(helps), "no line that helps");
}

#[test]
fn on_the_oldest_kernel_programs_load_attach_and_pass_packets() {
    let script = "/kuafu doctor && /inside --ignored --exact --nocapture inside::programs_pass_packets";
    let Some(mut guest) = guest("6.12", script) else {
        return;
    };
    // Three times its verifier walks all programs, and it is emulated: 147 s on a quiet machine.
    guest.limit = Duration::from_secs(400);
    guest
        .program(&std::env::current_exe().unwrap(), "/inside")
        .unwrap();
    guest.program(&on_path("ip"), "/bin/ip").unwrap();
    guest.program(&on_path("nft"), "/bin/nft").unwrap();
    for (case, _) in common::case::all() {
        let place = case.to_string_lossy().into_owned();
        guest.files.push((case, place));
    }
    let outcome = run(&guest);
    assert_eq!(outcome.status, Some(0));
    assert!(outcome.serial.contains("1 passed"), "the part inside did not run");
}

/// What Debian's kernel needs for the lines that set a server up, those first that others need.
const OF_SERVERS: [&str; 12] = [
    "veth",
    "tunnel4",
    "ip_tunnel",
    "ipip",
    "tunnel6",
    "ip6_tunnel",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "fou",
    "libcrc32c",
    "nfnetlink",
    "nf_tables",
];

#[test]
fn debians_own_devices_take_what_is_sent_to_servers() {
    with_a_server("servers::clients_are_served");
}

#[test]
fn what_the_set_up_of_a_server_lacks_is_named() {
    with_a_server("servers::what_a_server_lacks_is_named");
}

/// Runs one of the parts inside on a kernel that has what servers need.
fn with_a_server(part: &str) {
    let script = format!("/inside --ignored --exact --nocapture {part}");
    let Some(mut guest) = guest("6.12", &script) else {
        return;
    };
    guest.limit = Duration::from_secs(150);
    guest.modules = OF_SERVERS.map(str::to_owned).to_vec();
    guest
        .program(&std::env::current_exe().unwrap(), "/inside")
        .unwrap();
    guest.program(&on_path("ip"), "/bin/ip").unwrap();
    guest.program(&on_path("nft"), "/bin/nft").unwrap();
    let outcome = run(&guest);
    assert_eq!(outcome.status, Some(0));
    assert!(outcome.serial.contains("1 passed"), "the part inside did not run");
}

fn on_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program));
    found
        .into_iter()
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("no {program}"))
}
