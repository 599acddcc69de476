//! Services: an address and port that is Kuafu's, and the ring behind it.

use super::{Be16, IpKey, map_types};

map_types! {
    /// Names a listener. At an entry the VNI is 0 (a packet from the Internet has none); at an exit it is the
    /// accelerator's. Protocol and port 0 stand for the whole address: what no listener takes is dropped there.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ServiceKey {
        /// The accelerated address as packets carry it (`local`).
        pub address: IpKey,
        /// 0, or the accelerator.
        pub vni: u32,
        /// The listener's port.
        pub port: Be16,
        /// TCP or UDP.
        pub protocol: u8,
        /// Zero.
        pub spare: u8,
    }

    /// A listener. Its ring is `size` consecutive slots of the table of rings; a new ring is written elsewhere and
    /// taken into use by one update of this value.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Service {
        /// The accelerator.
        pub vni: u32,
        /// The ring's first slot.
        pub first: u32,
        /// The ring's size; 0 while there is no target.
        pub size: u32,
        /// The accelerator's limit on this host, by its number; 0: none.
        pub limit: u32,
    }
}
