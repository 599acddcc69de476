//! What the kernel says about routes, asked once in a jiffy: `bpf_fib_lookup` for each packet was a third of what the
//! exit cost (`bench edge`: 501 ns net, without it 344).

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use kuafu_pipeline::map::{Mac, MacPair};
use kuafu_pipeline::{Reason, Route};

/// Answers that a CPU keeps.
pub const KEPT: usize = 256;

/// IPv4, as `bpf_fib_lookup` is told.
const AF_INET: u32 = 2;

/// By which interface a packet came, its source and its destination.
type Question = [u32; 3];

/// An answer that was given.
#[repr(C)]
pub struct Kept {
    /// In jiffies; such an answer holds as long as that has not passed.
    given: u64,
    question: Question,
    interface: u32,
    macs: MacPair,
    spare: u32,
}

/// Where a CPU keeps the answer about packets between two addresses.
#[inline(always)]
pub fn index(from: u32, to: u32) -> u32 {
    (from ^ to.rotate_left(16)).wrapping_mul(0x9e37_79b1) >> (32 - KEPT.ilog2())
}

impl Kept {
    /// The answer, where it is that to this question and of this moment.
    #[inline(always)]
    pub fn answer(&self, question: Question, now: u64) -> Option<Route> {
        (self.given == now && self.question == question).then_some(Route {
            interface: self.interface,
            macs: self.macs,
        })
    }

    /// Keeps an answer.
    #[inline(always)]
    pub fn keep(&mut self, question: Question, now: u64, route: &Route) {
        self.given = now;
        self.question = question;
        self.interface = route.interface;
        self.macs = route.macs;
    }
}

/// Asks the kernel.
///
/// # Errors
/// `NoNeighbour`, `NoRoute`.
#[inline(always)]
pub fn ask(context: *mut c_void, question: Question) -> Result<Route, Reason> {
    let mut query = query(question);
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: `query` has the size and layout of the helper's parameter.
    let answer = unsafe { bpf_fib_lookup(context, query.as_mut_ptr().cast(), size, 0) };
    match answer as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => Ok(route(&query)),
        BPF_FIB_LKUP_RET_NO_NEIGH => Err(Reason::NoNeighbour),
        _ => Err(Reason::NoRoute),
    }
}

/// `struct bpf_fib_lookup` as words: 0 begins with the family, 1 with the interface, 2 with the source, 4 with the
/// destination; from the middle of 6 on come the Ethernet source and destination.
type Query = [u64; 8];

const _: () = assert!(size_of::<Query>() == size_of::<FibLookup>());

#[inline(always)]
fn query([interface, from, to]: Question) -> Query {
    let words = [AF_INET, interface, from.to_be(), to.to_be()];
    let [family, interface, from, to] = words.map(u64::from);
    [family, interface, from, 0, to, 0, 0, 0]
}

#[inline(always)]
fn route(answer: &Query) -> Route {
    let [first, second, third] = [
        u32::from_be((answer[6] >> 32) as u32),
        u32::from_be(answer[7] as u32),
        u32::from_be((answer[7] >> 32) as u32),
    ];
    let source = Mac::new(first, (second >> 16) as u16);
    let destination = Mac::new(second << 16 | third >> 16, third as u16);
    Route {
        interface: answer[1] as u32,
        macs: MacPair::new(destination, source),
    }
}
