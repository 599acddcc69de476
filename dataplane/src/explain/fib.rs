//! The kernel's own routes, asked as the programs ask: by `bpf_fib_lookup`.

use std::os::fd::{AsFd, OwnedFd};

use kuafu_pipeline::map::{Mac, MacPair};
use kuafu_pipeline::{Reason, Route};

use crate::error::{Error, Result};
use crate::sys;

/// Octets of `struct bpf_fib_lookup`, which the packet carries in and out.
const SIZE: usize = 64;
/// `AF_INET`.
const IPV4: u8 = 2;
/// `BPF_FIB_LKUP_RET_SUCCESS` and `BPF_FIB_LKUP_RET_NO_NEIGH`.
const SUCCESS: u32 = 0;
const NO_NEIGHBOUR: u32 = 7;

/// A program that only looks up routes.
#[derive(Debug)]
pub(super) struct Fib {
    program: OwnedFd,
}

impl Fib {
    /// Loads the program.
    pub(super) fn new() -> Result<Self> {
        let program = sys::load_classifier(&instructions())
            .map_err(Error::io("load the program that asks for routes"))?;
        Ok(Self { program })
    }

    /// Where a packet that arrived on `interface` goes on its way `from` an address `to` another, in the network
    /// namespace of this thread.
    pub(super) fn route(&self, interface: u32, from: u32, to: u32) -> std::result::Result<Route, Reason> {
        let mut query = [0; SIZE];
        query[0] = IPV4;
        query[8..12].copy_from_slice(&interface.to_ne_bytes());
        query[16..20].copy_from_slice(&from.to_be_bytes());
        query[32..36].copy_from_slice(&to.to_be_bytes());
        let mut answer = [0; SIZE];
        let run = sys::test_run(self.program.as_fd(), &query, &[], 1, &mut answer);
        match run {
            Ok((SUCCESS, ..)) => Ok(route(&answer)),
            Ok((NO_NEIGHBOUR, ..)) => Err(Reason::NoNeighbour),
            _ => Err(Reason::NoRoute),
        }
    }
}

/// Interface at octet 8, Ethernet source at 52, destination at 58.
fn route(answer: &[u8; SIZE]) -> Route {
    let mac = |at: usize| {
        let mut octets = [0; 6];
        octets.copy_from_slice(&answer[at..at + 6]);
        Mac::from_octets(octets)
    };
    let mut interface = [0; 4];
    interface.copy_from_slice(&answer[8..12]);
    Route {
        interface: u32::from_ne_bytes(interface),
        macs: MacPair::new(mac(58), mac(52)),
    }
}

/// An instruction: opcode, destination and source register, offset, immediate.
const fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    let offset = offset.cast_unsigned() as u64;
    opcode as u64 | (registers as u64) << 8 | offset << 16 | (immediate.cast_unsigned() as u64) << 32
}

/// Copies the packet's first 64 octets to the stack, hands them to the helper, and copies its answer back.
fn instructions() -> Vec<u64> {
    let word = |at: i16| (at * 8, at * 8 - 64);
    let in_one_word = |at| {
        let (packet, stack) = word(at);
        [
            instruction(0x79, 0x71, packet, 0),
            instruction(0x7b, 0x1a, stack, 0),
        ]
    };
    let out_one_word = |at| {
        let (packet, stack) = word(at);
        [
            instruction(0x79, 0xa1, stack, 0),
            instruction(0x7b, 0x17, packet, 0),
        ]
    };
    let mut all = vec![
        instruction(0xbf, 0x16, 0, 0),  // r6 = r1
        instruction(0x61, 0x67, 76, 0), // r7 = skb->data
        instruction(0x61, 0x63, 80, 0), // r3 = skb->data_end
        instruction(0xbf, 0x74, 0, 0),  // r4 = r7
        instruction(0x07, 0x04, 0, 64), // r4 += 64
        instruction(0xb7, 0x00, 0, -1), // r0 = -1
        instruction(0x2d, 0x34, 38, 0), // if r4 > r3 goto exit
    ];
    all.extend((0..8).flat_map(in_one_word));
    all.extend([
        instruction(0xbf, 0x61, 0, 0),   // r1 = r6
        instruction(0xbf, 0xa2, 0, 0),   // r2 = r10
        instruction(0x07, 0x02, 0, -64), // r2 += -64
        instruction(0xb7, 0x03, 0, 64),  // r3 = 64
        instruction(0xb7, 0x04, 0, 0),   // r4 = 0
        instruction(0x85, 0, 0, 69),     // r0 = bpf_fib_lookup(r1, r2, r3, r4)
    ]);
    all.extend((0..8).flat_map(out_one_word));
    all.push(instruction(0x95, 0, 0, 0)); // exit
    all
}
