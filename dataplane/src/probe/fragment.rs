//! The slow path's end in userland: what the edge hands over is cut, and goes back by `kuafu0`.
//!
//! A thread of its own, behind the probes': a flood of large packets delays none of them. How much it takes is decided
//! by the edge ([`Fragmenter`]), which counts what it does not hand over; only a thread that was not run for long lets
//! packets be lost in its queue, and says so.

use std::mem::offset_of;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kuafu_pipeline::cut::cut;
use kuafu_pipeline::header::{Errand, Ethernet, errand, ethernet};
use kuafu_pipeline::map::Fragmenter;
use kuafu_pipeline::stage::slow_path::MARK;
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::NAP;
use crate::bpf::{Clock, Maps, Words};
use crate::error::{Error, Result};
use crate::host::{OVERLAY_DEVICE, OVERLAY_PORT};
use crate::sys;

/// Packets a second that are taken; at 1,500 octets these are 120 Mb/s.
const RATE: u64 = 10_000;
/// Octets of the queue: what comes in a fifth of a second.
const QUEUE: usize = 4 << 20;
/// How long the edge goes on handing packets to a thread that is not there any more, and how often it is told to.
const LEASE: Duration = Duration::from_millis(500);
const RENEWAL: Duration = Duration::from_millis(100);
/// Octets of an Ethernet header, and of the largest frame.
const ETHERNET: usize = 14;
const LARGEST: usize = ETHERNET + 65_535;

/// The thread's work.
pub(super) struct Slow<'a> {
    socket: OwnedFd,
    words: Words,
    port: u32,
    clock: &'a Clock,
}

impl<'a> Slow<'a> {
    /// `None` where the device is not there (yet).
    pub(super) fn open(maps: &Maps, clock: &'a Clock) -> Result<Option<Self>> {
        let (Ok(own), Ok(port)) = (if_nametoindex(OVERLAY_DEVICE), if_nametoindex(OVERLAY_PORT)) else {
            return Ok(None);
        };
        let opened = sys::packet_socket(own, errand::ETHERTYPE).and_then(|socket| {
            setsockopt(&socket, sockopt::Mark, &MARK)?;
            setsockopt(&socket, sockopt::RcvBufForce, &QUEUE)?;
            let nap = i64::try_from(NAP.as_millis()).unwrap_or(i64::MAX);
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(nap))?;
            Ok(socket)
        });
        Ok(Some(Self {
            socket: opened.map_err(Error::io(format!("open a packet socket on {OVERLAY_DEVICE}")))?,
            words: maps.fragmenter.words()?,
            port,
            clock,
        }))
    }

    /// Cuts what comes until `stop` says so, or the device is gone.
    pub(super) fn run(&self, stop: impl Fn() -> bool) -> Result<()> {
        sys::let_others_first().map_err(Error::io("let probes come first"))?;
        self.set(offset_of!(Fragmenter, interface), u64::from(self.port));
        let per_jiffy = RATE.div_ceil(self.clock.hz().max(1));
        self.set(offset_of!(Fragmenter, per_jiffy), per_jiffy);
        let mut frame = vec![0; LARGEST];
        let mut renewed: Option<Instant> = None;
        while !stop() {
            if renewed.is_none_or(|renewed| renewed.elapsed() >= RENEWAL) {
                let until = self.clock.jiffies()? + self.clock.ticks(LEASE);
                self.set(offset_of!(Fragmenter, until), until);
                renewed = Some(Instant::now());
                self.tell_lost();
            }
            match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(octets) => self.send_back(&frame[..octets]),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        self.set(offset_of!(Fragmenter, until), 0);
        Ok(())
    }

    fn send_back(&self, frame: &[u8]) {
        for piece in pieces(frame) {
            // A device that is full or gone costs the packet.
            let _ = send(self.socket.as_raw_fd(), &piece, MsgFlags::empty());
        }
    }

    fn tell_lost(&self) {
        match sys::packets_lost(&self.socket) {
            Ok(0) | Err(_) => {}
            Ok(lost) => tracing::warn!(
                lost,
                "the slow path was not run in time: packets that needed fragmentation"
            ),
        }
    }

    fn set(&self, offset: usize, value: u64) {
        if let Some(word) = self.words.word(0, offset) {
            word.store(value, Relaxed);
        }
    }
}

/// The frames that go back for one that the edge handed over; none where it handed over something else.
pub fn pieces(frame: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let handed = frame.split_first_chunk::<ETHERNET>();
    let cut = handed.and_then(|(header, packet)| {
        let mut header = *header;
        let (_, mtu) = Errand::at::<0, ETHERNET>(&mut header).to_cut()?;
        let mut ethernet = Ethernet::at::<0, ETHERNET>(&mut header);
        if ethernet.ethertype() != errand::ETHERTYPE {
            return None;
        }
        ethernet.set_ethertype(ethernet::IPV4);
        Some((header, cut(packet, mtu)?))
    });
    cut.into_iter()
        .flat_map(|(header, cut)| cut.map(move |piece| [&header[..], &piece.header, piece.payload].concat()))
}
