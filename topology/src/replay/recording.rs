//! Recordings, of either kind.

use thiserror::Error;

use super::measurements::Measurements;
use crate::steering::Recorded;

/// What was recorded.
#[derive(Clone, Debug)]
pub enum Recording {
    /// By a controller, from its start on.
    Controller(Vec<Recorded>),
    /// By measuring.
    Measurements(Measurements),
}

/// What is no recording.
#[derive(Debug, Error)]
#[error("line {line}: {wrong}")]
pub struct RecordingError {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong there.
    pub wrong: Wrong,
}

/// What is wrong in a line.
#[derive(Debug, Error)]
pub enum Wrong {
    /// There is nothing.
    #[error("no recording: expected what a controller recorded, or CSV with the header tick,src,dst,rtt_ms")]
    Empty,
    /// No tick as a controller records it.
    #[error("no recorded tick: {0}")]
    Json(#[from] serde_json::Error),
    /// No CSV, or a line of another length.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// Another first line.
    #[error("found {0:?}; the first line must be \"tick,src,dst,rtt_ms\"")]
    Header(String),
    /// A controller's recording that goes on from another file.
    #[error(
        "it begins with tick {0}: the recording is complete with the file before it (steering.jsonl.1) in front"
    )]
    Begun(u64),
    /// Another tick than the next.
    #[error("tick {found} follows tick {last}: expected {last} or {}; none may be missing", last + 1)]
    Order {
        /// The tick.
        found: u64,
        /// The one before.
        last: u64,
    },
    /// Another tick than the next, where each is one line.
    #[error("tick {found} where tick {expected} belongs: none may be missing")]
    Gap {
        /// The tick.
        found: u64,
        /// What belongs there.
        expected: u64,
    },
    /// Time goes back.
    #[error("{now} ms is before the tick before, at {last} ms")]
    Back {
        /// Its time.
        now: u64,
        /// The time of the tick before.
        last: u64,
    },
    /// No number of a tick.
    #[error("column 1 (tick): {0:?} is no whole number of at least 0")]
    Tick(String),
    /// No name.
    #[error("column {0} has no name")]
    Unnamed(usize),
    /// No round trip.
    #[error(
        "column 4 (rtt_ms): {0:?} is no time in ms: expected one from 0 to 500000, or nothing where it was lost"
    )]
    RoundTrip(String),
    /// A leg that the first tick does not have.
    #[error("{from} to {to} is not in the first tick; each tick has the same legs")]
    Unknown {
        /// Its source.
        from: String,
        /// Its destination.
        to: String,
    },
    /// A leg twice.
    #[error("{from} to {to} is in tick {tick} already")]
    Repeated {
        /// Its source.
        from: String,
        /// Its destination.
        to: String,
        /// The tick.
        tick: u64,
    },
    /// A leg is missing.
    #[error(
        "tick {tick} ends without {from} to {to}; a measurement that was lost has a line with an empty rtt_ms"
    )]
    Missing {
        /// Its source.
        from: String,
        /// Its destination.
        to: String,
        /// The tick.
        tick: u64,
    },
    /// More places than nodes have numbers.
    #[error("more than 65535 places")]
    TooMany,
}

impl Wrong {
    pub(super) fn at(self, line: u64) -> RecordingError {
        RecordingError { line, wrong: self }
    }
}

impl Recording {
    /// Reads a recording of either kind.
    ///
    /// # Errors
    /// The first line that is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let text = text.trim_start_matches('\u{feff}');
        if text.trim_start().starts_with('{') {
            return recorded(text).map(Self::Controller);
        }
        Measurements::parse(text).map(Self::Measurements)
    }
}

fn recorded(text: &str) -> Result<Vec<Recorded>, RecordingError> {
    let mut ticks: Vec<Recorded> = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let tick: Recorded = serde_json::from_str(text).map_err(|error| Wrong::from(error).at(line))?;
        let expected = ticks.len() as u64;
        let last = ticks.last().map_or(0, |last| last.input.now.0);
        if tick.tick != expected {
            let found = tick.tick;
            let wrong = if expected == 0 {
                Wrong::Begun(found)
            } else {
                Wrong::Gap { found, expected }
            };
            return Err(wrong.at(line));
        }
        if tick.input.now.0 < last {
            let now = tick.input.now.0;
            return Err(Wrong::Back { now, last }.at(line));
        }
        ticks.push(tick);
    }
    Ok(ticks)
}
