//! What the stages look up, and what else they need of the host that they run on.

use crate::map::{
    AdmittedKey, AdmittedKeyV6, Atomics, Bucket, CachedFlows, Connection, ConnectionKey, Endpoint,
    EndpointKey, FirstFragment, FragmentKey, Fragmenter, Hitter, HitterV6, IpKey, Limit, LimitState, MacPair,
    MemberKey, Neighbour, NextHop, NodeConfig, OwnWindow, Pair, PairState, Path, PathState, Port, Question,
    QuicServerKey, Sample, Seen, Service, ServiceKey, Shield, ShieldState, Slot, SlotState, Tally,
    TargetSigns, Tracked, Vtep, VtepKey, Window,
};
use crate::{Event, Frame, Outcome, Reason};

/// Where the host's own routes lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The interface to send out of.
    pub interface: u32,
    /// Ethernet addresses of the next hop and of that interface.
    pub macs: MacPair,
}

/// Look-ups, clocks and counters of one host.
///
/// References stay valid for one packet: an entry that is replaced meanwhile is still readable, as RCU gives it.
pub trait Tables: Atomics {
    /// The host itself.
    fn node(&self) -> Option<&NodeConfig>;
    /// A port by its host-side interface.
    fn port(&self, interface: u32) -> Option<&Port>;
    /// An endpoint of a VPC.
    fn endpoint(&self, key: &EndpointKey) -> Option<&Endpoint>;
    /// Whether a host may send into a VPC.
    fn may_send(&self, key: &VtepKey) -> bool;
    /// Another host, by number.
    fn vtep(&self, index: u32) -> Option<&Vtep>;
    /// A neighbour, by number.
    fn neighbour(&self, index: u32) -> Option<&Neighbour>;
    /// What a label means.
    fn slot(&self, label: u32) -> Option<&Slot>;
    /// What packets change in a slot.
    fn slot_state(&self, label: u32) -> Option<&SlotState>;
    /// A path that begins here.
    fn path(&self, index: u32) -> Option<&Path>;
    /// What packets change in a path.
    fn path_state(&self, index: u32) -> Option<&PathState>;
    /// A pair of paths.
    fn pair(&self, index: u32) -> Option<&Pair>;
    /// What packets change in a pair.
    fn pair_state(&self, index: u32) -> Option<&PairState>;
    /// The replay window of a pair that ends here.
    fn window(&self, index: u32) -> Option<&Window>;
    /// The window of one path's copies.
    fn own_window(&self, index: u32) -> Option<&OwnWindow>;
    /// A listener.
    fn service(&self, key: &ServiceKey) -> Option<&Service>;
    /// A slot of the table of rings: the number of a target.
    fn ring(&self, index: u32) -> Option<u32>;
    /// A target, by number.
    fn target(&self, index: u32) -> Option<&NextHop>;
    /// What packets have counted of a target.
    fn target_signs(&self, index: u32) -> Option<&TargetSigns>;
    /// What a target is to a service.
    fn member(&self, key: &MemberKey) -> Option<u32>;
    /// A flow's target.
    fn tracked(&self, key: &ConnectionKey) -> Option<&Tracked>;
    /// Enters a flow's target, unless there is one.
    ///
    /// # Errors
    /// [`Insertion`].
    fn track(&self, key: &ConnectionKey, value: Tracked) -> Result<(), Insertion>;
    /// The line of the flow cache on which a flow of this hash falls.
    fn cached_flows(&self, hash: u32) -> Option<&CachedFlows>;
    /// Where a UDP flow of this hash leaves its mark.
    fn seen(&self, hash: u32) -> Option<&Seen>;
    /// The target that is the server of an id in connection ids.
    fn quic_target(&self, key: &QuicServerKey) -> Option<u32>;
    /// The limit of an accelerator, by its number here.
    fn limit(&self, number: u32) -> Option<&Limit>;
    /// What packets change in a limit.
    fn limit_state(&self, number: u32) -> Option<&LimitState>;
    /// A shield, by its number here.
    fn shield(&self, number: u32) -> Option<&Shield>;
    /// What packets change in a shield.
    fn shield_state(&self, number: u32) -> Option<&ShieldState>;
    /// Does what [`shield::decide`](crate::stage::shield::decide) does, where the runner has room for it.
    ///
    /// # Errors
    /// As there.
    fn shielded<F: Frame>(&self, frame: &mut F, interface: u32, question: &Question)
    -> Result<bool, Outcome>;
    /// The same of a packet of IPv6.
    ///
    /// # Errors
    /// As there.
    fn shielded_v6<F: Frame>(
        &self,
        frame: &mut F,
        interface: u32,
        question: &Question<IpKey>,
    ) -> Result<bool, Outcome>;
    /// Counts a packet of a shield.
    fn tally(&self, number: u32, what: Tally);
    /// The bucket of a source or a prefix with this hash.
    fn source_bucket(&self, hash: u32) -> Option<&Bucket>;
    /// Who sends most of what has this hash: of sources, or of prefixes.
    fn hitter(&self, hash: u32, is_prefix: bool) -> Option<&Hitter>;
    /// The same of IPv6.
    fn hitter_v6(&self, hash: u32, is_prefix: bool) -> Option<&HitterV6>;
    /// Until when, in jiffies, an IPv4 address counts as one that answers.
    fn verified(&self, source: u32) -> Option<u64>;
    /// Enters that. Where there is no room, the oldest is forgotten.
    fn verify(&self, source: u32, until: u64);
    /// The same of a /64 of IPv6.
    fn verified_v6(&self, network: u64) -> Option<u64>;
    /// Enters that, as of IPv4.
    fn verify_v6(&self, network: u64, until: u64);
    /// Until when, in jiffies, a client is admitted.
    fn admitted(&self, key: &AdmittedKey) -> Option<u64>;
    /// The same of a client of IPv6.
    fn admitted_v6(&self, key: &AdmittedKeyV6) -> Option<u64>;
    /// Of the lists' longer prefixes: for 64 networks of 256 addresses, whether the table of listed has any of theirs.
    fn list_marks(&self, place: u32) -> Option<u64>;
    /// Of a network of 65,536 addresses the lists that have all of it.
    fn list_area(&self, network: u32) -> Option<u32>;
    /// The lists that have all of a network of 256 addresses, or a single one: see [`listed_key`](crate::map::listed_key).
    fn listed(&self, key: u64) -> Option<u32>;
    /// One direction of a connection.
    fn connection(&self, key: &ConnectionKey) -> Option<&Connection>;

    /// Enters one direction of a connection, unless there is one.
    ///
    /// # Errors
    /// [`Insertion`].
    fn open(&self, key: &ConnectionKey, value: Connection) -> Result<(), Insertion>;
    /// Takes one direction of a connection out again.
    fn close(&self, key: &ConnectionKey);
    /// Where the host's own routes lead for an IPv4 address, as `from` sends to it.
    ///
    /// # Errors
    /// `NoRoute` and `NoNeighbour`.
    fn route(&self, from: u32, to: u32) -> Result<Route, Reason>;
    /// What the first fragment of a datagram said, a copy: the entry may be another datagram's the next moment.
    fn fragment(&self, key: &FragmentKey) -> Option<FirstFragment>;
    /// Remembers what the first fragment of a datagram says. Where there is no room, the oldest is forgotten.
    fn remember(&self, key: &FragmentKey, value: FirstFragment);
    /// Who fragments what is too large.
    fn fragmenter(&self) -> Option<&Fragmenter>;
    /// What limits our answers by ICMP.
    fn icmp_bucket(&self) -> Option<&Bucket>;
    /// Hands a measurement to whoever collects them. `false`: no room.
    fn sample(&self, sample: &Sample) -> bool;

    /// The same number; in the kernel the compiler does not see that. Of an [`Outcome`] that has no number it leaves the
    /// number's place as it finds it, and where that is an address the verifier refuses to see it moved.
    #[inline(always)]
    fn settled(&self, number: u32) -> u32 {
        number
    }

    /// Counts what was done with a packet of so many octets.
    fn count(&self, event: Event, octets: u32);
    /// The coarse clock: jiffies.
    fn jiffies(&self) -> u64;
    /// Nanoseconds since boot.
    fn nanoseconds(&self) -> u64;
    /// The CPU that handles the packet.
    fn cpu(&self) -> u32;
}

/// Why a connection could not be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// There is one under that key.
    Exists,
    /// The table is full.
    Full,
}
