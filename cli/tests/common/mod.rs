//! A world with its cluster, taken away whatever happens.

pub mod programs;
pub mod sizes;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kuafu_dataplane::bpf::Pins;
use kuafu_lab::world::{DEMO, Latencies, World, WorldSpec};
use kuafu_model::HostState;
use kuafu_proto::v1::{ClusterDrops, ClusterStatus, HostEntry, RouteInfo};
use kuafu_proto::{Places, state};
use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Folders, command, start_controller, succeed};
use crate::intent::{self, Game};
use crate::play;

/// For whatever is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// Says why this machine cannot run the test, if it cannot.
pub fn skipped() -> bool {
    let why = kuafu_lab::unavailable();
    if let Some(why) = why {
        kuafu_lab::skip(why);
    }
    why.is_some()
}

/// A world with all processes. What must go last is last.
pub struct Stage {
    /// Kuafu's processes.
    pub cluster: Cluster,
    /// Hosts and wire.
    pub world: World,
    folders: Cleaned,
    /// Worlds of one process have one name, and the machine's cores to themselves.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// Keeps other worlds of this process away.
pub fn alone() -> MutexGuard<'static, ()> {
    // Whoever failed has taken its world away.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes files and pins.
struct Cleaned(Folders);

impl Drop for Cleaned {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl Stage {
    /// Builds the demonstration's world and lets every node join.
    pub fn build() -> anyhow::Result<Self> {
        Self::of(DEMO, |world| intent::manifests(world))
    }

    /// Builds a world, declares `manifests`, and lets every node join.
    pub fn of(spec: &str, manifests: fn(&World) -> anyhow::Result<String>) -> anyhow::Result<Self> {
        let alone = alone();
        let folders = Folders::make(PathBuf::from(env!("CARGO_BIN_EXE_kuafu")))?;
        let cleaned = Cleaned(folders.clone());
        let prefix = format!("kft{}", std::process::id());
        let world = World::build(&prefix, &WorldSpec::parse(spec)?, &Latencies::aws()?)?;
        let cluster = Cluster::start(&world, &folders, &manifests(&world)?)?;
        Ok(Self {
            cluster,
            world,
            folders: cleaned,
            _alone: alone,
        })
    }

    /// Kills a node's `agent` or `probe`.
    pub fn kill(&mut self, node: &str, verb: &str) {
        let processes = self.cluster.nodes.get_mut(node).unwrap();
        let process = if verb == "agent" {
            &mut processes.agent
        } else {
            &mut processes.probe
        };
        process.signal(Signal::SIGKILL).unwrap();
        process.wait(LIMIT).unwrap();
    }

    /// Starts it again, as its unit would.
    pub fn start(&mut self, node: &str, verb: &str) {
        let process = self
            .cluster
            .process(self.world.site(node).unwrap(), verb)
            .unwrap();
        let processes = self.cluster.nodes.get_mut(node).unwrap();
        if verb == "agent" {
            processes.agent = process;
        } else {
            processes.probe = process;
        }
    }

    /// Every node's name.
    pub fn nodes(&self) -> Vec<String> {
        self.cluster.nodes.keys().cloned().collect()
    }

    /// What the controller records.
    pub fn recording(&self) -> PathBuf {
        self.folders.0.recording(&self.world).unwrap()
    }

    /// Kills the controller.
    pub fn kill_controller(&mut self) {
        self.cluster.controller.signal(Signal::SIGKILL).unwrap();
        self.cluster.controller.wait(LIMIT).unwrap();
    }

    /// Starts it again, as its unit would, with further options.
    pub fn start_controller(&mut self, options: &[&str]) {
        self.cluster.controller = start_controller(&self.world, &self.folders.0, options).unwrap();
    }

    /// Takes a node whose processes were killed out of the cluster: its host is as it was before it joined.
    pub fn leave(&mut self, node: &str) {
        self.cluster.nodes.remove(node).unwrap();
        let mut leave = command(&self.folders.0, node);
        leave
            .args(["node", "leave", "--yes", "--pin-root"])
            .arg(&self.folders.0.pins);
        succeed(self.world.site(node).unwrap(), leave).unwrap();
    }

    /// A node's pins, with maps of a layout.
    pub fn layout(&self, node: &str, layout: u32) -> Pins {
        Pins::of_layout(&self.folders.0.pins, node, layout)
    }

    /// What a node's agent keeps on disk.
    pub fn state(&self, node: &str) -> HostState {
        let places = Places::below(&self.folders.0.of(node));
        let bytes = std::fs::read(places.state()).unwrap();
        state::from_bytes(&bytes).unwrap()
    }

    /// Lets a host lose all but its disk: its namespace with all that runs there, and its pins. It comes back bare.
    pub fn reboot(&mut self, node: &str) {
        self.world.destroy(node).unwrap();
        std::fs::remove_dir_all(self.folders.0.pins.join(node)).unwrap();
        self.world.restore(node).unwrap();
    }

    /// What a verb says on a host where nobody knows a controller: its own agent's answer.
    pub fn own<T: serde::de::DeserializeOwned>(&self, node: &str, verb: &str) -> Option<T> {
        let mut command = command(&self.folders.0, node);
        command.args([verb, "-o", "json"]);
        let text = succeed(self.world.site(node).unwrap(), command).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// This program on a host; to be run in its namespace.
    pub fn command(&self, host: &str) -> std::process::Command {
        command(&self.folders.0, host)
    }

    /// Where each node has its pins, in a folder by its name.
    pub fn pins(&self) -> &std::path::Path {
        &self.folders.0.pins
    }

    /// A host's own root folder.
    pub fn root(&self, host: &str) -> PathBuf {
        self.folders.0.of(host)
    }

    /// A verb of a node, over the node's own pins; to be run in its namespace.
    pub fn on(&self, node: &str, verb: &str) -> std::process::Command {
        let mut command = command(&self.folders.0, node);
        command.args([verb, "--pin-root"]).arg(&self.folders.0.pins);
        command
    }

    /// What `status` says of a node.
    pub fn status(&self, node: &str) -> Option<HostEntry> {
        let status: ClusterStatus = self.cluster.json(&self.world, &["status"]).ok()?;
        status.hosts.into_iter().find(|host| host.node == node)
    }

    /// What all nodes have dropped so far, for whoever must find out where packets went.
    pub fn dropped(&self) -> String {
        let dropped: ClusterDrops = self.cluster.json(&self.world, &["drops"]).unwrap();
        let words = dropped.drops.iter().map(|drop| {
            let seen = drop.last_seen_unix_ms.unwrap_or_default();
            format!("{} {} {} (last at {seen})", drop.node, drop.reason, drop.count)
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Whether no pair of a node has left its primary path.
    pub fn is_on_primaries(&self, node: &str) -> bool {
        let status = self.status(node).and_then(|host| host.status);
        status.is_some_and(|status| status.pairs.iter().all(|pair| !pair.down))
    }

    /// Waits until the node's agent answers and the controller has a session with it.
    pub fn until_connected(&self, node: &str) {
        let connected = || {
            self.own::<ClusterStatus>(node, "status")?;
            self.status(node)?.connected.then_some(())
        };
        self.cluster
            .until(&format!("{node} is connected"), LIMIT, connected)
            .unwrap();
    }

    /// Waits until the game's path has a relay and a backup, and neither end is on the backup; returns it.
    pub fn until_relayed(&self, game: &Game) -> RouteInfo {
        let mut last = None;
        let relayed = || {
            let route = play::route(&self.world, &self.cluster, game).ok()?;
            last = Some((route.path.clone(), route.backup.clone(), route.why.clone()));
            let chosen = route.path.len() > 2 && !route.backup.is_empty();
            let used = || {
                [game.entry, game.exit]
                    .into_iter()
                    .all(|end| self.is_on_primaries(end))
            };
            // Nor does it move while that is looked at.
            let stays =
                || play::route(&self.world, &self.cluster, game).is_ok_and(|now| now.path == route.path);
            (chosen && used() && stays()).then_some(route)
        };
        let waited = self
            .cluster
            .until(&format!("{} has a relay", game.name), LIMIT, relayed);
        waited.unwrap_or_else(|error| panic!("{last:?}: {error}"))
    }
}

/// Looks each 50 ms until there is something: closer than [`Cluster::until`], for what is measured.
pub fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
