//! Intent: applied whole or not at all.

use kuafu_model::compile::CompileError;
use kuafu_model::kinds::{Kind, Object, ObjectRef};
use kuafu_model::manifest::{Change, DeleteError, File, Intent, ManifestError, Outcome, WriteError, to_json};

use super::{Command, Core, Now, key};
use crate::store::Write;

/// What was declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// What becomes of each object.
    pub changes: Vec<Change>,
    /// What the shell is to do; empty on a dry run.
    pub commands: Vec<Command>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The file as it was named; empty: none.
    pub file: String,
    /// The line, from 1; 0: none.
    pub line: u32,
    /// The field; empty: the object as a whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// Why nothing was declared.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The manifests are wrong.
    #[error("{} errors in the manifests", .0.len())]
    Manifests(Vec<ManifestError>),
    /// The objects cannot be deleted.
    #[error("{} objects cannot be deleted", .0.len())]
    Delete(Vec<DeleteError>),
    /// The numbers do not suffice.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// An object cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl DeclareError {
    /// Every error by itself.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldError> {
        let plain = |message: String| FieldError {
            file: String::new(),
            line: 0,
            field: String::new(),
            message,
        };
        match self {
            Self::Manifests(errors) => errors.iter().map(FieldError::from).collect(),
            Self::Delete(errors) => errors.iter().map(|error| plain(error.to_string())).collect(),
            Self::Compile(error) => vec![plain(error.to_string())],
            Self::Write(error) => vec![plain(error.to_string())],
        }
    }
}

impl From<&ManifestError> for FieldError {
    fn from(error: &ManifestError) -> Self {
        Self {
            file: error.file.to_string(),
            line: error.line,
            field: error.field.clone(),
            message: error.problem.to_string(),
        }
    }
}

impl Core {
    /// Applies files: all of what they declare, or nothing. A dry run changes nothing in either case.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn handle_apply(
        &mut self,
        _now: Now,
        files: &[File<'_>],
        dry_run: bool,
    ) -> Result<Declared, DeclareError> {
        let applied = self.intent.apply_files(files).map_err(DeclareError::Manifests)?;
        let commands = self.declare(applied.intent, dry_run)?;
        let changes = applied.changes;
        Ok(Declared { changes, commands })
    }

    /// Deletes objects: all of them, or none.
    ///
    /// # Errors
    /// Objects that there are not, or that others refer to.
    pub fn handle_delete(
        &mut self,
        _now: Now,
        objects: &[ObjectRef],
        dry_run: bool,
    ) -> Result<Declared, DeclareError> {
        let intent = self.intent.delete(objects).map_err(DeclareError::Delete)?;
        let changes = intent.changes_since(&self.intent);
        let commands = self.declare(intent, dry_run)?;
        Ok(Declared { changes, commands })
    }

    /// The objects of a kind (`None`: of all) and a name (`None`: all of them).
    #[must_use]
    pub fn objects(&self, kind: Option<Kind>, name: Option<&str>) -> Vec<Object> {
        let objects = match kind {
            Some(kind) => self.intent.of_kind(kind),
            None => self.intent.objects(),
        };
        let wanted = |object: &Object| name.is_none_or(|name| object.metadata().name.as_str() == name);
        objects.into_iter().filter(wanted).collect()
    }

    fn declare(&mut self, intent: Intent, dry_run: bool) -> Result<Vec<Command>, DeclareError> {
        let mut choices = self.choices.clone();
        let pairs = kuafu_model::compile::pairs(&intent);
        choices.retain(|choice| {
            let same = |pair: &kuafu_model::compile::PairName| {
                (&pair.entry, &pair.exit, pair.class) == (&choice.entry, &choice.exit, choice.class)
            };
            pairs.iter().any(same)
        });
        let (target, allocations) = self.compile(&intent, &choices)?;
        let mut writes = object_writes(&self.intent, &intent)?;
        if dry_run || intent == self.intent {
            return Ok(Vec::new());
        }
        let (mut closed, gone) = self.forget_absent(&intent);
        writes.extend(gone);
        self.intent = intent;
        writes.extend(self.install_choices(choices));
        writes.extend(self.install(target, allocations));
        let mut commands = self.roll_out(writes);
        commands.append(&mut closed);
        Ok(commands)
    }

    /// Hosts that are members no more: their streams end, and their papers are worth nothing.
    fn forget_absent(&mut self, intent: &Intent) -> (Vec<Command>, Vec<Write>) {
        let is_host = |intent: &Intent, name| intent.nodes().get(name).is_some_and(|node| node.spec.agent);
        let gone: Vec<_> = self
            .intent
            .nodes()
            .keys()
            .filter(|name| is_host(&self.intent, *name) && !is_host(intent, *name))
            .cloned()
            .collect();
        let (mut commands, mut writes) = (Vec::new(), Vec::new());
        for name in gone {
            self.fleet.forget(&name);
            writes.push(Write::Delete(key::acknowledged(&name)));
            if self.certificates.remove(&name).is_some() {
                writes.push(Write::Delete(key::certificate(&name)));
            }
            if let Some(session) = self.hosts.remove(&name).and_then(|host| host.session) {
                let node = name.to_string();
                commands.push(Command::Close(session, super::SessionRefusal::Deleted { node }));
            }
        }
        (commands, writes)
    }
}

fn object_writes(before: &Intent, after: &Intent) -> Result<Vec<Write>, WriteError> {
    let changes = after.changes_since(before);
    let write = |change: &Change| match (change.outcome, after.get(&change.object)) {
        (Outcome::Deleted, _) | (_, None) => Ok(Write::Delete(key::object(&change.object))),
        (_, Some(object)) => {
            let text = to_json(std::slice::from_ref(&object))?;
            Ok(Write::Put(key::object(&change.object), text.into_bytes()))
        }
    };
    changes.iter().map(write).collect()
}
