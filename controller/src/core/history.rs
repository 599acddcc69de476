//! What was declared, when, and what it was before: the newest changes, each with what undoes it.

use std::collections::BTreeMap;

use kuafu_model::kinds::{Name, ObjectRef, Target};
use kuafu_model::manifest::{Change, File, Intent, Outcome, WriteError, to_json};
use serde::{Deserialize, Serialize};

use super::member::UnixSeconds;
use super::rollout::put_json;
use super::{Core, DeclareError, Declared, Now, Terms, key};
use crate::store::Write;

/// How many changes are kept. Older ones are forgotten: nothing goes back before them.
const KEPT: usize = 100;

/// Where a change came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Manifests.
    Apply,
    /// Objects were deleted.
    Delete,
    /// What was declared as of this revision.
    Rollback(u64),
    /// The change of this revision was on trial and is undone.
    Return(u64),
}

/// What became of a change that was on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may still be confirmed.
    Open,
    /// It was, and stays.
    Confirmed,
    /// It was not, and was undone.
    Undone,
}

impl Verdict {
    /// The word that is shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "on trial",
            Self::Confirmed => "confirmed",
            Self::Undone => "undone",
        }
    }
}

/// A change of the intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: UnixSeconds,
    /// Where it came from.
    pub cause: Cause,
    /// What became of its trial; `None`: it was on none.
    #[serde(default)]
    pub trial: Option<Verdict>,
    /// The objects that changed.
    pub changes: Vec<Changed>,
}

/// An object that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Such as `vpc/red`.
    pub object: String,
    /// `created`, `updated` or `deleted`.
    pub change: String,
    /// What it was before, as a manifest in JSON; `None`: it was not there.
    pub before: Option<String>,
}

/// A change, and what its objects were after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryView {
    /// The revision from which it held.
    pub revision: u64,
    /// What changed.
    pub entry: Entry,
    /// What each object was afterwards, in the order of the changes; `None`: gone.
    pub after: Vec<Option<String>>,
}

impl Entry {
    /// What leads from one intent to the next.
    pub(super) fn between(
        before: &Intent,
        after: &Intent,
        cause: Cause,
        at: UnixSeconds,
    ) -> Result<Self, WriteError> {
        let changes = after.changes_since(before);
        let changed = |change: &Change| {
            let was = match change.outcome {
                Outcome::Created => None,
                _ => before.get(&change.object),
            };
            let was = was.map(|object| to_json(std::slice::from_ref(&object)));
            Ok(Changed {
                object: change.object.to_string(),
                change: change.outcome.word().to_owned(),
                before: was.transpose()?,
            })
        };
        Ok(Self {
            at,
            cause,
            trial: None,
            changes: changes.iter().map(changed).collect::<Result<_, WriteError>>()?,
        })
    }
}

impl Core {
    /// The changes that are known, the newest first.
    #[must_use]
    pub fn history(&self) -> Vec<(u64, &Entry)> {
        let newest_first = self.history.iter().rev();
        newest_first.map(|(revision, entry)| (*revision, entry)).collect()
    }

    /// A change with its objects before and after.
    ///
    /// # Errors
    /// [`DeclareError::NoChange`]; else what cannot be written.
    pub fn change(&self, revision: u64) -> Result<HistoryView, DeclareError> {
        let entry = self.entry(revision)?.clone();
        let later = self.undone_since(revision + 1);
        let after = entry
            .changes
            .iter()
            .map(|change| match later.get(change.object.as_str()) {
                Some(text) => Ok(text.map(str::to_owned)),
                None => self.now_of(&change.object),
            });
        let after = after.collect::<Result<_, WriteError>>()?;
        Ok(HistoryView {
            revision,
            entry,
            after,
        })
    }

    /// Declares again what was declared as of a change: one new change.
    ///
    /// # Errors
    /// Where there is no such change, or what held then cannot hold now.
    pub fn handle_rollback(
        &mut self,
        now: Now,
        revision: u64,
        terms: Terms,
    ) -> Result<Declared, DeclareError> {
        self.entry(revision)?;
        let intent = self.as_of(revision + 1, &BTreeMap::new())?;
        let changes = intent.changes_since(&self.intent);
        let commands = self.declare(now, intent, Cause::Rollback(revision), terms)?;
        Ok(Declared { changes, commands })
    }

    /// The intent without the changes from a revision on. Hooks' targets are those of now, and these beside them.
    pub(super) fn as_of(
        &self,
        first_undone: u64,
        named: &BTreeMap<Name, Vec<Target>>,
    ) -> Result<Intent, DeclareError> {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for object in self.intent.objects() {
            texts.insert(object.id().to_string(), to_json(std::slice::from_ref(&object))?);
        }
        for (object, before) in self.undone_since(first_undone) {
            match before {
                Some(text) => drop(texts.insert(object.to_owned(), text.to_owned())),
                None => drop(texts.remove(object)),
            }
        }
        let files: Vec<File<'_>> = texts.iter().map(|(name, text)| File { name, text }).collect();
        let applied = Intent::default().apply_files(&files);
        let intent = applied.map_err(DeclareError::Manifests)?.intent;
        Ok(intent.with_named_of(&self.intent, named))
    }

    /// What objects were before the changes from a revision on; `None`: not there.
    fn undone_since(&self, first: u64) -> BTreeMap<&str, Option<&str>> {
        let changes = self
            .history
            .range(first..)
            .rev()
            .flat_map(|(_, entry)| &entry.changes);
        changes
            .map(|change| (change.object.as_str(), change.before.as_deref()))
            .collect()
    }

    fn now_of(&self, object: &str) -> Result<Option<String>, WriteError> {
        let object = object.parse::<ObjectRef>().ok();
        let object = object.and_then(|object| self.intent.get(&object));
        object
            .map(|object| to_json(std::slice::from_ref(&object)))
            .transpose()
    }

    fn entry(&self, revision: u64) -> Result<&Entry, DeclareError> {
        let of = || self.history.range(..revision).next_back().map(|(of, _)| *of);
        self.history.get(&revision).ok_or_else(|| DeclareError::NoChange {
            revision,
            of: of().filter(|_| revision <= self.revision),
        })
    }

    /// Keeps a change, and forgets the oldest ones. Returns what is to be written of it.
    pub(super) fn remember(&mut self, revision: u64, entry: Entry) -> Vec<Write> {
        let mut writes: Vec<Write> = put_json(&key::history(revision), &entry).into_iter().collect();
        self.history.insert(revision, entry);
        while self.history.len() > KEPT
            && let Some((oldest, _)) = self.history.pop_first()
        {
            writes.push(Write::Delete(key::history(oldest)));
        }
        writes
    }

    /// Says what became of a change that was on trial.
    pub(super) fn judge(&mut self, revision: u64, verdict: Verdict) -> Option<Write> {
        let entry = self.history.get_mut(&revision)?;
        entry.trial = Some(verdict);
        put_json(&key::history(revision), entry)
    }
}
