//! The socket that probes leave by.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;

use kuafu_pipeline::header::stamp::PORT;
use nix::sys::socket::{setsockopt, sockopt};

use crate::host::OVERLAY_DEVICE;
use crate::sys;

/// Octets of a STAMP packet with the TLV for direct measurement; the port program fills them in.
pub const PAYLOAD: [u8; 60] = [0; 60];

/// A socket on the host's overlay address.
pub(super) struct Socket {
    socket: UdpSocket,
    to: SocketAddrV4,
}

impl Socket {
    /// `None` where the address or its device is not there (yet).
    pub(super) fn open(overlay: u32) -> Option<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::from(overlay), 0)).ok()?;
        setsockopt(&socket, sockopt::BindToDevice, &OVERLAY_DEVICE.into()).ok()?;
        sys::without_checksums(socket.as_fd()).ok()?;
        // Where a probe goes is its path's to say: any other address of the overlay will do.
        let to = SocketAddrV4::new(Ipv4Addr::from(overlay ^ 2), PORT);
        Some(Self { socket, to })
    }

    /// Sends a probe over a path; `false` where the socket is of no use any more.
    pub(super) fn send(&self, path: u32) -> bool {
        if setsockopt(&self.socket, sockopt::Mark, &path).is_err() {
            return false;
        }
        match self.socket.send_to(&PAYLOAD, self.to) {
            Ok(_) => true,
            // A full queue costs this probe; whatever else went wrong goes wrong again.
            Err(error) => {
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
                    || error.raw_os_error() == Some(libc::ENOBUFS)
            }
        }
    }
}
