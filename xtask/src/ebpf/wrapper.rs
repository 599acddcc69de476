//! This program as cargo's `RUSTC_WRAPPER`.
//!
//! Cargo derives each crate's `-C metadata` from, among others, the absolute folder of a path dependency that
//! lies outside the workspace, as `pipeline` does for `ebpf`. It ends in the names of symbols, so two checkouts
//! would give two objects. A crate's name and version say enough: no two crates of the object share both.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::build::TARGET;
use crate::command::Run;

const REQUEST: &str = "KUAFU_XTASK_IS_RUSTC_WRAPPER";

/// Makes the cargo command call this program in place of rustc.
pub(super) fn request(cargo: Run) -> Result<Run> {
    let me = env::current_exe().context("cannot find this program's own file")?;
    Ok(cargo.env("RUSTC_WRAPPER", me).env(REQUEST, "1"))
}

/// Whether this process was started by cargo in place of rustc.
pub(crate) fn requested() -> bool {
    env::var_os(REQUEST).is_some()
}

/// Becomes the compiler that the first argument names.
pub(crate) fn become_rustc() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let Some(rustc) = args.next() else {
        eprintln!("xtask: {REQUEST} is set, but no compiler is named");
        return ExitCode::FAILURE;
    };
    let mut args: Vec<OsString> = args.collect();
    if let (Ok(name), Ok(version)) = (env::var("CARGO_PKG_NAME"), env::var("CARGO_PKG_VERSION")) {
        settle_metadata(&mut args, &format!("{name}-{version}"));
    }
    let error = Command::new(&rustc).args(args).exec();
    eprintln!("xtask: cannot start {}: {error}", rustc.display());
    ExitCode::FAILURE
}

/// Replaces the metadata of a crate that is compiled for the BPF target.
fn settle_metadata(args: &mut [OsString], metadata: &str) {
    let for_bpf = |arg: &OsString| Path::new(arg).file_stem() == Some(OsStr::new(TARGET));
    if !args.iter().any(for_bpf) {
        return;
    }
    let given = |arg: &OsStr| arg.as_encoded_bytes().starts_with(b"metadata=");
    for arg in args.iter_mut().filter(|arg| given(arg)) {
        *arg = format!("metadata={metadata}").into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(args: &[&str]) -> Vec<OsString> {
        let mut args: Vec<OsString> = args.iter().map(OsString::from).collect();
        settle_metadata(&mut args, "pipeline-0.1.0");
        args
    }

    #[test]
    fn only_crates_of_the_bpf_target_are_settled() {
        let bpf = settled(&[
            "-C",
            "metadata=17ab",
            "-C",
            "extra-filename=-17ab",
            "--target",
            TARGET,
        ]);
        assert_eq!(
            bpf,
            [
                "-C",
                "metadata=pipeline-0.1.0",
                "-C",
                "extra-filename=-17ab",
                "--target",
                TARGET
            ]
        );
        let host = ["-C", "metadata=17ab", "-C", "extra-filename=-17ab"];
        assert_eq!(settled(&host), host);
    }
}
