//! The system calls that no safe wrapper covers: children bound to a namespace, `ethtool`, `pidfd_open`.
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
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid, setpgid};

/// Makes `command`, when spawned, enter `netns`, lead a process group of its own and be killed when the
/// thread that spawned it ends. Only the network namespace changes: `/sys` and its BPF mounts stay.
pub(crate) fn confine(command: &mut Command, netns: OwnedFd) {
    let parent = Pid::this();
    let enter = move || {
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above; nobody would then end this child.
        if getppid() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only system calls (setns, setpgid, prctl, getppid),
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

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
