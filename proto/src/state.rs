//! The state of a host: model's type from and to the message, bytes and JSON.

mod parse;
mod write;

use kuafu_model::HostState;
use prost::Message;

use crate::v1;
pub(crate) use parse::{Read, address, all, ip, protocol};

/// Version of the message's meaning.
pub const SCHEMA: u32 = 1;

/// A state that cannot be what it says.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another version of the message's meaning.
    #[error("state of schema {found}; this program knows {SCHEMA}")]
    Schema {
        /// What it says.
        found: u32,
    },
    /// A field with a value that it cannot have.
    #[error("{field}: {value:?} is not {expected}")]
    Field {
        /// Path of the field, such as `slots[3].source`.
        field: String,
        /// What stands there.
        value: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// Not the message in binary.
    #[error("not a state in binary form: {0}")]
    Binary(#[from] prost::DecodeError),
    /// Not the message in JSON.
    #[error("not a state in JSON form: {0}")]
    Json(#[from] serde_json::Error),
}

/// The state as `state.pb` holds it.
#[must_use]
pub fn to_bytes(state: &HostState) -> Vec<u8> {
    v1::HostState::from(state).encode_to_vec()
}

/// The state in `state.pb`.
///
/// # Errors
/// What is not the message, or no state.
pub fn from_bytes(bytes: &[u8]) -> Result<HostState, StateError> {
    v1::HostState::decode(bytes)?.try_into()
}

/// The state as indented JSON, with the field names of the `.proto`.
///
/// # Errors
/// When the writer refuses a value.
pub fn to_json(state: &HostState) -> Result<String, StateError> {
    Ok(serde_json::to_string_pretty(&v1::HostState::from(state))?)
}

/// The state in JSON. Fields that are left out are empty; unknown ones are refused. `schema` may be left out.
///
/// # Errors
/// What is not the message, with line and column; what is no state, with the field.
pub fn from_json(text: &str) -> Result<HostState, StateError> {
    let mut message: v1::HostState = serde_json::from_str(text)?;
    if message.schema == 0 {
        message.schema = SCHEMA;
    }
    message.try_into()
}

impl TryFrom<v1::HostState> for HostState {
    type Error = StateError;

    fn try_from(message: v1::HostState) -> Result<Self, StateError> {
        if message.schema != SCHEMA {
            return Err(StateError::Schema {
                found: message.schema,
            });
        }
        parse::host_state(message)
    }
}

#[cfg(test)]
pub(crate) mod tests;
