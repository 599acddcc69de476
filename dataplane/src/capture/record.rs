//! From what a program told to a packet before and after it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use kuafu_pipeline::Reason;
use kuafu_pipeline::map::{CaptureRecord, CapturedProgram};
use nix::time::{ClockId, clock_gettime};

use crate::bpf::{LinkKind, XdpMode};
use crate::error::{Error, Result};
use crate::sys::Octets as _;

/// Which side of a program a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// As the packet came.
    Before,
    /// As it was when the program ended.
    After,
}

/// A packet at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When.
    pub time: SystemTime,
    /// Octets of the whole frame.
    pub length: u32,
    /// How it begins, from its Ethernet header on.
    pub octets: Vec<u8>,
}

/// A packet's way through a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The packet's number, from 1 on; those that are not shown have none.
    pub number: u64,
    /// The program.
    pub program: CapturedProgram,
    /// Where it sits on its device.
    pub hook: &'static str,
    /// The device.
    pub interface: String,
    /// What the program returned: `XDP_…`, or `TCX_…` as an unsigned number.
    pub verdict: u32,
    /// Why the packet was dropped, or an answer sent in its place.
    pub reason: Option<Reason>,
    /// As it came; not where drops alone are shown, or a buffer had no room.
    pub before: Option<Snapshot>,
    /// As it was when the program ended.
    pub after: Snapshot,
}

impl Passage {
    /// The verdict as a word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match (kind(self.program), self.verdict) {
            (LinkKind::Xdp, 0) => "aborted",
            (LinkKind::Xdp, 1) | (LinkKind::Tcx, 2) => "drop",
            (LinkKind::Xdp, 2) | (LinkKind::Tcx, u32::MAX) => "pass",
            (LinkKind::Xdp, 3) => "tx",
            (LinkKind::Xdp, 4) | (LinkKind::Tcx, 7) => "redirect",
            _ => "unknown",
        }
    }

    /// The snapshots that there are, in order.
    pub fn snapshots(&self) -> impl Iterator<Item = (Side, &Snapshot)> {
        let before = self.before.iter().map(|snapshot| (Side::Before, snapshot));
        before.chain(std::iter::once((Side::After, &self.after)))
    }
}

const fn kind(program: CapturedProgram) -> LinkKind {
    match program {
        CapturedProgram::Edge => LinkKind::Xdp,
        CapturedProgram::Port | CapturedProgram::Underlay => LinkKind::Tcx,
    }
}

/// A device, as passages tell of it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) xdp: XdpMode,
}

/// Brings a packet's two records together. One a CPU waits at most: programs do not interrupt each other there.
#[derive(Debug)]
pub(super) struct Pairing {
    /// The time of day when the host was started.
    boot: SystemTime,
    snap_length: u32,
    waiting: BTreeMap<u32, (u64, Snapshot)>,
}

impl Pairing {
    pub(super) fn new(snap_length: u32) -> Result<Self> {
        let clock = |id| clock_gettime(id).map_err(|errno| Error::io("read a clock")(errno.into()));
        let since_boot = Duration::from(clock(ClockId::CLOCK_BOOTTIME)?);
        let now = Duration::from(clock(ClockId::CLOCK_REALTIME)?);
        Ok(Self {
            boot: SystemTime::UNIX_EPOCH + now.saturating_sub(since_boot),
            snap_length,
            waiting: BTreeMap::new(),
        })
    }

    /// The passage that a record completes; what is no record is passed over.
    pub(super) fn take(
        &mut self,
        cpu: u32,
        octets: &[u8],
        place: &mut impl FnMut(u32) -> Place,
    ) -> Option<Passage> {
        let (head, rest) = octets.split_at_checked(size_of::<CaptureRecord>())?;
        let record = CaptureRecord::from_octets(head)?;
        // The buffer pads records to whole words.
        let kept = record.length.min(self.snap_length);
        let kept = usize::try_from(kept).map_or(rest.len(), |kept| kept.min(rest.len()));
        let snapshot = Snapshot {
            time: self.boot + Duration::from_nanos(record.time),
            length: record.length,
            octets: rest[..kept].to_vec(),
        };
        if record.after == 0 {
            self.waiting.insert(cpu, (record.number, snapshot));
            return None;
        }
        let before = self
            .waiting
            .remove(&cpu)
            .filter(|(number, _)| *number == record.number);
        let program = *CapturedProgram::ALL.get(usize::try_from(record.program).ok()?)?;
        let place = place(record.interface);
        Some(Passage {
            number: record.number,
            program,
            hook: kind(program).hook(place.xdp),
            interface: place.name,
            verdict: record.verdict,
            reason: reason(record.reason),
            before: before.map(|(_, snapshot)| snapshot),
            after: snapshot,
        })
    }
}

fn reason(told: u32) -> Option<Reason> {
    let number = usize::try_from(told.checked_sub(1)?).ok()?;
    Reason::ALL.get(number).copied()
}
