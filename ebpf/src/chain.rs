//! From one program of the edge to another.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;

use crate::maps;

/// The edge.
pub const EDGE: u32 = 0;
/// The shield.
pub const SHIELD: u32 = 1;

/// Goes on in another program, and comes back only if there is none. `frags`: one for packets in several pieces.
#[inline(always)]
pub fn call(context: *mut c_void, frags: bool, program: u32) {
    let context = Context(context);
    // SAFETY: nothing here is to be dropped.
    unsafe {
        if frags {
            maps::CHAIN_FRAGS.tail_call(&context, program);
        } else {
            maps::CHAIN.tail_call(&context, program);
        }
    }
}

/// A program's context.
pub struct Context(pub *mut c_void);

impl EbpfContext for Context {
    fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}
