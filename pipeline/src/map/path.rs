//! The backbone: legs, paths, pairs, and the slots that labels name.

use super::window::LANES;
use super::{Atomics, Be16, Be32, Shared, map_types};
use crate::Reason;
use crate::siphash::Key;

/// "No path" where a path's number is expected.
pub const NO_PATH: u32 = u32::MAX;
/// Probes' sequence numbers that a slot remembers.
const PROBE_WINDOW: u32 = 64;
/// A probe's number that is so far ahead at most is new: they go round.
const AHEAD: u32 = 1 << 31;
/// The bit of [`SlotState::probes`] where the incarnation begins.
const INCARNATION: u32 = 40;

map_types! {
    /// A key of SipHash, little-endian halves.
    #[derive(Clone, Copy, Default, PartialEq, Eq)]
    pub struct TagKey {
        /// Octets 0 to 7.
        pub low: u64,
        /// Octets 8 to 15.
        pub high: u64,
    }

    /// How to send to the next node of a path: what the outer headers and the tag need.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Leg {
        /// The leg's keys, by the lowest bit of the epoch.
        pub keys: [TagKey; 2],
        /// The next node's slot.
        pub label: u32,
        /// The epoch to send under.
        pub epoch: u32,
        /// The next node's public address.
        pub address: Be32,
        /// The leg's UDP source port.
        pub source_port: Be16,
        /// The next node's UDP port.
        pub port: Be16,
        /// The neighbour that leads there.
        pub neighbour: u32,
        /// Zero.
        pub spare: u32,
    }

    /// What a label means here.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Slot {
        /// A [`SlotKind`] as a number; any other number is `Free`.
        kind: u32,
        /// The previous node's address, as its packets arrive with it.
        pub source: Be32,
        /// The keys of the leg that ends here, by the lowest bit of the epoch.
        pub keys: [TagKey; 2],
        /// The epochs that are valid, one bit each.
        pub epochs: u32,
        /// At a relay: zero. At an exit: the path back over the same nodes, by its number on this host.
        pub twin: u32,
        /// At an exit: the pair whose window the packets pass.
        pub window: u32,
        /// At an exit: the pair that answers take.
        pub answers: u32,
        /// At a relay: the next leg.
        pub next: Leg,
        /// At an exit: the window of the path's own copies, where each packet of the pair comes over both its paths.
        pub copies: u32,
        /// Zero.
        pub spare: u32,
    }

    /// What packets change in a slot.
    #[derive(Debug)]
    pub struct SlotState {
        /// Data packets that arrived here on the path.
        pub received: Shared,
        /// The highest probe number seen, plus one; above [`INCARNATION`] the sender's incarnation plus one, or 0
        /// before the first probe.
        probes: Shared,
        /// Which of the 64 numbers up to it were seen, newest in the lowest bit.
        seen: Shared,
    }

    /// A path that begins here.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Path {
        /// The first leg; label 0: not installed.
        pub leg: Leg,
    }

    /// What packets change in a path. Times are in jiffies.
    #[derive(Debug)]
    pub struct PathState {
        /// When a probe last came home; 0: never.
        pub last_echo: Shared,
        /// When a probe last left.
        pub last_probe: Shared,
        /// Data packets sent on it.
        pub sent: Shared,
        /// Without an echo for longer, the path is stale. Written by the prober; 0: not probed.
        pub stale_after: Shared,
        /// The prober is silent, and no judge, when no probe left for longer. Written by the prober.
        pub silent_after: Shared,
        /// 1 once the path was found stale; cleared by the agent after enough returns in a row.
        pub down: Shared,
        /// Probes that came home in a row.
        pub returns: Shared,
        /// The own number of the last of them.
        pub last_return: Shared,
        /// The next sequence number on the path, of probes and of reflections alike.
        pub next_probe: Shared,
        /// Probes of this host's prober that left: the next one's own number.
        pub departed: Shared,
        /// How closely the prober is to watch it: one of [`watch`]. Written by the agent.
        pub watch: Shared,
    }

    /// The two paths of an (entry, exit, class).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Pair {
        /// The path in use, or [`NO_PATH`].
        pub primary: u32,
        /// The path to use when that is stale, or [`NO_PATH`].
        pub backup: u32,
        /// 1: both are probed as closely as can be while it carries packets.
        pub premium: u32,
        /// 1: each packet is sent over both.
        pub duplicate: u32,
    }

    /// What packets change in a pair.
    #[derive(Debug)]
    pub struct PairState {
        /// When it last carried a packet, in jiffies.
        pub last_packet: Shared,
        /// The next sequence number of each lane.
        pub lanes: [Shared; LANES],
    }
}

/// What a path leads to where it ends: the fields of a [`Slot`] of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The path back.
    pub twin: u32,
    /// The pair's window.
    pub window: u32,
    /// The pair that answers take.
    pub answers: u32,
    /// The window of the path's own copies; 0: none.
    pub copies: u32,
}

/// How closely the prober is to watch a path.
pub mod watch {
    /// As its pair uses it.
    pub const AS_USED: u64 = 0;
    /// It may be losing packets, or was left because it did.
    pub const DOUBTED: u64 = 1;
    /// It is a leg that carries packets.
    pub const IN_USE: u64 = 2;
    /// It is a leg that waits for its turn, and is not probed.
    pub const RESTING: u64 = 3;
}

/// What a label leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// Nothing.
    Free,
    /// The packet goes on to the next node.
    Relay,
    /// The path ends here.
    Exit,
}

impl TagKey {
    /// The same key, for hashing.
    #[inline(always)]
    #[must_use]
    pub const fn key(self) -> Key {
        Key {
            k0: self.low,
            k1: self.high,
        }
    }
}

impl core::fmt::Debug for TagKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("TagKey(secret)")
    }
}

impl Leg {
    /// The key of an epoch: the one that the header says, since `epoch` may move on between two looks.
    #[inline(always)]
    #[must_use]
    pub const fn key(&self, epoch: u32) -> Key {
        self.keys[(epoch & 1) as usize].key()
    }
}

impl Slot {
    /// A slot that relays to `next`.
    #[must_use]
    pub const fn relay(source: Be32, keys: [TagKey; 2], epochs: u32, next: Leg) -> Self {
        Self {
            kind: 1,
            source,
            keys,
            epochs,
            twin: NO_PATH,
            window: 0,
            answers: 0,
            next,
            copies: 0,
            spare: 0,
        }
    }

    /// A slot where a path ends.
    #[must_use]
    pub fn exit(source: Be32, keys: [TagKey; 2], epochs: u32, end: End) -> Self {
        Self {
            kind: 2,
            source,
            keys,
            epochs,
            twin: end.twin,
            window: end.window,
            answers: end.answers,
            next: Leg::default(),
            copies: end.copies,
            spare: 0,
        }
    }

    /// Its kind.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> SlotKind {
        match self.kind {
            1 => SlotKind::Relay,
            2 => SlotKind::Exit,
            _ => SlotKind::Free,
        }
    }

    /// The key of an epoch, where that is valid here.
    #[inline(always)]
    #[must_use]
    pub const fn key(&self, epoch: u32) -> Option<Key> {
        if self.epochs >> (epoch & 3) & 1 == 0 {
            return None;
        }
        Some(self.keys[(epoch & 1) as usize].key())
    }
}

impl SlotState {
    /// A slot on which nothing has arrived.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            received: Shared::new(0),
            probes: Shared::new(0),
            seen: Shared::new(0),
        }
    }

    /// Takes in a probe's number, once. Probes of a path arrive one at a time; where two CPUs race, the later one
    /// may count as a duplicate. A sender that lost its maps begins anew under a newer incarnation: one of the next
    /// seven modulo 16. Numbers go round; keys are renewed long before what is old seems new.
    ///
    /// # Errors
    /// `Duplicate` where it was seen, `Late` where it is older than the window, `OldIncarnation`.
    #[inline(always)]
    pub fn admit_probe<A: Atomics>(
        &self,
        atomics: &A,
        incarnation: u32,
        sequence: u32,
    ) -> Result<(), Reason> {
        let (held, seen) = (self.probes.get(), self.seen.get());
        let number = u64::from(sequence);
        let (known, sender) = (held >> INCARNATION, u64::from(incarnation) + 1);
        let sender_bits = sender << INCARNATION;
        if known != sender {
            if known != 0 && sender.wrapping_sub(known) & 15 > 7 {
                return Err(Reason::OldIncarnation);
            }
            return self.advance(atomics, seen, (sender_bits | (number + 1), 1));
        }
        let newest = (held as u32).wrapping_sub(1);
        let ahead = sequence.wrapping_sub(newest);
        if ahead.wrapping_sub(1) < AHEAD {
            let kept = if ahead >= PROBE_WINDOW { 0 } else { seen << ahead };
            return self.advance(atomics, seen, (sender_bits | (number + 1), kept | 1));
        }
        let behind = newest.wrapping_sub(sequence);
        if behind >= PROBE_WINDOW {
            return Err(Reason::Late);
        }
        if seen >> behind & 1 != 0 {
            return Err(Reason::Duplicate);
        }
        self.advance(atomics, seen, (held, seen | 1 << behind))
    }

    #[inline(always)]
    fn advance<A: Atomics>(
        &self,
        atomics: &A,
        seen: u64,
        (next, now_seen): (u64, u64),
    ) -> Result<(), Reason> {
        if !atomics.exchange(&self.seen, seen, now_seen) {
            return Err(Reason::Duplicate);
        }
        self.probes.set(next);
        Ok(())
    }
}

impl PathState {
    /// A path on which nothing was sent.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last_echo: Shared::new(0),
            last_probe: Shared::new(0),
            sent: Shared::new(0),
            stale_after: Shared::new(0),
            silent_after: Shared::new(0),
            down: Shared::new(0),
            returns: Shared::new(0),
            last_return: Shared::new(0),
            next_probe: Shared::new(0),
            departed: Shared::new(0),
            watch: Shared::new(watch::AS_USED),
        }
    }

    /// Notes that a probe came home.
    #[inline(always)]
    pub fn came_home(&self, sequence: u32, now: u64) {
        let sequence = u64::from(sequence);
        let in_a_row = sequence == self.last_return.get().wrapping_add(1);
        let returns = if in_a_row {
            self.returns.get().saturating_add(1)
        } else {
            1
        };
        self.returns.set(returns);
        self.last_return.set(sequence);
        self.last_echo.set(now);
    }

    /// Whether echoes have stopped although the prober has not.
    #[inline(always)]
    #[must_use]
    pub fn is_stale(&self, now: u64) -> bool {
        let stale_after = self.stale_after.get();
        if stale_after == 0 || now.wrapping_sub(self.last_echo.get()) <= stale_after {
            return false;
        }
        now.wrapping_sub(self.last_probe.get()) <= self.silent_after.get()
    }

    /// Whether it may be used: neither down nor stale.
    #[inline(always)]
    #[must_use]
    pub fn is_fresh(&self, now: u64) -> bool {
        self.down.get() == 0 && !self.is_stale(now)
    }
}

impl PairState {
    /// A pair that carried nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last_packet: Shared::new(0),
            lanes: [const { Shared::new(0) }; LANES],
        }
    }
}

impl Default for SlotState {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for PathState {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for PairState {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::SingleThreaded;

    #[test]
    fn a_newer_incarnation_begins_anew_and_an_older_one_is_refused() {
        let slot = SlotState::new();
        let admit = |incarnation, sequence| slot.admit_probe(&SingleThreaded, incarnation, sequence);
        assert_eq!(admit(15, 1_000), Ok(()));
        assert_eq!(admit(15, 1_000), Err(Reason::Duplicate));
        assert_eq!(admit(15, 999), Ok(()));
        assert_eq!(admit(15, 900), Err(Reason::Late));
        assert_eq!(admit(1, 0), Ok(()), "after 15 comes 0, then 1");
        assert_eq!(admit(1, 0), Err(Reason::Duplicate));
        assert_eq!(admit(15, 1_001), Err(Reason::OldIncarnation));
        assert_eq!(admit(1, 1), Ok(()));
    }

    #[test]
    fn the_numbers_of_probes_go_round() {
        let slot = SlotState::new();
        let admit = |sequence| slot.admit_probe(&SingleThreaded, 2, sequence);
        for sequence in (0..200u32).map(|ahead| (u32::MAX - 100).wrapping_add(ahead)) {
            assert_eq!(admit(sequence), Ok(()), "{sequence}");
            assert_eq!(admit(sequence), Err(Reason::Duplicate));
        }
        assert_eq!(admit(u32::MAX), Err(Reason::Late));
        assert_eq!(admit(98 + 63), Ok(()));
        assert_eq!(admit(98), Err(Reason::Duplicate), "still remembered");
        assert_eq!(admit(99), Ok(()), "in any order");
    }
}
