//! The straightforward way: for each pair look at each relay. Its answers are what ours must be.

use super::matrix::Matrix;

/// What a relay adds to a path's cost, in µs.
pub(crate) const RELAY_COST: u32 = 1000;

/// A path of at most one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// In µs, with the relay's share.
    pub(crate) cost: u32,
    /// The relay; none is the direct path.
    pub(crate) relay: Option<usize>,
}

/// The best path of a pair and the best other one, which cannot share its relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    /// Least cost; then the direct path, then the lowest relay.
    pub(crate) primary: Route,
    /// The same of all other paths; none between two nodes alone.
    pub(crate) backup: Option<Route>,
}

/// Every ordered pair of different nodes, row by row.
pub(crate) fn routes(matrix: &Matrix) -> Vec<Pair> {
    let nodes = matrix.nodes();
    let mut pairs = Vec::with_capacity(nodes * nodes.saturating_sub(1));
    for from in 0..nodes {
        for to in (0..nodes).filter(|to| *to != from) {
            pairs.push(pair(matrix, from, to));
        }
    }
    pairs
}

fn pair(matrix: &Matrix, from: usize, to: usize) -> Pair {
    let mut primary = Route {
        cost: matrix.cost(from, to),
        relay: None,
    };
    let mut backup: Option<Route> = None;
    for relay in (0..matrix.nodes()).filter(|relay| *relay != from && *relay != to) {
        let route = Route {
            cost: matrix.cost(from, relay) + matrix.cost(relay, to) + RELAY_COST,
            relay: Some(relay),
        };
        if route.cost < primary.cost {
            backup = Some(primary);
            primary = route;
        } else if backup.is_none_or(|backup| route.cost < backup.cost) {
            backup = Some(route);
        }
    }
    Pair { primary, backup }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All paths of each pair, sorted: the definition.
    fn sorted(matrix: &Matrix, from: usize, to: usize) -> Vec<Route> {
        let mut routes = vec![Route {
            cost: matrix.cost(from, to),
            relay: None,
        }];
        for relay in (0..matrix.nodes()).filter(|relay| *relay != from && *relay != to) {
            let cost = matrix.cost(from, relay) + matrix.cost(relay, to) + RELAY_COST;
            routes.push(Route {
                cost,
                relay: Some(relay),
            });
        }
        routes.sort_by_key(|route| (route.cost, route.relay));
        routes
    }

    #[test]
    fn the_two_first_of_all_paths() {
        let matrix = Matrix::seeded(30, 3);
        let pairs = routes(&matrix);
        let ends = (0..30).flat_map(|from| (0..30).filter(move |to| *to != from).map(move |to| (from, to)));
        for ((from, to), pair) in ends.zip(&pairs) {
            let sorted = sorted(&matrix, from, to);
            assert_eq!(pair.primary, sorted[0]);
            assert_eq!(pair.backup, sorted.get(1).copied());
        }
        assert!(pairs.iter().any(|pair| pair.primary.relay.is_some()));
    }

    #[test]
    fn two_nodes_have_no_backup() {
        assert_eq!(
            routes(&Matrix::seeded(2, 1))
                .iter()
                .filter(|pair| pair.backup.is_some())
                .count(),
            0
        );
    }
}
