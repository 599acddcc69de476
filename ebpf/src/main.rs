//! Kuafu's programs in the kernel: maps, entry points, and how a packet's bytes are reached there. What becomes of a
//! packet is decided in `kuafu-pipeline`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod capture;
mod chain;
mod frame;
mod maps;
mod routes;
mod tables;
mod verdict;

use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use kuafu_pipeline::map::{CapturedProgram, asked, said};
use kuafu_pipeline::{Frame, Reason, program, stage};

use crate::capture::Watch;
use crate::frame::{SkbFrame, XdpFrame};
use crate::tables::{KernelTables, passed_on, passed_on_v6};

/// The edge, for packets that lie in one piece.
#[xdp]
#[inline(always)]
pub fn kuafu_edge(context: XdpContext) -> u32 {
    edge::<false>(&context)
}

/// The edge, for devices whose MTU needs packets in several pieces.
#[xdp(frags)]
#[inline(always)]
pub fn kuafu_edge_frags(context: XdpContext) -> u32 {
    edge::<true>(&context)
}

#[inline(always)]
fn edge<const FRAGS: bool>(context: &XdpContext) -> u32 {
    let mut frame = XdpFrame::<FRAGS>::new(context);
    let interface = frame.interface();
    let watch = Watch::begin(context.ctx.cast(), CapturedProgram::Edge, interface, || {
        frame.len()
    });
    let outcome = program::edge::run(
        &mut frame,
        &KernelTables::new(context.ctx.cast(), interface).in_pieces(FRAGS),
        interface,
    );
    let reason = capture::reason(&outcome);
    let verdict = verdict::xdp(&mut frame, interface, outcome);
    watch.end(|| frame.len(), verdict, reason);
    verdict
}

/// What the edge does not let pass without asking, for packets that lie in one piece.
#[xdp]
#[inline(always)]
pub fn kuafu_shield(context: XdpContext) -> u32 {
    shield::<false>(&context)
}

/// The same, for devices whose MTU needs packets in several pieces.
#[xdp(frags)]
#[inline(always)]
pub fn kuafu_shield_frags(context: XdpContext) -> u32 {
    shield::<true>(&context)
}

#[inline(always)]
fn shield<const FRAGS: bool>(context: &XdpContext) -> u32 {
    let Some(passed_on) = passed_on() else {
        return XDP_DROP;
    };
    let mut frame = XdpFrame::<FRAGS>::new(context);
    let interface = frame.interface();
    let tables = KernelTables::new(context.ctx.cast(), interface).in_pieces(FRAGS);
    let watch = Watch::go_on(context.ctx.cast());
    let decided = if passed_on.question.is(asked::V6) {
        let Some(question) = passed_on_v6() else {
            return XDP_DROP;
        };
        stage::shield::decide(&mut frame, &tables, interface, question)
    } else {
        stage::shield::decide(&mut frame, &tables, interface, &passed_on.question)
    };
    match decided {
        Ok(is_remembered) => {
            passed_on.said = if is_remembered {
                said::PASSES
            } else {
                said::PASSES_UNKNOWN
            };
            capture::call_again(passed_on);
            chain::call(context.ctx.cast(), FRAGS, chain::EDGE);
            XDP_DROP
        }
        Err(outcome) => {
            let reason = capture::reason(&outcome);
            let verdict = verdict::xdp(&mut frame, interface, outcome);
            watch.end(|| frame.len(), verdict, reason);
            verdict
        }
    }
}

/// What ports send.
#[classifier]
#[inline(always)]
pub fn kuafu_port(context: TcContext) -> i32 {
    let mut frame = SkbFrame::new(&context);
    let (interface, mark) = (frame.interface(), frame.mark());
    let tables = KernelTables::of_port(context.skb.skb.cast());
    let watch = Watch::begin(context.skb.skb.cast(), CapturedProgram::Port, interface, || {
        frame.len()
    });
    let outcome = if frame.is_tagged() {
        Err(Reason::UnknownProtocol)
    } else {
        program::port::run(&mut frame, &tables, interface, mark)
    };
    let reason = capture::reason(&outcome);
    let verdict = verdict::tcx(&mut frame, interface, outcome);
    watch.end(|| frame.len(), verdict as u32, reason);
    verdict
}

/// VXLAN that arrives.
#[classifier]
#[inline(always)]
pub fn kuafu_underlay(context: TcContext) -> i32 {
    let mut frame = SkbFrame::new(&context);
    let interface = frame.interface();
    let tables = KernelTables::new(context.skb.skb.cast(), interface);
    let watch = Watch::begin(
        context.skb.skb.cast(),
        CapturedProgram::Underlay,
        interface,
        || frame.len(),
    );
    let outcome = program::underlay::run(&mut frame, &tables, interface);
    let reason = capture::reason(&outcome);
    let verdict = verdict::tcx(&mut frame, interface, outcome);
    watch.end(|| frame.len(), verdict as u32, reason);
    verdict
}

/// Programs cannot panic: the compiler proves each `unreachable!` to be that, or the object does not load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
