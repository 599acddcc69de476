//! What a set of places brings, and what one more would.

use super::table::{NONE, Table, us};
use super::{Demand, Plan};
use crate::cost::Cost;
use crate::matrix::Matrix;

/// The legs and who uses them.
pub(super) struct Problem {
    /// From any place to any other; none to itself.
    legs: Table,
    /// From any place to any target.
    to_targets: Table,
    sources: Vec<(usize, f64)>,
    relay_us: i32,
    max_relays: usize,
}

impl Problem {
    pub(super) fn new(matrix: &Matrix, demand: &Demand, plan: Plan) -> Self {
        let n = matrix.names().len();
        let leg = |from: usize, to: usize| match matrix.get(from, to) {
            Some(ms) if from != to => us(Cost::from_us_f64(ms * 1000.0)),
            _ => NONE,
        };
        let targets = &demand.targets;
        Self {
            legs: Table::of(n, n, leg),
            to_targets: Table::of(n, targets.len(), |from, to| leg(from, targets[to])),
            sources: demand.sources.clone(),
            relay_us: us(Cost::from_us(plan.relay_us)),
            max_relays: usize::from(plan.max_relays.get()),
        }
    }

    pub(super) fn places(&self) -> usize {
        self.legs.rows()
    }

    /// Looks at cells that a [`Field`] of so many places takes.
    pub(super) fn work_of_field(&self, count: usize) -> u64 {
        let (n, sources, targets) = (self.places(), self.sources.len(), self.to_targets.width);
        let longer = (1 + count) * n * (sources + targets);
        (self.max_relays * longer + count * sources * targets) as u64
    }

    /// The same of exchanging one place: a field without it, and each place outside.
    pub(super) fn work_of_exchange(&self, count: usize) -> u64 {
        let outside = self.places() - count.min(self.places());
        let looks = outside * self.max_relays * self.sources.len() * self.to_targets.width;
        self.work_of_field(count) + looks as u64
    }
}

/// The best paths over a set of places.
///
/// A path over one more place x is a path from the source to x with i relays of the set, x, and a path from x to
/// the target with at most `max_relays` − 1 − i of them: so what x adds is found in O(pairs · `max_relays`).
pub(super) struct Field<'a> {
    problem: &'a Problem,
    /// By i: from each source to each place with at most i relays.
    out: Vec<Table>,
    /// By i: from each place to each target with at most i relays.
    back: Vec<Table>,
    /// Direct, from each source to each target.
    direct: Table,
    /// The best path of each pair; 0 for what is none, so that nothing can be gained there.
    best: Table,
}

impl<'a> Field<'a> {
    pub(super) fn new(problem: &'a Problem, set: &[usize]) -> Self {
        let set: Vec<(usize, i32)> = set.iter().map(|&place| (place, problem.relay_us)).collect();
        let source = |row: usize| problem.sources[row].0;
        let rows = problem.sources.len();
        let from_sources = |table: &Table| Table::of(rows, table.width, |row, to| table.row(source(row))[to]);
        let (mut out, mut back) = (
            vec![from_sources(&problem.legs)],
            vec![problem.to_targets.clone()],
        );
        for relays in 1..problem.max_relays {
            out.push(out[relays - 1].longer(&set, &out[relays - 1], &problem.legs));
            back.push(back[relays - 1].longer(&set, &problem.legs, &back[relays - 1]));
        }
        let direct = from_sources(&problem.to_targets);
        let mut best = direct.longer(&set, &out[problem.max_relays - 1], &problem.to_targets);
        for (best, &direct) in best.cells.iter_mut().zip(&direct.cells) {
            *best = if direct < NONE { *best } else { 0 };
        }
        Self {
            problem,
            out,
            back,
            direct,
            best,
        }
    }

    /// The total of all gains, in µs by weight.
    pub(super) fn gain(&self) -> f64 {
        self.sum(|direct, best| i64::from(direct - best))
    }

    /// The weight of the pairs that gain so many µs.
    pub(super) fn felt(&self, us: i32) -> f64 {
        self.sum(|direct, best| i64::from(direct - best >= us))
    }

    /// The weight of all pairs.
    pub(super) fn weight(&self) -> f64 {
        self.sum(|_, _| 1)
    }

    pub(super) fn pairs(&self) -> usize {
        self.direct.cells.iter().filter(|&&direct| direct < NONE).count()
    }

    /// The mean direct round trip.
    pub(super) fn direct_ms(&self) -> f64 {
        self.sum(|direct, _| i64::from(direct)) / self.weight() / 1000.0
    }

    fn sum(&self, of: impl Fn(i32, i32) -> i64) -> f64 {
        let rows = self.problem.sources.iter().enumerate();
        let row = |(row, &(_, weight)): (usize, &(usize, f64))| {
            let pairs = self.direct.row(row).iter().zip(self.best.row(row));
            let pairs = pairs.filter(|&(&direct, _)| direct < NONE);
            weight * real(pairs.map(|(&direct, &best)| of(direct, best)).sum())
        };
        rows.map(row).sum()
    }

    /// The place that adds most, with what it adds; of equal ones the first.
    pub(super) fn best_of(&self, places: impl Iterator<Item = usize>) -> Option<(usize, f64)> {
        let added = places.map(|place| (place, self.added_by(place)));
        added.reduce(|best, next| if next.1 > best.1 { next } else { best })
    }

    /// What one more place adds to the gain.
    pub(super) fn added_by(&self, place: usize) -> f64 {
        let rows = self.problem.sources.iter().enumerate();
        rows.map(|(row, &(_, weight))| weight * real(self.added_in(row, place)))
            .sum()
    }

    /// The same for one source, in µs.
    fn added_in(&self, row: usize, place: usize) -> i64 {
        let first = |relays: usize| self.out[relays].row(row)[place] + self.problem.relay_us;
        let rest = |relays: usize| self.back[relays].row(place);
        let best = self.best.row(row);
        match self.problem.max_relays {
            1 => gained(best, [(first(0), rest(0))]),
            2 => gained(best, [(first(0), rest(1)), (first(1), rest(0))]),
            _ => gained(
                best,
                [(first(0), rest(2)), (first(1), rest(1)), (first(2), rest(0))],
            ),
        }
    }
}

/// What the best of some ways, each a first part and the rest for each target, saves over the best path.
fn gained<const N: usize>(best: &[i32], ways: [(i32, &[i32]); N]) -> i64 {
    let mut sum = 0;
    for (target, &best) in best.iter().enumerate() {
        let mut saved = 0;
        for (first, rest) in ways {
            saved = saved.max(best - (first + rest[target]));
        }
        sum += i64::from(saved);
    }
    sum
}

#[allow(
    clippy::cast_precision_loss,
    reason = "sums of µs over a row are far below 2^53, or exact enough to rank by"
)]
fn real(us: i64) -> f64 {
    us as f64
}
