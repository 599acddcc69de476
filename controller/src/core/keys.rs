//! When the keys of legs are renewed: what is captured on the wire is worth nothing before it could be taken for new.

use std::collections::BTreeMap;

use kuafu_model::kinds::Name;
use serde::{Deserialize, Serialize};

use super::rollout::put_json;
use super::{Command, Core, SessionId, UnixSeconds, commit, key};
use crate::store::Write;

/// How long a key is used where nothing else asks for a new one.
pub(super) const LIFETIME: UnixSeconds = 24 * 60 * 60;
/// Restarts of a host that lost its maps, after which its peers' windows would take an old packet for a new one: more
/// than twice these, since two keys are valid.
const RESTARTS: u32 = 4;

/// When keys were renewed last, and how far each host was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Renewed {
    at: UnixSeconds,
    hosts: BTreeMap<Name, Mark>,
}

/// How far a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Its incarnation, in steps of [`RESTARTS`].
    restarts: u32,
    /// How often lanes of its pairs passed 2^28 numbers.
    rounds: u64,
}

impl Core {
    /// Keys are renewed when they are so old, in seconds; 24 hours unless this is said.
    pub const fn set_key_lifetime(&mut self, lifetime: UnixSeconds) {
        self.key_lifetime = lifetime;
    }

    /// A host's lanes have passed 2^28 numbers so often, together.
    pub fn handle_rounds(&mut self, session: SessionId, rounds: u64) {
        let host = self.hosts.values_mut().find(|host| host.session == Some(session));
        if let Some(host) = host {
            host.rounds = Some(rounds);
        }
    }

    /// A second has passed: all keys are renewed where one of these holds, and until each leg has its own.
    ///
    /// - They are as old as their lifetime.
    /// - A host lost its maps so often that its incarnation modulo 4 has gone round: incarnations have four bits, and
    ///   the window of a pair takes the next seven for a new beginning.
    /// - A lane has passed another 2^28 numbers: they have 32 bits, and a window takes what is 2^29 behind for new.
    ///
    /// It waits while a change is on trial: who goes back would not know the new keys.
    pub fn handle_keys(&mut self, at: UnixSeconds) -> Vec<Command> {
        if self.trial.is_some() {
            return Vec::new();
        }
        let (due, marks) = self.renewal(at);
        let mut writes: Vec<Write> = Vec::new();
        if due {
            self.allocations.ask_for_keys();
        }
        if marks != self.keys_renewed {
            writes.extend(put_json(key::KEYS_RENEWED, &marks));
            self.keys_renewed = marks;
        }
        let wanted = self.allocations.wants_keys();
        let random = &mut self.random;
        let mut key = || {
            let mut key = [0; 16];
            random(&mut key);
            key
        };
        if !wanted || !self.allocations.renew(&self.fleet, &self.target, &mut key) {
            return commit(writes);
        }
        match self.compile(&self.intent.clone(), &self.choices.clone()) {
            Ok((target, allocations)) => {
                writes.extend(self.install(target, allocations));
                writes.extend(put_json(key::ALLOCATIONS, &self.allocations));
                tracing::info!("keys of legs are renewed");
                self.roll_out(writes)
            }
            Err(error) => {
                tracing::warn!(%error, "new keys cannot be installed; those before stay");
                commit(writes)
            }
        }
    }

    /// Whether keys are to be renewed now, and what is to be remembered of this second.
    fn renewal(&self, at: UnixSeconds) -> (bool, Renewed) {
        let connected = self.hosts.iter().filter(|(_, host)| host.session.is_some());
        let marks: BTreeMap<Name, Mark> = connected
            .filter_map(|(name, host)| {
                let restarts = host.incarnation / RESTARTS;
                let rounds = host.rounds?;
                Some((name.clone(), Mark { restarts, rounds }))
            })
            .collect();
        let (mut known, first) = (self.keys_renewed.clone(), self.keys_renewed == Renewed::default());
        let moved = |(name, mark): (&Name, &Mark)| known.hosts.get(name).is_some_and(|known| known != mark);
        let old = at.saturating_sub(known.at) >= self.key_lifetime;
        let due = !first && (old || marks.iter().any(moved));
        if first || due {
            known.at = at;
            known.hosts.extend(marks);
        } else {
            let new = marks
                .into_iter()
                .filter(|(name, _)| !self.keys_renewed.hosts.contains_key(name));
            known.hosts.extend(new);
        }
        known
            .hosts
            .retain(|name, _| self.intent.nodes().contains_key(name));
        (due, known)
    }
}
