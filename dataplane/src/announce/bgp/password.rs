//! Passwords of sessions (RFC 2385): each in a file of this host's, which the manifests name.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use kuafu_model::state::{Router, Speaker};
use nix::libc::O_NONBLOCK;
use nix::unistd::geteuid;

/// Octets of the longest that the kernel takes (`TCP_MD5SIG_MAXKEYLEN`).
const LONGEST: usize = 80;
/// Rights that nobody but a file's owner shall have.
const OTHERS: u32 = 0o077;

/// Those of all routers that have one. An error says what is wrong, and no password.
pub(super) fn all(speaker: &Speaker) -> Result<BTreeMap<Ipv4Addr, String>, String> {
    let files = speaker.peers.iter().filter_map(of);
    files
        .map(|(address, file)| Ok((address, read(Path::new(file))?)))
        .collect()
}

fn of(router: &Router) -> Option<(Ipv4Addr, &String)> {
    Some((router.address, router.password_file.as_ref()?))
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let failed = |error: io::Error| format!("the password in {shown} cannot be read: {error}");
    let mut options = OpenOptions::new();
    // Nobody may be at the other end of what is no file.
    let file = options.read(true).custom_flags(O_NONBLOCK).open(path);
    let file = file.map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(format!(
            "{shown}, which is to hold a password, is no regular file"
        ));
    }
    if found.uid() != 0 && found.uid() != geteuid().as_raw() {
        return Err(format!(
            "{shown}, which holds a password, is not root's: chown root {shown}"
        ));
    }
    if found.mode() & OTHERS != 0 {
        return Err(format!(
            "others than its owner may use {shown}, which holds a password: chmod 600 {shown}"
        ));
    }
    let mut text = Vec::new();
    // The line's end, and one octet too many.
    file.take(LONGEST as u64 + 3)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let password = String::from_utf8(text).unwrap_or_default();
    let password = password.trim_end_matches(['\r', '\n']);
    let is_one =
        (1..=LONGEST).contains(&password.len()) && password.bytes().all(|byte| byte.is_ascii_graphic());
    is_one.then(|| password.to_owned()).ok_or_else(|| {
        format!(
            "{shown} holds no password: 1 to {LONGEST} printable ASCII characters without spaces, in one line"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [&path, folder.path()] {
            assert!(read(path).unwrap_err().contains("is no regular file"));
        }
        let long = folder.path().join("long");
        fs::write(&long, "x".repeat(1 << 20)).unwrap();
        fs::set_permissions(&long, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(read(&long).unwrap_err().contains("holds no password"));
    }

    #[test]
    fn a_password_is_read_from_a_file_of_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        assert!(read(&path).unwrap_err().contains("cannot be read: No such file"));
        let keep = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path)
        };
        assert_eq!(keep("a#secret!\n", 0o600).unwrap(), "a#secret!");
        assert_eq!(keep(&"x".repeat(LONGEST), 0o400).unwrap().len(), LONGEST);
        for text in ["", "\n", "two words", "two\nlines", &"x".repeat(LONGEST + 1)] {
            assert!(
                keep(text, 0o600).unwrap_err().contains("holds no password"),
                "{text:?}"
            );
        }
        let error = keep("a#secret!", 0o640).unwrap_err();
        assert!(
            error.contains("chmod 600") && !error.contains("a#secret!"),
            "{error}"
        );
    }
}
