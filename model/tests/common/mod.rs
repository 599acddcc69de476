//! What tests of packets share: a language for packets, small worlds, and cases as data.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "each test uses a part of this; a test that cannot go on has failed; lengths are small"
)]

pub mod case;
pub mod decode;
pub mod draw;
pub mod encode;
pub mod state;
pub mod text;
pub mod world;
