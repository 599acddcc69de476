//! Lists of places with a number each.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::matrix::Matrix;

/// The header of a list of players.
pub const PLAYERS: [&str; 2] = ["place", "players"];
/// The header of a list of prices.
pub const PRICES: [&str; 2] = ["place", "usd_per_month"];

/// A place that the matrix does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{name:?} is no place of the matrix{}", near.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default())]
pub struct Named {
    /// The name.
    pub name: String,
    /// A place that reads much the same.
    pub near: Option<String>,
}

/// What is no list of places. Lines and columns count from 1, the header included.
#[derive(Debug, Error)]
pub enum ListError {
    /// The text is not CSV, or its lines differ in length.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// The first line is another.
    #[error("line 1: found {found:?}; the first line must be {expected:?}")]
    Header {
        /// What stands there.
        found: String,
        /// What belongs there.
        expected: String,
    },
    /// A place that the matrix does not have.
    #[error("line {line}, column 1: {named}")]
    Place {
        /// The line.
        line: u64,
        /// The place.
        named: Named,
    },
    /// A place has two lines.
    #[error("line {line}, column 1: {name:?} is in line {first} already; keep one of them")]
    Repeated {
        /// The second line.
        line: u64,
        /// The place.
        name: String,
        /// The first line.
        first: u64,
    },
    /// Not a number.
    #[error("line {line}, column 2 ({column}): {found:?} is no number of at least 0")]
    Number {
        /// The line.
        line: u64,
        /// What the header calls the column.
        column: String,
        /// What stands there.
        found: String,
    },
}

/// The index of a place.
///
/// # Errors
/// The matrix does not have it.
pub fn place_of(matrix: &Matrix, name: &str) -> Result<usize, Named> {
    matrix.index_of(name).ok_or_else(|| Named {
        name: name.to_owned(),
        near: near(matrix, name),
    })
}

fn near(matrix: &Matrix, name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let distance = |known: &&String| strsim::damerau_levenshtein(&known.to_lowercase(), &lower);
    let nearest = matrix.names().iter().min_by_key(distance)?;
    (distance(&nearest) <= 1 + name.chars().count() / 4).then(|| nearest.clone())
}

/// Reads CSV with this header: a place of the matrix and a number of at least 0 in each line.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn list(matrix: &Matrix, header: [&str; 2], text: &str) -> Result<Vec<(usize, f64)>, ListError> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let found = reader.headers()?;
    if found != header.as_slice() {
        return Err(ListError::Header {
            found: found.iter().collect::<Vec<_>>().join(","),
            expected: header.join(","),
        });
    }
    let (mut places, mut lines) = (Vec::new(), BTreeMap::new());
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let (name, text) = (&record[0], &record[1]);
        let place = place_of(matrix, name).map_err(|named| ListError::Place { line, named })?;
        if let Some(first) = lines.insert(place, line) {
            let name = name.to_owned();
            return Err(ListError::Repeated { line, name, first });
        }
        let number = text
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite() && *number >= 0.0);
        places.push((
            place,
            number.ok_or_else(|| ListError::Number {
                line,
                column: header[1].to_owned(),
                found: text.to_owned(),
            })?,
        ));
    }
    Ok(places)
}
