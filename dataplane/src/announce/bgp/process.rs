//! Programs that outlive the agent: started, found again by number and start, ended.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// For one to begin.
pub(super) const START: Duration = Duration::from_secs(5);
/// For one to end by itself.
const GRACE: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const NAP: Duration = Duration::from_millis(20);
/// Octets of a log that are enough.
const LOG_OCTETS: u64 = 1 << 20;
/// What becomes another program on its way, as the kernel names it.
const WRAPPERS: [&str; 2] = ["setpriv", "unshare"];

fn number_file(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}.pid"))
}

fn log_file(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}.log"))
}

/// Starts a program so that it outlives the agent.
pub(super) fn start(run: &Path, name: &str, mut command: Command) -> io::Result<Child> {
    let path = log_file(run, name);
    let _ = fs::remove_file(&path);
    let mut options = OpenOptions::new();
    // Who writes at the end goes on at the beginning after it was emptied.
    let log = options.append(true).create_new(true).mode(0o600).open(path)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    // Its name may still be this program's.
    let began = stat(child.id()).map_or(0, |(_, began)| began);
    let kept = fs::write(number_file(run, name), format!("{} {began}\n", child.id()));
    if kept.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    kept.map(|()| child)
}

/// Whether an agent of this host has started it, and nobody has ended it in order.
pub(super) fn is_known(run: &Path, name: &str) -> bool {
    number_file(run, name).exists()
}

/// The one that an agent of this host has started, if it runs: its process.
pub(super) fn running(run: &Path, name: &str) -> Option<Pid> {
    let text = fs::read_to_string(number_file(run, name)).ok()?;
    let (number, when) = text.trim().split_once(' ')?;
    let number: u32 = number.parse().ok()?;
    let (found, began) = stat(number)?;
    let is_it = began.to_string() == when && (found == name || WRAPPERS.contains(&found.as_str()));
    is_it.then(|| i32::try_from(number).map(Pid::from_raw).ok())?
}

/// Name and beginning (proc(5)) of a process of that number, if it runs.
fn stat(number: u32) -> Option<(String, u64)> {
    let text = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let mut words = rest.split(' ');
    let is_dead = words.next()? == "Z";
    let began = words.nth(18)?.parse().ok()?;
    (!is_dead).then(|| (name.to_owned(), began))
}

/// Ends the one that an agent has started over these files, if it runs, and removes them. Returns whether it ran.
pub(super) fn stop(run: &Path, name: &str) -> bool {
    let found = running(run, name);
    if let Some(process) = found {
        let _ = kill(process, Signal::SIGTERM);
        // It removes its files at the end: the next one's would go with them.
        if !within(GRACE, || running(run, name).is_none()) {
            let _ = kill(process, Signal::SIGKILL);
        }
    }
    let _ = fs::remove_file(number_file(run, name));
    let _ = fs::remove_file(log_file(run, name));
    found.is_some()
}

/// Waits until something is so; not longer than this. Returns whether it is.
pub(super) fn within(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if began.elapsed() >= limit {
            return false;
        }
        thread::sleep(NAP);
    }
}

/// Empties a log that is too long: it is in memory.
pub(super) fn keep_short(run: &Path, name: &str) {
    let log = OpenOptions::new().write(true).open(log_file(run, name));
    if let Ok(log) = log
        && log.metadata().is_ok_and(|found| found.len() > LOG_OCTETS)
    {
        let _ = log.set_len(0);
    }
}

/// The last line that it has written, unless there may be a password in it.
pub(super) fn last_words(run: &Path, name: &str) -> String {
    let text = fs::read(log_file(run, name)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let line = line.unwrap_or("it says nothing");
    if line.to_lowercase().contains("password") {
        return format!(
            "what it says of a password is in {}",
            log_file(run, name).display()
        );
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_with_a_number_names_no_other_process() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(running(run.path(), "gobgpd"), None);
        // This test is no gobgpd, whatever its number.
        let file = number_file(run.path(), "gobgpd");
        fs::write(&file, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(running(run.path(), "gobgpd"), None);
        assert!(!stop(run.path(), "gobgpd"));
        assert!(!file.exists());
    }

    #[test]
    fn one_is_found_by_its_number_and_says_last_what_was_wrong() {
        let run = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo ' and last '; exec sleep 1000"]);
        let mut child = start(run.path(), "sleep", command).unwrap();
        let began = Instant::now();
        while running(run.path(), "sleep").is_none() {
            assert!(began.elapsed() < Duration::from_secs(20));
            thread::sleep(NAP);
        }
        assert_eq!(last_words(run.path(), "sleep"), "and last");
        let log = log_file(run.path(), "sleep");
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
        keep_short(run.path(), "sleep");
        assert_eq!(last_words(run.path(), "sleep"), "and last", "it is short");
        fs::write(&log, "neighbor 192.0.2.254 Password secret\n").unwrap();
        assert!(!last_words(run.path(), "sleep").contains("secret"));
        fs::write(&log, vec![b'x'; 2 << 20]).unwrap();
        keep_short(run.path(), "sleep");
        assert_eq!(fs::metadata(&log).unwrap().len(), 0);
        assert!(stop(run.path(), "sleep"));
        child.wait().unwrap();
        assert_eq!(running(run.path(), "sleep"), None);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }
}
