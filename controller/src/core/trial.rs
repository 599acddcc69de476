//! A change on trial: undone by itself unless it is confirmed.
//!
//! Every state that hosts are sent meanwhile is marked. An agent keeps what it ran before the first marked one, with a
//! deadline, and goes back to it unless it is sent a state without a mark. So that it can, the slots and listeners that
//! the old states send to stay on every host ([`kuafu_model::compile::Fleet::send_on_trial`]). At the deadline the
//! controller leads back whom it reaches, in order; agents that hear nothing go back by themselves a little later.

use std::collections::BTreeMap;

use kuafu_model::kinds::{Name, Target};
use kuafu_model::manifest::Intent;
use kuafu_proto::state;
use serde::{Deserialize, Serialize};

use super::history::{Cause, Verdict};
use super::member::UnixSeconds;
use super::rollout::put_json;
use super::{Command, Core, DeclareError, Now, Terms, key, scaling};
use crate::store::Write;

/// Agents wait so much longer than the controller, so that those that it reaches are led back in order.
const GRACE_MS: u64 = 3_000;
/// The shortest trial, and the longest.
const SECONDS: std::ops::RangeInclusive<u32> = 5..=86_400;

/// A change that is on trial, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    /// The change.
    pub(super) revision: u64,
    /// How long it may be confirmed.
    pub(super) window_s: u32,
    /// The end by the calendar, for a controller that starts anew meanwhile.
    pub(super) expires: UnixSeconds,
    /// Targets of hooks that there are no more by the change, each service as the store keeps its own.
    #[serde(default)]
    pub(super) named: BTreeMap<String, String>,
    /// The end by this process's clock; `None`: it was restored and not looked at yet.
    #[serde(skip)]
    pub(super) until: Option<Now>,
}

/// A trial, for those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialView {
    /// The change.
    pub revision: u64,
    /// How long it may still be confirmed.
    pub left_ms: u64,
    /// How long agents wait for it.
    pub agents_left_ms: u64,
}

/// A trial that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The change.
    pub revision: u64,
    /// The change that undid it; `None`: it was confirmed.
    pub undone_by: Option<u64>,
    /// What the shell is to do.
    pub commands: Vec<Command>,
}

impl Core {
    /// The change that is on trial.
    #[must_use]
    pub fn trial(&self, now: Now) -> Option<TrialView> {
        let trial = self.trial.as_ref()?;
        let whole = u64::from(trial.window_s) * 1_000;
        let left_ms = trial.until.map_or(whole, |until| until.saturating_sub(now));
        Some(TrialView {
            revision: trial.revision,
            left_ms,
            agents_left_ms: left_ms + GRACE_MS,
        })
    }

    /// Refuses a change while another is on trial, and a trial that could not be undone.
    pub(super) fn check_trial(&self, now: Now, intent: &Intent, terms: Terms) -> Result<(), DeclareError> {
        if let Some(TrialView {
            revision, left_ms, ..
        }) = self.trial(now)
        {
            let left_s = left_ms.div_ceil(1_000);
            return Err(DeclareError::OnTrial { revision, left_s });
        }
        let Some(seconds) = terms.confirm_s else {
            return Ok(());
        };
        if !SECONDS.contains(&seconds) {
            return Err(DeclareError::Window {
                seconds,
                least: *SECONDS.start(),
                most: *SECONDS.end(),
            });
        }
        match self.leaving(intent).into_iter().next() {
            Some(node) => Err(DeclareError::LeavesForGood { node }),
            None => Ok(()),
        }
    }

    /// Puts the change of a revision on trial, by which these targets of hooks are lost. Returns what is to be written of it.
    pub(super) fn begin_trial(
        &mut self,
        now: Now,
        (revision, lost): (u64, BTreeMap<Name, Vec<Target>>),
        terms: Terms,
    ) -> Vec<Write> {
        let Some(window_s) = terms.confirm_s else {
            return Vec::new();
        };
        let trial = Trial {
            revision,
            window_s,
            named: lost
                .iter()
                .map(|(service, targets)| (service.to_string(), scaling::written(service, targets)))
                .collect(),
            expires: terms.at.saturating_add(window_s.into()),
            until: Some(now.saturating_add(u64::from(window_s) * 1_000)),
        };
        let writes = put_json(key::TRIAL, &trial);
        self.trial = Some(trial);
        writes
            .into_iter()
            .chain(self.judge(revision, Verdict::Open))
            .collect()
    }

    /// The change that is on trial stays.
    ///
    /// # Errors
    /// [`DeclareError::NoTrial`].
    pub fn handle_confirm(&mut self) -> Result<Ended, DeclareError> {
        let trial = self.trial.take().ok_or(DeclareError::NoTrial)?;
        let mut writes = vec![Write::Delete(key::TRIAL.to_owned())];
        writes.extend(self.judge(trial.revision, Verdict::Confirmed));
        Ok(Ended {
            revision: trial.revision,
            undone_by: None,
            commands: self.roll_out(writes),
        })
    }

    /// The change that is on trial is undone at once: what was declared before it is declared again.
    ///
    /// # Errors
    /// [`DeclareError::NoTrial`]; else why what was before cannot be now.
    pub fn handle_undo(&mut self, now: Now, at: UnixSeconds) -> Result<Ended, DeclareError> {
        let trial = self.trial.as_ref().ok_or(DeclareError::NoTrial)?;
        let revision = trial.revision;
        let before = self.as_of(revision, &named_before(trial))?;
        let trial = self.trial.take();
        let terms = Terms {
            at,
            ..Terms::default()
        };
        let declared = self.declare(now, before, Cause::Return(revision), terms);
        match declared {
            Ok(commands) => Ok(Ended {
                revision,
                undone_by: Some(self.newest_change()),
                commands,
            }),
            Err(error) => {
                self.trial = trial;
                Err(error)
            }
        }
    }

    /// Undoes the change that is on trial, if its time is over. To be called each second.
    ///
    /// # Errors
    /// See [`Core::handle_undo`].
    pub fn handle_trial(&mut self, now: Now, at: UnixSeconds) -> Result<Option<Ended>, DeclareError> {
        let Some(trial) = &mut self.trial else {
            return Ok(None);
        };
        let until = *trial.until.get_or_insert_with(|| {
            // A calendar that was set back must not lengthen it.
            let left_s = trial.expires.saturating_sub(at).min(trial.window_s.into());
            now.saturating_add(left_s * 1_000)
        });
        if now < until {
            return Ok(None);
        }
        self.handle_undo(now, at).map(Some)
    }

    fn newest_change(&self) -> u64 {
        self.history.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// Does something to what is known of a host, and says what of the states that it may go back to is to be written.
    pub(super) fn with_kept<T>(
        &mut self,
        node: &Name,
        change: impl FnOnce(&mut Self) -> T,
    ) -> (T, Vec<Write>) {
        let before = self.kept(node);
        let done = change(self);
        let after = self.kept(node);
        let gone = before.keys().filter(|revision| !after.contains_key(*revision));
        let gone = gone.map(|revision| Write::Delete(key::kept(node, *revision)));
        let new = after
            .iter()
            .filter(|(revision, _)| !before.contains_key(*revision));
        let new = new.map(|(revision, bytes)| Write::Put(key::kept(node, *revision), bytes.clone()));
        (done, gone.chain(new).collect())
    }

    fn kept(&self, node: &Name) -> BTreeMap<u64, Vec<u8>> {
        let kept = self.fleet.get(node).map(|running| running.kept());
        let kept = kept.unwrap_or_default().iter();
        kept.map(|state| (state.revision, state::to_bytes(state)))
            .collect()
    }
}

/// The targets of hooks that are none any more by a trial's change. What the store has of them and cannot be read, is
/// none.
fn named_before(trial: &Trial) -> BTreeMap<Name, Vec<Target>> {
    let named = trial.named.iter();
    let named = named.filter_map(|(service, text)| Some((service.parse().ok()?, scaling::read(text).ok()?)));
    named.collect()
}
