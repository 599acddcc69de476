//! A packet's bytes: in XDP directly, in tcx through the socket buffer.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, xdp_md,
};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_load_bytes,
    bpf_skb_pull_data, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use kuafu_pipeline::{Frame, Shim};

/// `BPF_ADJ_ROOM_MAC`: room behind the Ethernet header.
const ADJ_ROOM_MAC: u32 = 1;
/// `PACKET_HOST`: a packet for this host.
const PACKET_HOST: u32 = 0;
/// Octets in an Ethernet header.
const ETHERNET: usize = 14;
/// An inner Ethernet header belongs to the room that is opened.
const INNER_ETHERNET: u64 = BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64 | (ETHERNET as u64) << 56;
/// Outer IPv4 and UDP; a segmentation-offload packet stays whole.
const ENCAPSULATE: u64 =
    (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP) as u64;
/// The reverse.
const DECAPSULATE: u64 = (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_DECAP_L3_IPV4) as u64;

/// A place that can be copied to.
pub trait CopyStart {
    /// Copies the frame's first octets, `length` of them (at most the destination's size).
    fn copy_start(&self, destination: *mut u8, length: u32);
}

/// A packet in XDP. Where `FRAGS`, it may lie in several pieces, of which heads see the first.
pub struct XdpFrame<const FRAGS: bool> {
    context: *mut xdp_md,
}

impl<const FRAGS: bool> XdpFrame<FRAGS> {
    /// The packet of a program's context.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { context: context.ctx }
    }

    /// The interface on which it arrived.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context).ingress_ifindex }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context is valid while the program runs.
        unsafe {
            (
                load::<{ offset_of!(xdp_md, data) }>(self.context.cast()),
                load::<{ offset_of!(xdp_md, data_end) }>(self.context.cast()),
            )
        }
    }
}

impl<const FRAGS: bool> CopyStart for XdpFrame<FRAGS> {
    #[inline(always)]
    fn copy_start(&self, destination: *mut u8, length: u32) {
        // SAFETY: the caller's destination holds `length` octets; the kernel checks the source.
        unsafe { bpf_xdp_load_bytes(self.context, 0, destination.cast(), length) };
    }
}

impl<const FRAGS: bool> Frame for XdpFrame<FRAGS> {
    #[inline(always)]
    fn len(&self) -> u32 {
        if FRAGS {
            // SAFETY: the context is valid while the program runs.
            return unsafe { bpf_xdp_get_buff_len(self.context) } as u32;
        }
        let (start, end) = self.bounds();
        (end - start) as u32
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let (start, end) = self.bounds();
        if start + N > end {
            return None;
        }
        // SAFETY: `N` octets lie before the packet's end; the borrow of `self` ends before the packet is moved.
        Some(unsafe { &mut *(start as *mut [u8; N]) })
    }

    #[inline(always)]
    fn words(&mut self, at: u32) -> [u64; 5] {
        let (start, end) = self.bounds();
        if let Some(words) = words_between(start, end, at) {
            return words;
        }
        let mut words = [0; 5];
        let rest = at_most_40((self.len() as u64).wrapping_sub(at as u64));
        if rest != 0 {
            // SAFETY: `words` holds 40 octets; the kernel checks the source.
            unsafe { bpf_xdp_load_bytes(self.context, at, words.as_mut_ptr().cast(), rest as u32) };
        }
        words
    }

    #[inline(always)]
    fn push<S: Shim>(&mut self) -> bool {
        // The Ethernet header stays where it is, which is the end of the room.
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_xdp_adjust_head(self.context, -(S::LEN as i32)) == 0 }
    }

    #[inline(always)]
    fn pull<S: Shim>(&mut self) -> bool {
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_xdp_adjust_head(self.context, S::LEN as i32) == 0 }
    }

    #[inline(always)]
    fn send_copy(&mut self, _interface: u32) -> bool {
        false
    }

    #[inline(always)]
    fn resize(&mut self, len: u32) -> bool {
        let less = len as i32 - self.len() as i32;
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_xdp_adjust_tail(self.context, less) == 0 }
    }
}

/// A packet in tcx.
pub struct SkbFrame {
    skb: *mut __sk_buff,
}

impl SkbFrame {
    /// The packet of a program's context.
    #[inline(always)]
    pub fn new(context: &TcContext) -> Self {
        Self { skb: context.skb.skb }
    }

    /// The interface on which it arrived.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).ifindex }
    }

    /// The socket mark that it carries.
    #[inline(always)]
    pub fn mark(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).mark }
    }

    /// Whether it has a VLAN's tag, which the kernel has taken out of its octets.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).vlan_present != 0 }
    }

    /// Lets the host's stack take it, whichever Ethernet address it is for.
    #[inline(always)]
    pub fn becomes_the_hosts(&mut self) {
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_skb_change_type(self.skb, PACKET_HOST) };
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context is valid while the program runs.
        unsafe {
            (
                load::<{ offset_of!(__sk_buff, data) }>(self.skb.cast()),
                load::<{ offset_of!(__sk_buff, data_end) }>(self.skb.cast()),
            )
        }
    }

    #[inline(always)]
    fn pulled(&mut self, octets: u32) -> bool {
        // SAFETY: the context is valid while the program runs.
        self.len() >= octets && unsafe { bpf_skb_pull_data(self.skb, octets) == 0 }
    }

    #[inline(always)]
    fn adjust(&mut self, octets: i32, flags: u64) -> bool {
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_skb_adjust_room(self.skb, octets, ADJ_ROOM_MAC, flags) == 0 }
    }
}

impl CopyStart for SkbFrame {
    #[inline(always)]
    fn copy_start(&self, destination: *mut u8, length: u32) {
        // SAFETY: the caller's destination holds `length` octets; the kernel checks the source.
        unsafe { bpf_skb_load_bytes(self.skb.cast(), 0, destination.cast(), length) };
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn head<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let (start, end) = self.bounds();
        if start + N <= end {
            // SAFETY: `N` octets lie before the end; the borrow of `self` ends before the packet is moved.
            return Some(unsafe { &mut *(start as *mut [u8; N]) });
        }
        if !self.pulled(N as u32) {
            return None;
        }
        let (start, end) = self.bounds();
        if start + N > end {
            return None;
        }
        // SAFETY: as above.
        Some(unsafe { &mut *(start as *mut [u8; N]) })
    }

    #[inline(always)]
    fn words(&mut self, at: u32) -> [u64; 5] {
        let (start, end) = self.bounds();
        if let Some(words) = words_between(start, end, at) {
            return words;
        }
        let mut words = [0; 5];
        let rest = at_most_40((self.len() as u64).wrapping_sub(at as u64));
        if rest != 0 {
            // SAFETY: `words` holds 40 octets; the kernel checks the source.
            unsafe { bpf_skb_load_bytes(self.skb.cast(), at, words.as_mut_ptr().cast(), rest as u32) };
        }
        words
    }

    #[inline(always)]
    fn push<S: Shim>(&mut self) -> bool {
        if !S::INNER_ETHERNET {
            return self.adjust(S::LEN as i32, ENCAPSULATE);
        }
        let Some(header) = self.head::<ETHERNET>().map(|head| read_ethernet(head)) else {
            return false;
        };
        if !self.adjust(S::LEN as i32, ENCAPSULATE | INNER_ETHERNET) {
            return false;
        }
        // The room opened behind the Ethernet header; the inner one is missing at its end.
        let (start, end) = self.bounds();
        if start + S::LEN as usize + ETHERNET > end {
            return false;
        }
        write_ethernet(start + S::LEN as usize, header);
        true
    }

    #[inline(always)]
    fn pull<S: Shim>(&mut self) -> bool {
        if !S::INNER_ETHERNET {
            return self.adjust(-(S::LEN as i32), DECAPSULATE);
        }
        // The room closes behind the outer Ethernet header; the inner one takes its place.
        let (start, end) = self.bounds();
        if start + S::LEN as usize + ETHERNET > end {
            return false;
        }
        // SAFETY: 14 octets from there on lie before the end.
        let header = read_ethernet(unsafe { &*((start + S::LEN as usize) as *const [u8; ETHERNET]) });
        if !self.adjust(-(S::LEN as i32), DECAPSULATE) {
            return false;
        }
        let (start, end) = self.bounds();
        if start + ETHERNET > end {
            return false;
        }
        write_ethernet(start, header);
        true
    }

    #[inline(always)]
    fn send_copy(&mut self, interface: u32) -> bool {
        // What is written afterwards is not the copy's: the kernel gives the packet a head of its own.
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_clone_redirect(self.skb, interface, 0) == 0 }
    }

    #[inline(always)]
    fn resize(&mut self, len: u32) -> bool {
        // SAFETY: the context is valid while the program runs.
        unsafe { bpf_skb_change_tail(self.skb, len, 0) == 0 }
    }
}

/// A word of the context that the verifier turns into a pointer. Written as an instruction, since the compiler would
/// keep the word of an earlier load as 32 bits, and the verifier no longer see a pointer in it.
///
/// # Safety
/// `context` is the program's, and a pointer's word is at octet `AT` of it.
#[inline(always)]
unsafe fn load<const AT: usize>(context: *const u8) -> usize {
    let pointer: usize;
    // SAFETY: the caller's.
    unsafe { asm!("{0} = *(u32 *)({1} + {2})", out(reg) pointer, in(reg) context, const AT) };
    pointer
}

/// 40 octets from `at` on, where they lie between the bounds.
#[inline(always)]
fn words_between(start: usize, end: usize, at: u32) -> Option<[u64; 5]> {
    let from = start + at as usize;
    if from + 40 > end {
        return None;
    }
    let word = |index: usize| {
        // SAFETY: 40 octets from `from` on lie before the end.
        unsafe { ((from + index * 8) as *const u64).read_unaligned() }
    };
    Some([word(0), word(1), word(2), word(3), word(4)])
}

/// Octets to load into five words, where the packet has so many left.
#[inline(always)]
fn at_most_40(rest: u64) -> u64 {
    opaque(opaque(rest).min(40))
}

/// An Ethernet header as words.
type EthernetWords = (u64, u32, u16);

#[inline(always)]
fn read_ethernet(header: &[u8; ETHERNET]) -> EthernetWords {
    let at = header.as_ptr();
    // SAFETY: 8 + 4 + 2 octets are the 14 of the header.
    unsafe {
        (
            at.cast::<u64>().read_unaligned(),
            at.add(8).cast::<u32>().read_unaligned(),
            at.add(12).cast::<u16>().read_unaligned(),
        )
    }
}

/// Writes 14 octets at an address whose bounds were checked.
#[inline(always)]
fn write_ethernet(at: usize, (first, second, third): EthernetWords) {
    let at = at as *mut u8;
    // SAFETY: the caller checked that 14 octets from `at` on lie inside the packet.
    unsafe {
        at.cast::<u64>().write_unaligned(first);
        at.add(8).cast::<u32>().write_unaligned(second);
        at.add(12).cast::<u16>().write_unaligned(third);
    }
}

/// The same number, of which the compiler knows nothing: it keeps the checks that the verifier needs to see.
#[inline(always)]
pub fn opaque(number: u64) -> u64 {
    let mut same = number;
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) same) };
    same
}
