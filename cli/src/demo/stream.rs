//! Numbered UDP datagrams from a player to a server that echoes them, and what became of each.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kuafu_lab::world::Site;

/// Octets of a datagram's payload: a game's update.
const PAYLOAD: usize = 64;
/// How long a thread sleeps in `recv` before it looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long an echo is waited for after the last datagram.
const STRAGGLERS: Duration = Duration::from_millis(1_200);

/// An echo and how long it took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// When the datagram left.
    pub(super) sent: Instant,
    /// From leaving to the echo's arrival.
    pub(super) round_trip: Duration,
}

/// A server that sends every datagram back, with a number of its own. It knows nothing of Kuafu.
#[derive(Debug)]
pub(super) struct Echo {
    received: Arc<Mutex<HashMap<u32, Vec<u32>>>>,
    thread: Worker,
}

/// A thread that ends when this is dropped.
#[derive(Debug)]
struct Worker {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(name: &str, work: impl FnOnce(&AtomicBool) + Send + 'static) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&ended);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || work(&shared))?;
        Ok(Self {
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket of a site; it stays there whoever uses it.
fn socket(site: &Site, port: u16) -> Result<UdpSocket> {
    let bind = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok::<_, io::Error>(socket)
    };
    let bound = site.namespace()?.run(bind)?;
    bound.with_context(|| format!("bind UDP port {port} in {}", site.name()))
}

fn word(datagram: &[u8], at: usize) -> Option<u32> {
    let octets = datagram.get(at..at + 4)?;
    octets.try_into().ok().map(u32::from_be_bytes)
}

fn put(datagram: &mut [u8], at: usize, value: u32) {
    if let Some(octets) = datagram.get_mut(at..at + 4) {
        octets.copy_from_slice(&value.to_be_bytes());
    }
}

impl Echo {
    /// Starts the server at `site`.
    pub(super) fn serve(site: &Site, port: u16) -> Result<Self> {
        let socket = socket(site, port)?;
        let received = Arc::new(Mutex::new(HashMap::new()));
        let shared = Arc::clone(&received);
        let thread = Worker::start("echo", move |ended| echo(&socket, &shared, ended))?;
        Ok(Self { received, thread })
    }

    /// The numbers that came of a stream, as they came.
    pub(super) fn received(&self, stream: u32) -> Vec<u32> {
        debug_assert!(self.thread.thread.is_some());
        locked(&self.received).get(&stream).cloned().unwrap_or_default()
    }
}

fn echo(socket: &UdpSocket, received: &Mutex<HashMap<u32, Vec<u32>>>, ended: &AtomicBool) {
    let mut datagram = [0; 2_048];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        let (Some(stream), Some(number)) = (word(&datagram[..length], 0), word(&datagram[..length], 4))
        else {
            continue;
        };
        let mut all = locked(received);
        let numbers = all.entry(stream).or_default();
        put(
            &mut datagram[..length],
            8,
            u32::try_from(numbers.len()).unwrap_or(u32::MAX),
        );
        numbers.push(number);
        drop(all);
        // What cannot be sent is missed by the player, as everywhere.
        let _ = socket.send_to(&datagram[..length], from);
    }
}

/// A player's datagrams under way.
#[derive(Debug)]
pub(super) struct Stream {
    id: u32,
    log: Arc<Mutex<Log>>,
    sender: Worker,
    receiver: Worker,
}

/// What became of a player's datagrams so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// When each number left.
    pub(super) sent: Vec<Instant>,
    /// The echoes, in the order of their arrival.
    pub(super) samples: Vec<Sample>,
    /// The server's numbers that came, each with its arrival.
    pub(super) answers: Vec<(u32, Instant)>,
}

impl Stream {
    /// Sends `rate` datagrams a second from `site` to `to` until it is ended.
    pub(super) fn start(id: u32, site: &Site, to: SocketAddrV4, rate: u32) -> Result<Self> {
        let socket = Arc::new(socket(site, 0)?);
        socket
            .connect(to)
            .with_context(|| format!("{} to {to}", site.name()))?;
        let log = Arc::new(Mutex::new(Log::default()));
        let (inbox, shared) = (Arc::clone(&socket), Arc::clone(&log));
        let receiver = Worker::start("player-in", move |ended| receive(&inbox, id, &shared, ended))?;
        let shared = Arc::clone(&log);
        let sender = Worker::start("player-out", move |ended| {
            send(&socket, (id, rate), &shared, ended)
        })?;
        Ok(Self {
            id,
            log,
            sender,
            receiver,
        })
    }

    /// Its number, under which the server keeps what came.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    /// Whether an echo has come yet.
    pub(super) fn is_answered(&self) -> bool {
        !locked(&self.log).samples.is_empty()
    }

    /// The median round trip of the datagrams that left in the last while.
    pub(super) fn median_of_last(&self, while_: Duration) -> Option<Duration> {
        let log = locked(&self.log);
        let recent = log
            .samples
            .iter()
            .rev()
            .take_while(|sample| sample.sent.elapsed() < while_);
        let mut trips: Vec<Duration> = recent.map(|sample| sample.round_trip).collect();
        trips.sort_unstable();
        trips.get(trips.len() / 2).copied()
    }

    /// Stops sending, waits for stragglers, and says what became of the datagrams.
    pub(super) fn end(self) -> Log {
        drop(self.sender);
        thread::sleep(STRAGGLERS);
        drop(self.receiver);
        std::mem::take(&mut locked(&self.log))
    }
}

fn send(socket: &UdpSocket, (id, rate): (u32, u32), log: &Mutex<Log>, ended: &AtomicBool) {
    let start = Instant::now();
    let mut datagram = [0; PAYLOAD];
    put(&mut datagram, 0, id);
    for number in 0_u32.. {
        let due = start + Duration::from_secs(1) * number / rate.max(1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if ended.load(Ordering::Relaxed) {
            return;
        }
        put(&mut datagram, 4, number);
        locked(log).sent.push(Instant::now());
        // An ICMP error of an earlier datagram is reported here; that one is counted as missing.
        let _ = socket.send(&datagram);
    }
}

fn receive(socket: &UdpSocket, id: u32, log: &Mutex<Log>, ended: &AtomicBool) {
    let mut datagram = [0; 2_048];
    while !ended.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut datagram) else {
            continue;
        };
        let (now, datagram) = (Instant::now(), &datagram[..length]);
        let (Some(number), Some(answer)) = (word(datagram, 4), word(datagram, 8)) else {
            continue;
        };
        let mut log = locked(log);
        let Some(&sent) = log.sent.get(number as usize) else {
            continue;
        };
        if word(datagram, 0) == Some(id) {
            log.samples.push(Sample {
                sent,
                round_trip: now - sent,
            });
            log.answers.push((answer, now));
        }
    }
}

/// The numbers below `count` that are not among `seen`.
pub(super) fn missing(count: usize, seen: impl IntoIterator<Item = u32>) -> usize {
    let mut came = vec![false; count];
    for number in seen {
        if let Some(entry) = came.get_mut(number as usize) {
            *entry = true;
        }
    }
    came.iter().filter(|came| !**came).count()
}

/// The value below which `share` of the durations lie.
pub(super) fn quantile(durations: &mut [Duration], share: f64) -> Option<Duration> {
    durations.sort_unstable();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a length is an index"
    )]
    let at = (durations.len() as f64 * share) as usize;
    durations.get(at.min(durations.len().checked_sub(1)?)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_come_is_missing_once() {
        assert_eq!(missing(5, [0, 1, 3, 3, 9]), 2);
        assert_eq!(missing(0, []), 0);
    }

    #[test]
    fn quantiles_are_taken_from_what_is_there() {
        let mut trips: Vec<Duration> = (1..=10).map(Duration::from_millis).collect();
        assert_eq!(quantile(&mut trips, 0.5), Some(Duration::from_millis(6)));
        assert_eq!(quantile(&mut trips, 1.0), Some(Duration::from_millis(10)));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
