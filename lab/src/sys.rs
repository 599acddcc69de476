//! The system calls that no safe wrapper covers: children bound to a namespace, `ethtool`, `pidfd_open`,
//! scheduling, a small XDP program, and batches of frames on an `AF_PACKET` socket.
#![allow(
    unsafe_code,
    reason = "raw system calls live here, so that the rest of the crate can stay safe"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "constants, batch counts and sizes of C structures are far below the limits of C's types"
)]

use std::ffi::c_int;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getppid, setpgid};

/// The most frames that one call receives or sends.
pub(crate) const BATCH: usize = 64;

/// Makes `command`, when spawned, enter `netns`, lead a process group of its own and be killed when the
/// thread that spawned it ends. Only the network namespace changes: `/sys` and its BPF mounts stay.
pub(crate) fn confine(command: &mut Command, netns: OwnedFd) {
    let parent = Pid::this();
    let enter = move || {
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        set_pdeathsig(Signal::SIGKILL)?;
        // What this thread blocks (see `interrupt`) would stay blocked in the program.
        SigSet::empty().thread_set_mask()?;
        // The parent may have died before the line above; nobody would then end this child.
        if getppid() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only system calls (setns, setpgid, prctl, getppid, sigprocmask),
    // all async-signal-safe, and allocates nothing: nix returns plain error numbers.
    unsafe {
        command.pre_exec(enter);
    }
}

/// A descriptor that becomes readable when process `pid` ends (pidfd_open(2)).
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let fd = check(fd as c_int)?;
    // SAFETY: the kernel just handed out this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the calling thread the lowest real-time priority (sched_setscheduler(2), `SCHED_FIFO`), so that
/// it is woken on time on a busy machine.
pub(crate) fn schedule_fifo() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: `parameters` lives through the call, which only reads it; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) }).map(drop)
}

/// Takes datagrams of IPv6 without a checksum too (udp(7), `UDP_NO_CHECK6_RX`).
pub(crate) fn take_without_checksum(socket: &impl AsFd) -> io::Result<()> {
    const NO_CHECK6_RX: c_int = 102;
    let on: c_int = 1;
    let (value, length) = ((&raw const on).cast(), size_of::<c_int>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `on` lives through the call, which only reads it.
    check(unsafe { libc::setsockopt(fd, libc::SOL_UDP, NO_CHECK6_RX, value, length) }).map(drop)
}

/// One `ethtool` switch of the device `name` in the calling thread's namespace (`SIOCETHTOOL` with the
/// command `set`, whose argument is a number).
pub(crate) fn ethtool(name: &str, set: u32, value: u32) -> io::Result<()> {
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut argument = EthtoolValue {
        command: set,
        data: value,
    };
    // SAFETY: an all-zero ifreq is valid (numbers, byte arrays and null pointers).
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut argument).cast();
    // SAFETY: `request` and the `argument` that it points to outlive the call, and the commands used are
    // those whose argument is `struct ethtool_value`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) }).map(drop)
}

/// Loads an XDP program of 64-bit instructions (bpf(2), `BPF_PROG_LOAD`); it may sit on devices of any MTU.
pub(crate) fn load_xdp(instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    #[repr(C, align(8))]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 4],
        kernel: u32,
        flags: u32,
        rest: [u64; 12],
    }
    const BPF_PROG_LOAD: c_int = 5;
    const BPF_PROG_TYPE_XDP: u32 = 6;
    const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log: [0; 4],
        kernel: 0,
        flags: BPF_F_XDP_HAS_FRAGS,
        rest: [0; 12],
    };
    // SAFETY: `load` begins as `union bpf_attr` does for this command, its other fields may be zero, and
    // what it points to outlives the call, which only reads it.
    unsafe { bpf(BPF_PROG_LOAD, &load) }
}

/// Attaches an XDP program to the device with index `ifindex` of the calling thread's namespace, until the
/// link that is returned is closed (bpf(2), `BPF_LINK_CREATE`).
pub(crate) fn attach_xdp(program: &OwnedFd, ifindex: u32, native: bool) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: c_int = 28;
    const BPF_XDP: u32 = 37;
    const XDP_FLAGS_SKB_MODE: u32 = 2;
    const XDP_FLAGS_DRV_MODE: u32 = 4;
    let flags = if native {
        XDP_FLAGS_DRV_MODE
    } else {
        XDP_FLAGS_SKB_MODE
    };
    let create: [u32; 16] = [
        program.as_raw_fd().cast_unsigned(),
        ifindex,
        BPF_XDP,
        flags,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: `create` begins as `union bpf_attr` does for this command (four u32), the rest is zero.
    unsafe { bpf(BPF_LINK_CREATE, &create) }
}

/// A bpf(2) command that returns a descriptor.
///
/// # Safety
/// `attributes` must be what the kernel expects for `command`, and what it points to must live.
unsafe fn bpf<T>(command: c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a value that lives through the call; the rest is
    // the caller's promise.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    let fd = check(fd as c_int)?;
    // SAFETY: the kernel just handed out this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the kernel said about one received frame.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Received {
    /// Length of the frame on the wire, which may be more than what the buffer holds.
    pub(crate) length: usize,
    /// When the device delivered it, since the epoch of the real-time clock.
    pub(crate) stamp: Option<Duration>,
    /// The sender left the checksum to hardware that this wire does not have.
    pub(crate) partial_checksum: bool,
}

/// Room for [`BATCH`] received frames.
#[derive(Debug)]
pub(crate) struct Buffers {
    bytes: Vec<u8>,
    stride: usize,
    received: [Received; BATCH],
}

impl Buffers {
    /// Buffers for frames of up to `stride` bytes.
    pub(crate) fn new(stride: usize) -> Self {
        Self {
            bytes: vec![0; stride * BATCH],
            stride,
            received: [Received::default(); BATCH],
        }
    }

    /// The frame at `index` of the last batch, cut at the stride, and what the kernel said about it.
    pub(crate) fn frame(&self, index: usize) -> (&[u8], Received) {
        let received = self.received[index];
        let start = index * self.stride;
        (
            &self.bytes[start..start + received.length.min(self.stride)],
            received,
        )
    }
}

/// An `AF_PACKET` socket that sends and receives whole Ethernet frames on one device (packet(7)).
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens the device with index `ifindex` of the calling thread's namespace. Frames that the host
    /// itself sends are not seen; `buffer` is the size in bytes of the receive and the send buffer.
    pub(crate) fn open(ifindex: u32, buffer: c_int) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes integers alone. Protocol 0 receives nothing until the bind below.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the kernel just handed out this descriptor, and nobody else owns it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, buffer)?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, buffer)?;
        socket.bind(ifindex)?;
        Ok(socket)
    }

    fn set_option(&self, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
        let (fd, length) = (self.0.as_raw_fd(), socklen::<c_int>());
        // SAFETY: the option's value is read from `value`, which lives through the call.
        let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
        check(result).map(drop)
    }

    fn bind(&self, ifindex: u32) -> io::Result<()> {
        // SAFETY: an all-zero sockaddr_ll is valid (integers alone).
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = ifindex.cast_signed();
        let (fd, length) = (self.0.as_raw_fd(), socklen::<libc::sockaddr_ll>());
        // SAFETY: `address` lives through the call, and its true size is given.
        check(unsafe { libc::bind(fd, (&raw const address).cast(), length) }).map(drop)
    }

    /// Receives what waits, up to [`BATCH`] frames, and returns their number; 0 when nothing waits.
    pub(crate) fn receive(&self, buffers: &mut Buffers) -> io::Result<usize> {
        // SAFETY: all-zero iovec, mmsghdr and control blocks are valid (null pointers and integers).
        let (mut vectors, mut headers, mut controls): (
            [libc::iovec; BATCH],
            [libc::mmsghdr; BATCH],
            [Control; BATCH],
        ) = unsafe { mem::zeroed() };
        let chunks = buffers.bytes.chunks_exact_mut(buffers.stride);
        for (((header, vector), control), chunk) in headers
            .iter_mut()
            .zip(&mut vectors)
            .zip(&mut controls)
            .zip(chunks)
        {
            vector.iov_base = chunk.as_mut_ptr().cast();
            vector.iov_len = chunk.len();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut *control).cast();
            header.msg_hdr.msg_controllen = size_of::<Control>();
        }
        // SAFETY: the headers point to `vectors`, `controls` and the chunks of `buffers.bytes`, which are
        // disjoint, outlive the call and have the lengths that are stated; MSG_TRUNC only makes msg_len
        // the frame's own length.
        let count = unsafe {
            libc::recvmmsg(
                self.0.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                std::ptr::null_mut(),
            )
        };
        let count = batch_count(count)?;
        for (received, header) in buffers.received.iter_mut().zip(&headers[..count]) {
            *received = describe(header);
        }
        Ok(count)
    }

    /// Sends `frames`, at most [`BATCH`] of them, in order, and returns how many the device took.
    pub(crate) fn send(&self, frames: &[&[u8]]) -> io::Result<usize> {
        let frames = &frames[..frames.len().min(BATCH)];
        // SAFETY: all-zero iovec and mmsghdr are valid (null pointers and integers).
        let (mut vectors, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { mem::zeroed() };
        for ((header, vector), frame) in headers.iter_mut().zip(&mut vectors).zip(frames) {
            vector.iov_base = frame.as_ptr().cast_mut().cast();
            vector.iov_len = frame.len();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the first `frames.len()` headers point to frames that outlive the call, which only reads
        // them.
        let count = unsafe {
            libc::sendmmsg(
                self.0.as_raw_fd(),
                headers.as_mut_ptr(),
                frames.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        batch_count(count)
    }

    /// Frames that arrived and found the receive buffer full since the last call.
    pub(crate) fn take_overruns(&self) -> io::Result<u64> {
        // SAFETY: an all-zero tpacket_stats is valid (two integers).
        let mut statistics: libc::tpacket_stats = unsafe { mem::zeroed() };
        let mut length = socklen::<libc::tpacket_stats>();
        let value = (&raw mut statistics).cast();
        let (fd, level, name) = (self.0.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS);
        // SAFETY: `statistics` and `length` live through the call, and `length` is its true size.
        check(unsafe { libc::getsockopt(fd, level, name, value, &raw mut length) })?;
        Ok(statistics.tp_drops.into())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Room for the two control messages of a frame, aligned as their headers want.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 96]);

/// Reads the control messages of one received frame.
fn describe(header: &libc::mmsghdr) -> Received {
    let mut received = Received {
        length: header.msg_len as usize,
        ..Received::default()
    };
    // SAFETY: the kernel filled `msg_control` up to `msg_controllen` with well-formed messages, the CMSG
    // functions stay inside, each type read is the one that the kernel writes for that message, and
    // read_unaligned asks nothing of the alignment.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header.msg_hdr);
        while let Some(head) = message.as_ref() {
            let data = libc::CMSG_DATA(message);
            match (head.cmsg_level, head.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    received.stamp = duration(data.cast::<libc::timespec>().read_unaligned());
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    let auxdata = data.cast::<libc::tpacket_auxdata>().read_unaligned();
                    received.partial_checksum = auxdata.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(&raw const header.msg_hdr, message);
        }
    }
    received
}

fn duration(time: libc::timespec) -> Option<Duration> {
    Some(Duration::new(
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    ))
}

fn socklen<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The count that `recvmmsg` or `sendmmsg` returned, where "would block" is zero.
fn batch_count(result: c_int) -> io::Result<usize> {
    usize::try_from(result).or_else(|_| match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        error => Err(error),
    })
}
