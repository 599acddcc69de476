//! Measured round-trip times between named places, from CSV.

use thiserror::Error;

/// Round-trip times in ms, row to column; an empty cell was not measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    names: Vec<String>,
    cells: Vec<Option<f64>>,
}

/// What is no matrix. Lines and columns count from 1, the header and the names included.
#[derive(Debug, Error)]
pub enum MatrixError {
    /// The text is not CSV, or its lines differ in length.
    #[error("latency matrix: {0}")]
    Csv(#[from] csv::Error),
    /// There is no header.
    #[error("latency matrix: no header")]
    Empty,
    /// Not one line per column.
    #[error("latency matrix: {columns} columns but {rows} rows")]
    NotSquare {
        /// Names in the header.
        columns: usize,
        /// Lines below it.
        rows: usize,
    },
    /// Rows stand in the header's order.
    #[error("latency matrix: line {line} is of {found:?}, the header has {expected:?} there")]
    RowName {
        /// The line.
        line: usize,
        /// The name of the row.
        found: String,
        /// The name in the header.
        expected: String,
    },
    /// A name appears twice.
    #[error("latency matrix: column {column} repeats {name:?}")]
    Repeated {
        /// The second column of that name.
        column: usize,
        /// The name.
        name: String,
    },
    /// A cell is neither empty nor a number of ms of at least 0.
    #[error("latency matrix: line {line}, column {column} ({name}): {found:?} is no time in ms")]
    Cell {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
        /// The column's name.
        name: String,
        /// What stands there.
        found: String,
    },
}

impl Matrix {
    /// Reads CSV: the header is an empty cell and the names, each line a name and one cell a column, in the
    /// header's order.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> Result<Self, MatrixError> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(text.as_bytes());
        let records = reader.records().collect::<Result<Vec<_>, _>>()?;
        let (header, rows) = records.split_first().ok_or(MatrixError::Empty)?;
        let names: Vec<String> = header.iter().skip(1).map(|name| name.trim().to_owned()).collect();
        check_names(&names)?;
        if rows.len() != names.len() {
            return Err(MatrixError::NotSquare {
                columns: names.len(),
                rows: rows.len(),
            });
        }
        let mut cells = Vec::with_capacity(names.len() * names.len());
        for (row, record) in rows.iter().enumerate() {
            parse_row(row + 2, record, &names[row], &names, &mut cells)?;
        }
        Ok(Self { names, cells })
    }

    /// The names, in the order of rows and columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The row and column of a name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name)
    }

    /// The round trip from a row's place to a column's in ms, as measured (the diagonal too); `None` where there
    /// is no such cell or nothing was measured.
    pub fn get(&self, row: usize, column: usize) -> Option<f64> {
        let inside = row < self.names.len() && column < self.names.len();
        inside
            .then(|| self.cells[row * self.names.len() + column])
            .flatten()
    }
}

fn check_names(names: &[String]) -> Result<(), MatrixError> {
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(MatrixError::Repeated {
                column: index + 2,
                name: name.clone(),
            });
        }
    }
    Ok(())
}

fn parse_row(
    line: usize,
    record: &csv::StringRecord,
    expected: &str,
    names: &[String],
    cells: &mut Vec<Option<f64>>,
) -> Result<(), MatrixError> {
    let found = record.get(0).unwrap_or_default().trim();
    if found != expected {
        return Err(MatrixError::RowName {
            line,
            found: found.to_owned(),
            expected: expected.to_owned(),
        });
    }
    for (index, text) in record.iter().skip(1).map(str::trim).enumerate() {
        let bad = || MatrixError::Cell {
            line,
            column: index + 2,
            name: names[index].clone(),
            found: text.to_owned(),
        };
        let cell = match text {
            "" => None,
            text => Some(
                text.parse::<f64>()
                    .ok()
                    .filter(|ms| ms.is_finite() && *ms >= 0.0)
                    .ok_or_else(bad)?,
            ),
        };
        cells.push(cell);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_row_to_column_and_may_be_empty() {
        let matrix = Matrix::parse(",a,b\na,0,5.5\nb,,0\n").unwrap();
        assert_eq!(matrix.names(), ["a", "b"]);
        assert_eq!(matrix.index_of("b"), Some(1));
        assert_eq!(
            (matrix.get(0, 1), matrix.get(1, 0), matrix.get(2, 0)),
            (Some(5.5), None, None)
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            ("", "no header"),
            (",a,b\na,0,5\n", "2 columns but 1 rows"),
            (",a,b\na,0,5\nb,x,0\n", "line 3, column 2 (a): \"x\""),
            (",a,b\na,0,-1\nb,1,0\n", "line 2, column 3 (b): \"-1\""),
            (",a,b\na,0,inf\nb,1,0\n", "column 3 (b): \"inf\""),
            (",a,b\nb,0,1\na,1,0\n", "line 2 is of \"b\""),
            (",a,a\na,0,1\na,1,0\n", "column 3 repeats \"a\""),
            (",a,b\na,0\nb,1,0\n", "found record with 2 fields"),
        ];
        for (text, expected) in cases {
            let message = Matrix::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }
}
