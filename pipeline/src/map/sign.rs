//! What becomes of the flows that begin with a target, as packets tell it.

use super::{Atomics, Shared, map_types};

/// Lines of a target: CPUs that count at the same time rarely share one.
const LINES: usize = 4;

map_types! {
    /// What packets have counted of one target, by [`Sign`]: a cache line for each few CPUs. Only ever grows.
    #[derive(Debug, Default)]
    pub struct TargetSigns {
        /// A line each.
        pub lines: [[Shared; 8]; LINES],
    }
}

/// What a packet says of a target. The flows of listeners and the connections of rewritten ones are counted apart: a
/// server that is rewritten to has both, one that answers itself has the former alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Sign {
    /// A flow of TCP without an entry sends a SYN.
    Begun,
    /// A flow of TCP that is entered goes on: its client has an answer.
    Followed,
    /// A connection is opened, by a SYN or by UDP.
    Opened,
    /// The first word of its server is none that refuses it.
    Answered,
    /// It is a reset, or an ICMP error says that nobody is there.
    Refused,
}

impl TargetSigns {
    /// Counts one.
    #[inline(always)]
    pub fn count<A: Atomics>(&self, atomics: &A, cpu: u32, sign: Sign) {
        atomics.add(&self.lines[cpu as usize % LINES][sign as usize], 1);
    }

    /// Octets from the beginning of a value to each of a sign's numbers: their sum is what was counted.
    pub fn offsets(sign: Sign) -> impl Iterator<Item = usize> {
        (0..LINES).map(move |line| line * size_of::<[Shared; 8]>() + sign as usize * size_of::<Shared>())
    }

    /// What was counted.
    #[must_use]
    pub fn sum(&self, sign: Sign) -> u64 {
        self.lines.iter().map(|line| line[sign as usize].get()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::SingleThreaded;
    use super::*;

    #[test]
    fn lines_are_summed() {
        let signs = TargetSigns::default();
        (0..9).for_each(|cpu| signs.count(&SingleThreaded, cpu, Sign::Refused));
        assert_eq!((signs.sum(Sign::Refused), signs.sum(Sign::Answered)), (9, 0));
        assert_eq!(signs.lines[0][Sign::Refused as usize].get(), 3);
        assert!(TargetSigns::offsets(Sign::Refused).eq([32, 96, 160, 224]));
    }
}
