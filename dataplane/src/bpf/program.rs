//! Programs and what attaches them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::pins;
use crate::error::{Error, Result};
use crate::sys;

/// `BPF_XDP` and `BPF_TCX_INGRESS`.
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`.
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;
/// Octets by which a program may lengthen a packet.
const GROWTH: usize = 256;

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// XDP.
    Xdp,
    /// tcx ingress.
    Tcx,
}

impl LinkKind {
    /// The words for where such a program sits on a device; XDP sits there in one of two modes.
    #[must_use]
    pub const fn hook(self, mode: XdpMode) -> &'static str {
        match (self, mode) {
            (Self::Tcx, _) => "tcx ingress",
            (Self::Xdp, XdpMode::Generic) => "xdp generic",
            (Self::Xdp, XdpMode::Native) => "xdp native",
        }
    }
}

/// A loaded program.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    kind: LinkKind,
    fd: OwnedFd,
}

/// A packet to run a program over.
#[derive(Clone, Copy, Debug)]
pub struct TestRun<'f> {
    /// The frame, from its Ethernet header on; 14 octets at least.
    pub frame: &'f [u8],
    /// The interface on which it arrives; it must exist in this network namespace. 0: the kernel's default.
    pub interface: u32,
    /// The socket mark (tcx alone).
    pub mark: u32,
    /// How often; for timing.
    pub repeat: u32,
}

impl<'f> TestRun<'f> {
    /// Once.
    #[must_use]
    pub const fn once(frame: &'f [u8], interface: u32) -> Self {
        Self {
            frame,
            interface,
            mark: 0,
            repeat: 1,
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it returned: `XDP_…`, or `TCX_…` as an unsigned number.
    pub verdict: u32,
    /// The frame as it left it.
    pub frame: Vec<u8>,
    /// Nanoseconds a run, on average.
    pub nanoseconds: u32,
}

impl Program {
    pub(super) fn new(name: &'static str, kind: LinkKind, fd: OwnedFd) -> Self {
        Self { name, kind, fd }
    }

    /// A program that is pinned at `path`.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(path: &Path, name: &'static str, kind: LinkKind) -> Result<Self> {
        let fd = sys::open_pin(path).map_err(Error::io(format!("open {}", path.display())))?;
        Ok(Self::new(name, kind, fd))
    }

    /// Its name in the object.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it runs.
    #[must_use]
    pub fn kind(&self) -> LinkKind {
        self.kind
    }

    /// Runs it over a packet, as `BPF_PROG_TEST_RUN` does: nothing is sent.
    ///
    /// # Errors
    /// `Io`: among others, a frame that is shorter than 14 octets or longer than the kernel takes.
    pub fn test_run(&self, run: &TestRun<'_>) -> Result<Run> {
        let mut out = vec![0; run.frame.len() + GROWTH];
        let context = self.context(run);
        let (verdict, nanoseconds, length) =
            sys::test_run(self.fd.as_fd(), run.frame, &context, run.repeat.max(1), &mut out).map_err(
                Error::io(format!("run {} over {} octets", self.name, run.frame.len())),
            )?;
        out.truncate(length);
        Ok(Run {
            verdict,
            frame: out,
            nanoseconds,
        })
    }

    /// `struct xdp_md`, or the first words of `struct __sk_buff`.
    fn context(&self, run: &TestRun<'_>) -> Vec<u8> {
        let length = u32::try_from(run.frame.len()).unwrap_or(u32::MAX);
        let words: &[u32] = match self.kind {
            LinkKind::Xdp => &[0, length, 0, run.interface, 0, 0],
            LinkKind::Tcx => &[0, 0, run.mark, 0, 0, 0, 0, 0, 0, 0, run.interface, 0],
        };
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How XDP is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// By the stack, for every device; leaves a veth's offloads alone.
    #[default]
    Generic,
    /// By the driver.
    Native,
}

/// A program on a device, pinned: it stays when the agent ends.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    path: PathBuf,
}

/// What a pinned link turned out to be.
#[derive(Debug)]
pub enum Adopted {
    /// It is on the device already.
    Ours(Link),
    /// Nothing is pinned there, or its device is gone.
    Missing,
}

impl Link {
    /// Attaches a program to a device and pins the link. Where a link is pinned that is on this device, its program is
    /// replaced instead, and no packet is lost.
    ///
    /// # Errors
    /// `Io`; `Occupied` where somebody else's XDP program is on the device.
    pub fn attach(
        program: &Program,
        (interface, name): (u32, &str),
        mode: XdpMode,
        path: &Path,
    ) -> Result<Self> {
        if let Adopted::Ours(link) = Self::adopt(path, interface)? {
            if link.replace(program).is_ok() {
                return Ok(link);
            }
            // Between a program for one piece and one for several the kernel wants detach and attach.
            link.remove()?;
        }
        let (attach_type, flags) = match (program.kind, mode) {
            (LinkKind::Tcx, _) => (ATTACH_TCX_INGRESS, 0),
            (LinkKind::Xdp, XdpMode::Generic) => (ATTACH_XDP, GENERIC),
            (LinkKind::Xdp, XdpMode::Native) => (ATTACH_XDP, NATIVE),
        };
        let fd = match sys::link_create(program.as_fd(), interface, attach_type, flags) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
                return Err(Error::Occupied {
                    interface: name.into(),
                });
            }
            fd => fd.map_err(Error::io(format!("attach {} to {name}", program.name)))?,
        };
        sys::pin(fd.as_fd(), path).map_err(Error::io(format!("pin {}", path.display())))?;
        Ok(Self {
            fd,
            path: path.into(),
        })
    }

    /// The link pinned at `path`, if it is still on this device; one whose device is gone is unpinned.
    ///
    /// # Errors
    /// `Io`.
    pub fn adopt(path: &Path, interface: u32) -> Result<Adopted> {
        let Some(fd) = pins::Pins::open(path) else {
            return Ok(Adopted::Missing);
        };
        let info =
            sys::link_info(fd.as_fd()).map_err(Error::io(format!("read the link {}", path.display())))?;
        if info.interface != interface {
            pins::remove(path)?;
            return Ok(Adopted::Missing);
        }
        Ok(Adopted::Ours(Self {
            fd,
            path: path.into(),
        }))
    }

    /// Lets another program run in the place of this link's.
    ///
    /// # Errors
    /// `Io`.
    pub fn replace(&self, program: &Program) -> Result<()> {
        sys::link_update(self.fd.as_fd(), program.as_fd()).map_err(Error::io(format!(
            "replace the program of {} by {}",
            self.path.display(),
            program.name
        )))
    }

    /// Number of the program that runs; 0 where the device is gone.
    ///
    /// # Errors
    /// `Io`.
    pub fn program(&self) -> Result<u32> {
        let info = sys::link_info(self.fd.as_fd())
            .map_err(Error::io(format!("read the link {}", self.path.display())))?;
        Ok(if info.interface == 0 { 0 } else { info.program })
    }

    /// Detaches the program.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(self) -> Result<()> {
        pins::detach(&self.path)
    }
}
