//! Intent: applied whole or not at all.

use kuafu_model::compile::CompileError;
use kuafu_model::kinds::{Kind, Name, Object, ObjectRef};
use kuafu_model::manifest::{Change, DeleteError, File, Intent, ManifestError, Outcome, WriteError, to_json};

use super::history::{Cause, Entry, Verdict};
use super::member::UnixSeconds;
use super::{Command, Core, Now, key};
use crate::store::Write;

/// How a change is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When, by the calendar.
    pub at: UnixSeconds,
    /// Check only.
    pub dry_run: bool,
    /// It is undone after so many seconds, unless it is confirmed.
    pub confirm_s: Option<u32>,
}

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
    /// Another change is on trial.
    #[error(
        "change {revision} is on trial for {left_s} s more, and nothing else can be changed meanwhile: `kuafu confirm` \
         keeps it, `kuafu confirm --undo` undoes it at once"
    )]
    OnTrial {
        /// The change.
        revision: u64,
        /// How long it may still be confirmed.
        left_s: u64,
    },
    /// A trial that is too short or too long.
    #[error("--confirm {seconds}s: expected {least} to {most} seconds")]
    Window {
        /// What was asked for.
        seconds: u32,
        /// The shortest.
        least: u32,
        /// The longest.
        most: u32,
    },
    /// What cannot be undone.
    #[error(
        "node/{node} would leave the cluster, and its host's papers be worth nothing: that cannot be undone. Do it \
         without --confirm"
    )]
    LeavesForGood {
        /// The node.
        node: Name,
    },
    /// There is nothing to confirm or to undo.
    #[error(
        "no change is on trial: it was confirmed or undone already (kuafu history), or applied without --confirm"
    )]
    NoTrial,
    /// Not a change.
    #[error("no change is called {revision}; `kuafu history` lists those that are known{}", .of.map(|of| format!(", and what holds at revision {revision} was declared by change {of}")).unwrap_or_default())]
    NoChange {
        /// What was asked for.
        revision: u64,
        /// The change before it.
        of: Option<u64>,
    },
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
            other => vec![plain(other.to_string())],
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
        now: Now,
        files: &[File<'_>],
        terms: Terms,
    ) -> Result<Declared, DeclareError> {
        let applied = self.intent.apply_files(files).map_err(DeclareError::Manifests)?;
        let commands = self.declare(now, applied.intent, Cause::Apply, terms)?;
        let changes = applied.changes;
        Ok(Declared { changes, commands })
    }

    /// Deletes objects: all of them, or none.
    ///
    /// # Errors
    /// Objects that there are not, or that others refer to.
    pub fn handle_delete(
        &mut self,
        now: Now,
        objects: &[ObjectRef],
        terms: Terms,
    ) -> Result<Declared, DeclareError> {
        let intent = self.intent.delete(objects).map_err(DeclareError::Delete)?;
        let changes = intent.changes_since(&self.intent);
        let commands = self.declare(now, intent, Cause::Delete, terms)?;
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

    pub(super) fn declare(
        &mut self,
        now: Now,
        intent: Intent,
        cause: Cause,
        terms: Terms,
    ) -> Result<Vec<Command>, DeclareError> {
        self.check_trial(now, &intent, terms)?;
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
        let entry = Entry::between(&self.intent, &intent, cause, terms.at)?;
        if terms.dry_run || intent == self.intent {
            return Ok(Vec::new());
        }
        let (mut closed, gone) = self.forget_absent(&intent);
        writes.extend(gone);
        writes.extend(self.named_writes(&intent));
        let lost = self.named_lost(&intent);
        self.scaling.forget_services(&self.intent, &intent);
        self.intent = intent;
        writes.extend(self.install_choices(choices));
        writes.extend(self.install(target, allocations));
        let revision = self.revision + 1;
        writes.extend(self.remember(revision, entry));
        writes.extend(self.begin_trial(now, (revision, lost), terms));
        if let Cause::Return(undone) = cause {
            writes.push(Write::Delete(key::TRIAL.to_owned()));
            writes.extend(self.judge(undone, Verdict::Undone));
        }
        let mut commands = self.roll_out_change(revision, writes);
        commands.append(&mut closed);
        Ok(commands)
    }

    /// The hosts that would be members no more.
    pub(super) fn leaving(&self, intent: &Intent) -> Vec<Name> {
        let is_host = |intent: &Intent, name| intent.nodes().get(name).is_some_and(|node| node.spec.agent);
        let names = self.intent.nodes().keys();
        names
            .filter(|name| is_host(&self.intent, *name) && !is_host(intent, *name))
            .cloned()
            .collect()
    }

    /// Hosts that are members no more: their streams end, and their papers are worth nothing.
    fn forget_absent(&mut self, intent: &Intent) -> (Vec<Command>, Vec<Write>) {
        let (mut commands, mut writes) = (Vec::new(), Vec::new());
        for name in self.leaving(intent) {
            let ((), kept) = self.with_kept(&name, |core| core.fleet.forget(&name));
            writes.extend(kept);
            writes.push(Write::Delete(key::acknowledged(&name)));
            writes.extend(self.forget_down(&name));
            self.hold.forget(&name);
            self.scaling.forget(&name);
            writes.extend(self.forget_papers(&name));
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
