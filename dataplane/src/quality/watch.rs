//! Which paths the prober is to watch closely, and what probing takes.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_model::HostState;
use kuafu_model::state::PathState;
use kuafu_pipeline::map::watch;
use kuafu_proto::v1;

use crate::error::Result;
use crate::live::Live;
use crate::probe::{IDLE_BITS, IN_USE, PROBE_BITS};

/// Bits a second that probing may take for each leg in use.
const LEG_BITS: u64 = 120_000;
/// The same for each path that carries, and for one of a premium pair.
const PATH_BITS: [u64; 2] = [35_000, 90_000];

/// What carries packets.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// Paths of pairs that carried a packet lately, and whether these are premium.
    paths: BTreeMap<u32, bool>,
    /// The legs that these begin with, by their own paths.
    legs: BTreeSet<u32>,
}

impl Used {
    /// # Errors
    /// `Io`.
    pub(super) fn now(live: &impl Live, state: &HostState) -> Result<Self> {
        let since = live.jiffies()?.saturating_sub(live.ticks(IN_USE));
        let carrying = live.carrying(since)?;
        let pairs = state.pairs.iter().filter(|pair| carrying.contains(&pair.index));
        let paths = pairs.flat_map(|pair| {
            let both = [pair.primary, pair.backup].into_iter().flatten();
            both.map(|path| (path, pair.premium))
        });
        Ok(Self::of(state, paths.collect()))
    }

    fn of(state: &HostState, paths: BTreeMap<u32, bool>) -> Self {
        let by_end = legs(state);
        let carrying = state.paths.iter().filter(|path| paths.contains_key(&path.index));
        let legs = carrying.filter_map(|path| by_end.get(path.nodes.get(1)?.as_str()));
        Self {
            legs: legs.map(|leg| leg.index).collect(),
            paths,
        }
    }

    /// The word that the prober reads of a path.
    pub(super) fn word(&self, index: u32, is_doubted: bool, rests: bool) -> u64 {
        match (self.legs.contains(&index), is_doubted, rests) {
            (true, ..) => watch::IN_USE,
            (false, true, _) => watch::DOUBTED,
            (false, false, true) => watch::RESTING,
            (false, false, false) => watch::AS_USED,
        }
    }

    /// What so many probes in a second take, and what they may.
    pub(super) fn probing(&self, probes: u64) -> v1::Probing {
        let legs: u64 = self.legs.iter().map(|_| LEG_BITS).sum();
        let paths = self
            .paths
            .values()
            .map(|premium| PATH_BITS[usize::from(*premium)]);
        v1::Probing {
            bits_per_second: probes * PROBE_BITS,
            budget_bits_per_second: IDLE_BITS + legs + paths.sum::<u64>(),
        }
    }
}

/// The host's legs by the nodes where they end: of paths over the same two nodes the leg has the lowest number in the
/// cluster.
pub(super) fn legs(state: &HostState) -> BTreeMap<&str, &PathState> {
    let mut legs: BTreeMap<&str, &PathState> = BTreeMap::new();
    for path in &state.paths {
        if let [_, end] = path.nodes.as_slice() {
            let leg = legs.entry(end).or_insert(path);
            if path.id < leg.id {
                *leg = path;
            }
        }
    }
    legs
}

#[cfg(test)]
mod tests {
    use super::super::tests::{path, state};
    use super::*;

    #[test]
    fn a_leg_is_in_use_where_a_path_that_carries_begins_with_it() {
        let state = state(vec![
            path(1, 10, &["a", "b"]),
            path(2, 11, &["a", "c"]),
            path(3, 12, &["a", "d"]),
            path(4, 20, &["a", "b"]),
            path(5, 21, &["a", "c", "b"]),
        ]);
        let used = Used::of(&state, BTreeMap::from([(4, false), (5, true)]));
        let words = [1, 2, 3, 4, 5].map(|index| used.word(index, index >= 3, index == 4));
        let (leg, doubted) = (watch::IN_USE, watch::DOUBTED);
        assert_eq!(words, [leg, leg, doubted, doubted, doubted]);
        let probing = used.probing(100);
        assert_eq!(probing.bits_per_second, 118_400);
        assert_eq!(probing.budget_bits_per_second, 1_365_000);
        assert_eq!(Used::default().word(3, false, false), watch::AS_USED);
        assert_eq!(Used::default().word(3, false, true), watch::RESTING);
    }
}
