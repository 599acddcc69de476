//! How large maps are made.

use kuafu_model::contents::Capacities;

/// How many entries the maps get when they are made. One that is pinned already keeps what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of the maps that the state fills.
    pub capacities: Capacities,
    /// Directions of connections: two for each.
    pub connections: u32,
    /// Flows whose targets are remembered: 128 octets each, taken when the map is made.
    pub tracked: u32,
    /// Sources that are known to be reachable, of either family.
    pub verified: u32,
}

/// What a flow whose target is remembered takes.
const OCTETS_OF_FLOW: u64 = 128;
/// Of the host's memory, what such flows take at most.
const SHARE_OF_FLOWS: u64 = 64;

impl Default for Sizes {
    fn default() -> Self {
        Self {
            capacities: Capacities::default(),
            connections: 524_288,
            tracked: 1_048_576,
            verified: 131_072,
        }
    }
}

impl Sizes {
    /// The usual ones, but for what this host's memory, or that of its control group, has no room for.
    #[must_use]
    pub fn of_host() -> Self {
        let memory = rustix::system::sysinfo();
        let whole = memory.totalram * u64::from(memory.mem_unit);
        // Of a container it is the container's own; on a host there is none.
        let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
        let group = group.and_then(|octets| octets.trim().parse().ok());
        let usual = Self::default();
        let room = flows_in(whole.min(group.unwrap_or(u64::MAX)));
        Self {
            tracked: usual.tracked.min(room),
            ..usual
        }
    }

    pub(super) fn by_name(&self) -> [(&'static str, u32); 29] {
        let of = &self.capacities;
        [
            ("ports", of.ports),
            ("endpoints", of.endpoints),
            ("senders", of.senders),
            ("vteps", of.vteps),
            ("neighbours", of.neighbours),
            ("slots", of.slots),
            ("slot_states", of.slots),
            ("paths", of.paths),
            ("path_states", of.paths),
            ("pairs", of.pairs),
            ("pair_states", of.pairs),
            ("windows", of.windows),
            ("own_windows", of.own_windows),
            ("services", of.services),
            ("rings", of.rings),
            ("targets", of.targets),
            ("target_signs", of.targets),
            ("members", of.members),
            ("quic_targets", of.quic_targets),
            ("limits", of.limits),
            ("limit_states", of.limits),
            ("shields", of.shields),
            ("shield_states", of.shields),
            ("shield_counts", of.shields),
            ("listed", of.listed),
            ("connections", self.connections),
            ("tracked", self.tracked),
            ("verified", self.verified),
            ("verified_v6", self.verified),
        ]
    }
}

/// How many flows a host with so many octets of memory may remember.
fn flows_in(octets: u64) -> u32 {
    let flows = octets / SHARE_OF_FLOWS / OCTETS_OF_FLOW;
    u32::try_from(flows).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_take_a_small_part_of_the_memory() {
        const GIB: u64 = 1 << 30;
        assert_eq!(flows_in(GIB), 131_072);
        assert_eq!(flows_in(8 * GIB), Sizes::default().tracked);
        assert_eq!(flows_in(u64::MAX), u32::MAX);
        assert_eq!(flows_in(0), 1);
        assert!(Sizes::of_host().tracked <= Sizes::default().tracked);
    }
}
