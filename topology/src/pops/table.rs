//! The shortest ways between many at once, relay by relay.

use crate::cost::Cost;

/// No way. The sum of three fits an `i32`, and no table holds more.
pub(super) const NONE: i32 = 1 << 29;

/// Rows of µs.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) width: usize,
    pub(super) cells: Vec<i32>,
}

impl Table {
    pub(super) fn of(rows: usize, width: usize, cell: impl Fn(usize, usize) -> i32) -> Self {
        let cells = (0..rows).flat_map(|row| (0..width).map(move |column| (row, column)));
        Self {
            width,
            cells: cells.map(|(row, column)| cell(row, column)).collect(),
        }
    }

    pub(super) fn row(&self, row: usize) -> &[i32] {
        &self.cells[self.width * row..][..self.width]
    }

    pub(super) fn row_mut(&mut self, row: usize) -> &mut [i32] {
        &mut self.cells[self.width * row..][..self.width]
    }

    pub(super) fn rows(&self) -> usize {
        self.cells.len().checked_div(self.width).unwrap_or(0)
    }

    /// Each cell as it is, or over one relay more: by `first` to a relay, through it, and on by `rest`.
    pub(super) fn longer(&self, relays: &[(usize, i32)], first: &Self, rest: &Self) -> Self {
        let mut table = self.clone();
        for row in 0..table.rows() {
            for &(relay, transit_us) in relays {
                let before = first.row(row)[relay] + transit_us;
                for (cell, &after) in table.row_mut(row).iter_mut().zip(rest.row(relay)) {
                    *cell = (*cell).min(before + after);
                }
            }
        }
        table
    }
}

/// A cost as a cell.
pub(super) fn us(cost: Cost) -> i32 {
    i32::try_from(cost.us()).unwrap_or(NONE)
}
