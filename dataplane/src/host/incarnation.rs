//! How often the host has lost its maps, kept across reboots.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// The number to go on with: one more than before where the maps are new, else `of_maps`, what the maps say, where no
/// file says it.
///
/// # Errors
/// `Io` where the file cannot be read or written.
pub(super) fn next(folder: &Path, of_maps: Option<u32>) -> Result<u32> {
    let path = folder.join("incarnation");
    let known = read(&path)?;
    let number = match (of_maps, known) {
        (Some(of_maps), _) if of_maps != 0 => of_maps,
        (Some(_), Some(known)) => known,
        (_, known) => known.unwrap_or(0) % 15 + 1,
    };
    if known != Some(number) {
        write(&path, number)?;
    }
    Ok(number)
}

fn read(path: &Path) -> Result<Option<u32>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => {
            let text = text.map_err(Error::io(format!("read {}", path.display())))?;
            Ok(text.trim().parse().ok())
        }
    }
}

/// On disk before a packet carries it.
fn write(path: &Path, number: u32) -> Result<()> {
    let fresh = path.with_extension("new");
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::File::create(&fresh)?;
        writeln!(file, "{number}")?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().map_err(Error::io(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_maps_are_a_new_incarnation() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next(folder.path(), None).unwrap(), 1);
        assert_eq!(next(folder.path(), Some(1)).unwrap(), 1, "adopted");
        assert_eq!(
            next(folder.path(), Some(0)).unwrap(),
            1,
            "adopted before they were written"
        );
        assert_eq!(next(folder.path(), None).unwrap(), 2);
        fs::write(folder.path().join("incarnation"), "15\n").unwrap();
        assert_eq!(next(folder.path(), None).unwrap(), 1, "0 stands for none yet");
    }

    #[test]
    fn maps_know_it_without_a_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next(folder.path(), Some(7)).unwrap(), 7);
        assert_eq!(next(folder.path(), None).unwrap(), 8);
    }
}
