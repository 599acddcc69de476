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
    /// The text is not CSV.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// There is no header.
    #[error("line 1: no header; an empty cell and the names of all places stand there")]
    Empty,
    /// A name of the header has no line.
    #[error("line {line} is missing: the row of {name:?}, column {column} of the header")]
    MissingRow {
        /// Where it would stand.
        line: usize,
        /// The name.
        name: String,
        /// Its column.
        column: usize,
    },
    /// A line has no name in the header.
    #[error("line {line}: a row of {name:?} too many; the header has {columns} names")]
    ExtraRow {
        /// The first such line.
        line: usize,
        /// The name of the row.
        name: String,
        /// Names in the header.
        columns: usize,
    },
    /// A line is too short or too long.
    #[error("line {line} has {found} cells, the header has {expected}: column {column} {name}")]
    RowLength {
        /// The line.
        line: usize,
        /// Its cells, the name included.
        found: usize,
        /// Those of the header.
        expected: usize,
        /// The first column that is missing or too many.
        column: usize,
        /// What it is.
        name: String,
    },
    /// Rows stand in the header's order.
    #[error(
        "line {line} is of {found:?}, the header has {expected:?} there: rows stand in the header's order"
    )]
    RowName {
        /// The line.
        line: usize,
        /// The name of the row.
        found: String,
        /// The name in the header.
        expected: String,
    },
    /// A name appears twice.
    #[error("line 1: column {column} repeats {name:?}")]
    Repeated {
        /// The second column of that name.
        column: usize,
        /// The name.
        name: String,
    },
    /// More places than there are numbers of nodes.
    #[error("{places} places: there are numbers for {} nodes", u16::MAX)]
    TooMany {
        /// How many.
        places: usize,
    },
    /// A round trip is longer than any path may take.
    #[error("line {line}, column {column} ({name}): {ms} ms is more than a path may take, 536870 ms")]
    TooLong {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
        /// The column's name.
        name: String,
        /// The round trip.
        ms: f64,
    },
    /// A cell is neither empty nor a number of ms of at least 0.
    #[error(
        "line {line}, column {column} ({name}): {found:?} is no time in ms (0 or more; empty: not measured)"
    )]
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
            .flexible(true)
            .from_reader(text.as_bytes());
        let records = reader.records().collect::<Result<Vec<_>, _>>()?;
        let (header, rows) = records.split_first().ok_or(MatrixError::Empty)?;
        let names: Vec<String> = header.iter().skip(1).map(|name| name.trim().to_owned()).collect();
        check_names(&names)?;
        check_rows(&names, rows)?;
        let mut cells = Vec::with_capacity(names.len() * names.len());
        for (row, record) in rows.iter().enumerate() {
            parse_row(row + 2, record, &names, &mut cells)?;
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

fn check_rows(names: &[String], rows: &[csv::StringRecord]) -> Result<(), MatrixError> {
    let first = |row: &csv::StringRecord| row.get(0).unwrap_or_default().trim().to_owned();
    if let Some(extra) = rows.get(names.len()) {
        return Err(MatrixError::ExtraRow {
            line: names.len() + 2,
            name: first(extra),
            columns: names.len(),
        });
    }
    for (index, name) in names.iter().enumerate() {
        let line = index + 2;
        let Some(row) = rows.get(index).filter(|row| first(row) == *name) else {
            // A row that stands elsewhere is out of order, one that stands nowhere is missing.
            let found = rows.get(index).map(first);
            return Err(match found {
                Some(found) if rows.len() == names.len() || !names.contains(&found) => MatrixError::RowName {
                    line,
                    found,
                    expected: name.clone(),
                },
                _ => MatrixError::MissingRow {
                    line,
                    name: name.clone(),
                    column: index + 2,
                },
            });
        };
        if row.len() != names.len() + 1 {
            let missing = names.get(row.len().wrapping_sub(1));
            return Err(MatrixError::RowLength {
                line,
                found: row.len(),
                expected: names.len() + 1,
                column: row.len().min(names.len() + 1) + 1,
                name: missing.map_or("is too many".to_owned(), |name| format!("({name}) is missing")),
            });
        }
    }
    Ok(())
}

fn parse_row(
    line: usize,
    record: &csv::StringRecord,
    names: &[String],
    cells: &mut Vec<Option<f64>>,
) -> Result<(), MatrixError> {
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
            (",a,b\na,0,5\n", "line 3 is missing: the row of \"b\", column 3"),
            (
                ",a,b,c\na,0,5,1\nc,1,2,0\n",
                "line 3 is missing: the row of \"b\"",
            ),
            (",a,b\na,0,5\nb,5,0\nc,1,1\n", "line 4: a row of \"c\" too many"),
            (",a,b\na,0,nan\nb,1,0\n", "line 2, column 3 (b): \"nan\""),
            (",a,b\na,0,5\nb,x,0\n", "line 3, column 2 (a): \"x\""),
            (",a,b\na,0,-1\nb,1,0\n", "line 2, column 3 (b): \"-1\""),
            (",a,b\na,0,inf\nb,1,0\n", "column 3 (b): \"inf\""),
            (",a,b\nb,0,1\na,1,0\n", "line 2 is of \"b\""),
            (",a,a\na,0,1\na,1,0\n", "column 3 repeats \"a\""),
            (
                ",a,b\na,0\nb,1,0\n",
                "line 2 has 2 cells, the header has 3: column 3 (b) is missing",
            ),
            (",a,b\na,0,1,2\nb,1,0\n", "column 4 is too many"),
        ];
        for (text, expected) in cases {
            let message = Matrix::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }
}
