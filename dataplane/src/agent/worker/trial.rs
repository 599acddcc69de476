//! A state on trial: what was in force before is kept, and comes back by itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kuafu_model::HostState;
use kuafu_proto::v1;
use kuafu_proto::v1::agent_message::Message;

use super::{Source, Worker};
use crate::agent::store::{read_octets, remove, write_whole};
use crate::error::Result;

/// The time by both clocks: one that never jumps, and one that outlives the agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) steady: Instant,
    pub(super) unix_ms: u64,
}

impl Times {
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            steady: Instant::now(),
            unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What the host goes back to, and when.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    id: u64,
    /// The newest revision of the trial.
    newest: u64,
    before: HostState,
    until: Instant,
    until_unix_ms: u64,
    window_ms: u64,
}

impl Kept {
    /// A trial begins with a state of this revision; `before` is in force.
    pub(super) fn begin(trial: v1::Trial, newest: u64, before: HostState, now: Times) -> Self {
        Self {
            id: trial.id,
            newest,
            before,
            until: now.steady + Duration::from_millis(trial.left_ms),
            until_unix_ms: now.unix_ms.saturating_add(trial.left_ms),
            window_ms: trial.left_ms,
        }
    }

    /// Whether the host is to go back now.
    pub(super) fn is_over(&self, now: Times) -> bool {
        self.until <= now.steady
    }

    /// What an earlier agent has kept; `None` where `in_force` has ended that trial.
    pub(super) fn restore(octets: &[u8], in_force: u64, now: Times) -> Option<Self> {
        let kept = v1::KeptState::from_bytes(octets).ok()?;
        if kept.newest_revision < in_force {
            return None;
        }
        let left_ms = kept.until_unix_ms.saturating_sub(now.unix_ms);
        // A calendar that was set back must not lengthen it.
        let left_ms = left_ms.min(kept.window_ms);
        Some(Self {
            id: kept.id,
            newest: kept.newest_revision,
            before: kept.before?.try_into().ok()?,
            until: now.steady + Duration::from_millis(left_ms),
            until_unix_ms: kept.until_unix_ms,
            window_ms: kept.window_ms,
        })
    }

    fn octets(&self) -> Vec<u8> {
        let message = v1::KeptState {
            id: self.id,
            newest_revision: self.newest,
            until_unix_ms: self.until_unix_ms,
            window_ms: self.window_ms,
            before: Some((&self.before).into()),
        };
        message.to_bytes()
    }
}

impl Worker {
    /// What an earlier agent has kept beside the state that it had in force.
    pub(super) fn restore_kept(&mut self, in_force: u64) -> Result<()> {
        let Some(path) = self.kept_file() else {
            return Ok(());
        };
        let Some(octets) = read_octets(&path)? else {
            return Ok(());
        };
        self.trial = Kept::restore(&octets, in_force, Times::now());
        match &self.trial {
            None => remove(&path),
            Some(kept) => {
                let (trial, back_to) = (kept.id, kept.before.revision);
                tracing::info!(trial, back_to, "the state in force is on trial");
                Ok(())
            }
        }
    }

    /// Brings a state into force that the controller sent. One on trial is so only when what it may go back to is on
    /// disk; one that is not ends the trial, and may not take the controller away.
    pub(super) fn take(&mut self, state: &HostState, trial: Option<v1::Trial>) -> Result<()> {
        let Some(trial) = trial else {
            if let Some(port) = self.control_port {
                self.host.refuse_cut(state, port)?;
            }
            self.bring_into_force(state)?;
            return self.end_trial();
        };
        let before = self.trial.clone();
        self.keep_before(trial, state.revision)?;
        let taken = self.bring_into_force(state);
        if taken.is_err() && before.is_none() {
            self.end_trial()?;
        }
        taken
    }

    fn keep_before(&mut self, trial: v1::Trial, newest: u64) -> Result<()> {
        let Some(path) = self.kept_file() else {
            return Ok(());
        };
        let kept = match self.trial.take() {
            Some(kept) if kept.id == trial.id => Kept { newest, ..kept },
            _ => {
                let in_force = self.host.state().or(self.pending.as_ref());
                // A host that had nothing has nothing to go back to.
                let Some(before) = in_force.cloned() else {
                    return Ok(());
                };
                Kept::begin(trial, newest, before, Times::now())
            }
        };
        let written = write_whole(&path, &kept.octets());
        self.trial = Some(kept);
        written
    }

    /// The state in force stays.
    fn end_trial(&mut self) -> Result<()> {
        self.trial = None;
        self.kept_file().map_or(Ok(()), |path| remove(&path))
    }

    /// Goes back to what was before, when the time is over. What cannot be done now is tried again with the next second.
    pub(super) fn go_back_in_time(&mut self) {
        let Some(kept) = self.trial.take_if(|kept| kept.is_over(Times::now())) else {
            return;
        };
        let (trial, revision) = (kept.id, kept.before.revision);
        if let Err(error) = self.go_back(&kept.before) {
            self.state_failed(&error);
            self.trial = Some(kept);
            return;
        }
        tracing::warn!(trial, revision, "not confirmed in time: back to what was before");
        self.faults.returned = Some(format!(
            "went back to revision {revision} by itself: change {trial} was on trial, and nothing was heard of the \
             controller in time"
        ));
        // Without a session nobody hears it; the next one begins with the revision.
        self.tell(Message::Ack(v1::Ack { revision }));
    }

    fn go_back(&mut self, before: &HostState) -> Result<()> {
        if self.host.state() != Some(before) {
            self.bring_into_force(before)?;
        }
        self.end_trial()
    }

    /// Where what comes back is kept: beside the state. An operator's file is the operator's to change back.
    fn kept_file(&self) -> Option<PathBuf> {
        match &self.source {
            Source::Controller(path) => Some(beside(path)),
            Source::File(_) => None,
        }
    }
}

fn beside(state: &Path) -> PathBuf {
    state.with_file_name("trial.pb")
}

/// A controller's port from `host:port`.
pub(in crate::agent) fn port_of(controller: &str) -> Option<u16> {
    controller.rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: u64) -> HostState {
        let text = format!(
            r#"{{"cluster": "c", "revision": {revision}, "node": {{"id": 1, "name": "a", "local": "192.0.2.1",
                "public": "192.0.2.1", "overlay": "100.64.0.1", "udp_port": 6081}}}}"#
        );
        kuafu_proto::state::from_json(&text).unwrap()
    }

    fn at(steady: Instant, seconds: u64) -> Times {
        Times {
            steady: steady + Duration::from_secs(seconds),
            unix_ms: 1_000_000 + seconds * 1_000,
        }
    }

    fn kept(begun: Instant) -> Kept {
        let trial = v1::Trial {
            id: 7,
            left_ms: 60_000,
        };
        Kept::begin(trial, 8, state(5), at(begun, 0))
    }

    #[test]
    fn it_is_over_at_its_end_also_for_the_next_agent() {
        let begun = Instant::now();
        let kept = kept(begun);
        assert!(!kept.is_over(at(begun, 59)));
        assert!(kept.is_over(at(begun, 60)));
        let next = Kept::restore(&kept.octets(), 8, at(begun, 40)).unwrap();
        assert_eq!(next.before, state(5));
        assert!(!next.is_over(at(begun, 59)));
        assert!(next.is_over(at(begun, 60)));
        assert!(
            Kept::restore(&kept.octets(), 5, at(begun, 90))
                .unwrap()
                .is_over(at(begun, 90))
        );
    }

    #[test]
    fn a_later_state_has_ended_it() {
        let begun = Instant::now();
        assert!(Kept::restore(&kept(begun).octets(), 9, at(begun, 1)).is_none());
    }

    #[test]
    fn a_calendar_that_was_set_back_does_not_lengthen_it() {
        let begun = Instant::now();
        let set_back = Times {
            steady: begun,
            unix_ms: 0,
        };
        let next = Kept::restore(&kept(begun).octets(), 8, set_back).unwrap();
        assert!(next.is_over(at(begun, 60)));
    }
}
