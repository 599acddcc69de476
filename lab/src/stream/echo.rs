//! The server's side: answers with numbers of its own.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::{Header, LARGEST, LOOK, SILENCE, by_clock, locked};
use crate::error::{Error, Result};
use crate::netns::Namespace;

/// What arrived of one stream.
#[derive(Debug, Default, Clone)]
struct Arrived {
    numbers: Vec<u64>,
    /// Where the last came from, and when.
    last: Option<(SocketAddr, Instant)>,
}

/// A running echo. It answers the sender of each packet of a stream with the packet, in which it writes how
/// many of that stream it answered before; or by the clock, if the stream wants that. Dropping it ends it.
#[derive(Debug)]
pub struct Echo {
    local: SocketAddr,
    streams: Arc<Mutex<HashMap<u32, Arrived>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Starts it in `namespace` at `address`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// The address is not the namespace's, or is taken.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind(address))?;
        let prepared = socket.and_then(|socket| {
            socket.set_read_timeout(Some(LOOK))?;
            Ok((socket.local_addr()?, socket))
        });
        let (local, socket) = prepared.map_err(Error::io(format!("bind an echo to {address}")))?;
        let (streams, ended) = <(Arc<Mutex<HashMap<u32, Arrived>>>, Arc<AtomicBool>)>::default();
        let (into, end) = (Arc::clone(&streams), Arc::clone(&ended));
        let work = move || thread::scope(|scope| answer(scope, &socket, &into, &end));
        let thread = thread::Builder::new().name("echo".into()).spawn(work);
        let thread = Some(thread.map_err(Error::io("start echo"))?);
        Ok(Self {
            local,
            streams,
            ended,
            thread,
        })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The numbers of stream `id` that arrived so far, in the order in which they did.
    pub fn arrived(&self, id: u32) -> Vec<u64> {
        locked(&self.streams)
            .get(&id)
            .map(|arrived| arrived.numbers.clone())
            .unwrap_or_default()
    }

    /// Where the last packet of stream `id` came from: what a server believes its player's address to be.
    pub fn peer(&self, id: u32) -> Option<SocketAddr> {
        Some(locked(&self.streams).get(&id)?.last?.0)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    socket: &'scope UdpSocket,
    streams: &'scope Mutex<HashMap<u32, Arrived>>,
    ended: &'scope AtomicBool,
) {
    let mut packet = vec![0; LARGEST];
    while !ended.load(Ordering::Relaxed) {
        // An error is a time-out, or an ICMP error about an earlier answer.
        let Ok((length, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        let Some(mut header) = Header::read(&packet[..length]) else {
            continue;
        };
        let mut all = locked(streams);
        let arrived = all.entry(header.stream).or_default();
        let before = arrived.numbers.len() as u64;
        arrived.numbers.push(header.number);
        arrived.last = Some((from, Instant::now()));
        drop(all);
        match u32::try_from(header.reply) {
            Ok(0) => {
                header.reply = before;
                header.write(&mut packet);
                // An answer that the kernel refuses is one lost.
                let _ = socket.send_to(&packet[..length], from);
            }
            Ok(rate) if before == 0 => {
                let packet = packet[..length].to_vec();
                scope.spawn(move || speak(socket, header.stream, rate, packet, streams, ended));
            }
            _ => {}
        }
    }
}

/// Answers a stream by the clock.
fn speak(
    socket: &UdpSocket,
    stream: u32,
    rate: u32,
    mut packet: Vec<u8>,
    streams: &Mutex<HashMap<u32, Arrived>>,
    ended: &AtomicBool,
) {
    by_clock(Instant::now(), rate, |reply| {
        let last = locked(streams)
            .get(&stream)
            .and_then(|arrived| arrived.numbers.last().copied().zip(arrived.last));
        let Some((number, (from, at))) = last else {
            return false;
        };
        if ended.load(Ordering::Relaxed) || at.elapsed() > SILENCE {
            return false;
        }
        let header = Header {
            stream,
            number,
            reply,
        };
        header.write(&mut packet);
        let _ = socket.send_to(&packet, from);
        true
    });
}
