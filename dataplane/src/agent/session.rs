//! The stream to the controller, for ever.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kuafu_proto::client::{self, connect};
use kuafu_proto::renew::{self, Validity};
use kuafu_proto::v1::agent_message::Message;
use kuafu_proto::v1::agents_client::AgentsClient;
use kuafu_proto::v1::controller_message::Message as Said;
use kuafu_proto::{Identity, Places, v1};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::error::Error;
use super::handle::{Change, Greeting, Handle};
use super::store::read_line;
use crate::noise::noise;

/// A snapshot of a host that serves large VPCs.
const LARGEST_MESSAGE: usize = 64 << 20;
/// Messages that may wait for the network.
const OUTGOING: usize = 64;
/// The first pause before the controller is dialled again, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the host's certificate is looked at: it lasts weeks.
const LOOK: Duration = Duration::from_secs(3_600);
/// How often the controller is told that this host lives: it takes three times as long a silence for death.
const ALIVE: Duration = Duration::from_millis(200);
/// A session that lasted so long begins the pauses anew.
const STEADY: Duration = Duration::from_secs(10);

/// Whom to dial.
pub(super) struct Member {
    pub(super) places: Places,
    /// `host:port`.
    pub(super) controller: String,
}

/// Why a session ended.
enum End {
    /// It may be tried again.
    Lost(String),
    /// The host's thread is gone.
    Fatal(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// Keeps a session with the controller.
///
/// # Errors
/// `Stopped` where the host's thread is gone. Nothing else ends it.
pub(super) async fn keep(host: Handle, member: Member) -> Result<(), Error> {
    let mut pauses = Pauses::default();
    let mut said = String::new();
    loop {
        let begun = Instant::now();
        let reason = match session(&host, &member).await {
            End::Lost(reason) => reason,
            End::Fatal(error) => return Err(error),
        };
        if begun.elapsed() > STEADY {
            pauses = Pauses::default();
            said.clear();
        }
        if reason != said {
            tracing::warn!(
                controller = member.controller,
                reason,
                "no session with the controller"
            );
            said = reason;
        }
        tokio::time::sleep(pauses.next(noise())).await;
    }
}

/// Ever longer pauses, so that a controller that comes back is not overrun.
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSE)
    }
}

impl Pauses {
    /// Between half of the pause and all of it; `noise` is from 0 to 1.
    fn next(&mut self, noise: f64) -> Duration {
        let pause = self.0.mul_f64(0.5 + noise / 2.0);
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// One session, from the dialling to its end.
async fn session(host: &Handle, member: &Member) -> End {
    let session = match begin(host, member).await {
        Ok(session) => session,
        Err(end) => return end,
    };
    host.connected(true);
    let alive = say_alive(session.to_controller.clone(), host.clone());
    // Also while a state is brought into force, which may take longer than silence is taken for life.
    let end = tokio::select! {
        end = session.run() => end,
        () = alive => End::Lost("closed by the controller".to_owned()),
    };
    host.connected(false);
    end
}

/// Says again and again that this host lives, while it may hold an address and the stream takes it.
async fn say_alive(to_controller: mpsc::Sender<v1::AgentMessage>, host: Handle) {
    let mut due = tokio::time::interval(ALIVE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if !host.may_hold.load(Ordering::Relaxed) {
            continue;
        }
        match to_controller.try_send(message(Message::Alive(v1::Alive {}))) {
            // What waits says it as well, once it leaves.
            Ok(()) | Err(TrySendError::Full(_)) => {}
            Err(TrySendError::Closed(_)) => return,
        }
    }
}

struct Session {
    host: Handle,
    to_controller: mpsc::Sender<v1::AgentMessage>,
    messages: Streaming<v1::ControllerMessage>,
    greeting: Greeting,
    channel: Channel,
    places: Places,
}

async fn begin(host: &Handle, member: &Member) -> Result<Session, End> {
    let lost = |error: &dyn std::fmt::Display| End::Lost(error.to_string());
    let identity = Identity::load(&member.places.identity()).map_err(|error| lost(&error))?;
    let channel = connect(&member.controller, &identity)
        .await
        .map_err(|error| lost(&error))?;
    let mut greeting = host.greet().await?;
    let (to_controller, outgoing) = mpsc::channel(OUTGOING);
    let hello = std::mem::take(&mut greeting.hello);
    let _ = to_controller.send(message(Message::Hello(hello))).await;
    let mut agents = AgentsClient::new(channel.clone())
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let opened = agents.session(ReceiverStream::new(outgoing)).await;
    let messages = opened.map_err(|status| End::Lost(refusal(&member.controller, &status)))?;
    tracing::info!(controller = member.controller, "connected to the controller");
    Ok(Session {
        host: host.clone(),
        to_controller,
        messages: messages.into_inner(),
        greeting,
        channel,
        places: member.places.clone(),
    })
}

/// A status in words; what TLS says goes first.
fn refusal(controller: &str, status: &tonic::Status) -> String {
    match client::explain(controller, status) {
        Some(error) => error.to_string(),
        None => status.message().to_owned(),
    }
}

impl Session {
    async fn run(mut self) -> End {
        for news in std::mem::take(&mut self.greeting.news) {
            if let Err(end) = self.say(news).await {
                return end;
            }
        }
        // The first look is at once: a host may have been off for weeks.
        let mut look = tokio::time::interval(LOOK);
        loop {
            let step = tokio::select! {
                _ = look.tick() => {
                    self.renew().await;
                    Ok(())
                }
                said = self.messages.message() => self.heard(said).await,
                event = self.greeting.events.recv() => self.happened(event).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn heard(&mut self, said: Result<Option<v1::ControllerMessage>, tonic::Status>) -> Result<(), End> {
        let said = match said {
            Ok(Some(said)) => said,
            Ok(None) => return Err(End::Lost("closed by the controller".to_owned())),
            Err(status) => return Err(End::Lost(status.message().to_owned())),
        };
        let trial = said.trial;
        let answer = match said.message {
            Some(Said::Snapshot(state)) => self.host.change(Change::Snapshot(state), trial).await?,
            Some(Said::Delta(delta)) => self.host.change(Change::Delta(delta), trial).await?,
            Some(Said::Query(query)) => Message::Answer(self.host.ask(query).await?),
            None => return Ok(()),
        };
        self.say(answer).await
    }

    /// Has the host's certificate renewed when it is time. What fails is tried again with the next look, of which there
    /// are hundreds before the end.
    async fn renew(&self) {
        if let Err(error) = self.try_renew().await {
            tracing::warn!(error, "this host's certificate is not renewed");
        }
    }

    async fn try_renew(&self) -> Result<(), String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let folder = self.places.identity();
        let identity = Identity::load(&folder).map_err(|error| words(&error))?;
        let validity = Validity::of(&identity.certificate_pem).map_err(|error| words(&error))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if !validity.is_due(now.as_secs()) {
            return Ok(());
        }
        let node = read_line(&self.places.node()).map_err(|error| words(&error))?;
        let node = node.ok_or("it is no member any more")?;
        let renewed = renew::renew(self.channel.clone(), &node, &identity).await;
        let renewed = renewed.map_err(|error| words(&error))?;
        renewed.save(&folder).map_err(|error| words(&error))?;
        tracing::info!("this host's certificate is renewed");
        Ok(())
    }

    async fn happened(&self, event: Result<Message, RecvError>) -> Result<(), End> {
        match event {
            Ok(event) => self.say(event).await,
            // Alarms that stand are said anew with the next session.
            Err(RecvError::Lagged(_)) => Err(End::Lost("the controller does not keep up".to_owned())),
            Err(RecvError::Closed) => Err(End::Fatal(Error::Stopped("it says nothing more"))),
        }
    }

    async fn say(&self, said: Message) -> Result<(), End> {
        let sent = self.to_controller.send(message(said)).await;
        sent.map_err(|_| End::Lost("closed by the controller".to_owned()))
    }
}

const fn message(message: Message) -> v1::AgentMessage {
    v1::AgentMessage {
        message: Some(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_two_seconds_and_differ() {
        let mut pauses = Pauses::default();
        let whole: Vec<u128> = (0..7).map(|_| pauses.next(1.0).as_millis()).collect();
        assert_eq!(whole, [200, 400, 800, 1600, 2000, 2000, 2000]);
        assert_eq!(pauses.next(0.0), Duration::from_millis(1000));
    }
}
