//! Which servers are down, as the hosts that send to them say.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_model::compile::{Down, Server};
use kuafu_model::kinds::{HostIp, Name, PortNumber};
use serde::{Deserialize, Serialize};

use super::rollout::put_json;
use super::{Command, Core, SessionId, key};
use crate::store::Write;

/// A server as the store keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredServer {
    service: Name,
    address: HostIp,
    port: PortNumber,
}

impl From<&Server> for StoredServer {
    fn from(server: &Server) -> Self {
        Self {
            service: server.service.clone(),
            address: server.address,
            port: server.port,
        }
    }
}

impl From<StoredServer> for Server {
    fn from(stored: StoredServer) -> Self {
        Self {
            service: stored.service,
            address: stored.address,
            port: stored.port,
        }
    }
}

impl Core {
    /// All servers that are down as one host sees them. An exit counts less at entries by as much. What a host said last
    /// holds while it is away.
    pub fn handle_health(&mut self, session: SessionId, down: BTreeSet<Server>) -> Vec<Command> {
        let Some(node) = self.node_of(session).cloned() else {
            return Vec::new();
        };
        if self
            .down
            .get(&node)
            .map_or(down.is_empty(), |before| *before == down)
        {
            return Vec::new();
        }
        let mut writes: Vec<Write> = self.note_down(&node, down).into_iter().collect();
        match self.compile(&self.intent.clone(), &self.choices.clone()) {
            Ok((target, allocations)) => writes.extend(self.install(target, allocations)),
            Err(error) => {
                tracing::warn!(%error, "what servers are down cannot be compiled; the weights before stay");
            }
        }
        self.roll_out(writes)
    }

    /// Takes over what a host says. Returns what is to be written of it.
    fn note_down(&mut self, node: &Name, down: BTreeSet<Server>) -> Option<Write> {
        if down.is_empty() {
            return self.forget_down(node);
        }
        let stored: Vec<StoredServer> = down.iter().map(StoredServer::from).collect();
        self.down.insert(node.clone(), down);
        put_json(&key::down(node), &stored)
    }

    /// A host is no member any more, or nothing is down there. Returns what is to be deleted of it.
    pub(super) fn forget_down(&mut self, node: &Name) -> Option<Write> {
        self.down.remove(node).map(|_| Write::Delete(key::down(node)))
    }
}

/// The servers that are down, by the nodes that say so, in the form in which they are compiled.
pub(super) fn of_all(down: &BTreeMap<Name, BTreeSet<Server>>) -> Down {
    let each = down
        .iter()
        .flat_map(|(node, servers)| servers.iter().map(move |server| (node, server)));
    each.map(|(node, server)| (node.clone(), server.clone()))
        .collect()
}
