//! Keys and values of the maps, as kernel and userland share them.
//!
//! Each is `#[repr(C)]` without padding (asserted), so that its octets are its whole meaning: [`MapType`]. What an
//! agent writes and what packets change are different types in different maps: an agent's update never undoes a
//! count.

mod address;
mod cache;
mod capture;
mod connection;
mod fragment;
mod limit;
mod next_hop;
mod node;
mod path;
mod quic;
mod sample;
mod service;
mod shared;
mod shield;
mod sign;
mod vpc;
mod window;

pub use address::{Be16, Be32, IpKey, Mac, MacPair};
pub use cache::{CachedFlow, CachedFlows};
pub use capture::{CaptureOrder, CaptureRecord, CaptureState, CapturedProgram};
pub use connection::{Connection, ConnectionKey, HEARD};
pub use fragment::{FirstFragment, FragmentKey, Fragmenter};
pub use limit::{Bucket, JIFFY, Limit, LimitState};
pub use next_hop::{HopKind, NextHop, Tunnel, Wrap};
pub use node::{Counter, Drop, FRAME_START, NodeConfig};
pub use path::{
    End, Leg, NO_PATH, Pair, PairState, Path, PathState, Slot, SlotKind, SlotState, TagKey, watch,
};
pub use quic::{ConnectionIds, QuicServerKey};
pub use sample::Sample;
pub use service::{KEEPS, MemberKey, Phase, Seen, Service, ServiceKey, TAKES, Tracked, policy};
pub use shared::{Atomics, Shared, SingleThreaded};
pub use shield::{
    AdmittedKey, AdmittedKeyV6, HITTERS, Hitter, HitterV6, MOST_LISTED, PassedOn, Question, Rate,
    SOURCE_BUCKETS, Shield, ShieldCounts, ShieldState, Tally, asked, guard, listed_key, said,
};
pub use sign::{Sign, TargetSigns};
pub use vpc::{Endpoint, EndpointKey, Neighbour, Port, Vtep, VtepKey};
pub use window::{LANES, OwnWindow, Window};

/// A type that may be a key or a value of a map: no padding, and any bits are valid.
///
/// Implemented by `map_types!`, which asserts the first, and beside it where that is asserted too; fields are integers,
/// shared numbers, arrays of them, or other map types, which gives the second.
pub trait MapType: Sized + Send + 'static {}

macro_rules! map_types {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident { $( $(#[$doc:meta])* $vis:vis $field:ident: $type:ty, )+ }
    )+) => { $(
        $(#[$meta])*
        #[repr(C)]
        pub struct $name { $( $(#[$doc])* $vis $field: $type, )+ }

        impl crate::map::MapType for $name {}

        const _: () = {
            const fn holds_map_types<T: crate::map::field::Field>() {}
            $( holds_map_types::<$type>(); )+
            assert!(size_of::<$name>() == 0 $( + size_of::<$type>() )+, "padding");
        };
    )+ };
}
use map_types;

/// What a map type may consist of.
mod field {
    pub(super) trait Field {}

    impl Field for u8 {}
    impl Field for u16 {}
    impl Field for u32 {}
    impl Field for u64 {}
    impl Field for super::Shared {}
    impl<T: Field, const N: usize> Field for [T; N] {}
    impl<T: super::MapType> Field for T {}
}
