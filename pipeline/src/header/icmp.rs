//! ICMP for IPv4 (RFC 792) and for IPv6 (RFC 4443).

use super::{be16, put16, put32, view};
use crate::checksum::{self, Change};

/// Echo reply, and request.
pub const ECHO_REPLY: u8 = 0;
/// See [`ECHO_REPLY`].
pub const ECHO_REQUEST: u8 = 8;
/// Destination unreachable.
pub const UNREACHABLE: u8 = 3;
/// Code of [`UNREACHABLE`]: fragmentation needed and DF set.
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// ICMPv6: a packet is too big; the last of the errors is parameter problem.
pub const TOO_BIG_V6: u8 = 2;
/// See [`TOO_BIG_V6`].
const PARAMETER_PROBLEM_V6: u8 = 4;
/// ICMPv6: echo request, and reply.
pub const ECHO_REQUEST_V6: u8 = 128;
/// See [`ECHO_REQUEST_V6`].
pub const ECHO_REPLY_V6: u8 = 129;

view! {
    /// An ICMP header: type, code, checksum and the four octets whose meaning the type gives.
    Icmp, 8
}

impl Icmp<'_> {
    /// The message's type.
    #[inline(always)]
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.0[0]
    }

    /// Whether it is an error, which quotes the packet that caused it.
    #[inline(always)]
    #[must_use]
    pub fn is_error(&self) -> bool {
        matches!(self.kind(), UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
    }

    /// Whether it says that nobody is where its packet was sent: all of destination unreachable but that it is too large.
    #[inline(always)]
    #[must_use]
    pub fn says_nobody(&self) -> bool {
        self.0[0] == UNREACHABLE && self.0[1] != FRAGMENTATION_NEEDED
    }

    /// Whether it is an echo request.
    #[inline(always)]
    #[must_use]
    pub fn is_echo_request(&self) -> bool {
        be16::<0, 8>(self.0) == (ECHO_REQUEST as u16) << 8
    }

    /// The same of ICMPv6.
    #[inline(always)]
    #[must_use]
    pub fn is_error_v6(&self) -> bool {
        matches!(self.kind(), 1..=PARAMETER_PROBLEM_V6)
    }

    /// Whether it is an echo request of ICMPv6.
    #[inline(always)]
    #[must_use]
    pub fn is_echo_request_v6(&self) -> bool {
        be16::<0, 8>(self.0) == (ECHO_REQUEST_V6 as u16) << 8
    }

    /// Writes the message's type; the checksum is the caller's.
    #[inline(always)]
    pub fn set_kind(&mut self, kind: u8) {
        self.0[0] = kind;
    }

    /// Corrects the checksum for a change of what it covers. A message of zeros alone is covered by ones only, any other
    /// one by both forms of zero.
    #[inline(always)]
    pub fn correct(&mut self, change: Change) {
        let checksum = change.apply(be16::<2, 8>(self.0));
        put16::<2, 8>(self.0, if checksum == 0 { 0xffff } else { checksum });
    }

    /// Writes "fragmentation needed" (RFC 1191) for a quote whose 16-bit halves sum to `quote`.
    #[inline(always)]
    pub fn write_too_big(&mut self, mtu: u16, quote: u32) {
        let first = (UNREACHABLE as u32) << 24 | (FRAGMENTATION_NEEDED as u32) << 16;
        let sum = checksum::add32(quote, first) + mtu as u32;
        put32::<0, 8>(self.0, first | checksum::finish(sum) as u32);
        put32::<4, 8>(self.0, mtu as u32);
    }

    /// Writes ICMPv6's "packet too big", where what else its checksum covers sums to `covered` (see
    /// [`checksum::words`]).
    #[inline(always)]
    pub fn write_too_big_v6(&mut self, mtu: u32, covered: u64) {
        let first = (TOO_BIG_V6 as u32) << 24;
        let sum = covered + first.swap_bytes() as u64 + mtu.swap_bytes() as u64;
        let checksum = !checksum::fold_words(sum);
        put32::<0, 8>(self.0, first | checksum.swap_bytes() as u32);
        put32::<4, 8>(self.0, mtu);
    }
}
