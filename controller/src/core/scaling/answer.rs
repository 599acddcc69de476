//! What a hook answers, and targets as text.

use std::sync::Arc;

use kuafu_model::kinds::{Name, Object, Service, Target};
use kuafu_model::manifest::{File, parse, to_json};
use serde::Deserialize;
use serde_json::{Value, json};

/// Of an answer that cannot be read, so many errors are shown.
const SHOWN: usize = 3;

/// A call of a hook, to be made now.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which of all calls it is.
    pub number: u64,
    /// The service, as it is declared at the call's beginning.
    pub service: Arc<Service>,
    /// Where.
    pub url: String,
    /// When it has failed.
    pub timeout_s: u8,
    /// What is posted: JSON.
    pub body: String,
}

/// What a hook answers.
#[derive(Deserialize)]
struct Answer {
    targets: Vec<Value>,
}

impl Call {
    /// The targets of an answer, read as the service's own are.
    ///
    /// # Errors
    /// What is wrong with it, in words that go on after the hook's URL.
    pub fn read(&self, text: &str) -> Result<Vec<Target>, String> {
        let answer: Answer = serde_json::from_str(text).map_err(|error| {
            format!("answers what is no JSON of the form {{\"targets\": [...]}}: {error}")
        })?;
        let most = self.service.spec.scaling.as_ref();
        let most = most.map_or(0, |scaling| usize::from(scaling.max.get()));
        let count = answer.targets.len();
        if count > most {
            let why = format!("it names {count}, and spec.scaling.max is {most}");
            return Err(refused(&[why]));
        }
        let of_us = |target: &Value| {
            let drains = ["drain", "drain_until"];
            drains.iter().any(|field| target.get(field).is_some())
        };
        if let Some(index) = answer.targets.iter().position(of_us) {
            let why = format!("targets[{index}].drain: a target that is left out drains by itself");
            return Err(refused(&[why]));
        }
        let object = Object::Service(Arc::clone(&self.service));
        let written = to_json(std::slice::from_ref(&object)).map_err(|error| error.to_string())?;
        let written: Value = serde_json::from_str(&written).map_err(|error| error.to_string())?;
        let mut object = match written {
            Value::Array(mut objects) => objects.pop().unwrap_or_default(),
            object => object,
        };
        object["spec"]["targets"] = Value::Array(answer.targets);
        read(&object.to_string()).map_err(|problem| refused(&[problem]))
    }
}

/// Why an answer is not taken.
pub(super) fn refused(errors: &[String]) -> String {
    let shown = errors.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    let more = errors.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("; and {more} more"));
    format!(
        "names targets that cannot be: {shown}{}",
        more.unwrap_or_default()
    )
}

/// Targets as the store keeps them: a service that has them and nothing else.
pub(in crate::core) fn written(service: &Name, targets: &[Target]) -> String {
    json!({"kind": "Service", "metadata": {"name": service}, "spec": {"targets": targets}}).to_string()
}

/// The targets of a service that is written in JSON.
///
/// # Errors
/// Each of what is wrong with it, in words.
pub(in crate::core) fn read(text: &str) -> Result<Vec<Target>, String> {
    let file = File { name: "", text };
    let manifests = parse(&[file]).map_err(|errors| {
        let words = errors
            .iter()
            .map(|error| format!("{}: {}", error.field, error.problem));
        let words: Vec<String> = words.take(SHOWN).collect();
        words.join("; ")
    })?;
    match manifests.first().map(|manifest| manifest.object()) {
        Some(Object::Service(service)) => Ok(service.spec.targets.clone()),
        _ => Err("it is no service".to_owned()),
    }
}
