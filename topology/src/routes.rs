//! The exact choice of a primary and a backup path with at most one relay.
//!
//! Specification, for one pair of nodes:
//! - A path is direct, or goes over one relay; it costs the sum of its legs plus the relay's transit. A sum of
//!   2²⁹ µs or more is no path.
//! - The *primary* is the cheapest path; of equal ones that with fewer relays, then the lowest relay id.
//! - The *backup* is another path that shares no relay with the primary: the one with the least of its cost, plus
//!   1000 ms where its relay stands at the site of the primary's, plus 20 ms where the two have one provider. Every
//!   relay is examined, ties fall as above, and there may be none.
//!
//! [`primary`] and [`backup`] answer for one pair in O(N); [`best`] answers for all pairs at once.

mod all_pairs;
#[cfg(test)]
mod oracle;
#[cfg(test)]
pub(crate) mod seeded;

use thiserror::Error;

use crate::cost::Cost;
use crate::id::NodeId;

pub use all_pairs::{Routes, best};

/// What a backup costs more for a relay at the site of the primary's.
pub const SHARED_SITE: Cost = Cost::from_us(1_000_000);
/// What a backup costs more for a relay of the provider of the primary's.
pub const SHARED_PROVIDER: Cost = Cost::from_us(20_000);

/// A node as a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// The node.
    pub id: NodeId,
    /// Its site; equal numbers are one site.
    pub site: u32,
    /// Its provider; equal numbers are one provider.
    pub provider: u32,
    /// What passing through it costs; unusable where it must not relay.
    pub transit: Cost,
}

/// The costs of all legs. Nodes are indices from 0, in the order of their ids.
#[derive(Clone, Debug)]
pub struct CostMatrix {
    relays: Vec<Relay>,
    /// `n·from + to`, µs.
    by_source: Vec<u32>,
    /// `n·to + from`, µs: the same, so that a scan over relays reads both its legs in order.
    by_target: Vec<u32>,
}

/// Nodes that make no matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CostMatrixError {
    /// Ties go to the lowest id, so the order is part of the answer.
    #[error("node {second} follows node {first}: nodes are listed by rising id")]
    Order {
        /// A node.
        first: NodeId,
        /// The next one.
        second: NodeId,
    },
}

impl CostMatrix {
    /// Nodes by rising id, without any leg yet.
    ///
    /// # Errors
    /// Ids that do not rise.
    pub fn new(relays: Vec<Relay>) -> Result<Self, CostMatrixError> {
        for (first, second) in relays.iter().zip(relays.iter().skip(1)) {
            if first.id >= second.id {
                return Err(CostMatrixError::Order {
                    first: first.id,
                    second: second.id,
                });
            }
        }
        Ok(Self::of_sorted(relays))
    }

    pub(crate) fn of_sorted(relays: Vec<Relay>) -> Self {
        let cells = vec![Cost::UNUSABLE.us(); relays.len() * relays.len()];
        Self {
            relays,
            by_source: cells.clone(),
            by_target: cells,
        }
    }

    /// Sets the cost of the leg between two nodes. There is no leg from a node to itself.
    pub fn set(&mut self, from: usize, to: usize, cost: Cost) {
        if from != to {
            let n = self.len();
            self.by_source[n * from + to] = cost.us();
            self.by_target[n * to + from] = cost.us();
        }
    }

    /// The cost of the leg between two nodes.
    pub fn leg(&self, from: usize, to: usize) -> Cost {
        Cost::from_us(self.by_source[self.len() * from + to])
    }

    /// The cost of the path between two nodes, direct or over a relay.
    pub fn path(&self, from: usize, relay: Option<usize>, to: usize) -> Cost {
        match relay {
            None => self.leg(from, to),
            Some(relay) => self.leg(from, relay) + self.relays[relay].transit + self.leg(relay, to),
        }
    }

    /// What a backup over the second relay costs more beside a primary over the first.
    pub fn penalty(&self, primary: usize, backup: usize) -> Cost {
        let (first, second) = (&self.relays[primary], &self.relays[backup]);
        let site = if first.site == second.site {
            SHARED_SITE
        } else {
            Cost::ZERO
        };
        let provider = if first.provider == second.provider {
            SHARED_PROVIDER
        } else {
            Cost::ZERO
        };
        site + provider
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.relays.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// The nodes, by index.
    pub fn relays(&self) -> &[Relay] {
        &self.relays
    }

    /// The index of a node.
    pub fn index_of(&self, id: NodeId) -> Option<usize> {
        self.relays.binary_search_by_key(&id, |relay| relay.id).ok()
    }

    fn row(&self, from: usize) -> &[u32] {
        &self.by_source[self.len() * from..][..self.len()]
    }

    fn column(&self, to: usize) -> &[u32] {
        &self.by_target[self.len() * to..][..self.len()]
    }
}

/// A path of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The relay's index; `None` is direct.
    pub relay: Option<usize>,
    /// The path's cost, without any penalty.
    pub cost: Cost,
}

/// The cheapest path of a pair among those that `allowed` takes; see the module for the specification.
pub fn primary(
    costs: &CostMatrix,
    from: usize,
    to: usize,
    allowed: impl Fn(Option<usize>) -> bool,
) -> Option<Route> {
    least(costs, from, to, |relay| allowed(relay).then_some(Cost::ZERO))
}

/// The backup beside a primary that goes direct (`None`) or over a relay, among the paths that `allowed` takes; see
/// the module for the specification.
pub fn backup(
    costs: &CostMatrix,
    from: usize,
    to: usize,
    primary: Option<usize>,
    allowed: impl Fn(Option<usize>) -> bool,
) -> Option<Route> {
    least(costs, from, to, |relay| {
        let other = relay != primary && allowed(relay);
        other.then(|| match (primary, relay) {
            (Some(first), Some(second)) => costs.penalty(first, second),
            _ => Cost::ZERO,
        })
    })
}

/// The path with the least cost + surcharge; `surcharge` refuses a path by `None`.
fn least(
    costs: &CostMatrix,
    from: usize,
    to: usize,
    surcharge: impl Fn(Option<usize>) -> Option<Cost>,
) -> Option<Route> {
    if from == to {
        return None;
    }
    let direct = costs.leg(from, to);
    let mut bound = surcharge(None).map_or(Cost::UNUSABLE, |more| direct + more);
    let mut found = bound.is_usable().then_some(Route {
        relay: None,
        cost: direct,
    });
    let legs = costs.row(from).iter().zip(costs.column(to)).zip(&costs.relays);
    for (relay, ((&first, &second), node)) in legs.enumerate() {
        if first + second >= bound.us() {
            continue;
        }
        let cost = Cost::from_us(first) + node.transit + Cost::from_us(second);
        let Some(more) = surcharge(Some(relay)) else {
            continue;
        };
        if cost + more < bound {
            bound = cost + more;
            found = Some(Route {
                relay: Some(relay),
                cost,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::seeded::{index_nodes, matrix};
    use super::*;

    fn ms(ms: u32) -> Cost {
        Cost::from_us(ms * 1000)
    }

    fn any(_: Option<usize>) -> bool {
        true
    }

    /// Entry 0, exit 1, relays 2 and up; both legs of relay k cost `relays[k] / 2`.
    fn star(direct: u32, relays: &[u32], sites: &[u32]) -> CostMatrix {
        let mut costs =
            CostMatrix::new(index_nodes(relays.len() + 2, |i| (sites[i], 100 + sites[i]))).unwrap();
        costs.set(0, 1, ms(direct));
        for (index, cost) in relays.iter().enumerate() {
            costs.set(0, index + 2, Cost::from_us(cost * 500 - 1000));
            costs.set(index + 2, 1, Cost::from_us(cost * 500));
        }
        costs
    }

    #[test]
    fn equal_costs_go_to_direct_then_to_the_lowest_id() {
        let costs = star(100, &[100, 90, 90], &[0, 1, 2, 3, 4]);
        let first = primary(&costs, 0, 1, any).unwrap();
        assert_eq!(
            first,
            Route {
                relay: Some(3),
                cost: ms(90)
            }
        );
        assert_eq!(
            backup(&costs, 0, 1, first.relay, any),
            Some(Route {
                relay: Some(4),
                cost: ms(90)
            })
        );
        let tied = star(90, &[90], &[0, 1, 2]);
        assert_eq!(
            primary(&tied, 0, 1, any),
            Some(Route {
                relay: None,
                cost: ms(90)
            })
        );
        assert_eq!(
            backup(&tied, 0, 1, None, any),
            Some(Route {
                relay: Some(2),
                cost: ms(90)
            })
        );
    }

    #[test]
    fn a_backup_pays_for_the_site_and_the_provider_of_the_primary() {
        // The second relay stands at the first one's site; the third is 300 ms longer, but elsewhere.
        let costs = star(2000, &[100, 110, 400], &[0, 1, 2, 2, 3]);
        assert_eq!(backup(&costs, 0, 1, Some(2), any).unwrap().relay, Some(4));
        // Not even direct is worth leaving the site where it costs more than the penalty.
        let far = star(2000, &[100, 110], &[0, 1, 2, 2]);
        assert_eq!(
            backup(&far, 0, 1, Some(2), any),
            Some(Route {
                relay: Some(3),
                cost: ms(110)
            })
        );
        // One provider at two sites: 20 ms.
        let nodes = index_nodes(5, |i| (u32::try_from(i).unwrap(), u32::from(i == 4)));
        let mut costs = CostMatrix {
            relays: nodes,
            ..star(2000, &[100, 110, 125], &[0, 1, 2, 3, 4])
        };
        assert_eq!(backup(&costs, 0, 1, Some(2), any).unwrap().relay, Some(4));
        costs.set(4, 1, ms(200));
        assert_eq!(backup(&costs, 0, 1, Some(2), any).unwrap().relay, Some(3));
    }

    #[test]
    fn there_may_be_no_path_and_no_backup() {
        let costs = star(50, &[], &[0, 1]);
        assert_eq!(
            primary(&costs, 0, 1, any),
            Some(Route {
                relay: None,
                cost: ms(50)
            })
        );
        assert_eq!(backup(&costs, 0, 1, None, any), None);
        assert_eq!(primary(&costs, 1, 0, any), None);
        assert_eq!(primary(&costs, 0, 0, any), None);
        assert_eq!(primary(&costs, 0, 1, |relay| relay.is_some()), None);
    }

    #[test]
    fn what_must_not_relay_still_ends_paths() {
        let mut nodes = index_nodes(3, |_| (0, 0));
        nodes[2].transit = Cost::UNUSABLE;
        let mut costs = CostMatrix::new(nodes).unwrap();
        for (from, to) in [(0, 2), (2, 1)] {
            costs.set(from, to, ms(10));
        }
        assert_eq!(primary(&costs, 0, 1, any), None);
        assert_eq!(
            primary(&costs, 0, 2, any),
            Some(Route {
                relay: None,
                cost: ms(10)
            })
        );
    }

    #[test]
    fn nodes_are_listed_by_rising_id() {
        let mut nodes = index_nodes(2, |_| (0, 0));
        nodes.swap(0, 1);
        let error = CostMatrix::new(nodes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "node 1 follows node 2: nodes are listed by rising id"
        );
    }

    #[test]
    fn one_pair_agrees_with_the_definition() {
        for seed in 0..300 {
            let costs = matrix(seed);
            for from in 0..costs.len() {
                for to in 0..costs.len() {
                    let expected = oracle::choose(&costs, from, to);
                    let first = primary(&costs, from, to, any);
                    let second = first.and_then(|first| backup(&costs, from, to, first.relay, any));
                    assert_eq!((first, second), expected, "seed {seed}, {from} to {to}");
                }
            }
        }
    }
}
