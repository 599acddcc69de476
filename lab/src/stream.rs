//! Numbered UDP streams: what a player's packets go through, counted per direction.
//!
//! A [`Stream`] sends numbered packets at a fixed rate to an [`Echo`], which sends each back with a number
//! of its own, or numbers of its own by the clock ([`Answers`]). Neither knows of anything between them. A gap is a run of missing numbers, and its length in
//! time is their count divided by the rate.

mod echo;
mod trace;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_timerslack;

use crate::error::{Error, Result};
use crate::netns::Namespace;
pub use echo::Echo;
pub use trace::{Gap, Reply, Trace, gaps};

/// Marks the packets of streams.
const MAGIC: u32 = u32::from_be_bytes(*b"kfst");
/// Magic, stream, number and the echo's number.
pub(crate) const HEADER: usize = 24;
pub(crate) const LARGEST: usize = 65_507;
/// After this much silence a stream has ended.
pub const SILENCE: Duration = Duration::from_secs(3);
/// How long a socket waits before it looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);

/// What a stream is like.
#[derive(Debug, Clone, Copy)]
pub struct StreamConfig {
    /// Where its packets go.
    pub to: SocketAddr,
    /// Its number, by which the echo tells streams apart, whatever addresses they arrive with.
    pub id: u32,
    /// Packets per second.
    pub rate: u32,
    /// UDP payload in bytes; at least 24 are sent.
    pub bytes: usize,
    /// What the echo sends.
    pub answers: Answers,
}

/// What an echo sends to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Each packet back. Where nothing arrives nothing goes back: the way back is measured only by what made
    /// the way there.
    Each,
    /// From the first packet on its own numbers at the stream's rate, whatever arrives, until the stream has
    /// been silent for [`SILENCE`]. A number that several answers carry was the last to arrive.
    ByClock,
}

/// A running stream. Dropping it ends it.
#[derive(Debug)]
pub struct Stream {
    start: Instant,
    local: SocketAddr,
    trace: Arc<Mutex<Trace>>,
    sending: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stream {
    /// Starts it in `namespace`, from a port that the kernel chooses.
    ///
    /// # Errors
    /// No socket or no thread; no route to the address.
    pub fn start(namespace: &Namespace, config: StreamConfig) -> Result<Self> {
        let open = || {
            let any = SocketAddr::from(([0, 0, 0, 0], 0));
            let socket = UdpSocket::bind(any)?;
            socket.connect(config.to)?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok((socket.try_clone()?, socket.local_addr()?, socket))
        };
        let opened: io::Result<_> = namespace.run(open)?;
        let (sender, local, receiver) =
            opened.map_err(Error::io(format!("open a stream to {}", config.to)))?;
        let start = Instant::now();
        let mut stream = Self {
            start,
            local,
            trace: Arc::new(Mutex::new(Trace::new(config.rate))),
            sending: Arc::new(AtomicBool::new(true)),
            ended: Arc::default(),
            threads: Vec::new(),
        };
        let (trace, sending) = (Arc::clone(&stream.trace), Arc::clone(&stream.sending));
        stream.thread("stream-send", move || {
            send(&sender, &config, start, &trace, &sending)
        })?;
        let (trace, ended) = (Arc::clone(&stream.trace), Arc::clone(&stream.ended));
        stream.thread("stream-recv", move || {
            receive(&receiver, config.id, start, &trace, &ended)
        })?;
        Ok(stream)
    }

    /// When it began: the zero of its trace's times.
    pub fn start_time(&self) -> Instant {
        self.start
    }

    /// Where it sends from.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What happened so far.
    pub fn trace(&self) -> Trace {
        locked(&self.trace).clone()
    }

    /// Stops sending, waits for what is still under way, and returns all that happened.
    pub fn finish(self, under_way: Duration) -> Trace {
        self.sending.store(false, Ordering::Relaxed);
        thread::sleep(under_way);
        self.trace()
    }

    fn thread(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = thread::Builder::new().name(name.into()).spawn(work);
        self.threads
            .push(thread.map_err(Error::io(format!("start {name}")))?);
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.sending.store(false, Ordering::Relaxed);
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn send(
    socket: &UdpSocket,
    config: &StreamConfig,
    start: Instant,
    trace: &Mutex<Trace>,
    sending: &AtomicBool,
) {
    let mut packet = vec![0; config.bytes.clamp(HEADER, LARGEST)];
    by_clock(start, config.rate, |number| {
        if !sending.load(Ordering::Relaxed) {
            return false;
        }
        let header = Header::of(config, number);
        header.write(&mut packet);
        locked(trace).sent(start.elapsed());
        // What the kernel refuses (no route for a moment) is a packet lost, as for any program.
        let _ = socket.send(&packet);
        true
    });
}

/// Calls `each` with 0, 1, … each `1 / rate` s by the clock while it says so: one that is late does not delay
/// those after it.
fn by_clock(start: Instant, rate: u32, mut each: impl FnMut(u64) -> bool) {
    // With its default slack a sleep of 1 ms is late by 5 %.
    let _ = set_timerslack(1);
    for number in 0.. {
        let due = start + Duration::from_secs(1) * number / rate.max(1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if !each(number.into()) {
            return;
        }
    }
}

fn receive(socket: &UdpSocket, id: u32, start: Instant, trace: &Mutex<Trace>, ended: &AtomicBool) {
    let mut packet = vec![0; LARGEST];
    while !ended.load(Ordering::Relaxed) {
        // An error is a time-out, or an ICMP error about an earlier packet.
        let Ok(length) = socket.recv(&mut packet) else {
            continue;
        };
        let now = start.elapsed();
        if let Some(header) = Header::read(&packet[..length]).filter(|header| header.stream == id) {
            locked(trace).replied(header.number, header.reply, now);
        }
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a packet of a stream begins with, in network order: magic and stream (u32 each), the sender's and
/// the echo's number (u64 each). On the way there the latter is the rate of answers by the clock, or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) stream: u32,
    pub(crate) number: u64,
    pub(crate) reply: u64,
}

impl Header {
    /// Of a stream's packet with this number.
    pub(crate) fn of(config: &StreamConfig, number: u64) -> Self {
        Self {
            stream: config.id,
            number,
            reply: match config.answers {
                Answers::Each => 0,
                Answers::ByClock => config.rate.into(),
            },
        }
    }

    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<HEADER>()?;
        let word = |at: usize| {
            header[at..at + 8]
                .iter()
                .fold(0, |word: u64, &byte| word << 8 | u64::from(byte))
        };
        let stream = u32::try_from(word(0) & u64::from(u32::MAX)).ok()?;
        (word(0) >> 32 == u64::from(MAGIC)).then(|| Self {
            stream,
            number: word(8),
            reply: word(16),
        })
    }

    pub(crate) fn write(self, packet: &mut [u8]) {
        packet[..4].copy_from_slice(&MAGIC.to_be_bytes());
        packet[4..8].copy_from_slice(&self.stream.to_be_bytes());
        packet[8..16].copy_from_slice(&self.number.to_be_bytes());
        packet[16..24].copy_from_slice(&self.reply.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            stream: 7,
            number: 1 << 40,
            reply: 3,
        };
        let mut packet = [0; 30];
        assert_eq!(Header::read(&packet), None);
        header.write(&mut packet);
        assert_eq!(Header::read(&packet), Some(header));
        assert_eq!(Header::read(&packet[..HEADER - 1]), None);
    }
}
