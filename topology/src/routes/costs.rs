//! The costs of all legs.

use thiserror::Error;

use super::{SHARED_PROVIDER, SHARED_SITE};
use crate::cost::Cost;
use crate::id::NodeId;
use crate::matrix::{Matrix, MatrixError};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostMatrix {
    relays: Vec<Relay>,
    /// By relay, µs.
    transits: Vec<u32>,
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

    /// The round trips of a matrix as they are, and what passing through any of its places costs. Places are numbered
    /// from 1 in the matrix's order, each a site and a provider of its own; what was not measured is unusable.
    ///
    /// # Errors
    /// `TooMany`, `TooLong`.
    pub fn of_matrix(matrix: &Matrix, transit: Cost) -> Result<Self, MatrixError> {
        let n = matrix.names().len();
        let too_many = || MatrixError::TooMany { places: n };
        let mut relays = Vec::with_capacity(n);
        for number in 1..=n {
            let number = u16::try_from(number).map_err(|_| too_many())?;
            relays.push(Relay {
                id: NodeId::new(number).ok_or_else(too_many)?,
                site: number.into(),
                provider: number.into(),
                transit,
            });
        }
        let mut costs = Self::of_sorted(relays);
        for (from, to) in (0..n).flat_map(|from| (0..n).map(move |to| (from, to))) {
            let Some(ms) = matrix.get(from, to) else { continue };
            let cost = Cost::from_us_f64(ms * 1000.0);
            if !cost.is_usable() {
                return Err(MatrixError::TooLong {
                    line: from + 2,
                    column: to + 2,
                    name: matrix.names()[to].clone(),
                    ms,
                });
            }
            costs.set(from, to, cost);
        }
        Ok(costs)
    }

    pub(crate) fn of_sorted(relays: Vec<Relay>) -> Self {
        let cells = vec![Cost::UNUSABLE.us(); relays.len() * relays.len()];
        Self {
            transits: relays.iter().map(|relay| relay.transit.us()).collect(),
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

    /// The cost of the path between two nodes over relays.
    pub fn path(&self, from: usize, relays: &[usize], to: usize) -> Cost {
        let ends = relays.iter().copied().chain([to]);
        let legs = std::iter::once(from).chain(relays.iter().copied()).zip(ends);
        let legs = legs.map(|(from, to)| self.leg(from, to));
        let transits = relays.iter().map(|&relay| self.relays[relay].transit);
        legs.chain(transits).fold(Cost::ZERO, |sum, cost| sum + cost)
    }

    /// What a backup over a relay costs more beside a primary over these.
    pub fn penalty(&self, primary: &[usize], backup: usize) -> Cost {
        let backup = &self.relays[backup];
        let shares = |is_shared: fn(&Relay, &Relay) -> bool, cost: Cost| {
            let mut primary = primary.iter().map(|&relay| &self.relays[relay]);
            let shared = primary.any(|relay| is_shared(relay, backup));
            if shared { cost } else { Cost::ZERO }
        };
        shares(|a, b| a.site == b.site, SHARED_SITE)
            + shares(|a, b| a.provider == b.provider, SHARED_PROVIDER)
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

    /// What passing through each node costs, µs.
    pub(super) fn transits(&self) -> &[u32] {
        &self.transits
    }

    /// The legs from a node, µs.
    pub(super) fn row(&self, from: usize) -> &[u32] {
        &self.by_source[self.len() * from..][..self.len()]
    }

    /// The legs to a node, µs.
    pub(super) fn column(&self, to: usize) -> &[u32] {
        &self.by_target[self.len() * to..][..self.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::super::seeded::index_nodes;
    use super::*;

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
    fn what_takes_too_long_is_named() {
        let matrix = Matrix::parse(",a,b\na,0,600000\nb,1,0\n").unwrap();
        let error = CostMatrix::of_matrix(&matrix, Cost::ZERO)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("line 2, column 3 (b): 600000 ms"), "{error}");
    }

    #[test]
    fn a_path_costs_its_legs_and_its_relays() {
        let mut costs = CostMatrix::new(index_nodes(4, |_| (0, 0))).unwrap();
        for (from, to, ms) in [(0, 2, 10), (2, 3, 20), (3, 1, 30)] {
            costs.set(from, to, Cost::from_us(ms * 1000));
        }
        assert_eq!(costs.path(0, &[2, 3], 1).us(), 62_000);
        assert_eq!(costs.path(0, &[2], 3).us(), 31_000);
        assert!(!costs.path(0, &[], 1).is_usable());
        assert!(!costs.path(0, &[2, 0], 1).is_usable());
    }

    #[test]
    fn a_shared_site_and_a_shared_provider_count_once() {
        let places = [(0, 0), (1, 1), (2, 2), (2, 3), (3, 2)];
        let costs = CostMatrix::new(index_nodes(5, |index| places[index])).unwrap();
        assert_eq!(costs.penalty(&[2, 3], 4), SHARED_PROVIDER);
        assert_eq!(costs.penalty(&[2], 3), SHARED_SITE);
        assert_eq!(costs.penalty(&[2, 3], 2), SHARED_SITE + SHARED_PROVIDER);
        assert_eq!(costs.penalty(&[2, 3], 1), Cost::ZERO);
        assert_eq!(costs.penalty(&[], 1), Cost::ZERO);
    }
}
