//! Carries out the core's commands, and takes questions to agents.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kuafu_model::kinds::Name;
use kuafu_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use crate::authority::Authority;
use crate::backup::Backup;
use crate::core::{Command, Core, Now, SessionId, SessionRefusal, UnixMs, UnixSeconds};
use crate::store::{Store, StoreError};

/// An agent that does not answer within this is said not to.
const ANSWER: Duration = Duration::from_secs(5);
/// A recording is begun anew beyond this; the one before is kept.
const RECORDING_BYTES: u64 = 64 << 20;

type ToAgent = mpsc::UnboundedSender<Result<v1::ControllerMessage, Status>>;

/// The core, its store and the agents' streams.
pub(super) struct Shell {
    pub(super) authority: Authority,
    inner: Mutex<Inner>,
    questions: Mutex<Questions>,
    began: Instant,
    /// The layout of maps that this program knows, which the controller itself has no use for.
    pub(super) layout: u32,
    /// Set where the controller cannot go on.
    pub(super) failed: watch::Sender<Option<String>>,
}

struct Inner {
    core: Core,
    /// `None`: closed.
    store: Option<Box<dyn Store>>,
    streams: HashMap<SessionId, ToAgent>,
    last_session: u64,
    recording: Recording,
}

#[derive(Default)]
struct Questions {
    last: u64,
    open: HashMap<u64, (SessionId, oneshot::Sender<v1::QueryAnswer>)>,
}

/// The file that path choice's inputs are appended to, a line each.
pub(super) struct Recording {
    pub(super) path: std::path::PathBuf,
    pub(super) file: Option<File>,
    /// Bytes beyond which it is begun anew.
    pub(super) limit: u64,
}

impl Recording {
    fn append(&mut self, line: &str) {
        if let Err(error) = self.try_append(line) {
            self.file = None;
            tracing::warn!(path = %self.path.display(), %error, "the recording cannot be written");
        }
    }

    fn try_append(&mut self, line: &str) -> std::io::Result<()> {
        let full = self
            .file
            .as_ref()
            .is_some_and(|file| file.metadata().is_ok_and(|metadata| metadata.len() > self.limit));
        if full {
            self.file = None;
            std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
        if self.file.is_none() {
            let mut options = File::options();
            self.file = Some(options.append(true).create(true).open(&self.path)?);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(format!("{line}\n").as_bytes())
    }
}

impl Shell {
    pub(super) fn new(
        core: Core,
        store: Box<dyn Store>,
        authority: Authority,
        recording: std::path::PathBuf,
        layout: u32,
    ) -> Self {
        let recording = Recording {
            path: recording,
            file: None,
            limit: RECORDING_BYTES,
        };
        Self {
            authority,
            inner: Mutex::new(Inner {
                core,
                store: Some(store),
                streams: HashMap::new(),
                last_session: 0,
                recording,
            }),
            questions: Mutex::default(),
            began: Instant::now(),
            layout,
            failed: watch::channel(None).0,
        }
    }

    pub(super) fn now(&self) -> Now {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Asks the core something.
    pub(super) fn view<T>(&self, view: impl FnOnce(&Core, Now) -> T) -> T {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        view(&inner.core, self.now())
    }

    /// Asks the core something that it needs of the store's entries whose keys begin so.
    pub(super) fn view_of<T>(
        &self,
        prefix: &str,
        view: impl FnOnce(&Core, Now, &[Vec<u8>]) -> T,
    ) -> Result<T, StoreError> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = inner.store.as_ref().map(|store| store.list(prefix)).transpose()?;
        let entries = entries.unwrap_or_default().into_iter();
        let values: Vec<Vec<u8>> = entries.map(|(_, entry)| entry.value).collect();
        Ok(view(&inner.core, self.now(), &values))
    }

    /// Lets the core handle something and carries out what it commands. The lock is held meanwhile: what is sent
    /// keeps the order of what was decided, and a commit of some milliseconds is not worth a queue.
    #[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
    pub(super) fn drive<T>(
        &self,
        handle: impl FnOnce(&mut Core, Now) -> (T, Vec<Command>),
    ) -> Result<T, Status> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failed.borrow().is_some() {
            return Err(Status::unavailable(
                "the controller is stopping: its store failed",
            ));
        }
        if inner.store.is_none() {
            return Err(stopping());
        }
        let now = self.now();
        inner.core.tell_time(now, unix_ms());
        let (answer, commands) = handle(&mut inner.core, now);
        if let Err(error) = inner.carry_out(now, commands) {
            tracing::error!(%error, "the store failed; stopping");
            self.failed.send_replace(Some(error.to_string()));
            return Err(Status::internal(format!("the store failed: {error}")));
        }
        Ok(answer)
    }

    /// Everything in the store, as of one moment.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn backup(&self) -> Result<Backup, StoreError> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &inner.store {
            Some(store) => Backup::of(store.as_ref(), unix_seconds()),
            None => Err(StoreError::Closed),
        }
    }

    /// Ends agents' streams and closes the store, so that the next controller can open it. Nothing is decided any
    /// more.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.store = None;
        for (_, stream) in inner.streams.drain() {
            let _ = stream.send(Err(stopping()));
        }
        drop(inner);
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.open.clear();
    }

    /// A new stream: its id, and what is to be sent on it.
    pub(super) fn open_stream(
        &self,
    ) -> (
        SessionId,
        mpsc::UnboundedReceiver<Result<v1::ControllerMessage, Status>>,
    ) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.last_session += 1;
        let session = SessionId(inner.last_session);
        let (sender, receiver) = mpsc::unbounded_channel();
        inner.streams.insert(session, sender);
        (session, receiver)
    }

    pub(super) fn close_stream(&self, session: SessionId) {
        {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.streams.remove(&session);
            let now = self.now();
            inner.core.handle_disconnected(now, session);
        }
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.open.retain(|_, (asked, _)| *asked != session);
    }

    /// An agent's answer to a question of ours. One that came too late is dropped, and so is another agent's.
    pub(super) fn answered(&self, session: SessionId, answer: v1::QueryAnswer) {
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        if questions
            .open
            .get(&answer.id)
            .is_some_and(|(asked, _)| *asked == session)
            && let Some((_, waits)) = questions.open.remove(&answer.id)
        {
            // Who asked may have gone.
            let _ = waits.send(answer);
        }
    }

    /// Asks a node's agent.
    ///
    /// # Errors
    /// In words: it is not connected, does not answer, or cannot.
    pub(super) async fn ask(
        &self,
        node: &Name,
        ask: v1::query::Ask,
    ) -> Result<v1::query_answer::Answer, String> {
        let (id, answer) = self.pose(node, ask)?;
        let answer = tokio::time::timeout(ANSWER, answer).await;
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.open.remove(&id);
        drop(questions);
        match answer {
            Ok(Ok(v1::QueryAnswer {
                answer: Some(v1::query_answer::Answer::Error(error)),
                ..
            })) => Err(error),
            Ok(Ok(v1::QueryAnswer {
                answer: Some(answer), ..
            })) => Ok(answer),
            Ok(Ok(_)) => Err("the agent's answer is empty".to_owned()),
            Ok(Err(_)) => Err("the agent's stream ended before it answered".to_owned()),
            Err(_) => Err(format!("the agent did not answer within {} s", ANSWER.as_secs())),
        }
    }

    fn pose(
        &self,
        node: &Name,
        ask: v1::query::Ask,
    ) -> Result<(u64, oneshot::Receiver<v1::QueryAnswer>), String> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let session = inner.core.session(node);
        let stream = session.and_then(|session| Some((session, inner.streams.get(&session)?)));
        let (session, stream) = stream.ok_or_else(|| format!("node/{node}'s agent is not connected"))?;
        let (sender, receiver) = oneshot::channel();
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions.last += 1;
        let id = questions.last;
        questions.open.insert(id, (session, sender));
        let query = v1::Query { id, ask: Some(ask) };
        let message = v1::controller_message::Message::Query(query);
        // A stream that has just ended takes the question with it.
        let _ = stream.send(Ok(to_agent(message)));
        Ok((id, receiver))
    }
}

impl Inner {
    /// States that are sent while a change is on trial are marked so.
    fn carry_out(&mut self, now: Now, commands: Vec<Command>) -> Result<(), StoreError> {
        use v1::controller_message::Message;
        let trial = self.core.trial(now).map(|trial| v1::Trial {
            id: trial.revision,
            left_ms: trial.agents_left_ms,
        });
        for command in commands {
            match command {
                Command::Commit(writes) => {
                    if let Some(store) = &mut self.store {
                        store.commit(&writes)?;
                    }
                }
                Command::Snapshot(session, state) => {
                    metrics::counter!("kuafu_controller_snapshots_total").increment(1);
                    self.send(session, Message::Snapshot((&state).into()), trial);
                }
                Command::Delta(session, delta) => {
                    metrics::counter!("kuafu_controller_deltas_total").increment(1);
                    self.send(session, Message::Delta((&delta).into()), trial);
                }
                Command::Close(session, refusal) => {
                    if let Some(stream) = self.streams.remove(&session) {
                        let _ = stream.send(Err(refused(&refusal)));
                    }
                }
                Command::Record(line) => self.recording.append(&line),
            }
        }
        Ok(())
    }

    /// A stream that has ended is closed by its reader, which tells the core.
    fn send(&self, session: SessionId, message: v1::controller_message::Message, trial: Option<v1::Trial>) {
        if let Some(stream) = self.streams.get(&session) {
            let message = v1::ControllerMessage {
                trial,
                ..to_agent(message)
            };
            let _ = stream.send(Ok(message));
        }
    }
}

const fn to_agent(message: v1::controller_message::Message) -> v1::ControllerMessage {
    v1::ControllerMessage {
        message: Some(message),
        trial: None,
    }
}

/// The calendar's time in ms.
fn unix_ms() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The calendar's time. Before 1970 no token is made that lasts.
pub(super) fn unix_seconds() -> UnixSeconds {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn stopping() -> Status {
    Status::unavailable("the controller is stopping")
}

/// A refusal as an agent reads it.
pub(super) fn refused(refusal: &SessionRefusal) -> Status {
    match refusal {
        SessionRefusal::Superseded { .. } => Status::aborted(refusal.to_string()),
        _ => Status::permission_denied(refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_of_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("steering.jsonl");
        let mut recording = Recording {
            path: path.clone(),
            file: None,
            limit: 100,
        };
        for line in 0..1000 {
            recording.append(&format!("line {line:04}"));
        }
        let last = std::fs::read_to_string(&path).unwrap();
        assert!(last.ends_with("line 0999\n"), "{last}");
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(files.len(), 2, "this one and the one before");
        for file in files {
            assert!(file.unwrap().metadata().unwrap().len() <= 110);
        }
    }
}
