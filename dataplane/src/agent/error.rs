//! Why an agent does not run.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an agent does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host cannot do what it was told.
    #[error(transparent)]
    Host(#[from] crate::Error),
    /// Nothing says who this host is.
    #[error(
        "this host is no member of a cluster: `kuafu node join TOKEN` makes it one, --state FILE runs it without"
    )]
    NoMember,
    /// There is an agent already.
    #[error("another agent runs on this host: it holds {}", path.display())]
    Running {
        /// What it holds.
        path: PathBuf,
    },
    /// It cannot listen.
    #[error("cannot serve metrics on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The thread that programs the host is gone.
    #[error("the host's thread has ended: {0}")]
    Stopped(&'static str),
}
