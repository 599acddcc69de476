//! Views of protocol headers over the octets of a frame's head.
//!
//! A view borrows exactly as many octets as its header has, so each field's offset is checked when the program is
//! compiled. Numbers are in host order on this side of a view; addresses are [`Be32`](crate::map::Be32) on the map
//! side and `u32` here.

pub mod arp;
pub mod errand;
pub mod ethernet;
pub mod geneve;
pub mod gue;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod neighbour;
pub mod stamp;
pub mod tcp;
pub mod udp;
pub mod vxlan;

pub use arp::Arp;
pub use errand::Errand;
pub use ethernet::Ethernet;
pub use geneve::Geneve;
pub use gue::Gue;
pub use icmp::Icmp;
pub use ipv4::Ipv4;
pub use ipv6::Ipv6;
pub use stamp::Stamp;
pub use tcp::Tcp;
pub use udp::Udp;
pub use vxlan::Vxlan;

/// `L` octets of a head, from `AT` on. The bounds are checked when the program is compiled.
#[inline(always)]
#[must_use]
pub fn part<const AT: usize, const L: usize, const N: usize>(head: &mut [u8; N]) -> &mut [u8; L] {
    const { assert!(AT + L <= N) };
    match head.split_at_mut(AT).1.first_chunk_mut() {
        Some(part) => part,
        None => unreachable!(),
    }
}

#[inline(always)]
fn chunk<const AT: usize, const L: usize, const N: usize>(octets: &[u8; N]) -> [u8; L] {
    const { assert!(AT + L <= N) };
    match octets.split_at(AT).1.first_chunk() {
        Some(chunk) => *chunk,
        None => unreachable!(),
    }
}

/// A big-endian 16-bit field.
#[inline(always)]
#[must_use]
pub fn be16<const AT: usize, const N: usize>(octets: &[u8; N]) -> u16 {
    u16::from_be_bytes(chunk::<AT, 2, N>(octets))
}

/// A big-endian 32-bit field.
#[inline(always)]
#[must_use]
pub fn be32<const AT: usize, const N: usize>(octets: &[u8; N]) -> u32 {
    u32::from_be_bytes(chunk::<AT, 4, N>(octets))
}

/// A 32-bit word in the order of its octets, as SipHash reads it.
#[inline(always)]
#[must_use]
pub fn le32<const AT: usize, const N: usize>(octets: &[u8; N]) -> u32 {
    u32::from_le_bytes(chunk::<AT, 4, N>(octets))
}

/// A 64-bit word in the order of its octets, as SipHash reads it.
#[inline(always)]
#[must_use]
pub fn le64<const AT: usize, const N: usize>(octets: &[u8; N]) -> u64 {
    u64::from_le_bytes(chunk::<AT, 8, N>(octets))
}

/// 40 octets as little-endian words.
#[inline(always)]
#[must_use]
pub fn words<const AT: usize, const N: usize>(head: &mut [u8; N]) -> [u64; 5] {
    let octets = &*part::<AT, 40, N>(head);
    [
        le64::<0, 40>(octets),
        le64::<8, 40>(octets),
        le64::<16, 40>(octets),
        le64::<24, 40>(octets),
        le64::<32, 40>(octets),
    ]
}

/// Writes a big-endian 16-bit field.
#[inline(always)]
pub fn put16<const AT: usize, const N: usize>(octets: &mut [u8; N], value: u16) {
    *part::<AT, 2, N>(octets) = value.to_be_bytes();
}

/// Writes a big-endian 32-bit field.
#[inline(always)]
pub fn put32<const AT: usize, const N: usize>(octets: &mut [u8; N], value: u32) {
    *part::<AT, 4, N>(octets) = value.to_be_bytes();
}

/// Writes a little-endian 32-bit word.
#[inline(always)]
pub fn put_le32<const AT: usize, const N: usize>(octets: &mut [u8; N], value: u32) {
    *part::<AT, 4, N>(octets) = value.to_le_bytes();
}

/// Writes a 64-bit word in the order of its octets.
#[inline(always)]
pub fn put_le64<const AT: usize, const N: usize>(octets: &mut [u8; N], value: u64) {
    *part::<AT, 8, N>(octets) = value.to_le_bytes();
}

/// Defines a view: a type that borrows the octets of one header.
macro_rules! view {
    ($(#[$meta:meta])* $name:ident, $len:literal) => {
        $(#[$meta])*
        pub struct $name<'a>(&'a mut [u8; $len]);

        impl<'a> $name<'a> {
            /// Octets in this header.
            pub const LEN: usize = $len;

            /// The header that starts at octet `AT` of a head.
            #[inline(always)]
            #[must_use]
            pub fn at<const AT: usize, const N: usize>(head: &'a mut [u8; N]) -> Self {
                Self(crate::header::part::<AT, $len, N>(head))
            }
        }
    };
}
pub(crate) use view;
