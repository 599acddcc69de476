//! A world with its cluster, taken away whatever happens.

pub mod programs;
pub mod sizes;

use std::path::PathBuf;
use std::time::Duration;

use kuafu_lab::world::{DEMO, Latencies, World, WorldSpec};
use kuafu_proto::v1::{ClusterStatus, HostEntry};
use nix::sys::signal::Signal;

use crate::cluster::{Cluster, Folders};
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
    _folders: Cleaned,
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
        Self::of(DEMO, intent::manifests)
    }

    /// Builds a world, declares `manifests`, and lets every node join.
    pub fn of(spec: &str, manifests: fn(&World) -> anyhow::Result<String>) -> anyhow::Result<Self> {
        let folders = Folders::make(PathBuf::from(env!("CARGO_BIN_EXE_kuafu")))?;
        let cleaned = Cleaned(folders.clone());
        let prefix = format!("kft{}", std::process::id());
        let world = World::build(&prefix, &WorldSpec::parse(spec)?, &Latencies::aws()?)?;
        let cluster = Cluster::start(&world, &folders, &manifests(&world)?)?;
        Ok(Self {
            cluster,
            world,
            _folders: cleaned,
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

    /// What `status` says of a node.
    pub fn status(&self, node: &str) -> Option<HostEntry> {
        let status: ClusterStatus = self.cluster.json(&self.world, &["status"]).ok()?;
        status.hosts.into_iter().find(|host| host.node == node)
    }

    /// Waits until the controller has a session with the node.
    pub fn until_connected(&self, node: &str) {
        let connected = || self.status(node)?.connected.then_some(());
        self.cluster
            .until(&format!("{node} is connected"), LIMIT, connected)
            .unwrap();
    }

    /// Waits until the game's path has a relay and a backup.
    pub fn until_relayed(&self, game: &Game) {
        let relayed = || {
            let route = play::route(&self.world, &self.cluster, game).ok()?;
            (route.path.len() > 2 && !route.backup.is_empty()).then_some(())
        };
        self.cluster
            .until(&format!("{} has a relay", game.name), LIMIT, relayed)
            .unwrap();
    }
}
