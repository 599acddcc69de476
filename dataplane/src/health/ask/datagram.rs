//! Questions of one datagram.

use std::pin::Pin;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep};

use super::game::{self, Info};
use super::socket::{self, DATAGRAM};
use super::{Failure, Way};

/// Challenges that are taken up: one is usual, and a question that was sent twice gets two.
const CHALLENGES: usize = 3;

/// Whether the answer to a datagram is a good one.
pub(super) async fn answers(
    way: &Way,
    limit: Duration,
    question: &[u8],
    is_good: impl Fn(&[u8]) -> bool,
    wanted: &'static str,
) -> Result<(), Failure> {
    let mut talk = Talk::begin(way, limit)?;
    let answer = talk.ask(question).await?;
    is_good(answer)
        .then_some(())
        .ok_or_else(|| Failure::answer(wanted, answer))
}

/// `A2S_INFO`: a server may want its challenge back first, so that nobody asks in another's name.
pub(super) async fn info(way: &Way, limit: Duration) -> Result<(), Failure> {
    let mut talk = Talk::begin(way, limit)?;
    let mut question = game::A2S_INFO.to_vec();
    for _ in 0..CHALLENGES {
        question = match talk.info(&question).await? {
            Info::Serves => return Ok(()),
            Info::Challenge(challenge) => [game::A2S_INFO, challenge.as_slice()].concat(),
        };
    }
    talk.info(&question).await.and_then(|info| match info {
        Info::Serves => Ok(()),
        Info::Challenge(challenge) => Err(Failure::answer("A2S_INFO, but one more challenge", &challenge)),
    })
}

struct Talk {
    socket: UdpSocket,
    /// When a question is asked once more: a datagram may be lost.
    halfway: Pin<Box<Sleep>>,
    answer: Vec<u8>,
}

impl Talk {
    fn begin(way: &Way, limit: Duration) -> Result<Self, Failure> {
        Ok(Self {
            socket: socket::udp(way)?,
            halfway: Box::pin(sleep(limit / 2)),
            answer: vec![0; DATAGRAM],
        })
    }

    async fn ask(&mut self, question: &[u8]) -> Result<&[u8], Failure> {
        self.socket.send(question).await?;
        let size = loop {
            tokio::select! {
                size = self.socket.recv(&mut self.answer) => break size?,
                () = &mut self.halfway, if !self.halfway.is_elapsed() => {
                    self.socket.send(question).await?;
                }
            }
        };
        Ok(self.answer.get(..size).unwrap_or_default())
    }

    async fn info(&mut self, question: &[u8]) -> Result<Info, Failure> {
        let answer = self.ask(question).await?;
        game::info(answer).ok_or_else(|| Failure::answer("A2S_INFO", answer))
    }
}
