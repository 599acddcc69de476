//! What can go wrong on a host.

use std::io;
use std::path::PathBuf;

/// Why the host cannot do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel, or a file, refused.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// An address could not be withdrawn.
    #[error("{0}")]
    Announce(String),
    /// The embedded object could not be loaded.
    #[error("load the BPF object: {0}")]
    Object(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("load the BPF program {program}: {reason}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why, with the verifier's last lines.
        reason: String,
    },
    /// A pinned map is not what this version of the agent means by its name.
    #[error("{path} has {what} {found}, this version needs {needed}: `kuafu uninstall` removes it", path = path.display())]
    Foreign {
        /// Where it is pinned.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What it has.
        found: u32,
        /// What belongs there.
        needed: u32,
    },
    /// Somebody else's program is where ours belongs.
    #[error(
        "{interface} already has an XDP program that is not Kuafu's: remove it (`ip link set {interface} xdp off`)"
    )]
    Occupied {
        /// The device.
        interface: String,
    },
    /// There is no program to look at.
    #[error("none of Kuafu's programs runs on this host: no link below {folder}", folder = folder.display())]
    NothingRuns {
        /// Where links would be pinned.
        folder: PathBuf,
    },
    /// The programs tell one capture at a time.
    #[error("another capture runs on this host; one that was killed is forgotten after 5 s")]
    Captured,
    /// There is no such device.
    #[error("no interface has the address {0}")]
    NoUnderlay(std::net::Ipv4Addr),
    /// The state is not one that this host can satisfy.
    #[error(transparent)]
    Contents(#[from] kuafu_model::contents::Error),
    /// The state's file says nothing that can be used.
    #[error("{path}: {source}", path = path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: kuafu_proto::state::StateError,
    },
    /// The state is another cluster's or another host's.
    #[error("the state is for {what} {found:?}, this host is of {own:?}")]
    NotOurs {
        /// Cluster or node.
        what: &'static str,
        /// What it says.
        found: String,
        /// What this host is.
        own: String,
    },
    /// There is no such shield on this host.
    #[error(
        "{object} has no shield on this host; declare one in its spec.shield, with a mode that is not off"
    )]
    NoShield {
        /// The object that was asked about.
        object: String,
    },
    /// A client cannot be admitted.
    #[error("{why}")]
    NotAdmitted {
        /// What was asked wrongly.
        why: String,
    },
    /// The exit's ports would take away a socket's.
    #[error("nat_ports {first}-{last} covers port {port}, on which a program of this host listens")]
    PortInUse {
        /// First of the range.
        first: u16,
        /// Last of the range.
        last: u16,
        /// The socket's port.
        port: u16,
    },
    /// The agent would lose its controller.
    #[error(
        "{what}, and this host reaches its controller over {over}: with this state it would be cut off. If it shall be \
         so, apply it with --confirm: it then comes back by itself"
    )]
    Cut {
        /// What of the state.
        what: String,
        /// What it takes away.
        over: String,
    },
    /// A netlink request was refused.
    #[error("{action}: {source}")]
    Netlink {
        /// What was tried.
        action: String,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}

/// What a host's functions return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: what was tried, in front of what the kernel said.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// The same for netlink.
    pub(crate) fn netlink(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let action = action.into();
        move |source| Self::Netlink { action, source }
    }
}
