//! `kuafu.o.toolchain`: with what the committed object was built.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

use super::QUERY_LIMIT;
use super::build::{STRIP, rustc};
use crate::command::Run;

/// The tools whose versions decide the object's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Toolchain {
    /// The first line of `rustc -vV`.
    rustc: String,
    /// The compiler's LLVM.
    llvm: String,
    bpf_linker: String,
    llvm_strip: String,
}

/// The file's contents: the toolchain, and the hashes (sha256, lower-case hex) of what belongs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) toolchain: Toolchain,
    /// Of `ebpf/Cargo.lock`.
    pub(super) lock: String,
    /// Of the object.
    pub(super) object: String,
}

impl Toolchain {
    /// Asks the tools of this machine.
    pub(super) fn installed() -> Result<Self> {
        let verbose = Run::within(QUERY_LIMIT, rustc()).args(["-vV"]).output()?;
        let linker = Run::within(QUERY_LIMIT, "bpf-linker")
            .args(["--version"])
            .output()?;
        let strip = Run::within(QUERY_LIMIT, STRIP).args(["--version"]).output()?;
        Ok(Self {
            rustc: verbose
                .lines()
                .next()
                .context("rustc -vV printed nothing")?
                .to_owned(),
            llvm: after(&verbose, "LLVM version: ")?,
            bpf_linker: after(&linker, "bpf-linker ")?,
            llvm_strip: after(&strip, "LLVM version ")?,
        })
    }
}

/// The rest of the first line that holds `label`.
fn after(text: &str, label: &str) -> Result<String> {
    let rest = text.lines().find_map(|line| line.split_once(label));
    let (_, rest) = rest.with_context(|| format!("no '{label}' in what the tool printed: {text:?}"))?;
    Ok(rest.trim().to_owned())
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rustc,
            llvm,
            bpf_linker,
            llvm_strip,
        } = self;
        write!(
            f,
            "{rustc}, LLVM {llvm}, bpf-linker {bpf_linker}, llvm-strip {llvm_strip}"
        )
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Toolchain {
            rustc,
            llvm,
            bpf_linker,
            llvm_strip,
        } = &self.toolchain;
        writeln!(f, "# Written by `cargo xtask ebpf`: what kuafu.o was built with.")?;
        writeln!(
            f,
            "rustc = {rustc}\nllvm = {llvm}\nbpf-linker = {bpf_linker}\nllvm-strip = {llvm_strip}"
        )?;
        writeln!(f, "lock-sha256 = {}\nobject-sha256 = {}", self.lock, self.object)
    }
}

impl FromStr for Record {
    type Err = anyhow::Error;

    /// Reads lines `name = value`; `#` begins a comment line. Each name must occur once, and no other.
    fn from_str(text: &str) -> Result<Self> {
        let mut lines = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            lines.push(
                line.split_once(" = ")
                    .with_context(|| format!("'{line}' is not 'name = value'"))?,
            );
        }
        let mut take = |name: &str| {
            let at = lines.iter().position(|(found, _)| *found == name);
            let (_, value) = lines.remove(at.with_context(|| format!("no line '{name} = …'"))?);
            ensure!(!value.is_empty(), "'{name}' is empty");
            Ok(value.to_owned())
        };
        let toolchain = Toolchain {
            rustc: take("rustc")?,
            llvm: take("llvm")?,
            bpf_linker: take("bpf-linker")?,
            llvm_strip: take("llvm-strip")?,
        };
        let record = Self {
            toolchain,
            lock: take("lock-sha256")?,
            object: take("object-sha256")?,
        };
        match lines.first() {
            Some((name, _)) => bail!("'{name}' is unknown or repeated"),
            None => Ok(record),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            toolchain: Toolchain {
                rustc: "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)".into(),
                llvm: "22.1.8".into(),
                bpf_linker: "0.10.3".into(),
                llvm_strip: "22.1.8".into(),
            },
            lock: "00ff".into(),
            object: "12ab".into(),
        }
    }

    #[test]
    fn a_record_reads_what_it_writes() {
        let text = record().to_string();
        assert_eq!(text.parse::<Record>().unwrap(), record());
    }

    #[test]
    fn a_record_names_what_is_wrong() {
        let text = record().to_string();
        let cases = [
            (text.replace("llvm = 22.1.8\n", ""), "no line 'llvm = …'"),
            (
                text.replace("lock-sha256 = 00ff", "lock-sha256 = "),
                "'lock-sha256' is empty",
            ),
            (format!("{text}llvm = 21\n"), "'llvm' is unknown or repeated"),
            (format!("{text}gcc\n"), "'gcc' is not 'name = value'"),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Record>().unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn versions_are_found_in_what_tools_print() {
        let strip = "llvm-strip, compatible with GNU strip\nDebian LLVM version 22.1.8\n  Optimized build.\n";
        assert_eq!(after(strip, "LLVM version ").unwrap(), "22.1.8");
        assert_eq!(after("bpf-linker 0.10.3\n", "bpf-linker ").unwrap(), "0.10.3");
        assert!(after("", "bpf-linker ").is_err());
    }
}
