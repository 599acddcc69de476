//! Agent and prober as children of this process, for hosts without systemd: each is started again when it ends, as its
//! unit would.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::interrupt::Interrupt;

/// Between the end of a process and its next start.
const PAUSE: Duration = Duration::from_secs(1);
/// For a process to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// This host lacks something: to start again would not help.
const UNFIT: i32 = 3;

/// The two processes.
pub(super) struct Pair {
    agent: One,
    probe: One,
}

struct One {
    arguments: Vec<OsString>,
    child: Child,
}

impl One {
    fn start(arguments: Vec<OsString>) -> anyhow::Result<Self> {
        let child = spawn(&arguments)?;
        Ok(Self { arguments, child })
    }

    /// Waits for its end, and starts it again.
    async fn again(&mut self) -> anyhow::Result<()> {
        let ended = self.child.wait().await?;
        let name = self
            .arguments
            .iter()
            .find(|word| *word == "agent" || *word == "probe");
        let name = name.map(|name| name.to_string_lossy()).unwrap_or_default();
        if ended.code() == Some(UNFIT) {
            bail!("kuafu {name}: this host cannot run it");
        }
        tracing::warn!(process = %name, %ended, "it ended, and is started again");
        tokio::time::sleep(PAUSE).await;
        self.child = spawn(&self.arguments)?;
        Ok(())
    }

    async fn stop(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

fn spawn(arguments: &[OsString]) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command.spawn().context("cannot start a process")
}

impl Pair {
    /// Starts both.
    pub(super) fn start(agent: Vec<OsString>, probe: Vec<OsString>) -> anyhow::Result<Self> {
        Ok(Self {
            agent: One::start(agent)?,
            probe: One::start(probe)?,
        })
    }

    /// Keeps both running until `interrupt`; then ends them.
    pub(super) async fn keep(&mut self, interrupt: &mut Interrupt) -> anyhow::Result<()> {
        let kept = loop {
            let step = tokio::select! {
                () = interrupt.wait() => break Ok(()),
                step = self.agent.again() => step,
                step = self.probe.again() => step,
            };
            if step.is_err() {
                break step;
            }
        };
        self.stop().await;
        kept
    }

    /// Ends both. What the agent has brought into force stays.
    pub(super) async fn stop(&mut self) {
        self.agent.stop().await;
        self.probe.stop().await;
    }
}
