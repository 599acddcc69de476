//! Builds `ebpf/` for the BPF target so that equal sources and tools give equal bytes in any folder.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{QUERY_LIMIT, wrapper};
use crate::command::Run;
use crate::workspace::{Workspace, cargo_home};

/// The lock file of the crate outside the workspace.
pub(super) const LOCK: &str = "ebpf/Cargo.lock";
const MANIFEST: &str = "ebpf/Cargo.toml";
/// The target's name: the stem of its description in `ebpf/`, and of cargo's output folder.
pub(super) const TARGET: &str = "bpfel-kuafu";
/// Chooses another compiler, say a nightly's with rust-src: `$(rustup which --toolchain nightly rustc)`.
const RUSTC_VARIABLE: &str = "KUAFU_BPF_RUSTC";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// It takes the driver from its own folder, where rustup's would take one of another version.
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
pub(super) const STRIP: &str = "llvm-strip-22";
/// Small copies become loads and stores; bpf-linker would otherwise ask for calls of `memcpy` and `memset`.
const INLINE_COPIES: &str = "link-arg=--disable-expand-memcpy-in-order";
const BUILD_LIMIT: Duration = Duration::from_secs(10 * 60);

/// An object as linked, with debug information, and as committed.
pub(super) struct Built {
    pub(super) linked: PathBuf,
    pub(super) stripped: PathBuf,
}

/// Whether the build may write `ebpf/Cargo.lock`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    MayChange,
    Fixed,
}

/// The compiler of the BPF object.
pub(super) fn rustc() -> OsString {
    env::var_os(RUSTC_VARIABLE).unwrap_or_else(|| DEBIAN_RUSTC.into())
}

/// Builds into `target`, a folder for this object alone.
pub(super) fn build(workspace: &Workspace, target: &Path, lock: Lock) -> Result<Built> {
    ensure!(workspace.path(MANIFEST).exists(), "{MANIFEST} does not exist");
    ensure!(
        Path::new(&rustc()).exists(),
        "no {} (run `cargo xtask setup --for ebpf`, or set {RUSTC_VARIABLE})",
        rustc().display(),
    );
    let flags = flags(workspace)?;
    let build = Run::within(BUILD_LIMIT, "cargo").args(["build", "--release"]);
    let locked: &[&str] = match lock {
        Lock::Fixed => &["--locked"],
        Lock::MayChange => &[],
    };
    let build =
        for_bpf(build.args(locked), workspace, target).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    wrapper::request(build)?.run()?;
    strip(target)
}

/// Makes a cargo command one for the BPF target, by its compiler.
fn for_bpf(cargo: Run, workspace: &Workspace, target: &Path) -> Run {
    let spec = format!("{TARGET}.json");
    cargo
        .args([
            "--target",
            &spec,
            "-Z",
            "json-target-spec",
            "-Z",
            "build-std=core",
        ])
        .args(["--target-dir".as_ref(), target.as_os_str()])
        .env("RUSTC", rustc())
        .env("RUSTC_BOOTSTRAP", "1")
        .dir(&workspace.path("ebpf"))
}

/// Lints `ebpf/` within `limit`, by the clippy of the compiler that builds it.
pub(crate) fn clippy(workspace: &Workspace, limit: Duration) -> Result<()> {
    let clippy = Run::within(limit, DEBIAN_CLIPPY).args(["clippy", "--locked"]);
    let clippy = for_bpf(clippy, workspace, &workspace.path("ebpf/target"));
    clippy.args(["--", "-D", "warnings"]).run()
}

fn strip(target: &Path) -> Result<Built> {
    let linked = target.join(TARGET).join("release/kuafu");
    let stripped = linked.with_extension("o");
    Run::within(QUERY_LIMIT, STRIP)
        .args([
            "--strip-debug".as_ref(),
            "-o".as_ref(),
            stripped.as_os_str(),
            linked.as_os_str(),
        ])
        .run()?;
    Ok(Built { linked, stripped })
}

/// BTF needs debug information, and that names source files: folders of this machine are renamed.
fn flags(workspace: &Workspace) -> Result<Vec<String>> {
    let mut flags: Vec<String> = ["-C", "debuginfo=2", "-C", "link-arg=--btf", "-C", INLINE_COPIES]
        .map(String::from)
        .to_vec();
    for (folder, name) in renamed(workspace)? {
        flags.push(format!("--remap-path-prefix={}={name}", folder.display()));
    }
    Ok(flags)
}

/// The checkout, the compiler's library sources (by both of their names) and each registry's sources.
fn renamed(workspace: &Workspace) -> Result<Vec<(PathBuf, &'static str)>> {
    let sysroot = Run::within(QUERY_LIMIT, rustc())
        .args(["--print", "sysroot"])
        .output()?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
    let real = fs::canonicalize(&library)
        .with_context(|| format!("no {}: run `cargo xtask setup --for ebpf`", library.display()))?;
    let mut renamed = vec![
        (workspace.root().to_owned(), "/src"),
        (library, "/rust"),
        (real, "/rust"),
    ];
    let registries = cargo_home()?.join("registry/src");
    let folders = fs::read_dir(&registries).with_context(|| format!("no {}", registries.display()))?;
    for folder in folders {
        renamed.push((folder?.path(), "/cargo"));
    }
    Ok(renamed)
}
