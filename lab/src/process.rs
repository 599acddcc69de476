//! Programs inside a namespace that cannot outlive the lab.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::sys;

/// How often a log is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A running program. It leads a process group, which is killed when this value is dropped; when the lab
/// itself is killed, the kernel kills the program (PR_SET_PDEATHSIG).
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    program: String,
    status: Option<ExitStatus>,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts `command` in the network namespace `netns`.
    pub(crate) fn spawn(mut command: Command, netns: OwnedFd) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        sys::confine(&mut command, netns);
        let mut child = spawn_from_lasting_thread(command).map_err(Error::io(format!("start {program}")))?;
        let pidfd = sys::pidfd_open(child.id()).map_err(Error::io(format!("watch {program}")));
        if pidfd.is_err() {
            // Unwatched, it could not be bounded: it must not stay.
            let _ = child.kill();
            let _ = child.wait();
        }
        Ok(Self {
            child,
            pidfd: pidfd?,
            program,
            status: None,
            log: None,
        })
    }

    /// The same, with both outputs added to the file `log`.
    pub(crate) fn spawn_logged(mut command: Command, netns: OwnedFd, log: &Path) -> Result<Self> {
        let outputs = || {
            let file = OpenOptions::new().create(true).append(true).open(log)?;
            Ok((file.try_clone()?, file))
        };
        let outputs: io::Result<_> = outputs();
        let (stdout, stderr) = outputs.map_err(Error::io(format!("open {}", log.display())))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut process = Self::spawn(command, netns)?;
        process.log = Some(log.to_owned());
        Ok(process)
    }

    /// Where its outputs go, if they go to a file.
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// Waits until its log has a line that contains `wanted`, and returns the first such line.
    ///
    /// # Errors
    /// It ended, or `limit` passed, without that; it has no log.
    pub fn await_line(&mut self, wanted: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            // Asked first: what it said before its end is in the log by then.
            let ended = self.wait(LOOK)?.is_some();
            let said = self.log.as_ref().map(fs::read).transpose();
            let said = said
                .map_err(Error::io(format!("read the log of {}", self.program)))?
                .unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            if let Some(line) = said.lines().find(|line| line.contains(wanted)) {
                return Ok(line.to_owned());
            }
            if ended || Instant::now() >= deadline {
                let why = if ended { "ended" } else { "ran on" };
                return Err(self.unsaid(wanted, why, &said));
            }
        }
    }

    fn unsaid(&self, wanted: &str, why: &'static str, said: &str) -> Error {
        let lines: Vec<_> = said.lines().collect();
        Error::Unsaid {
            program: self.program.clone(),
            wanted: wanted.to_owned(),
            why,
            said: lines[lines.len().saturating_sub(20)..].join("\n"),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once, if the command piped it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its standard output, once, if the command piped it.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Its standard error, once, if the command piped it.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits up to `limit` for its end; `None` while it runs on.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        while self.status.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if left.is_zero() || timeout != PollTimeout::MAX => break,
                Ok(0) | Err(nix::Error::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(Error::errno(format!("wait for {}", self.program))(errno)),
            }
            let ended = self.child.try_wait();
            self.status = ended.map_err(Error::io(format!("wait for {}", self.program)))?;
        }
        Ok(self.status)
    }

    /// Sends `signal` to its process group; nothing happens when it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.wait(Duration::ZERO)?.is_some() {
            return Ok(());
        }
        self.signal_group(signal)
            .map_err(Error::errno(format!("signal {}", self.program)))
    }

    /// Asks it to end (SIGTERM), kills it after `grace`, and returns how it ended.
    pub fn stop(mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        if let Some(status) = self.wait(grace)? {
            return Ok(status);
        }
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10))?
            .ok_or_else(|| self.overdue(Duration::from_secs(10)))
    }

    /// Feeds it `input`, collects what it says, and waits for its end; it is killed after `limit`.
    pub(crate) fn finish(mut self, input: &[u8], limit: Duration) -> Result<Output> {
        let (stdin, stdout, stderr) = (self.take_stdin(), self.take_stdout(), self.take_stderr());
        thread::scope(|scope| {
            let stdout = scope.spawn(|| read_all(stdout));
            let stderr = scope.spawn(|| read_all(stderr));
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(input)));
            let status = self
                .wait(limit)
                .and_then(|status| status.ok_or_else(|| self.overdue(limit)));
            // The readers end when the pipes close: whatever still holds them has had its time.
            drop(self);
            let collect = |reader: thread::ScopedJoinHandle<'_, Vec<u8>>| reader.join().unwrap_or_default();
            Ok(Output {
                stdout: collect(stdout),
                stderr: collect(stderr),
                status: status?,
            })
        })
    }

    fn overdue(&self, limit: Duration) -> Error {
        Error::Deadline {
            program: self.program.clone(),
            seconds: limit.as_secs(),
        }
    }

    fn signal_group(&self, signal: Signal) -> nix::Result<()> {
        killpg(Pid::from_raw(self.child.id().cast_signed()), signal)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_some() {
            return;
        }
        // Not yet reaped, so the group's number still belongs to it.
        let _ = self.signal_group(Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pipes the three standard streams, for [`Process::finish`].
pub(crate) fn piped(mut command: Command) -> Command {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// `output` if the program succeeded, else an error with the end of what it said.
pub(crate) fn successful(program: &str, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Program {
        program: program.to_owned(),
        status: output.status,
        stderr,
    })
}

fn read_all(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What came before an error is still worth showing.
        let _ = stream.read_to_end(&mut bytes);
    }
    bytes
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns from one thread that lasts as long as this process: the kernel sends the parent-death signal
/// when the *thread* that forked ends, and a caller's thread may be short-lived.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // A caller that is gone drops the child's handle, and nobody waits for it.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the spawning thread is gone");
    spawner.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
