//! Names and labels: the metadata of every object.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use super::common::{Invalid, Text, serde_as_text};
use crate::manifest::{Field, Place};

/// A label of RFC 1123: 1-63 lower-case letters, digits and `-`, first and last a letter or a digit.
/// Names objects, and also regions, sites and providers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for Name {
    const FORM: &'static str = "a name of 1-63 lower-case letters, digits and \"-\", first and last a letter or digit, such as osaka-1";
}

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = (1..=63).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(Invalid::not::<Self>(text))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

serde_as_text!(Name);

/// What every object has beside its spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// The object's name, unique in its kind.
    pub name: Name,
    /// Free labels, for people and their tools. Default: none.
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl Field for Metadata {
    const EXPECTS: &'static str = "a mapping with a name";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let name = fields.required("name");
            let labels = fields.or("labels", Labels::default());
            Some(Self {
                name: name?,
                labels: labels?,
            })
        })
    }
}

/// Labels: keys of 1-63 letters, digits, `.`, `_`, `/` and `-`; values of at most 63 printable characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// No label at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Keys and values, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl Field for Labels {
    const EXPECTS: &'static str = "a mapping of labels to texts, such as {team: blue}";

    fn read(place: &Place<'_>) -> Option<Self> {
        let labels = place.entries(Self::EXPECTS)?.into_iter().map(|(key, place)| {
            let key: Option<LabelKey> = place.parse(key);
            let value: Option<LabelValue> = place.read();
            Some((key?.0, value?.0))
        });
        // All are read before the first refused one ends it: each error is reported.
        let labels: Vec<_> = labels.collect();
        labels.into_iter().collect::<Option<_>>().map(Self)
    }
}

struct LabelKey(String);

impl Text for LabelKey {
    const FORM: &'static str = "a label's key: 1-63 letters, digits, \".\", \"_\", \"/\" and \"-\"";
}

impl FromStr for LabelKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte);
        let valid = (1..=63).contains(&text.len()) && text.bytes().all(allowed);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::not::<Self>(text))
        }
    }
}

struct LabelValue(String);

impl Text for LabelValue {
    const FORM: &'static str = "a label's value: a text of at most 63 printable characters";
}

impl FromStr for LabelValue {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let valid = text.chars().count() <= 63 && !text.chars().any(char::is_control);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::not::<Self>(text))
        }
    }
}
