//! The measured latencies between regions, and the law of each direction that follows.

use crate::error::{Error, Result};
use crate::wan::{DelayLaw, Seed};

/// Round-trip times between regions in ms: their medians and their 90th percentiles.
#[derive(Debug, Clone)]
pub struct Latencies {
    p50: Table,
    p90: Table,
}

impl Latencies {
    /// AWS's 33 regions, measured over the year before July 2025 (`lab/data/README.md`).
    ///
    /// # Errors
    /// Never for the data that come along.
    pub fn aws() -> Result<Self> {
        Self::parse(
            include_str!("../../data/aws_cloudping_2025-07_p50.csv"),
            include_str!("../../data/aws_cloudping_2025-07_p90.csv"),
        )
    }

    /// Two tables as CSV text: the first row and the first column name the regions, in the same order; a
    /// cell is a round trip in ms from its row's region to its column's, or empty.
    ///
    /// # Errors
    /// What is no such table, with line and column.
    pub fn parse(p50: &str, p90: &str) -> Result<Self> {
        Ok(Self {
            p50: Table::parse(p50)?,
            p90: Table::parse(p90)?,
        })
    }

    /// The median round trip from one region to another in ms; 0 within one, whatever the table says.
    ///
    /// # Errors
    /// A region that the table does not have, or a pair that nobody measured.
    pub fn round_trip_ms(&self, from: &str, to: &str) -> Result<f64> {
        self.p50.look_up(from, to)
    }

    /// The law of the direction from one region to another. All sites of the two regions share its weather.
    pub(super) fn law(&self, from: &str, to: &str, seed: Seed) -> Result<DelayLaw> {
        let (p50, p90) = (self.p50.look_up(from, to)?, self.p90.look_up(from, to)?);
        Ok(DelayLaw::of_round_trip(
            p50,
            p90,
            seed.named(&format!("{from}>{to}")),
        ))
    }
}

/// Times between named regions, row by row.
#[derive(Debug, Clone)]
struct Table {
    names: Vec<String>,
    cells: Vec<Option<f64>>,
}

impl Table {
    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let head = lines.next().unwrap_or_default();
        let names: Vec<String> = head.split(',').skip(1).map(|name| name.trim().into()).collect();
        let mut table = Self {
            names,
            cells: Vec::new(),
        };
        let mut rows = 0;
        for (index, line) in lines.enumerate() {
            table.push_row(index, line)?;
            rows = index + 1;
        }
        if rows == 0 || rows != table.names.len() {
            return Err(fault(
                1,
                1,
                &format!("{} columns and {rows} rows", table.names.len()),
            ));
        }
        Ok(table)
    }

    fn push_row(&mut self, index: usize, line: &str) -> Result<()> {
        let mut cells = line.split(',').map(str::trim);
        let name = cells.next().unwrap_or_default();
        if self.names.get(index).is_none_or(|expected| expected != name) {
            return Err(fault(
                index + 2,
                1,
                &format!("{name:?} is not the name of column {}", index + 2),
            ));
        }
        let before = self.cells.len();
        for (column, cell) in cells.enumerate() {
            self.cells.push(
                time(cell).ok_or_else(|| fault(index + 2, column + 2, &format!("{cell:?} is no time")))?,
            );
        }
        let found = self.cells.len() - before;
        if found != self.names.len() {
            return Err(fault(
                index + 2,
                found + 1,
                &format!("{found} cells, not {}", self.names.len()),
            ));
        }
        Ok(())
    }

    fn look_up(&self, from: &str, to: &str) -> Result<f64> {
        let index = |name: &str| {
            let found = self.names.iter().position(|known| known == name);
            found.ok_or_else(|| Error::NoRegion {
                name: name.to_owned(),
            })
        };
        let (row, column) = (index(from)?, index(to)?);
        if row == column {
            return Ok(0.0);
        }
        self.cells[row * self.names.len() + column].ok_or_else(|| Error::NotMeasured {
            from: from.to_owned(),
            to: to.to_owned(),
        })
    }
}

/// A cell: nothing, or a time from 0 on.
fn time(cell: &str) -> Option<Option<f64>> {
    if cell.is_empty() {
        return Some(None);
    }
    let value: f64 = cell.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(Some(value))
}

fn fault(line: usize, column: usize, words: &str) -> Error {
    Error::World(format!("latencies: line {line}, column {column}: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_that_come_along_hold_the_pairs_of_the_demonstration() {
        let aws = Latencies::aws().unwrap();
        let ms = |from, to| aws.round_trip_ms(from, to).unwrap().round();
        assert!((ms("ap-northeast-3", "af-south-1") - 373.0).abs() < 4.0);
        assert!(ms("af-south-1", "af-south-1").abs() < f64::EPSILON);
        let nowhere = aws.round_trip_ms("af-south-1", "atlantis").unwrap_err();
        assert!(nowhere.to_string().contains("atlantis"));
    }

    #[test]
    fn what_nobody_measured_is_an_error() {
        let text = ",a,b\na,0,5\nb,,0\n";
        let latencies = Latencies::parse(text, text).unwrap();
        assert!(latencies.law("a", "b", Seed::new(1)).is_ok());
        assert!(latencies.law("b", "a", Seed::new(1)).is_err());
    }

    #[test]
    fn what_is_no_table_is_named_by_its_place() {
        let fault = |text| Latencies::parse(text, text).unwrap_err().to_string();
        assert!(fault("").contains("0 columns and 0 rows"));
        assert!(fault(",a,b\na,0,5\n").contains("2 columns and 1 rows"));
        assert!(fault(",a,b\na,0,5\nc,1,0\n").contains("line 3, column 1"));
        assert!(fault(",a,b\na,0,x\nb,1,0\n").contains("line 2, column 3: \"x\""));
        assert!(fault(",a,b\na,0,-1\nb,1,0\n").contains("\"-1\""));
        assert!(fault(",a,b\na,0,1,2\nb,1,0\n").contains("3 cells, not 2"));
    }
}
