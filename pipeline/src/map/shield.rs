//! The shield of a service: who may begin a flow to it, and how many may.

use super::{Atomics, Bucket, IpKey, JIFFY, MapType, Shared, map_types};

map_types! {
    /// What a service lets begin. A flow that has a target is nobody's concern here, but for the lists.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Shield {
        /// The accelerator, or the service.
        pub vni: u32,
        /// Bits of [`guard`].
        pub flags: u32,
        /// Lists, by their bits, whose sources are refused.
        pub blocked: u32,
        /// Lists, by their bits, whose sources may do all; they count before the others.
        pub allowed: u32,
        /// The secret of this host's SYN cookies.
        pub key: [u64; 2],
        /// New flows of a source: an IPv4 address, or a /64 of IPv6.
        pub source: Rate,
        /// New flows of the 256 sources of a /24, or the 65,536 of a /48 of IPv6.
        pub prefix: Rate,
        /// New flows altogether.
        pub budget: Rate,
        /// New flows altogether beyond which a shield that is not [`ALWAYS`](guard::ALWAYS) up goes up.
        pub alarm: Rate,
        /// For how many jiffies after the last flow too many it stays up.
        pub hold: u64,
        /// For how many jiffies a source counts as verified.
        pub verified_for: u64,
    }

    /// So many in a time, for a [`Bucket`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Rate {
        /// How long one takes, in [`JIFFY`]ths; 0: any number may pass.
        pub cost: u64,
        /// How long those take that may pass at once.
        pub depth: u64,
    }

    /// What packets change in a shield.
    #[derive(Debug, Default)]
    pub struct ShieldState {
        /// Of the [`budget`](Shield::budget).
        pub budget: Bucket,
        /// Of the [`alarm`](Shield::alarm).
        pub alarm: Bucket,
        /// Until when it is up, in jiffies.
        pub up_until: Shared,
        /// Since when it is up, or was when it was last.
        pub up_since: Shared,
    }

    /// What a CPU has counted of a shield, by [`Tally`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct ShieldCounts {
        /// Packets.
        pub packets: [u64; 8],
    }

    /// Who sends most, of those whose hash leads here: who is counted gives way when the others together have sent as
    /// many (Boyer and Moore's majority vote, 1981).
    #[derive(Debug, Default)]
    pub struct Hitter {
        /// The shield's number in the upper half, the source in the lower; 0: nobody.
        pub who: Shared,
        /// By how many packets it leads.
        pub lead: Shared,
    }

    /// The same of IPv6.
    #[derive(Debug, Default)]
    pub struct HitterV6 {
        /// The shield's number; 0: nobody.
        pub number: Shared,
        /// The first 64 bits of the source's address, or its first 48.
        pub network: Shared,
        /// By how many packets it leads.
        pub lead: Shared,
    }

    /// What the edge and the shield pass on to each other, on one CPU.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PassedOn {
        /// What the shield is asked; with [`asked::V6`] it lies elsewhere.
        pub question: Question,
        /// What it has said: see [`said`].
        pub said: u32,
        /// What a capture wants to know of the packet on its way, which the pipeline does not.
        pub watch: u32,
    }

    /// Names a client that a service's own back end has admitted.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct AdmittedKey {
        /// The accelerator, or the service.
        pub vni: u32,
        /// The client's IPv4 address.
        pub client: u32,
    }

    /// The same of a client of IPv6.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct AdmittedKeyV6 {
        /// The client's address.
        pub client: IpKey,
        /// The accelerator, or the service.
        pub vni: u32,
        /// Zero.
        spare: u32,
    }
}

/// What a shield is asked of a packet, with IPv4 addresses or keys of IPv6 ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Question<A = u32> {
    /// The shield.
    pub number: u32,
    /// Bits of [`asked`].
    pub what: u32,
    /// The client's address.
    pub source: A,
    /// The service's.
    pub destination: A,
    /// The client's port, above the service's.
    pub ports: u32,
    /// Of TCP its sequence number.
    pub sequence: u32,
}

impl MapType for Question {}
impl MapType for Question<IpKey> {}

const _: () = assert!(size_of::<Question>() == 24, "padding");
const _: () = assert!(size_of::<Question<IpKey>>() == 48, "padding");

/// What a [`Shield`] does.
pub mod guard {
    /// What it decides is done; else it is only counted.
    pub const ENFORCES: u32 = 1;
    /// It is up whatever comes; else when too much begins.
    pub const ALWAYS: u32 = 1 << 1;
    /// Sources of TCP must have returned a cookie.
    pub const COOKIES: u32 = 1 << 2;
    /// Nothing comes from UDP ports that are known to amplify.
    pub const NO_AMPLIFIERS: u32 = 1 << 3;
    /// Only admitted clients begin a flow, whether it is up or not.
    pub const ADMISSION: u32 = 1 << 4;
}

/// What a [`Question`] says of a packet.
pub mod asked {
    /// Its flow has a target.
    pub const KNOWN: u32 = 1;
    /// It is TCP.
    pub const TCP: u32 = 1 << 1;
    /// A SYN that begins a connection.
    pub const SYN: u32 = 1 << 2;
    /// A reset.
    pub const RESET: u32 = 1 << 3;
    /// It is an ICMP error about a packet to that client.
    pub const QUOTED: u32 = 1 << 4;
    /// In [`PassedOn`](super::PassedOn): of a packet of IPv6.
    pub const V6: u32 = 1 << 5;
}

/// What a shield has said of a [`Question`].
pub mod said {
    /// Nothing yet.
    pub const NOTHING: u32 = 0;
    /// It passes.
    pub const PASSES: u32 = 1;
    /// It passes, but its flow is not to be remembered.
    pub const PASSES_UNKNOWN: u32 = 2;
}

/// What a shield counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Tally {
    /// Packets of flows without a target that it looked at.
    New = 0,
    /// SYNs that were answered with a cookie.
    Challenged = 1,
    /// Cookies that came back.
    Verified = 2,
    /// From a blocked source.
    Blocked = 3,
    /// From a client that is not admitted.
    NotAdmitted = 4,
    /// More than their source or its prefix may begin.
    SourceLimited = 5,
    /// More than the service may get.
    OverBudget = 6,
    /// From a port that amplifies.
    Amplifier = 7,
}

/// Sources and prefixes each have so many [`Hitter`]s: a power of two.
pub const HITTERS: u32 = 4096;
/// Buckets of sources and prefixes, which share them by their hash: a power of two.
pub const SOURCE_BUCKETS: u32 = 131_072;

/// Places in the table of listed prefixes.
pub const MOST_LISTED: u32 = 1_048_576;

/// The key of the table of listed prefixes: an address's first octets, and how many bits they are (24 or 32).
#[inline(always)]
#[must_use]
pub const fn listed_key(address: u32, bits: u32) -> u64 {
    (bits as u64) << 32 | (address >> (32 - bits)) as u64
}

impl Shield {
    /// Whether a bit of [`guard`] is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

impl<A> Question<A> {
    /// Whether a bit of [`asked`] is set.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, what: u32) -> bool {
        self.what & what != 0
    }
}

impl Rate {
    /// Of a bucket that holds what comes in so many jiffies; more would not fit a [`Bucket`].
    const LONGEST: u64 = 1 << 13;

    /// So many a second, where a second has `hz` jiffies, and so many at once, at least one and at most what comes in
    /// 8,192 jiffies.
    #[must_use]
    pub const fn new(a_second: u64, at_once: u64, hz: u64) -> Self {
        let cost = (hz * JIFFY).div_ceil(a_second);
        let (depth, most) = (at_once.saturating_mul(cost), Self::LONGEST * JIFFY);
        let depth = if depth < most { depth } else { most };
        Self {
            cost,
            depth: if depth > cost { depth } else { cost },
        }
    }

    /// Takes one from its bucket, unless too many would be missing.
    #[inline(always)]
    pub fn take<A: Atomics>(&self, bucket: &Bucket, atomics: &A, now: u64) -> bool {
        self.cost == 0 || bucket.take(atomics, now, self.cost, self.depth)
    }

    /// How much of a bucket one takes, in 256ths.
    #[inline(always)]
    #[must_use]
    pub fn used_by_one(&self) -> u64 {
        if self.depth == 0 {
            0
        } else {
            (self.cost << 8).div_ceil(self.depth)
        }
    }

    /// How much of a bucket is used up, in 256ths.
    #[inline(always)]
    #[must_use]
    pub fn used(&self, bucket: &Bucket, now: u64) -> u64 {
        if self.depth == 0 {
            return 0;
        }
        (bucket.missing(now) << 8) / self.depth
    }
}

impl Hitter {
    /// Counts a packet of somebody.
    #[inline(always)]
    pub fn count<A: Atomics>(&self, atomics: &A, who: u64) {
        if self.who.get() == who {
            atomics.add(&self.lead, 1);
            return;
        }
        // Of a vote that CPUs cast at once one may get lost.
        match self.lead.get() {
            0 => {
                self.who.set(who);
                self.lead.set(1);
            }
            lead => self.lead.set(lead - 1),
        }
    }
}

impl HitterV6 {
    /// Counts a packet of somebody to a shield.
    #[inline(always)]
    pub fn count<A: Atomics>(&self, atomics: &A, number: u32, network: u64) {
        if self.network.get() == network && self.number.get() == number as u64 {
            atomics.add(&self.lead, 1);
            return;
        }
        // As of IPv4; and for a moment it may name the network that one CPU has written and the shield of the other.
        match self.lead.get() {
            0 => {
                self.number.set(number as u64);
                self.network.set(network);
                self.lead.set(1);
            }
            lead => self.lead.set(lead - 1),
        }
    }
}

impl AdmittedKeyV6 {
    /// Of a client.
    #[inline(always)]
    #[must_use]
    pub const fn new(vni: u32, client: IpKey) -> Self {
        Self {
            client,
            vni,
            spare: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::SingleThreaded;
    use super::*;

    #[test]
    fn a_rate_lets_pass_what_it_says() {
        let (rate, bucket) = (Rate::new(10, 5, 250), Bucket::new());
        let passed = |now| {
            (0..100)
                .filter(|_| rate.take(&bucket, &SingleThreaded, now))
                .count()
        };
        assert_eq!(passed(1000), 5, "at once");
        assert_eq!(passed(1250), 5, "no more than at once, a second later");
        assert_eq!(passed(1275), 1, "a tenth of a second later");
        assert_eq!(rate.used(&bucket, 1275), 256);
        assert_eq!(rate.used(&bucket, 1400), 0);
        assert!((0..1000).all(|_| Rate::default().take(&bucket, &SingleThreaded, 0)));
    }

    #[test]
    fn slow_rates_and_large_bursts_fit_a_bucket() {
        for hz in [100, 250, 1000] {
            for (a_second, at_once) in [(1, 1), (1, u64::MAX), (10_000_000, 10_000_000)] {
                let (rate, bucket) = (Rate::new(a_second, at_once, hz), Bucket::new());
                assert!(rate.take(&bucket, &SingleThreaded, 7));
                assert!(rate.depth <= JIFFY << 13 || rate.depth == rate.cost);
            }
        }
    }

    #[test]
    fn the_majority_is_found() {
        let place = Hitter::default();
        for packet in 0..999 {
            let who = if packet % 3 == 0 { 1 + packet } else { 7 };
            place.count(&SingleThreaded, who);
        }
        assert_eq!(place.who.get(), 7);
        assert!(place.lead.get() >= 333, "{place:?}");
    }
}
