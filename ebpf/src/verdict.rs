//! From how a program ended to what the kernel does: the one place where drops are counted.

use aya_ebpf::bindings::{
    BPF_F_INGRESS, TC_ACT_SHOT,
    xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_redirect, bpf_redirect_peer};
use kuafu_pipeline::map::FRAME_START;
use kuafu_pipeline::{Frame, Next, Outcome, Reason};

use crate::frame::{CopyStart, SkbFrame, opaque};
use crate::maps;

/// The next program in line, or the host's stack.
const TCX_NEXT: i32 = -1;

/// For XDP on `interface`.
#[inline(always)]
pub fn xdp<F: Frame + CopyStart>(frame: &mut F, interface: u32, outcome: Outcome) -> u32 {
    match outcome {
        Ok(Next::Pass | Next::Host) => XDP_PASS,
        Ok(Next::Transmit(to)) => leave(interface, to),
        // Ports are reached, and heard, by tcx alone: the edge's stages deliver to none.
        Ok(Next::Consumed | Next::Deliver(_) | Next::Arrive(_)) => XDP_DROP,
        Ok(Next::Answer(to, reason)) => {
            record(frame, interface, reason);
            leave(interface, to)
        }
        Err(reason) => {
            record(frame, interface, reason);
            XDP_DROP
        }
    }
}

#[inline(always)]
fn leave(interface: u32, to: u32) -> u32 {
    if to == interface {
        return XDP_TX;
    }
    // SAFETY: takes numbers and returns one.
    unsafe { bpf_redirect(to, 0) as u32 }
}

/// For tcx on `interface`.
#[inline(always)]
pub fn tcx(frame: &mut SkbFrame, interface: u32, outcome: Outcome) -> i32 {
    match outcome {
        Ok(Next::Pass) => TCX_NEXT,
        Ok(Next::Host) => {
            frame.becomes_the_hosts();
            TCX_NEXT
        }
        // SAFETY: takes numbers and returns one.
        Ok(Next::Transmit(to)) => unsafe { bpf_redirect(to, 0) as i32 },
        // SAFETY: takes numbers and returns one.
        Ok(Next::Arrive(at)) => unsafe { bpf_redirect(at, BPF_F_INGRESS as u64) as i32 },
        // SAFETY: takes numbers and returns one.
        Ok(Next::Deliver(to)) => unsafe { bpf_redirect_peer(to, 0) as i32 },
        Ok(Next::Consumed) => TC_ACT_SHOT,
        Ok(Next::Answer(to, reason)) => {
            record(frame, interface, reason);
            // SAFETY: takes numbers and returns one.
            unsafe { bpf_redirect(to, 0) as i32 }
        }
        Err(reason) => {
            record(frame, interface, reason);
            TC_ACT_SHOT
        }
    }
}

/// Counts a drop and, at most once a jiffy, keeps how the frame begins.
#[inline(always)]
fn record<F: Frame + CopyStart>(frame: &mut F, interface: u32, reason: Reason) {
    let Some(drop) = maps::DROPS.get_ptr_mut(reason as u32) else {
        return;
    };
    let length = frame.len();
    // SAFETY: this CPU's own value; programs of one CPU do not interrupt each other on a packet's path.
    let drop = unsafe { &mut *drop };
    drop.packets += 1;
    drop.octets += u64::from(length);
    // SAFETY: takes nothing and returns a number.
    let now = unsafe { bpf_jiffies64() };
    let kept = opaque(opaque(length as u64).min(FRAME_START as u64));
    if drop.last_seen == now || kept == 0 {
        return;
    }
    drop.last_seen = now;
    drop.interface = interface;
    drop.length = length;
    frame.copy_start(drop.start.as_mut_ptr(), kept as u32);
}
