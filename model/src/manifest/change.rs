//! What an apply or a delete does to each object.

use std::collections::BTreeSet;
use std::fmt;

use super::{File, Intent, ManifestError, parse};
use crate::kinds::ObjectRef;

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It was not there before.
    Created,
    /// It was there, and says something else now.
    Updated,
    /// It was there, and says the same.
    Unchanged,
    /// It is not there any more.
    Deleted,
}

impl Outcome {
    /// The word that is shown.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// An object and what becomes of it: `vpc/red created`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The object.
    pub object: ObjectRef,
    /// What becomes of it.
    pub outcome: Outcome,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.outcome)
    }
}

/// What applying manifests comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The new intent.
    pub intent: Intent,
    /// What becomes of each declared object, in the order of the manifests.
    pub changes: Vec<Change>,
}

impl Intent {
    /// Reads files and applies what they declare: all of it, or nothing.
    ///
    /// # Errors
    /// Those of [`parse`], else those of [`Intent::apply`]; `self` is as it was.
    pub fn apply_files(&self, files: &[File<'_>]) -> Result<Applied, Vec<ManifestError>> {
        let manifests = parse(files)?;
        let intent = self.apply(&manifests)?;
        let change = |object: ObjectRef| Change {
            outcome: outcome(self, &intent, &object),
            object,
        };
        let changes = manifests
            .iter()
            .map(|manifest| change(manifest.object().id()))
            .collect();
        Ok(Applied { intent, changes })
    }

    /// What became of each object since `before`, ordered by kind and name; unchanged ones are left out.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let objects: BTreeSet<ObjectRef> = self.ids().chain(before.ids()).collect();
        let changes = objects.into_iter().map(|object| Change {
            outcome: outcome(before, self, &object),
            object,
        });
        changes
            .filter(|change| change.outcome != Outcome::Unchanged)
            .collect()
    }
}

fn outcome(before: &Intent, after: &Intent, object: &ObjectRef) -> Outcome {
    match (before.get(object), after.get(object)) {
        (None, _) => Outcome::Created,
        (Some(_), None) => Outcome::Deleted,
        (Some(before), Some(after)) if before == after => Outcome::Unchanged,
        _ => Outcome::Updated,
    }
}
