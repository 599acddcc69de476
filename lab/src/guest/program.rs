//! What a program needs beside itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;

/// The loader and the shared libraries of `program`, as this host resolves them; none of a static one.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program).env("LC_ALL", "C");
    let output = ldd.output().map_err(Error::io("run ldd"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    let output = process::successful("ldd", output)?;
    named(&String::from_utf8_lossy(&output.stdout)).map_err(|library| {
        let program = program.display();
        Error::World(format!("{program} needs {library}, which is not here"))
    })
}

/// What of an ELF file the kernel and the loader read: up to the end of its last segment (elf(5)). Sections
/// of names and lines for debuggers come after it, and are most of a program built for tests. Another file
/// stays whole.
pub(super) fn loaded(file: &[u8]) -> &[u8] {
    end_of_segments(file)
        .and_then(|end| file.get(..end))
        .unwrap_or(file)
}

fn end_of_segments(file: &[u8]) -> Option<usize> {
    // 64-bit, little-endian.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(*file.get(at..)?.first_chunk()?)));
    let word = |at: usize| usize::try_from(u64::from_le_bytes(*file.get(at..)?.first_chunk()?)).ok();
    let (table, size, count) = (word(32)?, half(54)?, half(56)?);
    let headers = (0..count).map(|number| table + number * size);
    // Of each: where it lies in the file, and how long it is there.
    let ends = headers.map(|at| word(at + 8)?.checked_add(word(at + 32)?));
    ends.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The paths in what ldd(1) says: `name => path (address)`, or `path (address)` of the loader; the library
/// that was not found, if there is one.
fn named(said: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in said.lines() {
        let (name, place) = line.split_once(" => ").unwrap_or(("", line));
        let place = place.trim();
        if place == "not found" {
            return Err(name.trim().to_owned());
        }
        let path = place.split(" (").next().unwrap_or_default();
        // The vdso has no path: the kernel brings it.
        if path.starts_with('/') {
            paths.push(path.into());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says_is_read() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)
\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f1)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f2)
";
        let paths = [
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(named(said), Ok(paths.map(PathBuf::from).to_vec()));
        let missing = "\tlibfoo.so.1 => not found\n";
        assert_eq!(named(missing), Err("libfoo.so.1".to_owned()));
    }

    #[test]
    fn this_program_has_a_loader() {
        let own = std::env::current_exe().unwrap();
        let libraries = libraries(&own).unwrap();
        assert!(libraries.iter().all(|library| library.is_file()), "{libraries:?}");
        let file = std::fs::read(own).unwrap();
        assert!((10_000..file.len()).contains(&loaded(&file).len()));
        assert_eq!(loaded(b"#!/bin/sh\n"), b"#!/bin/sh\n");
        assert_eq!(loaded(&file[..60]), &file[..60], "a header alone");
    }
}
