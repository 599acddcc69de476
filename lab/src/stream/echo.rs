//! The server's side: sends each packet back with a number of its own.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::{Header, LARGEST, LOOK, locked};
use crate::error::{Error, Result};
use crate::netns::Namespace;

/// What arrived of one stream.
#[derive(Debug, Default, Clone)]
struct Arrived {
    numbers: Vec<u64>,
    from: Option<SocketAddr>,
}

/// A running echo. It answers the sender of each packet of a stream with the packet, in which it writes how
/// many of that stream it answered before. Dropping it ends it.
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
        let work = move || answer(&socket, &into, &end);
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
        locked(&self.streams).get(&id)?.from
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

fn answer(socket: &UdpSocket, streams: &Mutex<HashMap<u32, Arrived>>, ended: &AtomicBool) {
    let mut packet = vec![0; LARGEST];
    while !ended.load(Ordering::Relaxed) {
        // An error is a time-out, or an ICMP error about an earlier answer.
        let Ok((length, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        let Some(mut header) = Header::read(&packet[..length]) else {
            continue;
        };
        let mut streams = locked(streams);
        let arrived = streams.entry(header.stream).or_default();
        header.reply = arrived.numbers.len() as u64;
        arrived.numbers.push(header.number);
        arrived.from = Some(from);
        drop(streams);
        header.write(&mut packet);
        // An answer that the kernel refuses is one lost.
        let _ = socket.send_to(&packet[..length], from);
    }
}
