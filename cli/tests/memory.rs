//! What an agent that knows ten thousand remote ports takes: its own memory, and that of its maps in the kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kuafu_dataplane::bpf::{Maps, Pins};
use kuafu_lab::Namespace;
use serde_json::json;

const REMOTE_PORTS: u32 = 10_000;
const HOSTS: u32 = 100;
const LIMIT_KIB: u64 = 40 * 1024;
/// For whatever is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pins that a failed test leaves, too.
struct Pinned(PathBuf);

impl Drop for Pinned {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn an_agent_with_ten_thousand_remote_ports_is_small() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let prefix = format!("kfm{}", std::process::id());
    let host = Namespace::create(&prefix, "host").unwrap();
    host.ip([
        "link add under type veth peer name wire",
        "addr add 192.0.2.1/24 dev under",
        "link set under up",
        "link set wire up",
    ])
    .unwrap();
    let root = tempfile::tempdir().unwrap();
    let state = root.path().join("state.json");
    fs::write(&state, state_of_many().to_string()).unwrap();
    let pinned = Pinned(Path::new("/sys/fs/bpf").join(&prefix));
    let mut agent = Command::new(env!("CARGO_BIN_EXE_kuafu"));
    agent.arg("agent").arg("--state").arg(&state);
    agent
        .arg("--root")
        .arg(root.path())
        .arg("--pin-root")
        .arg(&pinned.0);
    // It says of each host that nobody answers there.
    agent.stdout(Stdio::null()).stderr(Stdio::null());
    let agent = host.spawn(agent).unwrap();
    let pins = Pins::new(&pinned.0, "osaka");
    let deadline = Instant::now() + PATIENCE;
    let known = || Maps::open(&pins).ok()?.endpoints.count().ok();
    while known().is_none_or(|known| known < REMOTE_PORTS) {
        assert!(
            Instant::now() < deadline,
            "after {PATIENCE:?}: {:?} endpoints",
            known()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let process = Path::new("/proc").join(agent.id().to_string());
    let of_process = |word| field(&process.join("status"), word).unwrap();
    let (whole, anonymous) = (of_process("VmRSS:"), of_process("RssAnon:"));
    println!(
        "{REMOTE_PORTS} remote ports on {HOSTS} hosts: VmRSS {whole} KiB, {anonymous} of them anonymous; \
         maps in the kernel {} KiB",
        of_maps(&process) / 1024
    );
    agent.stop(PATIENCE).unwrap();
    // A debug build's own code takes half of it.
    let counted = if cfg!(debug_assertions) { anonymous } else { whole };
    assert!(counted < LIMIT_KIB, "{counted} KiB, limit {LIMIT_KIB} KiB");
}

/// The state of a host that knows all these ports, and has none.
fn state_of_many() -> serde_json::Value {
    let host = |number: u32| format!("192.0.2.{}", 2 + number % HOSTS);
    let port = |number: u32| {
        json!({
            "vni": 7,
            "address": format!("10.0.{}.{}", number / 250, 1 + number % 250),
            "mac": format!("02:00:0a:00:{:02x}:{:02x}", number / 250, 1 + number % 250),
            "host": host(number),
        })
    };
    json!({
        "cluster": "test",
        "revision": 1,
        "node": {"id": 1, "name": "osaka", "local": "192.0.2.1", "public": "192.0.2.1",
                 "overlay": "100.64.0.1", "udp_port": 6081},
        "endpoints": (0..REMOTE_PORTS).map(port).collect::<Vec<_>>(),
        "vteps": (0..HOSTS).map(|number| json!({"vni": 7, "address": host(number)})).collect::<Vec<_>>(),
    })
}

/// Octets that the kernel holds for the maps of a process.
fn of_maps(process: &Path) -> u64 {
    let files = fs::read_dir(process.join("fdinfo")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let maps = paths.filter(|path| field(path, "map_type:").is_some());
    maps.filter_map(|path| field(&path, "memlock:")).sum()
}

/// The number behind a word that begins a line of a file of `/proc`.
fn field(path: &Path, word: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}
