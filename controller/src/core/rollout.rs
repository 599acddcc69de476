//! From intent to what each host is sent.

use std::collections::BTreeMap;

use kuafu_model::HostState;
use kuafu_model::compile::{self, Allocations, Choice, CompileError, Input, unchanged};
use kuafu_model::kinds::Name;
use kuafu_model::manifest::Intent;
use kuafu_proto::Delta;

use super::restore::StoredChoice;
use super::{Command, Core, Refused, SessionId, commit, health, key};
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
            down: &health::of_all(&self.down),
            holders: &self.holders,
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
        let states = self.next_states();
        let due = self.due(&states);
        if !due.is_empty() {
            self.revision += 1;
            writes.extend(put_json(key::REVISION, &self.revision));
        }
        self.send(&states, due, writes)
    }

    /// The same for a change of the intent, which has a revision also where nobody is sent anything.
    pub(super) fn roll_out_change(&mut self, revision: u64, mut writes: Vec<Write>) -> Vec<Command> {
        let states = self.next_states();
        let due = self.due(&states);
        self.revision = revision;
        writes.extend(put_json(key::REVISION, &self.revision));
        self.send(&states, due, writes)
    }

    /// What each host can be given now. A refusal of something else is history.
    fn next_states(&mut self) -> Target {
        let states = compile::next(&self.fleet, &self.target);
        for (name, host) in &mut self.hosts {
            let is_wanted = |refused: &Refused| {
                let state = states.get(name);
                state.is_some_and(|state| unchanged(&refused.state, state))
            };
            host.refused = host.refused.take().filter(is_wanted);
        }
        states
    }

    /// Connected hosts that do not run what they can have now, and those that would go back from what stays.
    fn due(&self, states: &Target) -> Vec<(Name, SessionId)> {
        let on_trial = |name: &&Name| self.fleet.get(name).is_some_and(|host| host.is_on_trial());
        let settled = states
            .iter()
            .filter(|(name, _)| self.trial.is_none() && on_trial(name));
        let due: BTreeMap<&Name, &HostState> = self.fleet.outdated(states).chain(settled).collect();
        due.into_iter()
            .filter(|(name, state)| !self.has_refused(name, state))
            .filter_map(|(name, _)| Some((name.clone(), self.session(name)?)))
            .collect()
    }

    fn send(&mut self, states: &Target, due: Vec<(Name, SessionId)>, mut writes: Vec<Write>) -> Vec<Command> {
        let mut messages = Vec::new();
        for (name, session) in due {
            let Some(state) = states.get(&name) else {
                continue;
            };
            let state = HostState {
                revision: self.revision,
                ..state.clone()
            };
            let before = self.fleet.get(&name).and_then(|running| running.newest());
            messages.push(match before {
                Some(before) => Command::Delta(session, Delta::between(before, &state)),
                None => Command::Snapshot(session, state.clone()),
            });
            let trial = self.trial.as_ref().map(|trial| trial.revision);
            let ((), kept) = self.with_kept(&name, |core| match trial {
                Some(trial) => core.fleet.send_on_trial(&name, state, trial),
                None => core.fleet.send(&name, state),
            });
            writes.extend(kept);
        }
        let mut commands = commit(writes);
        commands.append(&mut messages);
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
