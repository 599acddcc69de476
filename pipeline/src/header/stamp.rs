//! STAMP (RFC 8762) in unauthenticated mode, with the Direct Measurement TLV (RFC 8972 §4.5).
//!
//! Both directions have 44 octets and the TLV: 60 in all. Times are in the PTPv2 format, seconds and nanoseconds of
//! the node's own boot clock: only differences within a node mean anything.

use super::{be32, put16, put32, view};

/// The UDP port of a reflector.
pub const PORT: u16 = 862;
/// Error estimate: PTPv2 format (Z), not synchronised, multiplier 1.
const ERROR_ESTIMATE: u16 = 0x4001;
/// The Direct Measurement TLV: flags, type 5, 12 octets.
const DIRECT_MEASUREMENT: u32 = 0x0005_000c;
/// The TLV's flag "unrecognised": set by a sender, cleared by a reflector that knows the TLV (RFC 8972 §4).
const UNRECOGNISED: u32 = 0x8000_0000;

view! {
    /// A STAMP packet, from either side, with its TLV.
    Stamp, 60
}

/// A time: seconds and nanoseconds of the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Whole seconds.
    pub seconds: u32,
    /// Nanoseconds of the second.
    pub nanoseconds: u32,
}

impl Time {
    /// From nanoseconds since boot.
    #[inline(always)]
    #[must_use]
    pub const fn from_nanoseconds(total: u64) -> Self {
        Self {
            seconds: (total / 1_000_000_000) as u32,
            nanoseconds: (total % 1_000_000_000) as u32,
        }
    }

    /// Nanoseconds since boot.
    #[inline(always)]
    #[must_use]
    pub const fn nanoseconds_since_boot(self) -> u64 {
        self.seconds as u64 * 1_000_000_000 + self.nanoseconds as u64
    }
}

impl Stamp<'_> {
    /// The sequence number of whoever sent this packet.
    #[inline(always)]
    #[must_use]
    pub fn sequence(&self) -> u32 {
        be32::<0, 60>(self.0)
    }

    /// When the packet left (T1 of a sender, T3 of a reflector).
    #[inline(always)]
    #[must_use]
    pub fn sent(&self) -> Time {
        Time {
            seconds: be32::<4, 60>(self.0),
            nanoseconds: be32::<8, 60>(self.0),
        }
    }

    /// When the reflector received it (T2).
    #[inline(always)]
    #[must_use]
    pub fn received(&self) -> Time {
        Time {
            seconds: be32::<16, 60>(self.0),
            nanoseconds: be32::<20, 60>(self.0),
        }
    }

    /// When the sender sent it (T1), in a reflector's packet.
    #[inline(always)]
    #[must_use]
    pub fn first_sent(&self) -> Time {
        Time {
            seconds: be32::<28, 60>(self.0),
            nanoseconds: be32::<32, 60>(self.0),
        }
    }

    /// Whether the TLV for direct measurement follows.
    #[inline(always)]
    #[must_use]
    pub fn has_counters(&self) -> bool {
        be32::<44, 60>(self.0) & 0x00ff_ffff == DIRECT_MEASUREMENT
    }

    /// What the sender had sent, the reflector received, and the reflector sent: packets, low 32 bits.
    #[inline(always)]
    #[must_use]
    pub fn counters(&self) -> [u32; 3] {
        [
            be32::<48, 60>(self.0),
            be32::<52, 60>(self.0),
            be32::<56, 60>(self.0),
        ]
    }

    /// Fills in what a sender knows when the packet leaves.
    #[inline(always)]
    pub fn depart(&mut self, sequence: u32, now: Time, sent: u32) {
        put32::<0, 60>(self.0, sequence);
        self.set_sent(now);
        put16::<12, 60>(self.0, ERROR_ESTIMATE);
        put32::<44, 60>(self.0, UNRECOGNISED | DIRECT_MEASUREMENT);
        put32::<48, 60>(self.0, sent);
    }

    /// Turns a sender's packet into the reflector's (RFC 8762 §4.3): the sender's fields move behind the
    /// reflector's own. `ttl` is what the probe arrived with.
    #[inline(always)]
    pub fn reflect(&mut self, received: Time, now: Time, ttl: u8, counters: [u32; 2]) {
        let (sequence, first_sent) = (self.sequence(), self.sent());
        let estimate = super::be16::<12, 60>(self.0);
        self.set_sent(now);
        put32::<12, 60>(self.0, (ERROR_ESTIMATE as u32) << 16);
        put32::<16, 60>(self.0, received.seconds);
        put32::<20, 60>(self.0, received.nanoseconds);
        put32::<24, 60>(self.0, sequence);
        put32::<28, 60>(self.0, first_sent.seconds);
        put32::<32, 60>(self.0, first_sent.nanoseconds);
        put32::<36, 60>(self.0, (estimate as u32) << 16);
        put32::<40, 60>(self.0, (ttl as u32) << 24);
        put32::<44, 60>(self.0, DIRECT_MEASUREMENT);
        put32::<52, 60>(self.0, counters[0]);
        put32::<56, 60>(self.0, counters[1]);
    }

    #[inline(always)]
    fn set_sent(&mut self, time: Time) {
        put32::<4, 60>(self.0, time.seconds);
        put32::<8, 60>(self.0, time.nanoseconds);
    }
}
