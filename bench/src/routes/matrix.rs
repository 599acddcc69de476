//! A seeded, dense matrix of costs, shaped like the Internet's: distance, and detours of every length.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The cost of every leg, in µs.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    nodes: usize,
    costs: Vec<u32>,
}

impl Matrix {
    /// `nodes` places on a globe. A leg's cost is the round trip by fibre (10 µs a kilometre) times a detour of
    /// 1.1 to 3 drawn for each pair, plus 2 ms; both directions cost the same, as the mean of both does.
    pub(crate) fn seeded(nodes: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let places: Vec<[f64; 3]> = (0..nodes).map(|_| place(&mut random)).collect();
        let mut costs = vec![0; nodes * nodes];
        for from in 0..nodes {
            for to in from + 1..nodes {
                let detour = 1.1 + 1.9 * random.random::<f64>().powi(3);
                let cost = micros(distance_km(&places[from], &places[to]) * 10.0 * detour + 2000.0);
                costs[from * nodes + to] = cost;
                costs[to * nodes + from] = cost;
            }
        }
        Self { nodes, costs }
    }

    /// What the leg costs, in µs; 0 from a node to itself.
    pub(crate) fn cost(&self, from: usize, to: usize) -> u32 {
        self.costs[from * self.nodes + to]
    }
}

/// A point on the unit sphere, all equally likely.
fn place(random: &mut StdRng) -> [f64; 3] {
    let z = 2.0 * random.random::<f64>() - 1.0;
    let longitude = std::f64::consts::TAU * random.random::<f64>();
    let radius = (1.0 - z * z).sqrt();
    [radius * longitude.cos(), radius * longitude.sin(), z]
}

/// Along the globe's surface.
fn distance_km(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    const EARTH_RADIUS_KM: f64 = 6371.0;
    let cosine: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    EARTH_RADIUS_KM * cosine.clamp(-1.0, 1.0).acos()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "half the globe at the longest detour is 0.6 s"
)]
fn micros(value: f64) -> u32 {
    value.round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_matrix() {
        let matrix = Matrix::seeded(20, 7);
        assert_eq!(matrix.costs, Matrix::seeded(20, 7).costs);
        assert_ne!(matrix.costs, Matrix::seeded(20, 8).costs);
        for from in 0..20 {
            for to in 0..20 {
                assert_eq!(matrix.cost(from, to), matrix.cost(to, from));
                assert_eq!(from == to, matrix.cost(from, to) == 0);
                assert!(matrix.cost(from, to) < 700_000);
            }
        }
    }
}
