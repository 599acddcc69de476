//! The BPF object: built from `ebpf/` by a compiler of its own, committed, rebuilt and compared.
//!
//! It is committed so that a clone builds with stable cargo alone. Its bytes depend on the sources and on the
//! toolchain, never on the folder or the machine; `kuafu.o.toolchain` names the toolchain.

mod build;
mod inspect;
mod toolchain;
pub(crate) mod wrapper;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::build::Built;
use self::toolchain::{Record, Toolchain};
use crate::command::Run;
use crate::workspace::Workspace;

pub(crate) use self::build::clippy;

/// The committed object, embedded by the agent.
const OBJECT: &str = "dataplane/bpf/kuafu.o";
/// What it was built with.
const RECORD: &str = "dataplane/bpf/kuafu.o.toolchain";
/// Where an object of another toolchain is kept for the differential test, below cargo's output folder.
const REBUILT: &str = "bpf/kuafu.o";
/// The dataplane's tests load this file instead of the committed object.
pub(crate) const OBJECT_VARIABLE: &str = "KUAFU_BPF_OBJECT";
const FIX: &str = "run `cargo xtask ebpf` and commit what it writes";
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// What a rebuild showed.
pub(crate) enum Outcome {
    /// The same toolchain gave the same bytes.
    Same,
    /// Another toolchain than the committed object's built this one, which must pass the differential test.
    NotComparable(PathBuf),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => write!(f, "{OBJECT}: the rebuilt object has the same bytes"),
            Self::NotComparable(object) => {
                writeln!(
                    f,
                    "{OBJECT}: not comparable, it was built with another toolchain. To test this one:"
                )?;
                write!(
                    f,
                    "  {OBJECT_VARIABLE}={} cargo test -p kuafu-dataplane",
                    object.display()
                )
            }
        }
    }
}

/// Builds the object and writes it with its record, if it passes the inspection.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    let built = build::build(workspace, &workspace.path("ebpf/target"), build::Lock::MayChange)?;
    inspect::inspect(&built, workspace)?;
    let record = record(workspace, &built.stripped)?;
    fs::create_dir_all(workspace.path("dataplane/bpf"))?;
    copy(&built.stripped, &workspace.path(OBJECT))?;
    fs::write(workspace.path(RECORD), record.to_string())?;
    println!(
        "{OBJECT}: {} bytes, sha256 {}",
        fs::metadata(&built.stripped)?.len(),
        record.object
    );
    Ok(())
}

/// Rebuilds the object from nothing and compares it with the committed one.
pub(crate) fn check(workspace: &Workspace) -> Result<Outcome> {
    let committed = committed(workspace)?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let built = build::build(workspace, folder.path(), build::Lock::Fixed)?;
    inspect::inspect(&built, workspace)?;
    compare(workspace, &committed, &built)
}

/// The record of the committed object, after checking that it is this object's and this lock file's.
fn committed(workspace: &Workspace) -> Result<Record> {
    let path = workspace.path(RECORD);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {RECORD}; {FIX}"))?;
    let record: Record = text.parse().with_context(|| format!("{RECORD}; {FIX}"))?;
    ensure!(
        record.object == sha256(&workspace.path(OBJECT))?,
        "{OBJECT} is not the one of {RECORD}; {FIX}"
    );
    let lock = sha256(&workspace.path(build::LOCK))?;
    ensure!(
        record.lock == lock,
        "{} changed after {OBJECT} was built; {FIX}",
        build::LOCK
    );
    Ok(record)
}

fn compare(workspace: &Workspace, committed: &Record, built: &Built) -> Result<Outcome> {
    let rebuilt = record(workspace, &built.stripped)?;
    if rebuilt.toolchain != committed.toolchain {
        println!(
            "committed with {}\nrebuilt with   {}",
            committed.toolchain, rebuilt.toolchain
        );
        let kept = workspace.target().join(REBUILT);
        copy(&built.stripped, &kept)?;
        return Ok(Outcome::NotComparable(kept));
    }
    if rebuilt.object != committed.object {
        bail!("{OBJECT} is not what the sources give with the same toolchain; {FIX}");
    }
    Ok(Outcome::Same)
}

fn record(workspace: &Workspace, object: &Path) -> Result<Record> {
    Ok(Record {
        toolchain: Toolchain::installed()?,
        lock: sha256(&workspace.path(build::LOCK))?,
        object: sha256(object)?,
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(())
}

fn sha256(file: &Path) -> Result<String> {
    let line = Run::within(QUERY_LIMIT, "sha256sum").args([file]).output()?;
    let hash = line.split_whitespace().next();
    hash.map(str::to_owned)
        .with_context(|| format!("sha256sum said nothing of {}", file.display()))
}
