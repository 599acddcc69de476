//! What a tick knows, as costs between indices.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cause, Choice, Config, Duplication, Input, NodeInput, PairInput, Path};
use crate::cost::{Cost, Direction, TrafficClass, Weights, cost};
use crate::estimate::LegStats;
use crate::id::{LegId, Millis, NodeId};
use crate::routes::{self, CostMatrix, Relay, Rests, Route};

/// What of a pair decides what legs and relays cost it: its class, and the nodes that must not relay for it.
pub(super) type Terms = (TrafficClass, BTreeSet<NodeId>);

/// The costs of a tick.
pub(super) struct Costs {
    pub(super) matrices: BTreeMap<Terms, CostMatrix>,
    /// The quality of legs, with the losses of their alarms.
    legs: BTreeMap<LegId, LegStats>,
}

pub(super) fn terms_of(input: &Input, pair: &PairInput) -> Terms {
    let forbidden = input.forbidden.get(&pair.id);
    (pair.class, forbidden.cloned().unwrap_or_default())
}

impl Costs {
    pub(super) fn new(config: &Config, input: &Input, alarms: &BTreeMap<LegId, u32>) -> Self {
        let nodes: BTreeMap<NodeId, &NodeInput> = input.nodes.iter().map(|node| (node.id, node)).collect();
        let nodes: Vec<&NodeInput> = nodes.into_values().collect();
        let mut legs: BTreeMap<LegId, LegStats> = input.legs.iter().map(|leg| (leg.leg, leg.stats)).collect();
        for (leg, stats) in &mut legs {
            stats.loss_ppm = stats.loss_ppm.max(alarms.get(leg).copied().unwrap_or(0));
        }
        let mut matrices = BTreeMap::new();
        for pair in &input.pairs {
            matrices
                .entry(terms_of(input, pair))
                .or_insert_with_key(|terms| matrix(config, terms, &nodes, &legs));
        }
        Self { matrices, legs }
    }
}

/// Alarms of legs, paths that are down, and paths with an alarm of their own.
type Bad<'a> = (
    &'a BTreeMap<LegId, u32>,
    &'a BTreeMap<Path, Millis>,
    &'a BTreeMap<Path, (Millis, u32)>,
);

/// What a tick knows.
pub(super) struct Views<'a> {
    config: &'a Config,
    now: Millis,
    input: &'a Input,
    costs: &'a Costs,
    /// By exit.
    rests: BTreeMap<(Terms, NodeId), Rests<'a>>,
    alarms: &'a BTreeMap<LegId, u32>,
    down: &'a BTreeMap<Path, Millis>,
    lossy: &'a BTreeMap<Path, (Millis, u32)>,
    first_seen: &'a BTreeMap<NodeId, Millis>,
}

impl<'a> Views<'a> {
    pub(super) fn new(
        config: &'a Config,
        input: &'a Input,
        costs: &'a Costs,
        (alarms, down, lossy): Bad<'a>,
        first_seen: &'a BTreeMap<NodeId, Millis>,
    ) -> Self {
        let mut rests = BTreeMap::new();
        for pair in &input.pairs {
            let terms = terms_of(input, pair);
            if let Some(costs) = costs.matrices.get(&terms)
                && let Some(to) = costs.index_of(pair.exit)
            {
                rests
                    .entry((terms, pair.exit))
                    .or_insert_with(|| Rests::new(costs, to, config.max_relays));
            }
        }
        Self {
            config,
            now: input.now,
            input,
            costs,
            rests,
            alarms,
            down,
            lossy,
            first_seen,
        }
    }

    /// One pair's part; `None` where a node of it is not listed, or it leads nowhere.
    pub(super) fn of(&'a self, pair: &PairInput) -> Option<View<'a>> {
        let terms = terms_of(self.input, pair);
        let costs = self.costs.matrices.get(&terms)?;
        let (from, to) = (costs.index_of(pair.entry)?, costs.index_of(pair.exit)?);
        let rests = self.rests.get(&(terms, pair.exit))?;
        (from != to).then_some(View {
            views: self,
            now: self.now,
            costs,
            rests,
            weights: self.config.weights(pair.class),
            duplication: self.input.duplication.get(&pair.id).copied().unwrap_or_default(),
            from,
            to,
        })
    }
}

fn matrix(
    config: &Config,
    (class, forbidden): &Terms,
    nodes: &[&NodeInput],
    legs: &BTreeMap<LegId, LegStats>,
) -> CostMatrix {
    let mut costs = CostMatrix::of_sorted(relays(nodes, forbidden));
    let way = |from: usize, to: usize| {
        let stats = legs.get(&LegId {
            from: nodes[from].id,
            to: nodes[to].id,
        })?;
        Some(Direction {
            stats,
            usd_per_gb: nodes[from].usd_per_gb,
        })
    };
    for from in 0..nodes.len() {
        for to in 0..from {
            if let (Some(forward), Some(reverse)) = (way(from, to), way(to, from)) {
                let both = cost(forward, reverse, config.weights(*class));
                costs.set(from, to, both);
                costs.set(to, from, both);
            }
        }
    }
    costs
}

fn relays<'a>(nodes: &[&'a NodeInput], forbidden: &BTreeSet<NodeId>) -> Vec<Relay> {
    let (mut sites, mut providers) = (Names::default(), Names::default());
    let relay = |node: &&'a NodeInput| Relay {
        id: node.id,
        site: sites.number(&node.site),
        provider: providers.number(&node.provider),
        transit: if node.relay && !node.draining && !forbidden.contains(&node.id) {
            Cost::from_us(node.transit_us)
        } else {
            Cost::UNUSABLE
        },
    };
    nodes.iter().map(relay).collect()
}

/// Equal names get equal numbers; an empty one is like no other.
#[derive(Default)]
struct Names<'a> {
    known: BTreeMap<&'a str, u32>,
    next: u32,
}

impl<'a> Names<'a> {
    fn number(&mut self, name: &'a str) -> u32 {
        let fresh = self.next;
        self.next += 1;
        if name.is_empty() {
            fresh
        } else {
            *self.known.entry(name).or_insert(fresh)
        }
    }
}

/// What a tick knows of one pair.
pub(super) struct View<'a> {
    views: &'a Views<'a>,
    pub(super) now: Millis,
    costs: &'a CostMatrix,
    rests: &'a Rests<'a>,
    weights: Weights,
    pub(super) duplication: Duplication,
    from: usize,
    to: usize,
}

impl View<'_> {
    /// Direct, where it is usable.
    pub(super) fn direct(&self) -> Option<Choice> {
        let cost = self.direct_cost();
        let path = self.path(&[]);
        (cost.is_usable() && !self.is_out(&path)).then_some(Choice { path, cost })
    }

    /// What direct costs, up or down.
    pub(super) fn direct_cost(&self) -> Cost {
        self.costs.leg(self.from, self.to)
    }

    /// The cheapest path over relays.
    pub(super) fn best_relay(&self) -> Option<Choice> {
        let mut over_relays = self.ranked().filter(|choice| !choice.path.is_direct());
        over_relays.find(|choice| !self.is_out(&choice.path))
    }

    /// All paths that have a cost, in the order of choice.
    pub(super) fn ranked(&self) -> impl Iterator<Item = Choice> {
        self.rests.ranked(self.from).map(|route| self.choice(&route))
    }

    /// The backup beside a path, among those that `takes` takes. A pair whose packets may go over both paths would rather
    /// have one that loses some of what it carries than none.
    pub(super) fn backup(&self, primary: &Path, takes: impl Fn(&Path) -> bool) -> Option<Choice> {
        let relays = self.relays(primary)?;
        let beside = |is_no_choice: &dyn Fn(&Path) -> bool| {
            let allowed = |relay: Option<usize>| {
                let path = self.path(relay.as_slice());
                takes(&path) && !is_no_choice(&path)
            };
            routes::backup(self.costs, self.from, self.to, &relays, allowed)
        };
        let sound = beside(&|path| self.is_out(path));
        let any = || beside(&|path| self.is_down(path)).filter(|_| self.duplication != Duplication::Never);
        sound.or_else(any).map(|route| self.choice(&route))
    }

    /// What a path costs, with the loss of its own alarm; unusable where it has a node that is not listed.
    pub(super) fn cost(&self, path: &Path) -> Cost {
        let legs = self.relays(path);
        let legs = legs.map(|relays| self.costs.path(self.from, &relays, self.to));
        legs.map_or(Cost::UNUSABLE, |legs| legs + self.own_loss(path))
    }

    /// What the loss of a path's own alarm costs.
    pub(super) fn own_loss(&self, path: &Path) -> Cost {
        let lost = self.views.lossy.get(path);
        lost.map_or(Cost::ZERO, |(_, loss_ppm)| self.weights.loss(*loss_ppm))
    }

    /// Lost in a million on the way there or back, whichever is more, as far as legs are known.
    pub(super) fn loss_ppm(&self, path: &Path) -> u32 {
        let of = |legs: &mut dyn Iterator<Item = LegId>| {
            let known = legs.filter_map(|leg| self.views.costs.legs.get(&leg));
            let kept: f64 = known
                .map(|stats| 1.0 - f64::from(stats.loss_ppm.min(1_000_000)) / 1e6)
                .product();
            Cost::from_us_f64((1.0 - kept) * 1e6).us()
        };
        let own = self.views.lossy.get(path).map_or(0, |(_, loss_ppm)| *loss_ppm);
        let legs = of(&mut path.legs()).max(of(&mut path.legs().map(LegId::reversed)));
        legs.max(own)
    }

    /// How many µs the round trips of two paths are apart; `None` where a leg is not known.
    pub(super) fn apart_us(&self, one: &Path, other: &Path) -> Option<u64> {
        let round_trip = |path: &Path| -> Option<u64> {
            let legs = path.legs().map(|leg| self.views.costs.legs.get(&leg));
            legs.map(|stats| Some(u64::from(stats?.rtt_us))).sum()
        };
        Some(round_trip(one)?.abs_diff(round_trip(other)?))
    }

    /// What a leg costs.
    pub(super) fn leg(&self, leg: LegId) -> Cost {
        match (self.costs.index_of(leg.from), self.costs.index_of(leg.to)) {
            (Some(from), Some(to)) => self.costs.leg(from, to),
            _ => Cost::UNUSABLE,
        }
    }

    /// What a backup is ranked by, beside a primary.
    pub(super) fn score(&self, primary: &Path, backup: &Path) -> Cost {
        let penalty = match (self.relays(primary), self.relays(backup).as_deref()) {
            (Some(primary), Some(&[relay])) => self.costs.penalty(&primary, relay),
            _ => Cost::ZERO,
        };
        self.cost(backup) + penalty
    }

    /// Whether the entry says that nothing comes back from the exit.
    pub(super) fn is_cut_off(&self) -> bool {
        let direct = self.path(&[]);
        direct.legs().any(|leg| self.views.input.dead.contains(&leg))
    }

    /// Why a path cannot be used, if it cannot.
    pub(super) fn broken(&self, path: &Path) -> Option<Cause> {
        let drains = |node: &&NodeId| {
            let relay = self
                .costs
                .index_of(**node)
                .map(|index| self.costs.relays()[index]);
            relay.is_none_or(|relay| !relay.transit.is_usable())
        };
        let unusable = |leg: &LegId| !self.leg(*leg).is_usable();
        if self.is_down(path) {
            return Some(Cause::PathDown);
        }
        let drain = path
            .relays()
            .iter()
            .find(drains)
            .map(|&node| Cause::Drain { node });
        drain.or_else(|| path.legs().find(unusable).map(|leg| Cause::LegUnusable { leg }))
    }

    /// When it or one of its legs died, where that is why it cannot be used.
    pub(super) fn died(&self, path: &Path) -> Option<Millis> {
        let (Cause::PathDown | Cause::LegUnusable { .. }) = self.broken(path)? else {
            return None;
        };
        let legs = path.legs().map(|leg| Path::new(leg.from, &[], leg.to));
        let all = std::iter::once(path.clone()).chain(legs);
        all.filter_map(|path| self.views.down.get(&path).copied()).min()
    }

    /// The alarm of the path itself, or of one of its legs, there or back.
    pub(super) fn alarmed(&self, path: &Path) -> Option<Cause> {
        if self.views.lossy.contains_key(path) {
            return Some(Cause::PathAlarm);
        }
        let mut both = path.legs().flat_map(|leg| [leg, leg.reversed()]);
        let leg = both.find(|leg| self.views.alarms.contains_key(leg))?;
        Some(Cause::Alarm { leg })
    }

    /// Whether a relay of the path is new.
    pub(super) fn is_new(&self, path: &Path) -> bool {
        let new = |node: &NodeId| {
            let seen = self.views.first_seen.get(node);
            seen.is_some_and(|&seen| self.now.since(seen) < self.views.config.new_node_ms)
        };
        path.relays().iter().any(new)
    }

    fn is_down(&self, path: &Path) -> bool {
        self.views.down.contains_key(path)
    }

    /// Whether a path is no candidate: it is down, loses what it carries, or passes a relay of a path between the same
    /// ends that does.
    pub(super) fn is_out(&self, path: &Path) -> bool {
        let Views { down, lossy, .. } = self.views;
        let is_bad = !down.is_empty() || !lossy.is_empty();
        is_bad && (down.contains_key(path) || lossy.contains_key(path) || self.shares(path).is_some())
    }

    /// The relay that a path shares with one between the same ends that loses what it carries.
    pub(super) fn shares(&self, path: &Path) -> Option<NodeId> {
        let ends = |path: &Path| (path.nodes().first().copied(), path.nodes().last().copied());
        let mut others = self.views.lossy.keys().filter(|other| ends(other) == ends(path));
        others.find_map(|other| {
            let mut relays = other.relays().iter().copied();
            relays.find(|relay| path.relays().contains(relay))
        })
    }

    fn choice(&self, route: &Route) -> Choice {
        Choice {
            path: self.path(&route.relays),
            cost: route.cost,
        }
    }

    fn path(&self, relays: &[usize]) -> Path {
        let id = |index: usize| self.costs.relays()[index].id;
        let relays: Vec<NodeId> = relays.iter().map(|&relay| id(relay)).collect();
        Path::new(id(self.from), &relays, id(self.to))
    }

    /// The indices of a path's relays; nothing where one is not listed.
    fn relays(&self, path: &Path) -> Option<Vec<usize>> {
        path.relays()
            .iter()
            .map(|&relay| self.costs.index_of(relay))
            .collect()
    }
}
