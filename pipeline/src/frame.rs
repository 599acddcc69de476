//! The bytes of one packet, as a stage sees them.

/// A packet from its Ethernet header on.
///
/// `head` is the one bounds check: what it returns is read and written at offsets that are checked when the
/// program is compiled. A head borrows the frame, so no head outlives a change of the frame's size.
pub trait Frame {
    /// Octets in the frame, Ethernet header included. A segmentation-offload packet counts whole.
    fn len(&self) -> u32;

    /// Whether there is nothing in it.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Octets of payload in each of the segments that an offload packet will be cut into; 0 where it is none.
    fn segment(&self) -> u32;

    /// The first `N` octets, or `None` where the frame is shorter.
    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]>;

    /// 40 octets from `at` on as little-endian words, zeros beyond the frame's end. `at` must lie inside the frame.
    fn words(&mut self, at: u32) -> [u64; 5];

    /// Opens room for `S` in front of what follows the Ethernet header.
    ///
    /// Where `S::INNER_ETHERNET`, the last 14 octets of the room hold the Ethernet header that was in front. The rest
    /// of the room, and the Ethernet header in front of it, hold old octets: the caller writes all of them. `false`:
    /// no room, frame unchanged.
    #[must_use]
    fn push<S: Shim>(&mut self) -> bool;

    /// Takes out what [`push`](Self::push) put in. Where `S::INNER_ETHERNET`, the inner Ethernet header is in front
    /// afterwards; elsewhere the Ethernet header holds old octets and the caller writes it. `false`: could not, frame
    /// unchanged.
    #[must_use]
    fn pull<S: Shim>(&mut self) -> bool;

    /// Sends a copy of the frame as it is now out of an interface. `false`: could not; XDP never can.
    #[must_use]
    fn send_copy(&mut self, interface: u32) -> bool;

    /// Makes the frame `len` octets long and drops its offloads; octets that are added are zero. `false`: could not,
    /// frame unchanged.
    #[must_use]
    fn resize(&mut self, len: u32) -> bool;
}

/// An encapsulation, as far as a runner must know it to make room.
pub trait Shim {
    /// Octets that it adds.
    const LEN: u32;
    /// Whether the inner packet keeps an Ethernet header of its own, which is then part of `LEN`.
    const INNER_ETHERNET: bool;
}

/// IPv4, UDP, VXLAN and the inner Ethernet header (RFC 7348).
pub enum Vxlan {}

impl Shim for Vxlan {
    const LEN: u32 = 50;
    const INNER_ETHERNET: bool = true;
}

/// So many octets of headers around an IP packet, behind the frame's own Ethernet header.
pub enum Around<const OCTETS: u32> {}

impl<const OCTETS: u32> Shim for Around<OCTETS> {
    const LEN: u32 = OCTETS;
    const INNER_ETHERNET: bool = false;
}

/// IPv4, UDP, Geneve and Kuafu's option.
pub type Backbone = Around<60>;
/// An IPv4 header around an IPv4 packet (RFC 2003).
pub type Ipip = Around<20>;
/// IPv4 and UDP around an IPv4 packet: GUE, variant 1.
pub type Gue1 = Around<28>;
/// IPv4, UDP and GUE's header around an IPv4 packet: GUE, variant 0.
pub type Gue0 = Around<32>;
/// An IPv6 header around an IPv6 packet (RFC 2473).
pub type Ip6ip6 = Around<40>;
/// IPv6 and UDP around an IPv6 packet: GUE, variant 1.
pub type Gue1V6 = Around<48>;
/// IPv6, UDP and GUE's header around an IPv6 packet: GUE, variant 0.
pub type Gue0V6 = Around<52>;
