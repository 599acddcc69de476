//! Where things lie on a host, below `--root`.

use std::path::{Path, PathBuf};

/// The folders of one host.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    root: PathBuf,
}

impl Places {
    /// Below this folder; `/` on a host of its own.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("run/kuafu/agent.sock")
    }

    /// Where the controller's address stands, one line `host:port`.
    pub(crate) fn controller(&self) -> PathBuf {
        self.root.join("etc/kuafu/controller")
    }

    /// The admin's certificate and key; the first is where one may be copied to, the second where the controller
    /// writes it.
    pub(crate) fn admin(&self) -> [PathBuf; 2] {
        [
            self.root.join("etc/kuafu/admin"),
            self.root.join("var/lib/kuafu/controller/admin"),
        ]
    }

    /// The key and certificate by which this host is a member.
    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join("var/lib/kuafu/identity")
    }
}
