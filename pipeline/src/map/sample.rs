//! What a probe that came home has measured.

use super::map_types;

map_types! {
    /// One round trip over one path.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Sample {
        /// The path that was measured: its number on this host.
        pub path: u32,
        /// The probe's number, from 0 on in each path.
        pub sequence: u32,
        /// T1: left here, nanoseconds of this host's boot clock.
        pub sent: u64,
        /// T2: arrived there, nanoseconds of that host's boot clock.
        pub reflector_received: u64,
        /// T3: left there, by the same clock.
        pub reflector_sent: u64,
        /// T4: came home, by this host's boot clock.
        pub received: u64,
        /// Data packets that we had sent on the path when the probe left, low 32 bits.
        pub data_sent: u32,
        /// Data packets of the path that had arrived there by then, low 32 bits.
        pub data_received: u32,
        /// Data packets that the reflector had sent on the way back, low 32 bits.
        pub reverse_sent: u32,
        /// Data packets of the way back that had arrived here, low 32 bits.
        pub reverse_received: u32,
    }
}
