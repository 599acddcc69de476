//! What a benchmark says: a table for people, JSON for machines.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::rounds::{Rounds, median};

/// A benchmark's result.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The benchmark's name.
    pub(crate) benchmark: &'static str,
    /// What was measured under, a sentence each: sizes, seeds, calibration, doubts.
    pub(crate) conditions: Vec<String>,
    /// One comparison a line.
    pub(crate) rows: Vec<Row>,
}

/// One comparison of a peer and ours.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What is compared.
    pub(crate) what: String,
    /// The unit of the medians and the values.
    pub(crate) unit: &'static str,
    /// Who the peer is.
    pub(crate) peer: String,
    /// The peer's median.
    pub(crate) peer_median: f64,
    /// Our median.
    pub(crate) ours_median: f64,
    /// The median of ours ÷ peer within a round.
    pub(crate) ratio: f64,
    /// The peer's values, in the order of the rounds.
    pub(crate) peer_rounds: Vec<f64>,
    /// Our values.
    pub(crate) ours_rounds: Vec<f64>,
    /// What is asked for.
    pub(crate) limit: Option<Limit>,
    /// Whether the limit is met.
    pub(crate) met: Option<bool>,
}

/// What is asked of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    /// The ratio is at least this.
    RatioAtLeast(f64),
    /// The ratio is at most this.
    RatioAtMost(f64),
    /// Our median is at most this, in the row's unit.
    OursAtMost(f64),
}

impl Limit {
    fn is_met(self, ratio: f64, ours: f64) -> bool {
        match self {
            Self::RatioAtLeast(least) => ratio >= least,
            Self::RatioAtMost(most) => ratio <= most,
            Self::OursAtMost(most) => ours <= most,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::RatioAtLeast(least) => format!("ratio ≥ {least}"),
            Self::RatioAtMost(most) => format!("ratio ≤ {most}"),
            Self::OursAtMost(most) => format!("≤ {most} {unit}"),
        }
    }
}

impl Row {
    /// A row from its rounds; not a number where there were none.
    pub(crate) fn new(
        what: impl Into<String>,
        unit: &'static str,
        peer: impl Into<String>,
        rounds: Rounds,
        limit: Option<Limit>,
    ) -> Self {
        let ratio = rounds.ratio().unwrap_or(f64::NAN);
        let ours_median = median(&rounds.ours).unwrap_or(f64::NAN);
        Self {
            what: what.into(),
            unit,
            peer: peer.into(),
            peer_median: median(&rounds.peer).unwrap_or(f64::NAN),
            ours_median,
            ratio,
            peer_rounds: rounds.peer,
            ours_rounds: rounds.ours,
            limit,
            met: limit.map(|limit| limit.is_met(ratio, ours_median)),
        }
    }
}

impl Report {
    /// The table, and below it the conditions.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([
            "what", "peer", "peer's", "ours", "unit", "ratio", "rounds", "limit", "met",
        ]);
        for row in &self.rows {
            table.add_row(cells(row));
        }
        for column in [2, 3, 5, 6] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let conditions = self.conditions.iter().map(|condition| format!("\n{condition}"));
        format!("{table}{}", conditions.collect::<String>())
    }

    /// Whether every limit is met.
    pub(crate) fn met(&self) -> bool {
        self.rows.iter().all(|row| row.met != Some(false))
    }
}

fn cells(row: &Row) -> [String; 9] {
    let met = match row.met {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "",
    };
    [
        row.what.clone(),
        row.peer.clone(),
        number(row.peer_median),
        number(row.ours_median),
        row.unit.to_owned(),
        format!("{:.2}", row.ratio),
        row.ours_rounds.len().to_string(),
        row.limit.map(|limit| limit.text(row.unit)).unwrap_or_default(),
        met.to_owned(),
    ]
}

/// Three digits that mean something, whatever the size.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_judged() {
        let row = |limit| {
            let rounds = Rounds {
                peer: vec![10.0, 20.0],
                ours: vec![11.0, 24.0],
            };
            Row::new("w", "ns", "p", rounds, limit)
        };
        assert_eq!(row(None).met, None);
        assert_eq!(row(Some(Limit::RatioAtLeast(1.1))).met, Some(true));
        assert_eq!(row(Some(Limit::RatioAtMost(1.1))).met, Some(false));
        assert_eq!(row(Some(Limit::OursAtMost(17.5))).met, Some(true));
        let report = Report {
            benchmark: "b",
            conditions: vec!["seed 1".into()],
            rows: vec![row(Some(Limit::RatioAtMost(1.1)))],
        };
        assert!(!report.met());
        assert!(report.table().contains("1.15"), "{}", report.table());
        assert!(report.table().ends_with("\nseed 1"));
    }
}
