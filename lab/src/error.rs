//! What can go wrong while a world is built, run or taken down.

use std::io;
use std::process::ExitStatus;

/// An error of the lab, with the value that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that cannot be a namespace's or a device's.
    #[error("bad name {name:?}: {why}")]
    Name {
        /// The name as given.
        name: String,
        /// What is allowed.
        why: &'static str,
    },
    /// A system call or a file failed.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with its object.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A program that the lab uses (`ip`, `nft`, …) could not do what it was asked.
    #[error("{program} ended with {status}: {stderr}")]
    Program {
        /// The program's name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last of what it said.
        stderr: String,
    },
    /// A program did not end in time and was killed.
    #[error("{program} did not end within {seconds} s")]
    Deadline {
        /// The program's name.
        program: String,
        /// The limit, in seconds.
        seconds: u64,
    },
}

/// The lab's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an error of the operating system with what was being done.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// The same for an error number.
    pub(crate) fn errno(action: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let action = action.into();
        move |errno| Self::Io {
            action,
            source: errno.into(),
        }
    }
}
