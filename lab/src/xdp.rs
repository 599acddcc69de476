//! XDP at the ends of a cable: a host that answers UDP by XDP_TX, as a relay does, and a wire's end that
//! hears it.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::error::{Error, Result};
use crate::netns::Namespace;
use crate::sys;

/// Where in the driver's way of a frame the program sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, after the driver has made a socket buffer.
    Generic,
}

/// Sends every UDP packet (IPv4 without options) that comes to a device back out of it, with the addresses
/// of Ethernet and IPv4 exchanged and the rest as it was; other packets pass. Dropping it ends that.
#[derive(Debug)]
pub struct Reflector {
    _link: OwnedFd,
}

impl Reflector {
    /// Attaches the program to `device` in `namespace`.
    ///
    /// # Errors
    /// There is no such device, another program sits there, or the kernel refuses.
    pub fn attach(namespace: &Namespace, device: &str, mode: XdpMode) -> Result<Self> {
        let attach = || {
            let index = if_nametoindex(device)?;
            let program = sys::load_xdp(&PROGRAM)?;
            sys::attach_xdp(&program, index, mode == XdpMode::Native)
        };
        let link = namespace.run(attach)?;
        link.map(|_link| Self { _link }).map_err(Error::io(format!(
            "attach a reflector to {device} in {}",
            namespace.name()
        )))
    }
}

/// Gives `device` of the calling thread's namespace a program that passes everything, for as long as the
/// device exists. What a veth's peer sends by XDP_TX is only taken up where the receiver polls *and* has a
/// program: with GRO alone it waits in the ring for the next packet of another kind.
pub(crate) fn listen_to_xdp(device: &str) -> std::io::Result<()> {
    let program = sys::load_xdp(&[instruction(0xb7, 0x00, 0, PASS), instruction(0x95, 0x00, 0, 0)])?;
    set_xdp(if_nametoindex(device)?, &program)
}

/// Attaches an XDP program in the driver (rtnetlink(7), `RTM_SETLINK` with `IFLA_XDP`).
fn set_xdp(ifindex: u32, program: &OwnedFd) -> std::io::Result<()> {
    const RTM_SETLINK: u32 = 19;
    const NLM_F_REQUEST_AND_ACK: u32 = 1 | 4;
    const IFLA_XDP_NESTED: u32 = 0x8000 | 43;
    const XDP_FLAGS_DRV_MODE: u32 = 4;
    // An attribute's first word is its length and kind, in the halves of a word of this machine.
    let halves = |low: u32, high: u32| {
        if cfg!(target_endian = "little") {
            low | high << 16
        } else {
            low << 16 | high
        }
    };
    let message = [
        52,
        halves(RTM_SETLINK, NLM_F_REQUEST_AND_ACK),
        1,
        0,
        0,
        ifindex,
        0,
        0,
        halves(20, IFLA_XDP_NESTED),
        halves(8, 1),
        program.as_raw_fd().cast_unsigned(),
        halves(8, 3),
        XDP_FLAGS_DRV_MODE,
    ];
    let bytes: Vec<u8> = message.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answer[..length]
        .get(16..20)
        .and_then(|word| word.try_into().ok())
        .map_or(-libc::EIO, i32::from_ne_bytes);
    if error == 0 {
        Ok(())
    } else {
        Err(std::io::Error::from_raw_os_error(-error))
    }
}

/// One instruction: code, registers (source << 4 | destination), offset, immediate value (RFC 9669).
const fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    [code, registers, a, b, c, d, e, f]
}

const PASS: i32 = 2;
const TX: i32 = 3;
const UDP: i32 = 17;

const PROGRAM: [[u8; 8]; 22] = [
    instruction(0x61, 0x12, 0, 0),    // r2 = data
    instruction(0x61, 0x13, 4, 0),    // r3 = data_end
    instruction(0xb7, 0x00, 0, PASS), // r0 = XDP_PASS
    instruction(0xbf, 0x24, 0, 0),    // r4 = r2
    instruction(0x07, 0x04, 0, 34),   // r4 += Ethernet and IPv4
    instruction(0x2d, 0x34, 15, 0),   // if r4 > r3 goto exit
    instruction(0x71, 0x24, 23, 0),   // r4 = protocol
    instruction(0x55, 0x04, 13, UDP), // if r4 != UDP goto exit
    instruction(0x61, 0x24, 0, 0),    // the Ethernet addresses: four bytes of each,
    instruction(0x61, 0x25, 6, 0),
    instruction(0x63, 0x52, 0, 0),
    instruction(0x63, 0x42, 6, 0),
    instruction(0x69, 0x24, 4, 0), // and two
    instruction(0x69, 0x25, 10, 0),
    instruction(0x6b, 0x52, 4, 0),
    instruction(0x6b, 0x42, 10, 0),
    instruction(0x61, 0x24, 26, 0), // the IPv4 addresses
    instruction(0x61, 0x25, 30, 0),
    instruction(0x63, 0x52, 26, 0),
    instruction(0x63, 0x42, 30, 0),
    instruction(0xb7, 0x00, 0, TX), // r0 = XDP_TX
    instruction(0x95, 0x00, 0, 0),  // exit
];
