//! What a capture asks of the programs, and what they tell it.

use super::{Shared, map_types};

map_types! {
    /// What a capture asks. One entry, all zeros where nobody captures.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CaptureOrder {
        /// Until when, in jiffies; a capture that lives puts it off. 0: nobody captures.
        pub until: u64,
        /// Octets of a packet that are told, at most.
        pub snap_length: u32,
        /// Packets a second that are told; 0: all.
        pub rate: u32,
        /// 1: only packets that are dropped, as they are then.
        pub drops_only: u32,
        /// 0.
        pub reserved: u32,
    }

    /// What packets change while somebody captures. One entry.
    #[derive(Debug, Default)]
    pub struct CaptureState {
        /// The last packet's number.
        pub number: Shared,
        /// The second that the budget is of, since boot.
        pub second: Shared,
        /// Packets told in it.
        pub told: Shared,
        /// Packets beyond the rate, in all.
        pub left_out: Shared,
    }

    /// What is told of a packet on one side of a program; the packet's first octets follow it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CaptureRecord {
        /// When, in nanoseconds of the boot clock.
        pub time: u64,
        /// The packet's number: the same on both sides.
        pub number: u64,
        /// The interface on which it arrived.
        pub interface: u32,
        /// Octets in its frame.
        pub length: u32,
        /// The program: a `CapturedProgram`'s number.
        pub program: u32,
        /// 0 before the program, 1 after it.
        pub after: u32,
        /// What the program returned; 0 before it.
        pub verdict: u32,
        /// Why it was dropped: the reason's number and one, or 0.
        pub reason: u32,
    }
}

/// The programs that tell captures of their packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum CapturedProgram {
    /// XDP on the underlay.
    Edge = 0,
    /// tcx on ports.
    Port = 1,
    /// tcx on the underlay.
    Underlay = 2,
}

impl CapturedProgram {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Edge, Self::Port, Self::Underlay];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Port => "port",
            Self::Underlay => "underlay",
        }
    }
}

impl CaptureState {
    /// Counts a packet against the budget of its second; `false`: the budget is used up. Two CPUs may both begin a
    /// second, which lets a few more through.
    #[inline(always)]
    pub fn may_tell(&self, atomics: &impl super::Atomics, rate: u32, second: u64) -> bool {
        if rate == 0 {
            return true;
        }
        if self.second.get() != second {
            self.second.set(second);
            self.told.set(0);
        }
        if atomics.add(&self.told, 1) < rate as u64 {
            return true;
        }
        atomics.add(&self.left_out, 1);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::SingleThreaded;

    #[test]
    fn a_second_has_its_budget() {
        let state = CaptureState::default();
        let told = |rate, second| {
            (0..10)
                .filter(|_| state.may_tell(&SingleThreaded, rate, second))
                .count()
        };
        assert_eq!((told(3, 7), told(3, 8), told(0, 8)), (3, 3, 10));
        assert_eq!(state.left_out.get(), 14);
    }
}
