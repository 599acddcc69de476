//! What the controller decides, without sockets, clocks or files: `handle_…(now, …)` in, [`Command`]s out.
//!
//! ```text
//! manifests --apply--> intent --compile--> target --next--> a state for each host --Send-->
//!                        ^                   ^       ^
//!                      store             choices    what hosts acknowledged
//! ```
//!
//! Commands are carried out in their order. A commit that fails ends the controller: what is in memory would be
//! ahead of the store, and the next start begins from the store.

mod declare;
mod explain;
mod health;
mod history;
mod hold;
mod key;
mod keys;
mod measure;
mod member;
mod papers;
mod past;
mod restore;
mod rollout;
mod scaling;
mod session;
mod shield;
mod steer;
#[cfg(test)]
mod tests;
mod trial;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use kuafu_model::HostState;
use kuafu_model::compile::{Allocations, Choice, Fleet, Holders, Server};
use kuafu_model::kinds::Name;
use kuafu_model::manifest::Intent;
use kuafu_proto::Delta;

use crate::store::Write;

pub use declare::{DeclareError, Declared, FieldError, Terms};
pub use explain::{Names, PathAnswer, PathError, PathQuestion, When};
pub use history::{Cause, Changed, Entry, HistoryView, Verdict};
pub use measure::{Alarm, LegReport};
pub use member::{JoinRefusal, UnixSeconds};
pub use past::{HISTORY_BYTES, Switch, UnixMs};
pub use restore::RestoreError;
pub use scaling::{Call, ScalingView};
pub use session::{Hello, SessionRefusal};
pub use shield::{ShieldError, ShieldView};
pub use steer::LegCosts;
pub use trial::{Ended, TrialView};
pub use view::{FallbackView, HostView, LegView, RouteView};

/// Milliseconds of a clock that never goes back.
pub type Now = u64;

/// One agent's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Fills bytes that nobody can guess.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Make this durable, all or nothing, before anything that follows.
    Commit(Vec<Write>),
    /// Send a host its whole state.
    Snapshot(SessionId, HostState),
    /// Send a host what changes.
    Delta(SessionId, Delta),
    /// End a stream, with the reason.
    Close(SessionId, SessionRefusal),
    /// Append a line to the recording of what path choice saw.
    Record(String),
}

/// Everything that the controller knows.
pub struct Core {
    cluster: String,
    /// The newest that a host was given.
    revision: u64,
    intent: Intent,
    allocations: Allocations,
    choices: Vec<Choice>,
    /// Servers that are down, as each host sees them.
    down: BTreeMap<Name, BTreeSet<Server>>,
    /// Who holds the addresses that one of several nodes may hold.
    holders: Holders,
    /// Who of these lives.
    hold: hold::Hold,
    /// How services scale.
    scaling: scaling::State,
    /// Where each host should be in the end.
    target: BTreeMap<Name, HostState>,
    fleet: Fleet,
    hosts: BTreeMap<Name, Host>,
    /// By digest of their secrets.
    tokens: BTreeMap<String, member::Token>,
    /// Fingerprint of each member's certificate.
    certificates: BTreeMap<Name, String>,
    /// That of the certificate which a member was given to replace it, until the member shows it.
    renewed: BTreeMap<Name, String>,
    /// Changes of the intent, by the revision from which they held.
    history: BTreeMap<u64, Entry>,
    trial: Option<trial::Trial>,
    measured: measure::Measured,
    steer: steer::Steer,
    /// Seconds after which keys are renewed.
    key_lifetime: UnixSeconds,
    keys_renewed: keys::Renewed,
    past: past::Past,
    /// The calendar's time at 0 of our own.
    began_unix_ms: UnixMs,
    random: Random,
}

/// A host whose agent was heard of.
#[derive(Clone, Debug, Default)]
struct Host {
    session: Option<SessionId>,
    incarnation: u32,
    /// How often its lanes passed 2^28 numbers; `None`: it has not said.
    rounds: Option<u64>,
    layout: u32,
    version: String,
    liveness: Option<bool>,
    /// Since when it is connected and has not said a word about what it was sent.
    waits_since: Option<Now>,
    refused: Option<Refused>,
}

/// A state that a host refused: it is not sent again until it changes or the agent reconnects.
#[derive(Clone, Debug)]
struct Refused {
    state: HostState,
    reason: String,
}

impl Core {
    /// The cluster's id.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The newest revision.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What is declared.
    #[must_use]
    pub const fn intent(&self) -> &Intent {
        &self.intent
    }

    /// The stream of a node's agent.
    #[must_use]
    pub fn session(&self, node: &Name) -> Option<SessionId> {
        self.hosts.get(node)?.session
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Core {{ cluster: {:?}, revision: {} }}",
            self.cluster, self.revision
        )
    }
}

/// Whether anything but the revision differs between two target states is for the fleet to say; whether there is
/// anything to commit, for the caller.
fn commit(writes: Vec<Write>) -> Vec<Command> {
    if writes.is_empty() {
        Vec::new()
    } else {
        vec![Command::Commit(writes)]
    }
}
