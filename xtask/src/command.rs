//! External commands: printed, bounded in time, their failure an error.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// `timeout`'s exit status when the limit was reached (coreutils).
const TIMED_OUT: i32 = 124;
/// After the polite signal at the limit, this long until the hard one.
const KILL_AFTER: &str = "--kill-after=15";
/// A command that has ended is done when its output has been silent this long.
const SILENCE: Duration = Duration::from_secs(1);

/// One external command.
pub(crate) struct Run {
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    command: Command,
}

impl Run {
    /// A command without a limit, for what a person watches and ends.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self::spelled(program.as_ref(), Command::new(program.as_ref()))
    }

    /// A command that is ended, with all that it started, at `limit` or when this process dies.
    pub(crate) fn within(limit: Duration, program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "timeout", KILL_AFTER]);
        command
            .arg(limit.as_secs().max(1).to_string())
            .arg(program.as_ref())
            .stdin(Stdio::null());
        Self::spelled(program.as_ref(), command)
    }

    fn spelled(program: &OsStr, command: Command) -> Self {
        Self {
            words: vec![program.to_owned()],
            env: Vec::new(),
            command,
        }
    }

    /// Adds arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        for arg in args {
            self.command.arg(arg.as_ref());
            self.words.push(arg.as_ref().to_owned());
        }
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name.as_ref(), value.as_ref());
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the folder that it runs in.
    pub(crate) fn dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Runs it to its end; its output goes where ours goes.
    pub(crate) fn run(mut self) -> Result<()> {
        self.announce();
        let status = self.command.status().with_context(|| self.not_started())?;
        self.succeeded(status)
    }

    /// Runs it and returns its standard output.
    pub(crate) fn output(mut self) -> Result<String> {
        self.announce();
        let output = self
            .command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| self.not_started())?;
        self.succeeded(output.status)?;
        String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no UTF-8", self.name()))
    }

    /// Runs it, shows its output and error output in their order, and hands each line to `see`.
    ///
    /// Returns the error of a failed command after the last line.
    pub(crate) fn watch(mut self, mut see: impl FnMut(&str)) -> Result<()> {
        self.announce();
        let (reader, writer) = io::pipe().context("cannot make a pipe")?;
        self.command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = self.command.spawn().with_context(|| self.not_started())?;
        // The command keeps the pipe's writing ends; the reader would wait for ours forever.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let lines = lines(reader);
        let status = loop {
            match lines.recv_timeout(SILENCE) {
                Ok(line) => {
                    println!("{line}");
                    see(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break child.wait()?,
                // A process that the command left running may hold the pipe.
                Err(RecvTimeoutError::Timeout) => match child.try_wait()? {
                    Some(status) => break status,
                    None => continue,
                },
            }
        };
        self.succeeded(status)
    }

    /// Becomes the command: its signals and exit status are ours. Returns only when it cannot start.
    pub(crate) fn replace(mut self) -> Result<Infallible> {
        self.announce();
        let error = self.command.exec();
        Err(error).with_context(|| self.not_started())
    }

    fn announce(&self) {
        eprintln!("+ {}", line(&self.env, &self.words));
    }

    fn name(&self) -> String {
        self.words
            .iter()
            .take(2)
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn not_started(&self) -> String {
        format!("cannot start `{}`", self.name())
    }

    fn succeeded(&self, status: ExitStatus) -> Result<()> {
        if status.code() == Some(TIMED_OUT) {
            bail!("`{}` did not end in time", self.name());
        }
        ensure!(status.success(), "`{}` failed ({status})", self.name());
        Ok(())
    }
}

/// Reads a pipe to its end, line by line, on a thread of its own.
fn lines(pipe: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The command as a person would type it.
fn line(env: &[(OsString, OsString)], words: &[OsString]) -> String {
    let env = env
        .iter()
        .map(|(name, value)| format!("{}={}", name.display(), quoted(value)));
    let words = words.iter().map(|word| quoted(word));
    env.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    // Cargo separates encoded flags by U+001F, which nobody can type.
    let word = word.to_string_lossy().replace('\x1f', " ");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_printed_as_it_would_be_typed() {
        let env = [("RUSTFLAGS".into(), "-C\x1fdebuginfo=2".into())];
        let words = ["cargo".into(), "test".into(), "it's".into(), "".into()];
        assert_eq!(
            line(&env, &words),
            r"RUSTFLAGS='-C debuginfo=2' cargo test 'it'\''s' ''"
        );
    }

    #[test]
    fn watching_keeps_both_streams_in_order() {
        let mut seen = Vec::new();
        let run = Run::new("sh").args(["-c", "echo one; echo two >&2; echo three"]);
        run.watch(|line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["one", "two", "three"]);
    }

    #[test]
    fn failure_and_time_out_are_told_apart() {
        let failed = Run::new("sh").args(["-c", "exit 3"]).run().unwrap_err();
        assert!(failed.to_string().contains("exit status: 3"), "{failed}");
        let late = Run::within(Duration::from_secs(1), "sleep")
            .args(["30"])
            .run()
            .unwrap_err();
        assert!(late.to_string().contains("in time"), "{late}");
    }
}
