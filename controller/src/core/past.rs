//! What paths were chosen by and each switch of a pair, kept in the store within a declared size.
//!
//! Every 10 s, and at once when something was decided, what has changed is written: legs whose cost has changed by
//! half a ms and a hundredth of it, events, decisions. A *chapter* begins with all that is known, at least every 10
//! minutes and at each start, so that one chapter answers for its time. The oldest chapters go first, whole.

mod seen;

use std::collections::{BTreeMap, VecDeque};

use kuafu_topology::{LegId, LegStats, Millis};
use serde::{Deserialize, Serialize};

use self::seen::Entry;
pub(super) use self::seen::Seen;
use super::Now;
use crate::store::Write;

/// The calendar's time, in ms.
pub type UnixMs = u64;

/// What is kept unless another size is declared, in octets of keys and values.
pub const HISTORY_BYTES: usize = 64 << 20;
/// What has changed is written so often.
const LOOK_MS: Now = 10_000;
/// A chapter begins anew after this,
const CHAPTER_MS: Now = 600_000;
/// or when it takes this part of the whole.
const CHAPTER_PART: usize = 8;
/// The part of the whole that switches may take.
const SWITCHES_PART: usize = 8;

pub(super) const LEGS: &str = "legs/";
const SWITCHES: &str = "switch/";

/// A pair took another path, or another backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// When.
    pub at: UnixMs,
    /// Where the pair begins.
    pub entry: String,
    /// Where it ends.
    pub exit: String,
    /// What it carries.
    pub class: String,
    /// The nodes of the path before; empty: none.
    pub from: Vec<String>,
    /// What it cost on the tick before, in ms.
    pub from_cost_ms: Option<f64>,
    /// The nodes of the path since.
    pub to: Vec<String>,
    /// What it cost then.
    pub to_cost_ms: Option<f64>,
    /// The nodes of the backup since; empty: none.
    pub backup: Vec<String>,
    /// Why.
    pub cause: String,
}

/// Entries of the store that answer for one time.
#[derive(Clone, Debug)]
struct Chapter {
    /// When it begins; its name.
    at: UnixMs,
    entries: u32,
    bytes: usize,
}

/// What is kept, and what of it was written last.
#[derive(Debug)]
pub(super) struct Past {
    limit: usize,
    written: Seen,
    /// The last quality of each leg.
    pub(super) qualities: BTreeMap<LegId, LegStats>,
    chapters: VecDeque<Chapter>,
    /// When the last chapter began and was last written to; `None`: the next begins.
    open: Option<(Now, Now)>,
    /// With their keys and sizes.
    switches: VecDeque<(String, usize, Switch)>,
}

impl Default for Past {
    fn default() -> Self {
        Self {
            limit: HISTORY_BYTES,
            written: Seen::default(),
            qualities: BTreeMap::new(),
            chapters: VecDeque::new(),
            open: None,
            switches: VecDeque::new(),
        }
    }
}

impl Past {
    /// What the store holds of it. What cannot be read is passed over: no controller stays down for that.
    pub(super) fn restore(entries: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut past = Self::default();
        for (key, value) in entries {
            if let Some(name) = key.strip_prefix(LEGS) {
                let at = name.split('/').next().and_then(|at| at.parse().ok());
                past.count(at.unwrap_or(0), key.len() + value.len());
            } else if key.starts_with(SWITCHES) {
                match serde_json::from_slice(value) {
                    Ok(switch) => past
                        .switches
                        .push_back((key.clone(), key.len() + value.len(), switch)),
                    Err(error) => tracing::warn!(key, %error, "a switch of the past cannot be read"),
                }
            }
        }
        if let Some(last) = past.chapters.back() {
            let prefix = chapter(last.at);
            let of_it = entries.range(prefix.clone()..);
            let of_it = of_it.take_while(|(key, _)| key.starts_with(&prefix));
            let seen = read(of_it.map(|(_, value)| value.as_slice()), UnixMs::MAX).map(|read| read.0);
            let legs = seen.map(|seen| seen.legs).unwrap_or_default();
            past.qualities = legs.into_iter().map(|(leg, (stats, _))| (leg, stats)).collect();
        }
        past
    }

    fn count(&mut self, at: UnixMs, bytes: usize) {
        match self.chapters.back_mut() {
            Some(last) if last.at == at => {
                last.entries += 1;
                last.bytes += bytes;
            }
            _ => self.chapters.push_back(Chapter {
                at,
                entries: 1,
                bytes,
            }),
        }
    }

    /// At most so many octets from now on; 0: nothing.
    pub(super) fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Octets of keys and values.
    pub(super) fn bytes(&self) -> usize {
        let chapters: usize = self.chapters.iter().map(|chapter| chapter.bytes).sum();
        chapters + self.bytes_of_switches()
    }

    fn bytes_of_switches(&self) -> usize {
        self.switches.iter().map(|(_, bytes, _)| bytes).sum()
    }

    /// Since when there is something; `None`: nothing is kept.
    pub(super) fn since(&self) -> Option<UnixMs> {
        self.chapters.front().map(|chapter| chapter.at)
    }

    /// The keys that answer for a time begin so.
    pub(super) fn prefix(&self, at: UnixMs) -> Option<String> {
        let mut chapters = self.chapters.iter().rev();
        chapters
            .find(|begun| begun.at <= at)
            .map(|begun| chapter(begun.at))
    }

    /// Switches, the oldest first.
    pub(super) fn switches(&self) -> impl Iterator<Item = &Switch> {
        self.switches.iter().map(|(_, _, switch)| switch)
    }

    /// Whether something is to be written at this time.
    pub(super) fn is_due(&self, now: Now) -> bool {
        self.limit > 0
            && self
                .open
                .is_none_or(|(_, looked)| now.saturating_sub(looked) >= LOOK_MS)
    }

    /// What is to be written now.
    pub(super) fn write(&mut self, (now, at): (Now, UnixMs), seen: Seen) -> Vec<Write> {
        if self.limit == 0 {
            return Vec::new();
        }
        let mut writes = Vec::new();
        let begun = self
            .open
            .filter(|(began, _)| now.saturating_sub(*began) < CHAPTER_MS);
        let full = |chapter: &Chapter| chapter.bytes > self.limit / CHAPTER_PART;
        let begun = begun.filter(|_| !self.chapters.back().is_some_and(full));
        let (name, base) = match (begun, self.chapters.back()) {
            (Some(_), Some(chapter)) => (chapter.at, std::mem::take(&mut self.written)),
            // Named by its time; a calendar that was set back names none before the last.
            (_, last) => (at.max(last.map_or(0, |last| last.at + 1)), Seen::default()),
        };
        let began = begun.map_or(now, |(began, _)| began);
        let entry = base.difference(&seen, (at, Millis(now)));
        self.written = base;
        self.open = Some((began, now));
        if entry.is_empty() && begun.is_some() {
            return writes;
        }
        let number = self.chapters.back().filter(|_| begun.is_some());
        let key = format!("{}{:06}", chapter(name), number.map_or(0, |last| last.entries));
        let Ok(value) = serde_json::to_vec(&entry) else {
            return writes;
        };
        self.count(name, key.len() + value.len());
        self.written.apply(entry);
        writes.push(Write::Put(key, value));
        self.make_room(&mut writes);
        writes
    }

    /// Keeps a switch.
    pub(super) fn note(&mut self, switch: Switch) -> Vec<Write> {
        let mut writes = Vec::new();
        let value = serde_json::to_vec(&switch).ok().filter(|_| self.limit > 0);
        let Some(value) = value else {
            return writes;
        };
        let last = self
            .switches
            .back()
            .and_then(|(key, ..)| key.strip_prefix(SWITCHES));
        let last: u64 = last.and_then(|last| last.parse().ok()).unwrap_or(0);
        let key = format!("{SWITCHES}{:012}", last + 1);
        self.switches
            .push_back((key.clone(), key.len() + value.len(), switch));
        writes.push(Write::Put(key, value));
        self.make_room(&mut writes);
        writes
    }

    /// Lets the oldest go until all fits. What was to be written and goes at once is not written.
    fn make_room(&mut self, writes: &mut Vec<Write>) {
        let mut gone = Vec::new();
        while self.bytes_of_switches() > self.limit / SWITCHES_PART {
            let Some((key, ..)) = self.switches.pop_front() else {
                break;
            };
            gone.push(key);
        }
        while self.bytes() > self.limit {
            let Some(oldest) = self.chapters.pop_front() else {
                break;
            };
            gone.extend((0..oldest.entries).map(|number| format!("{}{number:06}", chapter(oldest.at))));
            if self.chapters.is_empty() {
                self.open = None;
            }
        }
        writes.retain(|write| !matches!(write, Write::Put(key, _) if gone.contains(key)));
        writes.extend(gone.into_iter().map(Write::Delete));
    }
}

fn chapter(at: UnixMs) -> String {
    format!("{LEGS}{at:015}/")
}

/// What a chapter's entries say was known at a time, and when it was written; `None`: none is as old.
pub(super) fn read<'a>(values: impl Iterator<Item = &'a [u8]>, at: UnixMs) -> Option<(Seen, UnixMs, Millis)> {
    let mut seen = Seen::default();
    let mut last = None;
    for value in values {
        match serde_json::from_slice::<Entry>(value) {
            Ok(entry) if entry.at <= at || last.is_none() => {
                last = Some((entry.at, entry.now));
                seen.apply(entry);
            }
            Ok(_) => break,
            Err(error) => {
                tracing::warn!(%error, "an entry of the past cannot be read");
                break;
            }
        }
    }
    last.map(|(at, now)| (seen, at, now))
}
