//! Kuafu's own processes in the world: a controller, and an agent and a prober on every node. They are this very
//! program, started as its units would start it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kuafu_lab::Process;
use kuafu_lab::world::{Role, Site, World};
use kuafu_proto::Places;
use serde::de::DeserializeOwned;

/// The controller's port.
const PORT: u16 = 7_440;
/// For one question to the controller.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(500);
/// For a process to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Where the demonstration keeps its files and pins; both go with it.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    /// The program that plays all roles.
    program: PathBuf,
    root: PathBuf,
    /// Where the pins of each node have a folder by its name.
    pub(super) pins: PathBuf,
}

impl Folders {
    /// For this process alone, which starts `program`.
    pub(super) fn make(program: PathBuf) -> Result<Self> {
        let name = format!("kuafu-demo-{}", std::process::id());
        let folders = Self {
            program,
            root: std::env::temp_dir().join(&name),
            pins: Path::new("/sys/fs/bpf").join(&name),
        };
        fs::create_dir_all(&folders.root)
            .with_context(|| format!("cannot make {}", folders.root.display()))?;
        Ok(folders)
    }

    /// A host's own root folder.
    pub(super) fn of(&self, site: &str) -> PathBuf {
        self.root.join(site)
    }

    /// What the controller records.
    pub(super) fn recording(&self, world: &World) -> Result<PathBuf> {
        let places = Places::below(&self.of(control(world)?.name()));
        Ok(places.controller().join("steering.jsonl"))
    }

    /// Takes both away.
    pub(super) fn remove(&self) {
        for folder in [&self.root, &self.pins] {
            if let Err(error) = remove(folder) {
                tracing::warn!(folder = %folder.display(), %error, "stays behind");
            }
        }
    }

    /// Whether one of them is there.
    pub(super) fn exist(&self) -> bool {
        self.root.exists() || self.pins.exists()
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The running processes.
#[derive(Debug)]
pub(super) struct Cluster {
    folders: Folders,
    pub(super) controller: Process,
    pub(super) nodes: BTreeMap<String, Node>,
}

/// The processes of a node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) agent: Process,
    pub(super) probe: Process,
}

impl Cluster {
    /// Starts the controller and lets every node join.
    pub(super) fn start(world: &World, folders: &Folders, manifests: &str) -> Result<Self> {
        let mut cluster = Self {
            folders: folders.clone(),
            controller: start_controller(world, folders, &[])?,
            nodes: BTreeMap::new(),
        };
        cluster.until("the controller answers", Duration::from_secs(30), || {
            cluster.ask(world, &["status"]).is_ok().then_some(())
        })?;
        cluster.apply(world, "world.yaml", manifests)?;
        for site in world.with_role(Role::Node) {
            let node = cluster.join(world, site)?;
            cluster.nodes.insert(site.name().to_owned(), node);
        }
        Ok(cluster)
    }

    /// Applies manifests, as somebody at the controller would.
    pub(super) fn apply(&self, world: &World, name: &str, manifests: &str) -> Result<()> {
        let file = self.folders.root.join(name);
        File::create(&file)?.write_all(manifests.as_bytes())?;
        self.ask(world, &["apply".as_ref(), "-f".as_ref(), file.as_os_str()])
            .map(drop)
    }

    /// A node's way into the cluster, and its two processes.
    pub(super) fn join(&self, world: &World, site: &Site) -> Result<Node> {
        let token = self.ask(world, &["node", "token", site.name()])?;
        let control = address(world)?;
        let mut join = command(&self.folders, site.name());
        join.args(["--controller", &control, "node", "join", token.trim()]);
        succeed(site, join)?;
        Ok(Node {
            agent: self.process(site, "agent")?,
            probe: self.process(site, "probe")?,
        })
    }

    /// Starts a node's `agent` or `probe`, as its unit would.
    pub(super) fn process(&self, site: &Site, verb: &str) -> Result<Process> {
        let pins = self.folders.pins.to_string_lossy();
        spawn(site, &self.folders, &[verb, "--pin-root", &pins])
    }

    /// What a verb prints, run where the controller runs.
    pub(super) fn ask<S: AsRef<OsStr>>(&self, world: &World, verb: &[S]) -> Result<String> {
        let control = control(world)?;
        let mut command = command(&self.folders, control.name());
        command.args(["--controller", &address(world)?]).args(verb);
        succeed(control, command)
    }

    /// What a verb answers with `-o json`.
    pub(super) fn json<T: DeserializeOwned>(&self, world: &World, verb: &[&str]) -> Result<T> {
        let mut all = verb.to_vec();
        all.extend(["-o", "json"]);
        let text = self.ask(world, &all)?;
        serde_json::from_str(&text).with_context(|| format!("the answer of `kuafu {}`", verb.join(" ")))
    }

    /// Looks again and again until there is something, for at most `limit`.
    pub(super) fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if start.elapsed() > limit {
                bail!("not within {} s: {what}\n{}", limit.as_secs(), self.last_words());
            }
            thread::sleep(PAUSE);
        }
    }

    /// The ends of all logs, for whoever must find out what went wrong.
    fn last_words(&self) -> String {
        let mut words = String::new();
        let Ok(entries) = fs::read_dir(&self.folders.root) else {
            return words;
        };
        for entry in entries
            .flatten()
            .filter(|entry| entry.path().extension() == Some("log".as_ref()))
        {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let last: Vec<&str> = text.lines().rev().take(3).collect();
            for line in last.iter().rev() {
                words.push_str(&format!("{}: {line}\n", entry.file_name().to_string_lossy()));
            }
        }
        words
    }

    /// Ends all processes, the agents first, and takes the nodes' programs away.
    pub(super) fn stop(self, world: &World) -> Result<()> {
        for (name, node) in self.nodes {
            node.probe.stop(GRACE)?;
            node.agent.stop(GRACE)?;
            let site = world.site(&name)?;
            let mut uninstall = command(&self.folders, &name);
            uninstall
                .args(["uninstall", "--yes", "--pin-root"])
                .arg(&self.folders.pins);
            succeed(site, uninstall)?;
        }
        self.controller.stop(GRACE)?;
        Ok(())
    }
}

/// Starts the controller, as its unit would, with further options.
pub(super) fn start_controller(world: &World, folders: &Folders, options: &[&str]) -> Result<Process> {
    let control = control(world)?;
    let listen = format!("{}:{PORT}", control.address().local);
    let arguments = [&["controller", "--listen", &listen], options].concat();
    spawn(control, folders, &arguments)
}

fn control(world: &World) -> Result<&Site> {
    let control = world.with_role(Role::Controller).next();
    control.context("the world has no controller")
}

/// Where the controller is reached.
fn address(world: &World) -> Result<String> {
    Ok(format!("{}:{PORT}", control(world)?.address().public))
}

/// This program, on a host that has a root folder of its own.
pub(super) fn command(folders: &Folders, host: &str) -> Command {
    let mut command = Command::new(&folders.program);
    command.arg("--root").arg(folders.of(host));
    command
}

/// Starts one of the processes, with its log in a file.
fn spawn(site: &Site, folders: &Folders, arguments: &[&str]) -> Result<Process> {
    let name = arguments.first().copied().unwrap_or_default();
    let file = folders.root.join(format!("{}-{name}.log", site.name()));
    let log = File::create(&file).with_context(|| format!("cannot make {}", file.display()))?;
    let mut command = command(folders, site.name());
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    Ok(site.spawn(command)?)
}

/// Runs a verb to its end and returns what it printed.
pub(super) fn succeed(site: &Site, command: Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = site.namespace()?.output(command, ANSWER_LIMIT)?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{shown} in {}: {}",
        site.name(),
        complaint.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
