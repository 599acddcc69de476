//! What other tasks say to the host's thread.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kuafu_proto::v1;
use kuafu_proto::v1::agent_message::Message;
use tokio::sync::{broadcast, oneshot};

use super::error::Error;
use crate::health::Verdict;

/// What the host's thread is asked. Each has where its answer goes.
pub(super) enum Request {
    /// Bring a state into force, on trial or to stay, and say whether it is.
    Change(Box<Change>, Option<v1::Trial>, oneshot::Sender<Message>),
    /// Answer a question.
    Ask(v1::Query, oneshot::Sender<v1::QueryAnswer>),
    /// What a session begins with.
    Greet(oneshot::Sender<Greeting>),
    /// A server is not what it was.
    Verdict(Verdict),
    /// The controller is connected, or not any more.
    Connected(bool),
    /// All metrics, as Prometheus reads them.
    Metrics(oneshot::Sender<String>),
}

/// What a controller sends.
pub(super) enum Change {
    /// The whole state.
    Snapshot(v1::HostState),
    /// What changes the state in force.
    Delta(v1::StateDelta),
}

/// What a session begins with.
pub(super) struct Greeting {
    pub(super) hello: v1::Hello,
    /// Whether paths are watched, and the alarms that stand.
    pub(super) news: Vec<Message>,
    /// What happens from now on.
    pub(super) events: broadcast::Receiver<Message>,
}

/// The way to the host's thread.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) requests: std::sync::mpsc::Sender<Request>,
    /// Whether this host may hold an address, so that the controller must hear that it lives.
    pub(super) may_hold: Arc<AtomicBool>,
}

impl Handle {
    pub(super) async fn change(&self, change: Change, trial: Option<v1::Trial>) -> Result<Message, Error> {
        self.ask_for(|reply| Request::Change(Box::new(change), trial, reply))
            .await
    }

    pub(super) async fn ask(&self, query: v1::Query) -> Result<v1::QueryAnswer, Error> {
        self.ask_for(|reply| Request::Ask(query, reply)).await
    }

    pub(super) async fn greet(&self) -> Result<Greeting, Error> {
        self.ask_for(Request::Greet).await
    }

    pub(super) async fn metrics(&self) -> Result<String, Error> {
        self.ask_for(Request::Metrics).await
    }

    /// Says that a server is not what it was. Once the host's thread is gone nobody needs to know.
    pub(super) fn tell(&self, verdict: Verdict) {
        let _ = self.requests.send(Request::Verdict(verdict));
    }

    /// Says whether the controller is connected.
    pub(super) fn connected(&self, is_so: bool) {
        let _ = self.requests.send(Request::Connected(is_so));
    }

    async fn ask_for<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Stopped("it takes no more requests");
        self.requests.send(request(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}
