//! Objects as text that [`parse`](super::parse) reads back.

use super::error::WriteError;
use crate::kinds::Object;

/// A YAML stream with a document for each object; empty when there is none.
///
/// # Errors
/// When the writer refuses a value.
pub fn to_yaml(objects: &[Object]) -> Result<String, WriteError> {
    if objects.is_empty() {
        return Ok(String::new());
    }
    Ok(serde_saphyr::to_string_multiple(objects)?)
}

/// Indented JSON: an object for a slice of one, else a list.
///
/// # Errors
/// When the writer refuses a value.
pub fn to_json(objects: &[Object]) -> Result<String, WriteError> {
    Ok(match objects {
        [object] => serde_json::to_string_pretty(object)?,
        objects => serde_json::to_string_pretty(objects)?,
    })
}
