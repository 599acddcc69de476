//! YAML text as a tree that knows its lines.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, NonFiniteFloatPolicy, RenderOptions, SnippetMode, Spanned, UserMessageFormatter,
};

/// A value and the line where it is given: for what stands in a mapping, its key's line.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) value: Value,
}

/// A value as YAML's core schema resolves it (YAML 1.2.2, section 10.3).
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Boolean(bool),
    Integer(i128),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys in their order; one may occur twice.
    Map(Vec<(String, Node)>),
}

/// Documents of a stream; of a document that is a list, its items. Empty documents are left out.
///
/// # Errors
/// The line and what is wrong with the syntax there.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, (u32, String)> {
    let documents: Vec<Spanned<Value>> = serde_saphyr::from_multiple_with_options(text, options(text))
        .map_err(|error| {
            let line = error
                .location()
                .map_or(1, |location| line_number(location.line()));
            (line, message(&error))
        })?;
    let mut roots = Vec::with_capacity(documents.len());
    for document in documents {
        match document.value {
            Value::List(items) => roots.extend(items),
            value => roots.push(Node {
                line: line_number(document.referenced.line()),
                value,
            }),
        }
    }
    Ok(roots)
}

/// Limits of expansion stay as the parser has them; those of size follow the text, which is in memory anyway.
fn options(text: &str) -> serde_saphyr::Options {
    let size = text.len().max(1024);
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: size,
            max_nodes: size,
            max_events: 2 * size,
        },
        // Both keys are wanted, to say where the first one is.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // A field that wants a number then names what it found.
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    }
}

/// The parser's message on one line, without the location that it ends with.
fn message(error: &serde_saphyr::Error) -> String {
    let mut options = RenderOptions::new(&UserMessageFormatter);
    options.snippets = SnippetMode::Off;
    let text = error.render_with_options(options);
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_number(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

impl Node {
    /// The line of a field such as `spec.listeners[0].port`, or of the nearest one around it that is there.
    pub(super) fn line_of(&self, field: &str) -> u32 {
        let mut node = self;
        for step in field.split(['.', '[']).filter(|step| !step.is_empty()) {
            match node.child(step) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.line
    }

    /// By key, or by the index of `[0]` without its first bracket.
    fn child(&self, step: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key == step).map(|(_, node)| node),
            Value::List(items) => items.get(step.strip_suffix(']')?.parse::<usize>().ok()?),
            _ => None,
        }
    }
}

/// The value in a message.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("nothing"),
            Self::Boolean(value) => write!(f, "the boolean {value}"),
            Self::Integer(value) => write!(f, "the number {value}"),
            Self::Number(value) => write!(f, "the number {value}"),
            Self::Text(value) => write!(f, "the text {}", crate::kinds::quoted(value)),
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a mapping"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Value>>()? {
            items.push(Node {
                line: line_number(item.referenced.line()),
                value: item.value,
            });
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value()?;
            entries.push((
                key.value,
                Node {
                    line: line_number(key.referenced.line()),
                    value,
                },
            ));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_line_is_its_keys_or_its_items() {
        let text =
            "# comment\na: 1\nb:\n  c:\n    - d: 2\n      e: [3,\n        4]\n---\n- f\n- g\n---\n---\n";
        let roots = parse(text).unwrap();
        assert_eq!(roots.iter().map(|root| root.line).collect::<Vec<_>>(), [2, 9, 10]);
        let line = |field| roots[0].line_of(field);
        assert_eq!(
            [
                line("a"),
                line("b"),
                line("b.c"),
                line("b.c[0]"),
                line("b.c[0].e")
            ],
            [2, 3, 4, 5, 6]
        );
        assert_eq!(line("b.c[0].e[1]"), 7);
        // What is not there has the line of what would hold it.
        assert_eq!([line("b.c[7]"), line("b.x.y"), line("z")], [4, 3, 2]);
    }
}
