//! The guest's root file system: a cpio archive of the kind `newc`
//! (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that is being written.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: usize,
}

impl Archive {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds `/dev/console`, which the kernel opens for the first process.
    pub(super) fn console(&mut self) {
        self.folders_of("dev/console");
        self.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
    }

    /// Adds a file at `path`, relative to the root, and the folders that lead to it.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.folders_of(path);
        self.entry(path, REGULAR | mode, (0, 0), content);
    }

    /// The bytes of the whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn folders_of(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            if self.folders.insert(path[..end].to_owned()) {
                self.entry(&path[..end], DIRECTORY, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (number, size, name) = (self.entries, content.len(), path.len() + 1);
        let (major, minor) = device;
        // Inode, mode, user, group, links, time, size, the file system's and the device's numbers, length of
        // the name, no checksum.
        let header = format!(
            "070701{number:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}{0:08x}{0:08x}{major:08x}{minor:08x}{name:08x}{0:08x}",
            0, 1
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_a_header_for_each_entry_and_is_aligned() {
        let mut archive = Archive::new();
        archive.file("a/b", 0o755, b"hello");
        archive.file("a/c", 0o644, b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert_eq!(bytes.len() % 4, 0);
        // 110 bytes of header, "a/b\0", two of padding, then the content.
        let file = text.find("a/b").unwrap();
        assert_eq!(&bytes[file + 4..file + 11], b"\0\0hello");
        assert!(text.contains("TRAILER!!!"));
    }
}
