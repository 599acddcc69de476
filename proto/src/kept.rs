//! What is kept in files beside a host's state.

use prost::Message;

use crate::v1::{Backup, KeptState};

impl KeptState {
    /// As `trial.pb` holds it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// What `trial.pb` holds.
    ///
    /// # Errors
    /// What is not the message.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Self::decode(bytes)
    }
}

impl Backup {
    /// As its file holds it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// What its file holds.
    ///
    /// # Errors
    /// What is not the message.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Self::decode(bytes)
    }
}
