//! Datagrams in fragments: what the first one says for the others, and who cuts what is too large.

use super::{Atomics, Be32, Bucket, JIFFY, Shared, map_types};

map_types! {
    /// Names the datagram of a fragment (RFC 791, §3.2) as the packet arrives: from the backbone with the
    /// accelerator's VNI, or from the Internet or an endpoint with VNI 0.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FragmentKey {
        /// Source address.
        pub source: Be32,
        /// Destination address.
        pub destination: Be32,
        /// 0, or the accelerator.
        pub vni: u32,
        /// The identification, and the protocol below it.
        pub datagram: u32,
    }

    /// What the first fragment of a datagram said.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FirstFragment {
        /// When it was seen, in nanoseconds since boot.
        pub seen: u64,
        /// Source and destination port.
        pub ports: u32,
        /// Octets in its IP packet.
        pub length: u32,
    }

    /// The prober's thread that fragments packets, and its budget. One entry, all zeros where there is none; the thread
    /// writes the first three words, each by itself.
    #[derive(Debug, Default)]
    pub struct Fragmenter {
        /// Until when it is there, in jiffies; while it lives it puts that off.
        pub until: Shared,
        /// The interface that leads to it.
        pub interface: Shared,
        /// Packets a jiffy that it takes.
        pub per_jiffy: Shared,
        /// What it has taken of them.
        pub bucket: Bucket,
    }
}

impl FragmentKey {
    /// Of a datagram between these addresses.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, [source, destination]: [u32; 2], identification: u16, protocol: u8) -> Self {
        Self {
            source: Be32::new(source),
            destination: Be32::new(destination),
            vni,
            datagram: (identification as u32) << 16 | protocol as u32,
        }
    }
}

impl FirstFragment {
    /// How long it speaks for the others, in nanoseconds.
    const KEPT: u64 = 5_000_000_000;

    /// Of a fragment with these ports, each source first.
    #[inline(always)]
    #[must_use]
    pub const fn new(now: u64, [source, destination]: [u16; 2], length: u32) -> Self {
        Self {
            seen: now,
            ports: (source as u32) << 16 | destination as u32,
            length,
        }
    }

    /// Source and destination port, where it still speaks for the others.
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self, now: u64) -> Option<[u16; 2]> {
        if now.wrapping_sub(self.seen) > Self::KEPT {
            return None;
        }
        Some([(self.ports >> 16) as u16, self.ports as u16])
    }
}

impl Fragmenter {
    /// The interface that leads to it, where it is there and takes one more packet.
    #[inline(always)]
    pub fn take<A: Atomics>(&self, atomics: &A, now: u64) -> Option<u32> {
        let per_jiffy = self.per_jiffy.get();
        if now >= self.until.get() || per_jiffy == 0 {
            return None;
        }
        if !self.bucket.take(atomics, now, JIFFY / per_jiffy, JIFFY) {
            return None;
        }
        Some(self.interface.get() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::SingleThreaded;

    #[test]
    fn a_first_fragment_speaks_for_five_seconds() {
        let first = FirstFragment::new(1_000, [4000, 7000], 1500);
        assert_eq!(first.ports(1_000), Some([4000, 7000]));
        assert_eq!(first.ports(5_000_001_000), Some([4000, 7000]));
        assert_eq!(first.ports(5_000_001_001), None);
        assert_eq!(first.ports(999), None, "another clock");
    }

    #[test]
    fn a_fragmenter_takes_its_budget_while_it_is_there() {
        let fragmenter = Fragmenter::default();
        assert_eq!(fragmenter.take(&SingleThreaded, 0), None);
        fragmenter.interface.set(14);
        fragmenter.per_jiffy.set(2);
        fragmenter.until.set(9);
        let taken = [(); 3].map(|()| fragmenter.take(&SingleThreaded, 8));
        assert_eq!(taken, [Some(14), Some(14), None]);
        assert_eq!(fragmenter.take(&SingleThreaded, 9), None);
    }
}
