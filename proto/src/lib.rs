//! Where controller, agents and CLI meet: the messages, their conversions to the model's types, and how a client
//! dials the controller.
//!
//! The `.proto` files in `proto/kuafu/v1` are the specification; [`v1`] is what is generated from them. A
//! [`HostState`](kuafu_model::HostState) goes over the stream and to disk in binary ([`state::to_bytes`]) and is
//! read from JSON too ([`state::from_json`]).
#![forbid(unsafe_code)]

pub mod client;
pub mod delta;
pub mod enrol;
pub(crate) mod hex;
mod kept;
pub mod places;
pub mod renew;
pub mod state;
pub mod stun;
pub mod token;

pub use client::{Identity, MEMBER_NAME_SUFFIX, SERVER_NAME};
pub use delta::Delta;
pub use places::Places;
pub use token::JoinToken;

/// The messages and services of `proto/kuafu/v1`.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    clippy::too_many_lines,
    reason = "generated; the .proto files say it"
)]
pub mod v1 {
    tonic::include_proto!("kuafu.v1");

    impl std::fmt::Debug for LegKey {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "LegKey {{ epoch: {}, key: (secret) }}", self.epoch)
        }
    }
}
