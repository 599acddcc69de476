//! Near and far targets: who of them takes new flows, and how many.

use std::collections::BTreeMap;

use super::Targets;
use crate::state::{ServiceState, TargetState};

/// Targets of a group that are equally far.
#[derive(Clone, Copy, Default)]
struct Rank {
    /// Their weights together.
    all: u64,
    /// How much of its share the one has that has most of it, in percent.
    percent: u64,
    /// What they take of all that the group does.
    part: u64,
}

impl Rank {
    /// What one of them takes, by its weight, which is not 0.
    fn of(self, weight: u64) -> u64 {
        let part = u128::from(self.part) * u128::from(weight) / u128::from(self.all.max(1));
        let least = u64::from(self.part > 0);
        u64::try_from(part).unwrap_or(u64::MAX).max(least)
    }
}

/// What each target of a listener that is `used` takes of its new flows, relative to the others, where each has so many
/// `percent` of its share; 0: it keeps the flows that it has.
///
/// Of a group those of the least rank of which one serves and has weight take all, in proportion to their weights; those
/// that are farther take none. Beside others the group takes what it would if all were equally far. While the nearest have
/// but a part of their shares, and farther ones more, the next rank takes what is missing. Where a group uses servers that
/// are down, since too few of it serve or nothing does, nobody knows who serves: then near and far ones take alike.
#[must_use]
pub fn weights(
    service: &ServiceState,
    down: &Targets,
    used: &[bool],
    percent: impl Fn(&TargetState) -> u64,
) -> Vec<u64> {
    let used = service.targets.iter().zip(used);
    let own: Vec<(u64, u64)> = used
        .map(|(target, used)| {
            let percent = if *used { percent(target) } else { 0 };
            (u64::from(target.weight) * percent, percent)
        })
        .collect();
    let mut groups: BTreeMap<u32, Option<BTreeMap<u32, Rank>>> = BTreeMap::new();
    for (target, (weight, percent)) in service.targets.iter().zip(&own).filter(|(_, own)| own.0 > 0) {
        let serves = !down.contains(&(service.vni, target.target));
        let ranks = groups
            .entry(target.group)
            .or_insert_with(|| Some(BTreeMap::new()));
        *ranks = ranks.take().filter(|_| serves);
        if let Some(ranks) = ranks {
            let rank = ranks.entry(target.rank).or_default();
            rank.all += weight;
            rank.percent = rank.percent.max(*percent);
        }
    }
    let is_alone = groups.len() == 1;
    groups
        .values_mut()
        .flatten()
        .for_each(|ranks| share(ranks, is_alone));
    let weight = |(target, (weight, _)): (&TargetState, (u64, u64))| match groups.get(&target.group) {
        Some(Some(ranks)) if weight > 0 => ranks.get(&target.rank).map_or(0, |rank| rank.of(weight)),
        _ => weight,
    };
    service.targets.iter().zip(own).map(weight).collect()
}

/// Shares what a group takes among its ranks. Where it is `alone` and the nearest take all, that is their own weight: what
/// becomes of those that are far changes nothing.
fn share(ranks: &mut BTreeMap<u32, Rank>, alone: bool) {
    let most = ranks.values().map(|rank| rank.percent).max().unwrap_or_default();
    let mut rest: u64 = ranks.values().map(|rank| rank.all).sum();
    if let Some(nearest) = ranks.values().next().filter(|rank| alone && rank.percent == most) {
        rest = nearest.all;
    }
    for rank in ranks.values_mut() {
        let part = u128::from(rest) * u128::from(rank.percent) / u128::from(most.max(1));
        rank.part = u64::try_from(part).unwrap_or(rest);
        rest -= rank.part;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::health::in_use;
    use crate::health::tests::{check, down, server, service};
    use crate::state::Target;

    /// Two servers near, two far, and one of another group.
    fn near_and_far(least_percent: u32) -> ServiceState {
        let (check, other) = (check("web", least_percent), check("other", 0));
        let server = |last, group, rank, check| TargetState {
            group,
            rank,
            ..server(last, 1, Some(check))
        };
        service(vec![
            server(0, 1, 0, &check),
            server(1, 1, 0, &check),
            server(2, 1, 2, &check),
            server(3, 1, 2, &check),
            server(4, 0, 0, &other),
        ])
    }

    fn of(service: &ServiceState, which: &[usize], percents: &[(usize, u64)]) -> Vec<u64> {
        let down = down(service, which);
        let used = in_use(service, &down, &Targets::new());
        let percents: HashMap<Target, u64> = percents
            .iter()
            .map(|(at, percent)| (service.targets[*at].target, *percent))
            .collect();
        weights(service, &down, &used, |target| {
            percents.get(&target.target).copied().unwrap_or(100)
        })
    }

    fn takes(service: &ServiceState, which: &[usize]) -> Vec<bool> {
        of(service, which, &[]).iter().map(|weight| *weight > 0).collect()
    }

    #[test]
    fn the_nearest_that_serve_take_what_is_new() {
        let mut service = near_and_far(0);
        let all = takes(&service, &[]);
        assert_eq!(all, [true, true, false, false, true]);
        assert_eq!(takes(&service, &[0]), [false, true, false, false, true]);
        assert_eq!(takes(&service, &[0, 1]), [false, false, true, true, true]);
        let none = takes(&service, &[0, 1, 2, 3]);
        assert_eq!(none, [false, false, false, false, true], "the other group's");
        assert_eq!(takes(&service, &[0, 1, 2, 3, 4]), [true; 5], "nothing serves");
        (service.targets[0].weight, service.targets[1].weight) = (0, 0);
        assert_eq!(
            takes(&service, &[]),
            [false, false, true, true, true],
            "near ones take nothing by weight"
        );
        assert_eq!(takes(&service, &[2, 3]), [false, false, false, false, true]);
    }

    #[test]
    fn where_too_few_serve_near_and_far_ones_take_alike() {
        let service = near_and_far(50);
        assert_eq!(takes(&service, &[0, 1]), [false, false, true, true, true]);
        assert_eq!(of(&service, &[0, 1, 2], &[]), [100; 5]);
        assert_eq!(of(&service, &[0, 2, 3], &[]), [100; 5]);
    }

    #[test]
    fn what_has_ended_is_not_near() {
        let service = near_and_far(0);
        let ended = down(&service, &[0, 1]);
        let used = in_use(&service, &Targets::new(), &ended);
        assert_eq!(used, [false, false, true, true, true]);
        let weights = weights(&service, &Targets::new(), &used, |_| 100);
        assert_eq!(weights, [0, 0, 100, 100, 100]);
    }

    #[test]
    fn a_group_takes_what_it_would_if_all_were_near() {
        let mut service = near_and_far(0);
        // A path to servers elsewhere has as much weight as the group.
        service.targets[4] = TargetState::unchecked(4, Target::Pair(1));
        assert_eq!(of(&service, &[], &[]), [200, 200, 0, 0, 400]);
        assert_eq!(of(&service, &[0], &[]), [0, 300, 0, 0, 400]);
        assert_eq!(of(&service, &[2], &[]), [150, 150, 0, 0, 400]);
        assert_eq!(of(&service, &[0, 1], &[]), [0, 0, 100, 100, 400]);
        // In proportion to their own weights.
        service.targets[1].weight = 3;
        assert_eq!(of(&service, &[], &[]), [150, 450, 0, 0, 400]);
        // One that takes nothing new counts for nothing.
        service.targets[3].weight = 0;
        assert_eq!(of(&service, &[], &[]), [125, 375, 0, 0, 400]);
    }

    #[test]
    fn several_groups_keep_their_dials() {
        let check = check("web", 0);
        // Dials of 100 and 50, each with a near and a far server of weight 1; the first of weight 3 near.
        let server = |last, group, rank, weight| TargetState {
            group,
            rank,
            ..server(last, weight, Some(&check))
        };
        let service = service(vec![
            server(0, 1, 0, 300),
            server(1, 1, 1, 100),
            server(2, 2, 0, 50),
            server(3, 2, 1, 50),
        ]);
        assert_eq!(of(&service, &[], &[]), [40_000, 0, 10_000, 0]);
        assert_eq!(of(&service, &[2], &[]), [40_000, 0, 0, 5_000]);
    }

    #[test]
    fn a_group_that_is_alone_takes_by_its_own_weights() {
        let mut service = near_and_far(0);
        service.targets.pop();
        assert_eq!(of(&service, &[], &[]), [100, 100, 0, 0]);
        assert_eq!(of(&service, &[2], &[]), [100, 100, 0, 0], "the ring stays");
        assert_eq!(of(&service, &[0, 1], &[]), [0, 0, 100, 100]);
    }

    #[test]
    fn what_those_that_start_do_not_take_the_next_rank_does() {
        let mut service = near_and_far(0);
        service.targets[4] = TargetState::unchecked(4, Target::Pair(1));
        // 220 of the group's: a tenth near.
        assert_eq!(of(&service, &[], &[(0, 10), (1, 10)]), [11, 11, 99, 99, 400]);
        // One that is whole takes what the other one does not yet.
        let one = of(&service, &[], &[(0, 10)]);
        assert_eq!(one, [28, 281, 0, 0, 400]);
        // Where far ones start as well, nobody has more.
        let all = [(0, 10), (1, 10), (2, 10), (3, 10)];
        assert_eq!(of(&service, &[], &all), [20, 20, 0, 0, 400]);
        let more = [(0, 20), (1, 20), (2, 50), (3, 40)];
        assert_eq!(of(&service, &[], &more), [26, 26, 43, 34, 400]);
        // Of three ranks each leaves the next what is missing.
        service.targets[3].rank = 3;
        let half = [(0, 50), (1, 50), (2, 50)];
        assert_eq!(of(&service, &[], &half), [62, 62, 62, 63, 400]);
        // Alone too.
        service.targets.pop();
        assert_eq!(of(&service, &[], &half), [62, 62, 62, 63]);
    }
}
