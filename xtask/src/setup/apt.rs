//! apt and dpkg: bounded in time, asked once more when a mirror fails, never asking back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::Run;
use crate::workspace::is_root;

const INSTALL_LIMIT: Duration = Duration::from_secs(6 * 60);
const QUERY_LIMIT: Duration = Duration::from_secs(60);
/// A silent mirror costs seconds, not the task's time; another apt on the machine is waited for.
const PATIENCE: [&str; 6] = [
    "-o",
    "Acquire::http::Timeout=30",
    "-o",
    "Acquire::Retries=2",
    "-o",
    "DPkg::Lock::Timeout=120",
];

/// The packages of `names` that dpkg does not call installed.
pub(super) fn missing<'a>(names: &[&'a str]) -> Result<Vec<&'a str>> {
    if !Path::new("/usr/bin/dpkg-query").exists() {
        bail!(
            "this is no Debian; install the like of these by hand: {}",
            names.join(" ")
        );
    }
    // Its exit status is 1 when any package is unknown, which is an answer here.
    let query = r#"dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true"#;
    let answer = Run::within(QUERY_LIMIT, "sh")
        .args(["-c", query, "sh"].iter().chain(names))
        .output()?;
    Ok(not_installed(names, &answer))
}

/// `dpkg` is lines "name status"; a package that it does not name is absent.
fn not_installed<'a>(names: &[&'a str], dpkg: &str) -> Vec<&'a str> {
    let present: Vec<&str> = dpkg
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    let mut missing = names.to_vec();
    missing.retain(|name| !present.contains(name));
    missing
}

/// Updates apt's lists and installs; refuses as an ordinary user, with the line to type.
pub(super) fn install(names: &[&str]) -> Result<()> {
    let line = ["install", "-y", "--no-install-recommends"];
    if !is_root()? {
        bail!(
            "this needs root; type: sudo apt-get {} {}",
            line.join(" "),
            names.join(" ")
        );
    }
    update()?;
    twice(|| apt(&[&line, names].concat()).run())
}

/// Fetches apt's lists, which a fresh machine does not have.
pub(super) fn update() -> Result<()> {
    twice(|| apt(&["update"]).run())
}

/// The package that a meta package depends on, of all that start with `prefix`; none when apt does not know it.
pub(super) fn dependency(meta: &str, prefix: &str) -> Result<Option<String>> {
    let query = r#"apt-cache show --no-all-versions "$1" 2>/dev/null || true"#;
    let answer = Run::within(QUERY_LIMIT, "sh")
        .args(["-c", query, "sh", meta])
        .output()?;
    Ok(depends_on(&answer, prefix).map(str::to_owned))
}

/// Reads "Depends: name (= version), name" (deb-control(5)).
fn depends_on<'a>(control: &'a str, prefix: &str) -> Option<&'a str> {
    let depends = control.lines().filter_map(|line| line.strip_prefix("Depends: "));
    let mut names = depends
        .flat_map(|line| line.split(','))
        .filter_map(|package| package.split_whitespace().next());
    names.find(|name| name.starts_with(prefix))
}

/// Downloads a package and unpacks it into the folder `to`, which is there whole or not at all.
pub(super) fn unpack(name: &str, to: &Path) -> Result<()> {
    let parent = to.parent().context("a package is unpacked below a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let scratch = tempfile::tempdir_in(parent).context("cannot make a temporary folder")?;
    twice(|| apt(&["download", name]).dir(scratch.path()).run())?;
    let files = scratch.path().join("files");
    Run::within(QUERY_LIMIT, "dpkg-deb")
        .args(["-x".as_ref(), package_in(scratch.path())?.as_os_str()])
        .args([&files])
        .run()?;
    fs::rename(&files, to).with_context(|| format!("cannot make {}", to.display()))
}

fn package_in(folder: &Path) -> Result<PathBuf> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(folder)? {
        packages.push(entry?.path());
    }
    packages.retain(|path| path.extension().is_some_and(|end| end == "deb"));
    ensure!(
        packages.len() == 1,
        "apt-get downloaded {packages:?}, not one package"
    );
    Ok(packages.remove(0))
}

fn apt(args: &[&str]) -> Run {
    Run::within(INSTALL_LIMIT, "apt-get")
        .args(PATIENCE)
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
}

fn twice(perform: impl Fn() -> Result<()>) -> Result<()> {
    perform().or_else(|error| {
        println!("once more: {error:#}");
        perform()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpkg_does_not_call_installed_is_missing() {
        let names = ["freedm", "cpio"];
        let cases = [
            ("freedm installed\ncpio installed\n", &[][..]),
            ("freedm config-files\ncpio installed\n", &["freedm"]),
            ("", &["freedm", "cpio"]),
        ];
        for (dpkg, expected) in cases {
            assert_eq!(not_installed(&names, dpkg), expected, "{dpkg:?}");
        }
    }

    #[test]
    fn a_meta_package_names_its_kernel() {
        let control = "Package: linux-image-cloud-amd64
Depends: linux-base, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)
";
        assert_eq!(
            depends_on(control, "linux-image-6.1."),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(depends_on(control, "linux-image-6.12."), None);
        assert_eq!(depends_on("", "linux-image-6.1."), None);
    }
}
