//! From intent to what each host is sent.

use std::collections::BTreeMap;

use kuafu_model::HostState;
use kuafu_model::compile::{self, Allocations, Choice, CompileError, Input, unchanged};
use kuafu_model::kinds::Name;
use kuafu_model::manifest::Intent;
use kuafu_proto::Delta;

use super::restore::StoredChoice;
use super::{Command, Core, SessionId, commit, key};
use crate::store::Write;

/// Where each host should be.
pub(super) type Target = BTreeMap<Name, HostState>;

impl Core {
    /// Compiles without changing anything.
    pub(super) fn compile(
        &mut self,
        intent: &Intent,
        choices: &[Choice],
    ) -> Result<(Target, Allocations), CompileError> {
        let mut allocations = self.allocations.clone();
        allocations.release(&self.fleet);
        let input = Input {
            cluster: &self.cluster,
            revision: self.revision,
            intent,
            choices,
        };
        let random = &mut self.random;
        let mut key = || {
            let mut key = [0; 16];
            random(&mut key);
            key
        };
        let target = compile::compile(&input, &mut allocations, &mut key)?;
        Ok((target, allocations))
    }

    /// Takes over what was compiled. Returns what is to be written of it.
    pub(super) fn install(&mut self, target: Target, allocations: Allocations) -> Vec<Write> {
        let mut writes = Vec::new();
        if allocations != self.allocations {
            writes.extend(put_json(key::ALLOCATIONS, &allocations));
            self.allocations = allocations;
        }
        self.target = target;
        self.measured.index(&self.target);
        writes
    }

    /// Takes over other paths. Returns what is to be written of it.
    pub(super) fn install_choices(&mut self, choices: Vec<Choice>) -> Vec<Write> {
        if choices == self.choices {
            return Vec::new();
        }
        let stored: Vec<StoredChoice> = choices.iter().map(StoredChoice::from).collect();
        self.choices = choices;
        put_json(key::CHOICES, &stored).into_iter().collect()
    }

    /// Sends each connected host what it can be given now ([`compile::next`]), after these writes. Every wave has a
    /// revision of its own, so that an acknowledgement names one state.
    pub(super) fn roll_out(&mut self, mut writes: Vec<Write>) -> Vec<Command> {
        let states = compile::next(&self.fleet, &self.target);
        let due: Vec<(Name, SessionId)> = self
            .fleet
            .outdated(&states)
            .filter(|(name, state)| !self.has_refused(name, state))
            .filter_map(|(name, _)| Some((name.clone(), self.session(name)?)))
            .collect();
        if !due.is_empty() {
            self.revision += 1;
            writes.extend(put_json(key::REVISION, &self.revision));
        }
        let mut commands = commit(writes);
        for (name, session) in due {
            let Some(state) = states.get(&name) else {
                continue;
            };
            let state = HostState {
                revision: self.revision,
                ..state.clone()
            };
            let before = self.fleet.get(&name).and_then(|running| running.newest());
            commands.push(match before {
                Some(before) => Command::Delta(session, Delta::between(before, &state)),
                None => Command::Snapshot(session, state.clone()),
            });
            self.fleet.send(&name, state);
        }
        commands
    }

    fn has_refused(&self, name: &Name, state: &HostState) -> bool {
        let refused = self.hosts.get(name).and_then(|host| host.refused.as_ref());
        refused.is_some_and(|refused| unchanged(&refused.state, state))
    }
}

/// A value that is plain data can always be written as JSON; nothing is written otherwise.
pub(super) fn put_json(key: &str, value: &impl serde::Serialize) -> Option<Write> {
    let value = serde_json::to_vec(value).ok()?;
    Some(Write::Put(key.to_owned(), value))
}
