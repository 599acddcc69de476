//! Which places to rent as relays, before any is rented.
//!
//! Specification:
//! - A *pair* is a source and a target, other than each other, whose direct round trip was measured; others do not
//!   count. Its weight is its source's.
//! - Its *gain* by a set of places is direct minus its best path over at most `max_relays` of them, or 0. A path is
//!   the sum of its legs, row to column, plus `relay_us` for each relay; a leg that was not measured is none, and an
//!   end of the pair is no relay of it.
//! - Chosen is the set of `count` places with the greatest mean gain over the pairs, by weight. Where
//!   that takes at most [`EXACT_WORK`], all sets are compared: the answer is exact. Else places are taken one by one,
//!   each the one that adds most, then exchanged: each for the place outside that adds most in its stead, until no
//!   exchange gains or [`EXCHANGE_WORK`] is used up.
//! - The places of the answer are in the order in which each adds most to those before it. Ties go to the matrix's
//!   order.

mod field;
mod list;
mod table;
#[cfg(test)]
mod tests;

use std::num::NonZeroU8;

use crate::matrix::Matrix;
use field::{Field, Problem};

pub use list::{ListError, Named, PLAYERS, PRICES, list, place_of};

/// So many looks at a cell are spent on comparing all sets: a second or two. Every set of 12 places takes less.
pub const EXACT_WORK: u64 = 1_500_000_000;
/// So many are spent on exchanging places: seconds.
pub const EXCHANGE_WORK: u64 = 6_000_000_000;
/// A gain that a player feels, in µs.
const FELT_US: i32 = 10_000;

/// Whose round trips count. Places are the matrix's indices.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Where packets come from, with their weight.
    pub sources: Vec<(usize, f64)>,
    /// Where they go.
    pub targets: Vec<usize>,
}

impl Demand {
    /// Every place to every other, alike.
    pub fn of_all(matrix: &Matrix) -> Self {
        let places = 0..matrix.names().len();
        Self {
            sources: places.clone().map(|place| (place, 1.0)).collect(),
            targets: places.collect(),
        }
    }
}

/// What may be rented.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// How many places.
    pub count: usize,
    /// What passing through a relay costs, in µs.
    pub relay_us: u32,
    /// So many relays may be on a path: with more than 3 nothing more is gained.
    pub max_relays: NonZeroU8,
}

/// How the places were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// All sets were compared.
    Exact {
        /// How many there are.
        subsets: u64,
    },
    /// One by one, then exchanged.
    Greedy {
        /// So many exchanges gained.
        exchanges: u32,
        /// Whether no exchange is left that gains.
        settled: bool,
    },
}

/// A place, with what it and those before it bring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// The place.
    pub place: usize,
    /// The mean gain over all pairs, in ms.
    pub mean_gain_ms: f64,
    /// The share of the weight that gains 10 ms or more.
    pub felt: f64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Design {
    /// How it was found.
    pub method: Method,
    /// How many pairs count.
    pub pairs: usize,
    /// Their mean direct round trip, in ms.
    pub direct_ms: f64,
    /// The places.
    pub chosen: Vec<Chosen>,
}

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Sets compared so far.
    Subsets(u64),
    /// Places taken so far.
    Places(usize),
    /// Rounds of exchange begun.
    Round(u32),
}

/// Chooses places; see the module for the specification. Without a pair that counts nothing is chosen; of more
/// places than there are, all.
pub fn design(matrix: &Matrix, demand: &Demand, plan: Plan, mut progress: impl FnMut(Progress)) -> Design {
    let problem = Problem::new(matrix, demand, plan);
    let count = plan.count.min(problem.places());
    let none = Field::new(&problem, &[]);
    if none.weight() <= 0.0 {
        return Design {
            method: Method::Exact { subsets: 0 },
            pairs: 0,
            direct_ms: 0.0,
            chosen: Vec::new(),
        };
    }
    let (set, method) = match subsets(&problem, count) {
        Some(subsets) => (
            enumerate(&problem, count, &mut progress),
            Method::Exact { subsets },
        ),
        None => approach(&problem, count, &mut progress),
    };
    Design {
        method,
        pairs: none.pairs(),
        direct_ms: none.direct_ms(),
        chosen: in_order(&problem, set),
    }
}

/// How many sets there are, where all may be compared.
fn subsets(problem: &Problem, count: usize) -> Option<u64> {
    let n = problem.places();
    let most = EXACT_WORK / problem.work_of_field(count).max(1);
    let mut sets = 1_u64;
    for taken in 0..count.min(n - count) {
        sets = sets * (n - taken) as u64 / (taken + 1) as u64;
        if sets > most {
            return None;
        }
    }
    Some(sets)
}

/// The best of all sets.
fn enumerate(problem: &Problem, count: usize, progress: &mut impl FnMut(Progress)) -> Vec<usize> {
    let mut set: Vec<usize> = (0..count).collect();
    let (mut best, mut best_gain, mut seen) = (set.clone(), f64::MIN, 0);
    loop {
        let gain = Field::new(problem, &set).gain();
        if gain > best_gain {
            (best, best_gain) = (set.clone(), gain);
        }
        seen += 1;
        progress(Progress::Subsets(seen));
        // The next set in lexical order: the last place that can move on does, and those after it follow.
        let last = (0..count).rfind(|&at| set[at] < problem.places() - count + at);
        let Some(at) = last else { return best };
        let first = set[at] + 1;
        for (place, next) in set[at..].iter_mut().zip(first..) {
            *place = next;
        }
    }
}

/// Places one by one, then exchanged.
fn approach(problem: &Problem, count: usize, progress: &mut impl FnMut(Progress)) -> (Vec<usize>, Method) {
    let mut set = Vec::with_capacity(count);
    while set.len() < count {
        progress(Progress::Places(set.len()));
        let everywhere = (0..problem.places()).filter(|place| !set.contains(place));
        let Some((place, _)) = Field::new(problem, &set).best_of(everywhere) else {
            break;
        };
        set.push(place);
    }
    let (mut work, mut exchanges, mut rounds) = (0, 0, 0);
    loop {
        let before = exchanges;
        rounds += 1;
        progress(Progress::Round(rounds));
        for at in 0..set.len() {
            work += problem.work_of_exchange(count);
            if work > EXCHANGE_WORK {
                let settled = false;
                return (set, Method::Greedy { exchanges, settled });
            }
            exchanges += u32::from(exchange(problem, &mut set, at));
        }
        if exchanges == before {
            let settled = true;
            return (set, Method::Greedy { exchanges, settled });
        }
    }
}

/// Puts the best place outside where one of the set is, if it gains.
fn exchange(problem: &Problem, set: &mut [usize], at: usize) -> bool {
    let others: Vec<usize> = set.iter().copied().filter(|&place| place != set[at]).collect();
    let field = Field::new(problem, &others);
    let outside = (0..problem.places()).filter(|place| !set.contains(place));
    let now = field.added_by(set[at]);
    match field.best_of(outside) {
        Some((place, added)) if added > now => {
            set[at] = place;
            true
        }
        _ => false,
    }
}

/// Each place after those that it adds most to.
fn in_order(problem: &Problem, mut left: Vec<usize>) -> Vec<Chosen> {
    left.sort_unstable();
    let (mut taken, mut chosen) = (Vec::new(), Vec::new());
    let mut field = Field::new(problem, &taken);
    while let Some((place, _)) = field.best_of(left.iter().copied()) {
        left.retain(|&other| other != place);
        taken.push(place);
        field = Field::new(problem, &taken);
        chosen.push(Chosen {
            place,
            mean_gain_ms: field.gain() / field.weight() / 1000.0,
            felt: field.felt(FELT_US) / field.weight(),
        });
    }
    chosen
}
