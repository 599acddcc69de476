//! Where things lie on a host.

use std::path::{Path, PathBuf};

/// The places of one host, all below one root: `/`, or what `--root` or `KUAFU_ROOT` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    /// The places below a root.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// What is kept: `/var/lib/kuafu`.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("var/lib/kuafu")
    }

    /// What lasts as long as a process: `/run/kuafu`.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run/kuafu")
    }

    /// What people configure: `/etc/kuafu`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("etc/kuafu")
    }

    /// The agent's state: `/var/lib/kuafu/state.pb`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.data().join("state.pb")
    }

    /// What the agent goes back to, while the state is on trial: `/var/lib/kuafu/trial.pb`.
    #[must_use]
    pub fn state_before_trial(&self) -> PathBuf {
        self.data().join("trial.pb")
    }

    /// How often the host has lost its maps: `/var/lib/kuafu/incarnation`.
    #[must_use]
    pub fn incarnation(&self) -> PathBuf {
        self.data().join("incarnation")
    }

    /// The agent's socket: `/run/kuafu/agent.sock`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run().join("agent.sock")
    }

    /// The member's [identity](crate::Identity): `/var/lib/kuafu/identity`.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.data().join("identity")
    }

    /// The member's name, one line: `/var/lib/kuafu/node`. `kuafu node join` writes it.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        self.data().join("node")
    }

    /// The cluster's id, one line: `/var/lib/kuafu/cluster`. `kuafu node join` writes it.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.data().join("cluster")
    }

    /// Where the controller is, one line `host:port`: `/etc/kuafu/controller`. `kuafu node join` writes it last: with
    /// it the host is a member.
    #[must_use]
    pub fn controller_address(&self) -> PathBuf {
        self.config().join("controller")
    }

    /// The controller's store and recordings: `/var/lib/kuafu/controller`.
    #[must_use]
    pub fn controller(&self) -> PathBuf {
        self.data().join("controller")
    }

    /// The admin's [identity](crate::Identity): `/etc/kuafu/admin`.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.config().join("admin")
    }
}
