//! What no object may hold: calls of byte-loop copies, additions that lose a value, and names of the machine
//! that built it.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::build::Built;
use crate::command::Run;
use crate::workspace::Workspace;

const OBJDUMP: &str = "llvm-objdump-22";
const OBJDUMP_LIMIT: Duration = Duration::from_secs(120);
/// A copy of an array through a pointer becomes a call of one of these: a loop over bytes, 15 % of a packet's
/// time where it was measured.
const BYTE_LOOPS: [&str; 4] = ["memcpy", "memmove", "memset", "memcmp"];
/// A relaxed `fetch_add` becomes this instruction, which leaves the addend where the value before should be.
const LOSSY_ADD: &str = "lock *(";
/// A shorter host name occurs by chance.
const SHORTEST_HOST_NAME: usize = 4;
/// As in `strings`.
const SHORTEST_STRING: usize = 4;

/// Refuses an object with a call of a byte loop, or with a name of this machine in what is committed.
pub(super) fn inspect(built: &Built, workspace: &Workspace) -> Result<()> {
    let disassembly = Run::within(OBJDUMP_LIMIT, OBJDUMP)
        .args(["-dr", "--no-show-raw-insn"])
        .args([&built.linked])
        .output()?;
    let calls: Vec<String> = byte_loop_calls(&disassembly)
        .iter()
        .map(ToString::to_string)
        .collect();
    ensure!(
        calls.is_empty(),
        "the BPF object copies byte by byte; use words:\n  {}",
        calls.join("\n  ")
    );

    ensure!(
        !disassembly.contains(LOSSY_ADD),
        "an atomic addition of the BPF object does not give the value before; order it stronger than relaxed"
    );

    let object = fs::read(&built.stripped).context("cannot read the stripped object")?;
    let leaks = MachineNames::of_this(workspace).found_in(&object);
    ensure!(
        leaks.is_empty(),
        "the BPF object names this machine:\n  {}",
        leaks.join("\n  ")
    );
    Ok(())
}

/// A call of a byte loop.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    section: String,
    function: String,
    callee: String,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} (section {}) calls {}",
            self.function, self.section, self.callee
        )
    }
}

/// A function's place: section, offset in bytes, name.
struct Symbol<'a> {
    section: &'a str,
    offset: u64,
    name: &'a str,
}

/// The calls of byte loops in a disassembly with relocations, but for those between the loops themselves, which
/// are linked in whether or not anything calls them.
fn byte_loop_calls(disassembly: &str) -> Vec<Call> {
    let symbols = symbols(disassembly);
    let (mut section, mut function, mut operand) = ("", "", "");
    let mut calls = Vec::new();
    for line in disassembly.lines() {
        if let Some(name) = section_header(line) {
            section = name;
        } else if let Some((_, name)) = function_header(line) {
            function = name;
        } else if let Some((_, rest)) = line.split_once("call ") {
            operand = rest.trim();
        }
        let Some(callee) = callee(line, operand, &symbols) else {
            continue;
        };
        if is_byte_loop(callee) && !is_byte_loop(function) {
            calls.push(Call {
                section: section.into(),
                function: function.into(),
                callee: callee.into(),
            });
        }
    }
    calls
}

fn symbols(disassembly: &str) -> Vec<Symbol<'_>> {
    let mut section = "";
    let mut symbols = Vec::new();
    for line in disassembly.lines() {
        if let Some(name) = section_header(line) {
            section = name;
        } else if let Some((offset, name)) = function_header(line) {
            symbols.push(Symbol {
                section,
                offset,
                name,
            });
        }
    }
    symbols
}

/// `Disassembly of section xdp:`
fn section_header(line: &str) -> Option<&str> {
    line.strip_prefix("Disassembly of section ")?.strip_suffix(':')
}

/// `00000000000000c8 <memcpy>:`
fn function_header(line: &str) -> Option<(u64, &str)> {
    let (offset, name) = line.strip_suffix(">:")?.split_once(" <")?;
    Some((u64::from_str_radix(offset, 16).ok()?, name))
}

/// The function that a line's call reaches: named by a relocation's symbol, by a relocation against the section
/// of a local function (the offset is in the operand of the call before), or by the disassembler.
fn callee<'a>(line: &'a str, operand: &str, symbols: &[Symbol<'a>]) -> Option<&'a str> {
    if let Some((_, symbol)) = line.split_once("R_BPF_64_32") {
        let symbol = symbol.trim();
        return if symbol.starts_with('.') {
            local(symbol, operand, symbols)
        } else {
            Some(symbol)
        };
    }
    let (_, name) = line.split_once("call ")?.1.split_once('<')?;
    name.split(['>', '+']).next()
}

/// Section-relative calls count instructions of 8 bytes from the one after the call at the section's start.
fn local<'a>(section: &str, operand: &str, symbols: &[Symbol<'a>]) -> Option<&'a str> {
    let index = u64::from_str_radix(operand.strip_prefix("0x")?, 16).ok()? + 1;
    let found = symbols
        .iter()
        .find(|symbol| symbol.section == section && symbol.offset == index * 8);
    found.map(|symbol| symbol.name)
}

/// Mangled names hold the plain one.
fn is_byte_loop(name: &str) -> bool {
    BYTE_LOOPS.iter().any(|byte_loop| name.contains(byte_loop))
}

/// Words that would tell whose machine built the object.
struct MachineNames {
    folders: Vec<String>,
    host: Option<String>,
}

impl MachineNames {
    fn of_this(workspace: &Workspace) -> Self {
        let mut folders = vec!["/home/".to_owned(), "/root/".to_owned()];
        let own = [
            env::home_dir(),
            env::var_os("CARGO_HOME").map(Into::into),
            Some(workspace.root().into()),
        ];
        for folder in own.into_iter().flatten().filter(|folder| is_telling(folder)) {
            folders.push(folder.to_string_lossy().into_owned());
        }
        let host = fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap_or_default()
            .trim()
            .to_owned();
        Self {
            folders,
            host: Some(host).filter(|host| host.len() >= SHORTEST_HOST_NAME),
        }
    }

    /// The object's printable strings with such a word.
    fn found_in(&self, object: &[u8]) -> Vec<String> {
        let printable = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let strings = object
            .split(|byte| !printable(byte))
            .filter(|string| string.len() >= SHORTEST_STRING);
        let strings = strings.map(|string| String::from_utf8_lossy(string).into_owned());
        strings.filter(|string| self.is_in(string)).collect()
    }

    fn is_in(&self, string: &str) -> bool {
        let mut words = string.split(|c: char| !(c.is_alphanumeric() || c == '-'));
        self.folders.iter().any(|folder| string.contains(folder.as_str()))
            || self
                .host
                .as_ref()
                .is_some_and(|host| words.any(|word| word == host))
    }
}

/// `/`, and `/src`, which the build gives to every checkout, tell nothing.
fn is_telling(folder: &Path) -> bool {
    folder.components().count() > 1 && folder != "/src"
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISASSEMBLY: &str = "
kuafu:\tfile format elf64-bpf

Disassembly of section .text:

0000000000000000 <_RNv14kuafu_pipeline5stage>:
       0:\tw2 = *(u32 *)(r1 + 0x4)
      23:\tcall -0x1
\t\t00000000000000b8:  R_BPF_64_32\tmemcpy
      24:\texit

00000000000000c8 <memcpy>:
      25:\texit

0000000000000120 <memmove>:
      36:\tcall -0x1
\t\t0000000000000120:  R_BPF_64_32\tmemcpy

Disassembly of section xdp:

0000000000000000 <edge>:
       0:\tr1 = 0x0 ll
\t\t0000000000000000:  R_BPF_64_64\tMEMCPY_TABLE
       2:\tcall 0x1
       3:\tcall -0x1
\t\t0000000000000018:  R_BPF_64_32\t.text
       4:\tcall 0x18
\t\t0000000000000020:  R_BPF_64_32\t.text
       5:\tcall 0x6 <_RNvNtNt17compiler_builtins3mem6memset+0x8>
       6:\texit
";

    #[test]
    fn each_way_to_call_a_byte_loop_is_named() {
        let calls: Vec<String> = byte_loop_calls(DISASSEMBLY)
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = [
            "_RNv14kuafu_pipeline5stage (section .text) calls memcpy",
            "edge (section xdp) calls memcpy",
            "edge (section xdp) calls _RNvNtNt17compiler_builtins3mem6memset",
        ];
        assert_eq!(calls, expected);
    }

    #[test]
    fn a_disassembly_without_byte_loops_passes() {
        let clean = DISASSEMBLY.replace("mem", "str");
        assert_eq!(byte_loop_calls(&clean), []);
    }

    #[test]
    fn names_of_the_machine_are_found_as_words() {
        let names = MachineNames {
            folders: vec!["/home/".into()],
            host: Some("anna-1".into()),
        };
        let object = b"\x7fELF\0/src/main.rs\0/home/a/x.rs\0on anna-1\0hanna-12\0/ho\0";
        assert_eq!(names.found_in(object), ["/home/a/x.rs", "on anna-1"]);
    }
}
