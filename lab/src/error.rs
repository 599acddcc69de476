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
    /// A guest did not end in time and was killed.
    #[error("the guest did not end within {seconds} s; its last words:\n{serial}")]
    Guest {
        /// The limit, in seconds.
        seconds: u64,
        /// The end of its serial line.
        serial: String,
    },
    /// A program did not say what was waited for.
    #[error("{program} {why} without saying {wanted:?}; its last words:\n{said}")]
    Unsaid {
        /// The program's name.
        program: String,
        /// What was waited for.
        wanted: String,
        /// What happened instead.
        why: &'static str,
        /// The end of its log.
        said: String,
    },
    /// A wire needs a line from each site to each.
    #[error("{sites} sites need {} lines, not {lines}", sites * sites)]
    Lines {
        /// The sites.
        sites: usize,
        /// The lines given.
        lines: usize,
    },
    /// A site's number that the wire does not have.
    #[error("no site {index} on a wire of {sites}")]
    NoSite {
        /// The number.
        index: usize,
        /// How many there are.
        sites: usize,
    },
    /// A world file, or a question about a world, that makes no sense.
    #[error("world: {0}")]
    World(String),
    /// A region that the latency matrix does not have.
    #[error("the latency matrix has no region {name:?}")]
    NoRegion {
        /// The region.
        name: String,
    },
    /// A pair of regions without a measurement.
    #[error("nobody measured the latency from {from} to {to}")]
    NotMeasured {
        /// Where from.
        from: String,
        /// Where to.
        to: String,
    },
    /// A living run has built under this prefix.
    #[error("a lab with the prefix {prefix:?} is running")]
    InUse {
        /// The prefix.
        prefix: String,
    },
    /// A host that was destroyed and not restored.
    #[error("{site} is destroyed")]
    Destroyed {
        /// The site's name.
        site: String,
    },
    /// The wire's thread has ended.
    #[error("the wire has stopped")]
    WireStopped,
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
