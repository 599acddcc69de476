//! What a capture is told of a packet before and after its program. While nobody captures, a packet pays for one look
//! at the order.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use kuafu_pipeline::map::{Atomics, CaptureOrder, CaptureRecord, CapturedProgram, PassedOn};
use kuafu_pipeline::{Next, Outcome};

use crate::chain::Context;
use crate::maps;
use crate::tables::{KernelTables, passed_on};

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// A packet on its way through a program.
pub struct Watch {
    context: *mut c_void,
    /// Whether somebody captures, and wants this packet.
    is_on: bool,
}

impl Watch {
    /// Before the program.
    #[inline(always)]
    pub fn begin(
        context: *mut c_void,
        program: CapturedProgram,
        interface: u32,
        length: impl FnOnce() -> u32,
    ) -> Self {
        let is_on = is_wanted() && watched(|| before(context, program, interface, length()));
        Self { context, is_on }
    }

    /// In another program, on behalf of the one in which it began.
    #[inline(always)]
    pub fn go_on(context: *mut c_void) -> Self {
        let is_on = is_wanted() && passed_on().is_some_and(|passed_on| passed_on.watch & WATCHED != 0);
        Self { context, is_on }
    }

    /// After it: what it returned, and why, as [`reason`] says it.
    #[inline(always)]
    pub fn end(&self, length: impl FnOnce() -> u32, verdict: u32, reason: u32) {
        if self.is_on {
            after(self.context, length(), verdict, reason);
        }
    }
}

/// Whether anybody captures.
#[inline(always)]
fn is_wanted() -> bool {
    maps::CAPTURE.get_ptr(0).is_some_and(|order| {
        // SAFETY: a value of the map, read at once.
        unsafe { (*order).until != 0 }
    })
}

/// Of [`PassedOn::watch`](kuafu_pipeline::map::PassedOn): the packet on its way is watched;
const WATCHED: u32 = 1;
/// its program is about to run for the second time.
const AGAIN: u32 = 2;

/// Another program calls the first one again. While nobody captures, nobody would take that back.
#[inline(always)]
pub fn call_again(passed_on: &mut PassedOn) {
    if is_wanted() {
        passed_on.watch |= AGAIN;
    }
}

/// Whether a packet is watched: as it was before, if it comes from another program.
#[inline(always)]
fn watched(is_chosen: impl FnOnce() -> bool) -> bool {
    let Some(passed_on) = passed_on() else {
        return false;
    };
    if passed_on.watch & AGAIN == 0 {
        passed_on.watch = if is_chosen() { WATCHED } else { 0 };
    }
    passed_on.watch &= WATCHED;
    passed_on.watch != 0
}

/// The reason's number and one, or 0.
#[inline(always)]
pub fn reason(outcome: &Outcome) -> u32 {
    match outcome {
        Err(reason) | Ok(Next::Answer(_, reason)) => *reason as u32 + 1,
        Ok(_) => 0,
    }
}

/// Whether the packet is chosen. The edge leaves little of the stack: the record is built in a map, and this is
/// inlined, since a frame of its own would not fit.
#[inline(always)]
fn before(context: *mut c_void, program: CapturedProgram, interface: u32, length: u32) -> bool {
    let Some(record) = maps::CAPTURE_RECORD.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's own value; programs of one CPU do not interrupt each other on a packet's path.
    let record = unsafe { &mut *record };
    record.program = program as u32;
    record.interface = interface;
    record.after = 0;
    describe(record, length, 0, 0);
    let (Some(order), Some(state)) = (maps::CAPTURE.get_ptr(0), maps::CAPTURE_STATE.get_ptr(0)) else {
        return false;
    };
    // SAFETY: values of the maps; what packets change in the state is atomic or a word that may be lost.
    let (order, state) = unsafe { (&*order, &*state) };
    // A capture that died is forgotten.
    // SAFETY: takes nothing and returns a number.
    if unsafe { bpf_jiffies64() } >= order.until {
        return false;
    }
    let atomics = KernelTables::new(context, 0);
    if order.drops_only == 0 && !state.may_tell(&atomics, order.rate, record.time / SECOND) {
        return false;
    }
    record.number = atomics.add(&state.number, 1).wrapping_add(1);
    if order.drops_only == 0 {
        tell(context, record, order);
    }
    true
}

#[inline(always)]
fn after(context: *mut c_void, length: u32, verdict: u32, reason: u32) {
    let Some(record) = maps::CAPTURE_RECORD.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: as above.
    let record = unsafe { &mut *record };
    record.after = 1;
    describe(record, length, verdict, reason);
    let (Some(order), Some(state)) = (maps::CAPTURE.get_ptr(0), maps::CAPTURE_STATE.get_ptr(0)) else {
        return;
    };
    // SAFETY: as above.
    let (order, state) = unsafe { (&*order, &*state) };
    if order.drops_only != 0 {
        let atomics = KernelTables::new(context, 0);
        if record.reason == 0 || !state.may_tell(&atomics, order.rate, record.time / SECOND) {
            return;
        }
    }
    tell(context, record, order);
}

/// What is told of each side.
#[inline(always)]
fn describe(record: &mut CaptureRecord, length: u32, verdict: u32, reason: u32) {
    record.length = length;
    record.verdict = verdict;
    record.reason = reason;
    // SAFETY: takes nothing and returns a number.
    record.time = unsafe { bpf_ktime_get_boot_ns() };
}

/// The record, and how the packet begins.
#[inline(always)]
fn tell(context: *mut c_void, record: &CaptureRecord, order: &CaptureOrder) {
    let kept = record.length.min(order.snap_length);
    maps::CAPTURED.output(&Context(context), record, kept);
}
