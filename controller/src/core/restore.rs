//! The core from what the store holds; the same way at the first start and after a restart.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_model::compile::{Allocations, Choice, CompileError, Fleet, Server};
use kuafu_model::kinds::{Invalid, Name};
use kuafu_model::manifest::{File, Intent};
use kuafu_proto::state;
use serde::{Deserialize, Serialize};

use super::health::StoredServer;
use super::{Core, Random, key, measure::Measured};
use crate::store::{Versioned, Write};

/// The store holds what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A value that is not what its key says.
    #[error("store: {key}: {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// The objects do not agree.
    #[error("store: objects: {0}")]
    Objects(String),
    /// The intent cannot be compiled.
    #[error("store: {0}")]
    Compile(#[from] CompileError),
}

/// A choice as the store keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredChoice {
    entry: String,
    exit: String,
    class: String,
    primary: Option<Vec<String>>,
    backup: Option<Vec<String>>,
    #[serde(default)]
    duplicate: bool,
}

impl From<&Choice> for StoredChoice {
    fn from(choice: &Choice) -> Self {
        let texts = |relays: &Vec<Name>| relays.iter().map(ToString::to_string).collect();
        Self {
            entry: choice.entry.to_string(),
            exit: choice.exit.to_string(),
            class: choice.class.word().to_owned(),
            primary: choice.primary.as_ref().map(texts),
            backup: choice.backup.as_ref().map(texts),
            duplicate: choice.duplicate,
        }
    }
}

impl TryFrom<StoredChoice> for Choice {
    type Error = Invalid;

    fn try_from(stored: StoredChoice) -> Result<Self, Invalid> {
        let names = |relays: Vec<String>| {
            relays
                .iter()
                .map(|name| name.parse())
                .collect::<Result<Vec<Name>, _>>()
        };
        Ok(Self {
            entry: stored.entry.parse()?,
            exit: stored.exit.parse()?,
            class: stored.class.parse()?,
            primary: stored.primary.map(names).transpose()?,
            backup: stored.backup.map(names).transpose()?,
            duplicate: stored.duplicate,
        })
    }
}

impl Core {
    /// The core from all entries of the store, and what is to be written first: a cluster's id, when there is none.
    ///
    /// # Errors
    /// What the store holds and cannot be.
    pub fn restore(
        entries: Vec<(String, Versioned)>,
        mut random: Random,
    ) -> Result<(Self, Vec<Write>), RestoreError> {
        let entries: BTreeMap<String, Vec<u8>> = entries
            .into_iter()
            .map(|(key, entry)| (key, entry.value))
            .collect();
        let mut writes = Vec::new();
        let cluster = if entries.contains_key(key::CLUSTER) {
            text(&entries, key::CLUSTER)?
        } else {
            let mut id = [0; 8];
            random(&mut id);
            let id = id.map(|byte| format!("{byte:02x}")).concat();
            writes.push(Write::Put(key::CLUSTER.to_owned(), id.clone().into_bytes()));
            id
        };
        let (intent, dropped) = named_by_hooks(&entries, objects(&entries)?)?;
        writes.extend(dropped);
        let mut core = Self {
            cluster,
            revision: json(&entries, key::REVISION)?.unwrap_or(0),
            intent,
            allocations: json::<Allocations>(&entries, key::ALLOCATIONS)?.unwrap_or_default(),
            choices: choices(&entries)?,
            down: down(&entries)?,
            holders: super::hold::read(json(&entries, key::HOLDERS)?.unwrap_or_default()),
            hold: super::hold::Hold::default(),
            scaling: super::scaling::State::default(),
            target: BTreeMap::new(),
            fleet: fleet(&entries)?,
            hosts: BTreeMap::new(),
            tokens: named(&entries, key::TOKENS)?
                .map(|(digest, at)| Ok((digest.to_owned(), json(&entries, at)?.unwrap_or_default())))
                .collect::<Result<_, RestoreError>>()?,
            certificates: by_node(&entries, key::CERTIFICATES)?,
            renewed: by_node(&entries, key::RENEWED)?,
            history: named(&entries, key::HISTORY)?
                .map(|(revision, at)| {
                    let revision = revision.parse().map_err(|error| wrong(at, error))?;
                    let entry = json(&entries, at)?.ok_or_else(|| wrong(at, "it is gone"))?;
                    Ok((revision, entry))
                })
                .collect::<Result<_, RestoreError>>()?,
            trial: json(&entries, key::TRIAL)?,
            measured: Measured::default(),
            steer: super::steer::Steer::default(),
            key_lifetime: super::keys::LIFETIME,
            keys_renewed: json(&entries, key::KEYS_RENEWED)?.unwrap_or_default(),
            past: super::past::Past::restore(&entries),
            began_unix_ms: 0,
            random,
        };
        let (target, allocations) = core.compile(&core.intent.clone(), &core.choices.clone())?;
        core.install(target, allocations);
        Ok((core, writes))
    }
}

/// Servers that are down, by the nodes that said so.
fn down(entries: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<Name, BTreeSet<Server>>, RestoreError> {
    let of_node = |(node, at): (&str, &str)| {
        let stored: Vec<StoredServer> = json(entries, at)?.unwrap_or_default();
        Ok((name(at, node)?, stored.into_iter().map(Server::from).collect()))
    };
    named(entries, key::DOWN)?.map(of_node).collect()
}

/// Texts under the names of nodes.
fn by_node(
    entries: &BTreeMap<String, Vec<u8>>,
    prefix: &str,
) -> Result<BTreeMap<Name, String>, RestoreError> {
    named(entries, prefix)?
        .map(|(node, at)| Ok((name(at, node)?, text(entries, at)?)))
        .collect()
}

fn wrong(key: &str, problem: impl ToString) -> RestoreError {
    RestoreError::Value {
        key: key.to_owned(),
        problem: problem.to_string(),
    }
}

fn text(entries: &BTreeMap<String, Vec<u8>>, key: &str) -> Result<String, RestoreError> {
    let value = entries.get(key).cloned().unwrap_or_default();
    String::from_utf8(value).map_err(|error| wrong(key, error))
}

fn json<T: for<'de> Deserialize<'de>>(
    entries: &BTreeMap<String, Vec<u8>>,
    key: &str,
) -> Result<Option<T>, RestoreError> {
    let Some(value) = entries.get(key) else {
        return Ok(None);
    };
    serde_json::from_slice(value)
        .map(Some)
        .map_err(|error| wrong(key, error))
}

fn name(key: &str, text: &str) -> Result<Name, RestoreError> {
    text.parse().map_err(|error: Invalid| wrong(key, error))
}

/// What follows a prefix, and the whole key.
fn named<'a>(
    entries: &'a BTreeMap<String, Vec<u8>>,
    prefix: &'a str,
) -> Result<impl Iterator<Item = (&'a str, &'a str)>, RestoreError> {
    let keys = entries
        .keys()
        .filter_map(move |key| Some((key.strip_prefix(prefix)?, key.as_str())));
    Ok(keys)
}

fn objects(entries: &BTreeMap<String, Vec<u8>>) -> Result<Intent, RestoreError> {
    let keys = named(entries, key::OBJECTS)?;
    let texts: Vec<(String, String)> = keys
        .map(|(_, key)| Ok((key.to_owned(), text(entries, key)?)))
        .collect::<Result<_, RestoreError>>()?;
    let files: Vec<File<'_>> = texts.iter().map(|(name, text)| File { name, text }).collect();
    let applied = Intent::default().apply_files(&files).map_err(|errors| {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        RestoreError::Objects(errors.join("; "))
    })?;
    Ok(applied.intent)
}

/// The intent with the targets that hooks have named. What cannot be read of these is none, and deleted: its hook names
/// them anew.
fn named_by_hooks(
    entries: &BTreeMap<String, Vec<u8>>,
    intent: Intent,
) -> Result<(Intent, Vec<Write>), RestoreError> {
    let (mut intent, mut writes) = (intent, Vec::new());
    for (service, at) in named(entries, key::NAMED)? {
        let read = || -> Result<_, RestoreError> {
            let targets = super::scaling::read(&text(entries, at)?).map_err(|problem| wrong(at, problem))?;
            Ok((name(at, service)?, targets))
        };
        match read() {
            Ok((service, targets)) => intent = intent.with_kept_by_hook(service, targets),
            Err(error) => {
                tracing::warn!(%error, "the targets that a hook has named are dropped");
                writes.push(Write::Delete(at.to_owned()));
            }
        }
    }
    Ok((intent, writes))
}

fn choices(entries: &BTreeMap<String, Vec<u8>>) -> Result<Vec<Choice>, RestoreError> {
    let stored: Vec<StoredChoice> = json(entries, key::CHOICES)?.unwrap_or_default();
    let choices = stored.into_iter().map(Choice::try_from);
    choices
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(key::CHOICES, error))
}

fn fleet(entries: &BTreeMap<String, Vec<u8>>) -> Result<Fleet, RestoreError> {
    let mut fleet = Fleet::default();
    for (node, key) in named(entries, key::ACKNOWLEDGED)? {
        let bytes = entries.get(key).map(Vec::as_slice).unwrap_or_default();
        let state = state::from_bytes(bytes).map_err(|error| wrong(key, error))?;
        fleet.restore(&name(key, node)?, state);
    }
    for (kept, key) in named(entries, key::KEPT)? {
        let (node, _) = kept
            .split_once('/')
            .ok_or_else(|| wrong(key, "it names no node"))?;
        let bytes = entries.get(key).map(Vec::as_slice).unwrap_or_default();
        let state = state::from_bytes(bytes).map_err(|error| wrong(key, error))?;
        fleet.restore_kept(&name(key, node)?, state);
    }
    Ok(fleet)
}
