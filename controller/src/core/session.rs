//! Agents' streams.

use kuafu_model::kinds::Name;
use kuafu_proto::state;

use super::{Command, Core, Host, Now, Refused, SessionId, key};
use crate::store::Write;

/// An agent's first message, and what its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The stream.
    pub session: SessionId,
    /// The node that the certificate names.
    pub certified: Name,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The node that the agent says it is.
    pub node: String,
    /// The cluster that it says it belongs to.
    pub cluster: String,
    /// Layout of its maps.
    pub layout: u32,
    /// The revision in force there; 0: none.
    pub last_revision: u64,
    /// The host's incarnation.
    pub incarnation: u32,
    /// The agent's version.
    pub version: String,
}

/// Why a stream is refused or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefusal {
    /// Another node's name.
    #[error("this certificate is node/{certified}'s, and the agent says that it is node/{node}")]
    OtherNode {
        /// Whom the certificate names.
        certified: String,
        /// What the agent says.
        node: String,
    },
    /// Another cluster.
    #[error("this agent belongs to cluster {theirs}, and this is the controller of cluster {ours}")]
    OtherCluster {
        /// What the agent says.
        theirs: String,
        /// Which this is.
        ours: String,
    },
    /// A certificate that is not the node's any more.
    #[error(
        "this certificate is not node/{node}'s any more: a host has joined under the name since, or it was deleted"
    )]
    OldCertificate {
        /// The node.
        node: String,
    },
    /// The node joined anew, or its agent has opened another stream.
    #[error("another agent has taken over for node/{node}")]
    Superseded {
        /// The node.
        node: String,
    },
    /// The node was deleted.
    #[error("node/{node} was deleted")]
    Deleted {
        /// The node.
        node: String,
    },
    /// A node without an agent.
    #[error("node/{node} is declared with `agent: false`")]
    Foreign {
        /// The node.
        node: String,
    },
}

impl Core {
    /// An agent has connected. It is sent what it lacks: a delta where the revision that it runs is known here, else
    /// a snapshot; nothing while its node is not declared.
    ///
    /// # Errors
    /// When it is not who it says, or not ours.
    pub fn handle_hello(&mut self, now: Now, hello: Hello) -> Result<Vec<Command>, SessionRefusal> {
        self.check_hello(&hello)?;
        self.note_alive(now, &hello.certified.clone());
        let shown = self.note_shown(&hello.certified, &hello.certificate);
        let node = hello.certified;
        let host = Host {
            session: Some(hello.session),
            incarnation: hello.incarnation,
            rounds: None,
            layout: hello.layout,
            version: hello.version,
            liveness: None,
            waits_since: None,
            refused: None,
        };
        let before = self
            .hosts
            .insert(node.clone(), host)
            .and_then(|host| host.session);
        let known_here = self.fleet.get(&node).is_some();
        let runs = hello.last_revision;
        let (known, mut writes) = self.with_kept(&node, |core| core.fleet.reconnect(&node, runs));
        if !known && known_here {
            writes.push(Write::Delete(key::acknowledged(&node)));
        } else if let Some(runs) = self.fleet.get(&node).and_then(|running| running.acknowledged()) {
            // It may have acknowledged into a stream that was cut.
            writes.push(Write::Put(key::acknowledged(&node), state::to_bytes(runs)));
        }
        writes.extend(shown);
        let mut commands = self.roll_out(writes);
        if let Some(session) = before {
            let node = node.to_string();
            commands.push(Command::Close(session, SessionRefusal::Superseded { node }));
        }
        Ok(commands)
    }

    fn check_hello(&self, hello: &Hello) -> Result<(), SessionRefusal> {
        let node = || hello.certified.to_string();
        if hello.node != hello.certified.as_str() {
            return Err(SessionRefusal::OtherNode {
                certified: node(),
                node: hello.node.clone(),
            });
        }
        if hello.cluster != self.cluster {
            return Err(SessionRefusal::OtherCluster {
                theirs: hello.cluster.clone(),
                ours: self.cluster.clone(),
            });
        }
        self.check_papers(&hello.certified, &hello.certificate)?;
        let declared = self.intent.nodes().get(&hello.certified);
        if declared.is_some_and(|declared| !declared.spec.agent) {
            return Err(SessionRefusal::Foreign { node: node() });
        }
        Ok(())
    }

    /// The node whose stream this is, if it is its newest.
    #[must_use]
    pub fn node_of(&self, session: SessionId) -> Option<&Name> {
        let mut hosts = self.hosts.iter();
        hosts
            .find(|(_, host)| host.session == Some(session))
            .map(|(name, _)| name)
    }

    /// A stream has ended.
    pub fn handle_disconnected(&mut self, now: Now, session: SessionId) {
        // It was there until now, and may come back by another stream.
        self.handle_alive(now, session);
        let ended = self.hosts.values_mut().find(|host| host.session == Some(session));
        if let Some(host) = ended {
            host.session = None;
            host.liveness = None;
        }
    }

    /// A host has a revision in force: one that it was sent, or one that it went back to by itself.
    pub fn handle_ack(&mut self, _now: Now, session: SessionId, revision: u64) -> Vec<Command> {
        let Some(node) = self.node_of(session).cloned() else {
            return Vec::new();
        };
        let (runs, mut writes) = self.with_kept(&node, |core| {
            let runs = core.fleet.acknowledge(&node, revision)?;
            Some(Write::Put(key::acknowledged(&node), state::to_bytes(runs)))
        });
        let Some(runs) = runs else {
            return Vec::new();
        };
        writes.push(runs);
        if let Some(host) = self.hosts.get_mut(&node) {
            host.refused = None;
            host.waits_since = None;
        }
        self.allocations.release(&self.fleet);
        self.roll_out(writes)
    }

    /// A host refuses a revision, and stays with what it had. Where it asks for a snapshot it gets one.
    pub fn handle_refused(
        &mut self,
        _now: Now,
        session: SessionId,
        revision: u64,
        reason: &str,
        want_snapshot: bool,
    ) -> Vec<Command> {
        let Some(node) = self.node_of(session).cloned() else {
            return Vec::new();
        };
        if want_snapshot {
            // Whatever it runs, it is not what we believe: as a host of which nothing is known.
            self.fleet.lose(&node);
            return self.roll_out(vec![Write::Delete(key::acknowledged(&node))]);
        }
        let newest = self.fleet.get(&node).and_then(|running| running.newest());
        let Some(state) = newest.filter(|state| state.revision == revision).cloned() else {
            return Vec::new();
        };
        self.fleet.refuse(&node, revision);
        if let Some(host) = self.hosts.get_mut(&node) {
            let reason = reason.to_owned();
            host.refused = Some(Refused { state, reason });
        }
        self.roll_out(Vec::new())
    }

    /// Whether a host's paths are watched.
    pub fn handle_liveness(&mut self, _now: Now, session: SessionId, on: bool) {
        let host = self.hosts.values_mut().find(|host| host.session == Some(session));
        if let Some(host) = host {
            host.liveness = Some(on);
        }
    }
}
