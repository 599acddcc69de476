//! `cargo xtask package`: one Debian package, assembled in a staging folder and built by dpkg-deb.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::command::Run;
use crate::programs::build_release;
use crate::workspace::Workspace;

/// Bytes; a package above it has caught something that does not belong into it.
const LARGEST: u64 = 30_000_000;
const LIMIT: Duration = Duration::from_secs(120);
/// Every unit in this folder is installed, none is enabled.
const UNITS: &str = "deploy/systemd";
/// The services' environment, a conffile: a host's changes survive upgrades.
const DEFAULTS: &str = "deploy/default/kuafu";
const DEFAULTS_PLACE: &str = "etc/default/kuafu";
/// What decodes captures, for tshark and Wireshark.
const DISSECTOR: &str = "deploy/kuafu.lua";
const DISSECTOR_PLACE: &str = "usr/share/kuafu/kuafu.lua";
/// What `kuafu completions` writes for each argument, and where Debian looks for it.
const GENERATED: [(&str, &str); 4] = [
    ("bash", "usr/share/bash-completion/completions/kuafu"),
    ("zsh", "usr/share/zsh/vendor-completions/_kuafu"),
    ("fish", "usr/share/fish/vendor_completions.d/kuafu.fish"),
    ("man", "usr/share/man/man1/kuafu.1"),
];

/// Builds the package below cargo's output folder and prints where, and its size.
pub(crate) fn package(workspace: &Workspace) -> Result<()> {
    build_release(workspace, "kuafu")?;
    let binary = workspace.target().join("release/kuafu");
    let package = assemble(workspace, &binary, &workspace.target().join("debian"))?;
    let size = fs::metadata(&package)?.len();
    println!("{}: {:.1} MB", package.display(), size as f64 / 1e6);
    ensure!(
        size <= LARGEST,
        "the package is larger than {} MB",
        LARGEST / 1_000_000
    );
    Ok(())
}

/// The package of one binary, in `folder`.
fn assemble(workspace: &Workspace, binary: &Path, folder: &Path) -> Result<PathBuf> {
    let staging = Staging::new()?;
    let program = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    staging.place("usr/bin/kuafu", &program, 0o755)?;
    let units = stage_units(workspace, &staging)?;
    stage_generated(binary, &staging)?;
    stage_licences(workspace, &staging)?;
    let defaults = fs::read(workspace.path(DEFAULTS)).with_context(|| format!("no {DEFAULTS}"))?;
    staging.place(DEFAULTS_PLACE, &defaults, 0o644)?;
    let dissector = fs::read(workspace.path(DISSECTOR)).with_context(|| format!("no {DISSECTOR}"))?;
    staging.place(DISSECTOR_PLACE, &dissector, 0o644)?;

    let architecture = query(workspace, "dpkg", &["--print-architecture"])?;
    let control = control(&architecture, &program)?;
    staging.place("DEBIAN/control", control.as_bytes(), 0o644)?;
    staging.place(
        "DEBIAN/conffiles",
        format!("/{DEFAULTS_PLACE}\n").as_bytes(),
        0o644,
    )?;
    staging.place("DEBIAN/postinst", after_installation(&units).as_bytes(), 0o755)?;
    staging.place("DEBIAN/prerm", before_removal(&units).as_bytes(), 0o755)?;
    build(workspace, &staging, folder, &architecture)
}

fn stage_units(workspace: &Workspace, staging: &Staging) -> Result<Vec<String>> {
    let folder = workspace.path(UNITS);
    let entries = fs::read_dir(&folder).with_context(|| format!("no systemd units in {UNITS}"))?;
    let mut units = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        staging.place(
            &format!("usr/lib/systemd/system/{name}"),
            &fs::read(entry.path())?,
            0o644,
        )?;
        units.push(name);
    }
    units.sort();
    ensure!(!units.is_empty(), "no systemd units in {UNITS}");
    Ok(units)
}

fn stage_generated(binary: &Path, staging: &Staging) -> Result<()> {
    for (argument, place) in GENERATED {
        let text = Run::within(LIMIT, binary)
            .args(["completions", argument])
            .output()?;
        ensure!(!text.is_empty(), "`kuafu completions {argument}` printed nothing");
        let file = staging.place(place, text.as_bytes(), 0o644)?;
        if argument == "man" {
            Run::within(LIMIT, "gzip")
                .args(["-9n".as_ref(), file.as_os_str()])
                .run()?;
        }
    }
    Ok(())
}

fn stage_licences(workspace: &Workspace, staging: &Staging) -> Result<()> {
    let mut text = String::from("Kuafu is licensed under Apache-2.0 or MIT, at your choice.\n");
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let full = fs::read_to_string(workspace.path(licence)).with_context(|| format!("no {licence}"))?;
        text += &format!("\n{full}");
    }
    staging.place("usr/share/doc/kuafu/copyright", text.as_bytes(), 0o644)?;
    Ok(())
}

fn build(workspace: &Workspace, staging: &Staging, folder: &Path, architecture: &str) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let package = folder.join(format!("kuafu_{}_{architecture}.deb", Workspace::version()));
    // The time inside the package is the commit's, so that a commit gives one package.
    let commit_time = query(workspace, "git", &["log", "-1", "--format=%ct"])?;
    Run::within(LIMIT, "dpkg-deb")
        .args(["--build", "--root-owner-group", "-Zxz"])
        .args([staging.root(), &package])
        .env("SOURCE_DATE_EPOCH", commit_time)
        .run()?;
    Ok(package)
}

fn query(workspace: &Workspace, program: &str, args: &[&str]) -> Result<String> {
    let answer = Run::within(LIMIT, program)
        .args(args)
        .dir(workspace.root())
        .output()?;
    Ok(answer.trim().to_owned())
}

/// The package's description (deb-control(5)).
fn control(architecture: &str, program: &[u8]) -> Result<String> {
    let version = Workspace::version();
    let glibc = newest_glibc(program).context("the binary names no glibc version: is it linked to it?")?;
    Ok(format!(
        "Package: kuafu
Version: {version}
Architecture: {architecture}
Maintainer: The Kuafu contributors
Section: net
Priority: optional
Depends: libc6 (>= 2.{glibc}), libgcc-s1
Recommends: iproute2, nftables
Suggests: gobgpd, frr, tcpdump, tshark
Description: software-defined network and global accelerator
 VPC encapsulation, load balancing and backbone forwarding by eBPF programs on
 every host; a controller that measures the links and steers traffic over the
 best path. Nothing is started by the installation.
",
    ))
}

/// The newest minor version in the binary's symbol versions `GLIBC_2.<minor>`.
fn newest_glibc(program: &[u8]) -> Option<u32> {
    const PREFIX: &[u8] = b"GLIBC_2.";
    let places = program
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX);
    let digits = places.map(|(at, _)| {
        program[at + PREFIX.len()..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
    });
    digits
        .filter_map(|digits| digits.map(|b| char::from(*b)).collect::<String>().parse().ok())
        .max()
}

/// An upgrade restarts what runs; the pinned programs forward meanwhile.
fn after_installation(units: &[String]) -> String {
    let units = units.join(" ");
    script(&format!(
        "systemctl daemon-reload\n    if [ \"$1\" = configure ] && [ -n \"$2\" ]; then systemctl try-restart {units}; fi"
    ))
}

fn before_removal(units: &[String]) -> String {
    let units = units.join(" ");
    script(&format!(
        "if [ \"$1\" = remove ]; then systemctl disable --now {units}; fi"
    ))
}

/// Does nothing where systemd does not run, say in a container.
fn script(body: &str) -> String {
    format!("#!/bin/sh\nset -e\nif [ -d /run/systemd/system ]; then\n    {body}\nfi\n")
}

/// The package's files as they will lie on the host, below a temporary folder.
struct Staging(TempDir);

impl Staging {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        Ok(Self(folder))
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file; its folders are open to all whatever the umask.
    fn place(&self, path: &str, contents: &[u8], mode: u32) -> Result<PathBuf> {
        let file = self.root().join(path);
        let folders = file
            .ancestors()
            .skip(1)
            .take_while(|folder| *folder != self.root());
        let folders: Vec<&Path> = folders.collect();
        for folder in folders.into_iter().rev().filter(|folder| !folder.exists()) {
            fs::create_dir(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        }
        fs::write(&file, contents).with_context(|| format!("cannot write {}", file.display()))?;
        fs::set_permissions(&file, Permissions::from_mode(mode))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    #[test]
    fn the_newest_glibc_is_compared_as_a_number() {
        assert_eq!(
            newest_glibc(b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.2.5\0GLIBC_PRIVATE\0"),
            Some(34)
        );
        assert_eq!(newest_glibc(b"static GLIBC_2."), None);
    }

    const SHELL: &str = "#!/bin/sh\n# GLIBC_2.34\necho \"what completions writes for $2\"\n";

    #[test]
    fn a_package_holds_what_a_host_needs() {
        if !Path::new("/usr/bin/dpkg-deb").exists() {
            writeln!(io::stderr(), "skipped: no dpkg-deb").unwrap();
            return;
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let workspace = Workspace::at(root).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("kuafu");
        fs::write(&binary, SHELL).unwrap();
        fs::set_permissions(&binary, Permissions::from_mode(0o755)).unwrap();

        let package = assemble(&workspace, &binary, folder.path()).unwrap();
        let ask = |question: &str| {
            let run = Run::within(LIMIT, "dpkg-deb").args([question.as_ref(), package.as_os_str()]);
            run.output().unwrap()
        };
        let files = ask("--contents");
        let units = ["controller", "agent", "probe"].map(|unit| format!("system/kuafu-{unit}.service"));
        let others = [
            "bin/kuafu",
            "etc/default/kuafu",
            "man1/kuafu.1.gz",
            "completions/kuafu",
            "share/kuafu/kuafu.lua",
        ];
        for file in units.iter().map(String::as_str).chain(others) {
            assert!(
                files.lines().any(|line| line.ends_with(file)),
                "no {file} in\n{files}"
            );
        }
        assert!(!files.lines().any(|line| !line.contains("root/root")), "{files}");
        let info = ask("--info");
        assert!(info.contains("Depends: libc6 (>= 2.34)"), "{info}");
        assert!(info.contains("conffiles"), "{info}");
    }

    #[test]
    fn staged_files_have_their_modes() {
        let staging = Staging::new().unwrap();
        let file = staging.place("usr/bin/kuafu", b"x", 0o755).unwrap();
        for path in [file.as_path(), &staging.root().join("usr"), staging.root()] {
            assert_eq!(
                fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o755,
                "{}",
                path.display()
            );
        }
    }
}
