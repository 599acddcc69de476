//! Measurements from CSV.

use std::collections::HashMap;

use super::policy::LONGEST_MS;
use super::recording::{RecordingError, Wrong};
use crate::cost::Cost;
use crate::id::{LegId, NodeId};

const HEADER: [&str; 4] = ["tick", "src", "dst", "rtt_ms"];
/// Stands for a round trip that was lost.
const LOST: u32 = u32::MAX;

/// Round trips of the same legs, tick by tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    names: Vec<(NodeId, String)>,
    legs: Vec<LegId>,
    /// By tick, then by leg.
    us: Vec<u32>,
}

impl Measurements {
    /// Reads CSV; see [`replay`](super) for what it holds.
    ///
    /// # Errors
    /// The first line that is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let mut header = reader
            .headers()
            .map_err(|error| Wrong::from(error).at(1))?
            .clone();
        header.trim();
        if header.is_empty() {
            return Err(Wrong::Empty.at(1));
        }
        if header != HEADER[..] {
            return Err(Wrong::Header(header.iter().collect::<Vec<_>>().join(",")).at(1));
        }
        let mut parser = Parser::default();
        let mut record = csv::StringRecord::new();
        let mut line = 1;
        loop {
            match reader.read_record(&mut record) {
                Ok(true) => line = record.position().map_or(line + 1, csv::Position::line),
                Ok(false) => break,
                Err(error) => {
                    let at = error.position().map_or(line + 1, csv::Position::line);
                    return Err(Wrong::from(error).at(at));
                }
            }
            parser.take(&record).map_err(|wrong| wrong.at(line))?;
        }
        parser.end_tick().map_err(|wrong| wrong.at(line))?;
        if parser.all.us.is_empty() {
            return Err(Wrong::Empty.at(line));
        }
        Ok(parser.all)
    }

    /// The places, numbered in the order in which they come.
    pub fn names(&self) -> &[(NodeId, String)] {
        &self.names
    }

    /// The legs, in the first tick's order.
    pub fn legs(&self) -> &[LegId] {
        &self.legs
    }

    /// How many ticks there are.
    pub fn ticks(&self) -> usize {
        self.us.len().checked_div(self.legs.len()).unwrap_or(0)
    }

    /// A tick's round trips in µs, by leg; `None` was lost.
    pub fn tick(&self, tick: usize) -> impl Iterator<Item = Option<u32>> + '_ {
        let row = &self.us[tick * self.legs.len()..][..self.legs.len()];
        row.iter().map(|&us| (us != LOST).then_some(us))
    }
}

/// A reader between lines.
#[derive(Default)]
struct Parser {
    all: Measurements,
    places: HashMap<String, NodeId>,
    numbers: HashMap<LegId, usize>,
    /// The tick under way, and the first one.
    tick: Option<u64>,
    first: u64,
    /// The leg after the last one.
    next: usize,
    /// The tick under way, by leg.
    row: Vec<Option<u32>>,
}

impl Parser {
    fn take(&mut self, record: &csv::StringRecord) -> Result<(), Wrong> {
        let [text, from, to, ms] = [0, 1, 2, 3].map(|column| record[column].trim());
        let tick: u64 = text.parse().map_err(|_| Wrong::Tick(text.to_owned()))?;
        match self.tick {
            None => (self.tick, self.first) = (Some(tick), tick),
            Some(last) if tick == last + 1 => {
                self.end_tick()?;
                self.tick = Some(tick);
            }
            Some(last) if tick != last => return Err(Wrong::Order { found: tick, last }),
            Some(_) => {}
        }
        if let Some(column) = [from, to].iter().position(|name| name.is_empty()) {
            return Err(Wrong::Unnamed(column + 2));
        }
        let us = round_trip(ms)?;
        if from == to {
            return Ok(());
        }
        let leg = self.leg(from, to, tick)?;
        self.next = leg + 1;
        if self.row[leg].replace(us).is_some() {
            let (from, to) = (from.to_owned(), to.to_owned());
            return Err(Wrong::Repeated { from, to, tick });
        }
        Ok(())
    }

    /// The number of a leg; new ones are of the first tick.
    fn leg(&mut self, from: &str, to: &str, tick: u64) -> Result<usize, Wrong> {
        // As a rule legs come in the same order.
        let next = self.all.legs.get(self.next);
        if next.is_some_and(|leg| self.is_named(leg.from, from) && self.is_named(leg.to, to)) {
            return Ok(self.next);
        }
        let ends = self.places.get(from).zip(self.places.get(to));
        let known = ends.and_then(|(&from, &to)| self.numbers.get(&LegId { from, to }));
        if let Some(&leg) = known {
            return Ok(leg);
        }
        if tick != self.first {
            return Err(Wrong::Unknown {
                from: from.to_owned(),
                to: to.to_owned(),
            });
        }
        let leg = LegId {
            from: self.place(from)?,
            to: self.place(to)?,
        };
        self.all.legs.push(leg);
        self.row.push(None);
        self.numbers.insert(leg, self.numbers.len());
        Ok(self.row.len() - 1)
    }

    fn is_named(&self, place: NodeId, name: &str) -> bool {
        named(&self.all.names, place) == name
    }

    fn place(&mut self, name: &str) -> Result<NodeId, Wrong> {
        if let Some(&place) = self.places.get(name) {
            return Ok(place);
        }
        let number = u16::try_from(self.places.len() + 1).ok();
        let place = number.and_then(NodeId::new).ok_or(Wrong::TooMany)?;
        self.all.names.push((place, name.to_owned()));
        self.places.insert(name.to_owned(), place);
        Ok(place)
    }

    /// Keeps the tick under way, which is complete.
    fn end_tick(&mut self) -> Result<(), Wrong> {
        for (us, leg) in self.row.iter_mut().zip(&self.all.legs) {
            let us = us.take().ok_or_else(|| Wrong::Missing {
                from: named(&self.all.names, leg.from).to_owned(),
                to: named(&self.all.names, leg.to).to_owned(),
                tick: self.tick.unwrap_or(0),
            })?;
            self.all.us.push(us);
        }
        self.next = 0;
        Ok(())
    }
}

/// A place's name: its number is its position.
fn named(names: &[(NodeId, String)], place: NodeId) -> &str {
    &names[usize::from(place.get()) - 1].1
}

fn round_trip(text: &str) -> Result<u32, Wrong> {
    if text.is_empty() {
        return Ok(LOST);
    }
    let ms = text.parse().ok().filter(|ms| (0.0..=LONGEST_MS).contains(ms));
    let ms: f64 = ms.ok_or_else(|| Wrong::RoundTrip(text.to_owned()))?;
    Ok(Cost::from_us_f64(ms * 1000.0).us())
}
