//! Whether a fresh clone would build with `--locked`.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::command::Run;
use crate::workspace::Workspace;

const QUERY_LIMIT: Duration = Duration::from_secs(30);
const LOCK: &str = "Cargo.lock";

/// Refuses a committed lock file that does not fit the committed manifests.
///
/// Cargo has just mended it in the checkout, to build this program; git knows what is committed. Where manifests
/// differ from the commit too, it is work in progress, and their lock file belongs to the next commit.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let changed = Run::within(QUERY_LIMIT, "git")
        .args(["diff", "--name-only", "HEAD", "--"])
        .args([LOCK, "ebpf/Cargo.lock", "*Cargo.toml"])
        .dir(workspace.root())
        .output()?;
    let (locks, manifests): (Vec<&str>, Vec<&str>) = changed.lines().partition(|path| path.ends_with(LOCK));
    ensure!(
        locks.is_empty() || !manifests.is_empty(),
        "the committed {} does not fit the committed manifests; cargo has mended it here: commit it",
        locks.join(", ")
    );
    for path in manifests {
        println!("note: not committed yet: {path}");
    }
    Ok(())
}
