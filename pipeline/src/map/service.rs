//! Services: an address and port that is Kuafu's, and the ring behind it.

use super::{Atomics, Be16, IpKey, Mac, Shared, map_types};

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
    ///
    /// Of a whole address only `policy` counts, and, where ARP requests for it are answered, the Ethernet address that
    /// the answers name: see [`mac`](Self::mac).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Service {
        /// The accelerator, or the service.
        pub vni: u32,
        /// The ring's first slot.
        pub first: u32,
        /// The ring's size; 0 while there is no target.
        pub size: u32,
        /// The accelerator's limit on this host, by its number; 0: none.
        pub limit: u32,
        /// The ring before, likewise.
        pub previous_first: u32,
        /// Its size; 0: there was none.
        pub previous_size: u32,
        /// Until when, in jiffies, flows that may have begun before belong to the ring before.
        pub previous_until: u64,
        /// The same for a UDP flow of which nothing tells whether it is new.
        pub previous_until_udp: u64,
        /// Another one after each change of the ring or of its members.
        pub generation: u32,
        /// Bits of [`policy`](super::policy).
        pub policy: u32,
        /// Octets in the largest IP packet of a client that is sent on; 0: the underlay's MTU alone limits it.
        pub largest: u32,
        /// Its shield on this host, by number; 0: none.
        pub shield: u32,
    }

    /// Names a target as one of a service's.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct MemberKey {
        /// The accelerator, or the service.
        pub vni: u32,
        /// The target's number.
        pub target: u32,
    }

    /// The target of a flow, which it keeps while that is one of its service's. A flow is entered with its second packet,
    /// or with the first one where the ring before leads elsewhere.
    #[derive(Debug)]
    pub struct Tracked {
        /// The target's number; in the upper half the [`generation`](Service::generation) in which it was one.
        choice: Shared,
        /// When the flow's last packet came, in jiffies; the two upper bits: how far it is.
        last_packet: Shared,
    }

    /// Places where UDP flows leave that they were here, and when: a cache line, on which a flow falls by its hash.
    #[derive(Debug, Default)]
    pub struct Seen {
        /// The flow's hash in the upper half, jiffies in the lower; 0: nobody was here.
        pub marks: [Shared; 8],
    }
}

/// What a [`Service`] does beside its ring. Zero is what an accelerator does.
pub mod policy {
    /// Of a listener: all flows of a client lead to one target.
    pub const BY_CLIENT: u32 = 1;
    /// Of a listener: all flows to a port lead to one target.
    pub const BY_PORT: u32 = 1 << 1;
    /// Of a listener: QUIC, whose connections are told by their ids. How these are laid out stands from
    /// [`CONNECTION_IDS`] on.
    pub const QUIC: u32 = 1 << 2;
    /// Of a whole address: what no listener takes is the host's own.
    pub const OPEN: u32 = 1 << 8;
    /// Of a whole address: there is a listener for all its ports of TCP.
    pub const ALL_TCP: u32 = 1 << 9;
    /// Of a whole address: there is a listener for all its ports of UDP.
    pub const ALL_UDP: u32 = 1 << 10;
    /// Of a whole address: fragments are dropped, and not sent on with their first one.
    pub const DROP_FRAGMENTS: u32 = 1 << 11;
    /// Of a whole address: fragments are the host's own.
    pub const PASS_FRAGMENTS: u32 = 1 << 12;
    /// Of a whole address: packets with IP options are the host's own, and not dropped.
    pub const PASS_OPTIONS: u32 = 1 << 13;
    /// Of a whole address: echo requests are answered.
    pub const ANSWER_ECHO: u32 = 1 << 14;
    /// Of a whole address: echo requests are the host's own.
    pub const PASS_ECHO: u32 = 1 << 15;
    /// Of a listener: who sends too large a packet is not told.
    pub const SILENT: u32 = 1 << 16;
    /// Of a whole address: ARP requests for it are answered.
    pub const ANSWER_ARP: u32 = 1 << 17;
    /// The first of the nine bits of a listener's [`ConnectionIds`](crate::map::ConnectionIds).
    pub const CONNECTION_IDS: u32 = 18;

    /// What a listener of QUIC does, by how its ids are laid out.
    #[must_use]
    pub const fn quic(ids: crate::map::ConnectionIds) -> u32 {
        QUIC | ids.in_policy(CONNECTION_IDS)
    }
}

/// A member that takes new flows.
pub const TAKES: u32 = 1;
/// A member that keeps the flows that it has.
pub const KEEPS: u32 = 2;

impl Service {
    /// Of QUIC: how connection ids are laid out.
    #[inline(always)]
    #[must_use]
    pub const fn connection_ids(&self) -> crate::map::ConnectionIds {
        crate::map::ConnectionIds::of_policy(self.policy, policy::CONNECTION_IDS)
    }

    /// Whether a policy's bit is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, policy: u32) -> bool {
        self.policy & policy != 0
    }

    /// Of a whole address: the Ethernet address that answers ARP requests for it name.
    #[inline(always)]
    #[must_use]
    pub const fn mac(&self) -> Mac {
        Mac::new((self.previous_until >> 16) as u32, self.previous_until as u16)
    }

    /// Sets [`mac`](Self::mac), in the place of a time that counts where there is a ring before.
    pub const fn set_mac(&mut self, mac: Mac) {
        self.previous_until = (mac.high() as u64) << 16 | mac.low() as u64;
    }
}

impl Tracked {
    /// The bit of a closed flow beside the time of its last packet.
    const CLOSED: u64 = 1 << 63;
    /// The bit of a flow of which only beginnings were seen.
    const HALF_OPEN: u64 = 1 << 62;
    const PHASE: u64 = Self::CLOSED | Self::HALF_OPEN;
    /// For so many jiffies the time of a packet stands for those of the next ones: a second at 250 Hz, 2.6 at 100.
    pub const GRAIN: u64 = 256;

    /// A flow whose packet comes now. `begins`: none came before.
    #[inline(always)]
    #[must_use]
    pub const fn new(target: u32, generation: u32, begins: bool, now: u64) -> Self {
        Self {
            choice: Shared::new(word((target, generation))),
            last_packet: Shared::new(now | if begins { Self::HALF_OPEN } else { 0 }),
        }
    }

    /// The target's number, and the generation in which it was one of the service's.
    #[inline(always)]
    #[must_use]
    pub fn choice(&self) -> (u32, u32) {
        let choice = self.choice.get();
        (choice as u32, (choice >> 32) as u32)
    }

    /// When its last packet came, in jiffies, or one of up to [`GRAIN`](Self::GRAIN) before.
    #[inline(always)]
    #[must_use]
    pub fn last_packet(&self) -> u64 {
        self.last_packet.get() & !Self::PHASE
    }

    /// How far it is, as its client's packets tell it.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.last_packet.get() & Self::PHASE {
            0 => Phase::Open,
            Self::HALF_OPEN => Phase::HalfOpen,
            _ => Phase::Closed,
        }
    }

    /// Notes a packet, the first of a flow, one in its midst, or its client's last word. Returns whether it is the one that
    /// follows the flow's beginning.
    #[inline(always)]
    pub fn note<A: Atomics>(&self, atomics: &A, begins: bool, ends: bool, now: u64) -> bool {
        let last = self.last_packet.get();
        if ends {
            self.end(atomics, now);
            return false;
        }
        let phase = if !begins {
            last & Self::CLOSED
        } else if last & Self::PHASE != 0 {
            Self::HALF_OPEN
        } else {
            // Somebody else's word may not make a flow that is open shorter-lived.
            0
        };
        let is_late = now.wrapping_sub(last & !Self::PHASE) >= Self::GRAIN;
        if is_late || phase != last & Self::PHASE {
            // Where another CPU was first, that stands: it may have been the flow's end.
            let noted = atomics.exchange(&self.last_packet, last, now | phase);
            return noted && phase == 0 && last & Self::HALF_OPEN != 0;
        }
        false
    }

    /// Notes that it is over.
    #[inline(always)]
    pub fn end<A: Atomics>(&self, atomics: &A, now: u64) {
        // Another CPU's packet may be first, which says less: so it is tried again.
        for _ in 0..2 {
            if atomics.exchange(&self.last_packet, self.last_packet.get(), now | Self::CLOSED) {
                return;
            }
        }
    }

    /// Notes another target, or that it still is one, in the place of the [`choice`](Self::choice) that was read.
    #[inline(always)]
    pub fn choose<A: Atomics>(&self, atomics: &A, from: (u32, u32), to: (u32, u32)) {
        if from != to {
            // Where another CPU was first, that stands.
            let _ = atomics.exchange(&self.choice, word(from), word(to));
        }
    }
}

/// A target and its generation as [`Tracked`] has them.
const fn word((target, generation): (u32, u32)) -> u64 {
    (generation as u64) << 32 | target as u64
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing followed its beginning yet.
    HalfOpen,
    /// It goes on.
    Open,
    /// Its client has closed it, or its target is gone.
    Closed,
}

impl Seen {
    /// How long a flow counts as seen, in jiffies: a minute at 250 Hz.
    const LASTING: u32 = 15_000;

    /// Whether the flow of this hash was here lately; it is here now. Where eight others were, one of them is forgotten.
    #[inline(always)]
    #[must_use]
    pub fn again(&self, hash: u32, now: u64) -> bool {
        let now = now as u32;
        let is_fresh = |mark: u64| mark != 0 && now.wrapping_sub(mark as u32) < Self::LASTING;
        let mut place = &self.marks[(now & 7) as usize];
        for candidate in &self.marks {
            let mark = candidate.get();
            if !is_fresh(mark) {
                place = candidate;
            } else if (mark >> 32) as u32 == hash {
                candidate.set((hash as u64) << 32 | now as u64);
                return true;
            }
        }
        place.set((hash as u64) << 32 | now as u64);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::SingleThreaded;
    use super::*;

    #[test]
    fn a_flow_is_open_once_something_follows_its_beginning() {
        let flow = Tracked::new(7, 1, true, 100);
        assert_eq!((flow.phase(), flow.last_packet()), (Phase::HalfOpen, 100));
        flow.note(&SingleThreaded, true, false, 101);
        assert_eq!(flow.phase(), Phase::HalfOpen, "the same again");
        flow.note(&SingleThreaded, false, false, 102);
        assert_eq!((flow.phase(), flow.last_packet()), (Phase::Open, 102));
        flow.note(&SingleThreaded, false, false, 103);
        assert_eq!(flow.last_packet(), 102, "hardly later");
        flow.note(&SingleThreaded, true, false, 400);
        assert_eq!(
            (flow.phase(), flow.last_packet()),
            (Phase::Open, 400),
            "it stays open"
        );
        flow.note(&SingleThreaded, false, true, 404);
        flow.note(&SingleThreaded, false, false, 705);
        assert_eq!((flow.phase(), flow.last_packet()), (Phase::Closed, 705));
        flow.note(&SingleThreaded, true, false, 706);
        assert_eq!(flow.phase(), Phase::HalfOpen, "its port is used anew");
        assert_eq!(Tracked::new(7, 1, false, 100).phase(), Phase::Open);
    }

    #[test]
    fn a_flow_is_seen_again_within_a_minute() {
        let place = Seen::default();
        assert!(!place.again(7, 1));
        assert!(place.again(7, 15_000));
        assert!(!place.again(7, 30_000), "too late");
        assert!(!place.again(8, 30_000), "another flow");
        assert!(place.again(7, 30_000), "beside it");
        (9..16).for_each(|hash| assert!(!place.again(hash, 30_000)));
        let left = [7, 8]
            .into_iter()
            .chain(9..16)
            .filter(|hash| place.again(*hash, 30_001));
        assert!(left.count() >= 7, "one had to go");
    }
}
