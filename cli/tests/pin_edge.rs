//! The balancer judged from outside: `kuafu dev pin-edge` pins it, packets go through the pin.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "pin_edge/flows.rs"]
mod flows;
#[path = "pin_edge/hostile.rs"]
mod hostile;
#[path = "pin_edge/instance.rs"]
mod instance;
#[path = "pin_edge/packets.rs"]
mod packets;
#[path = "pin_edge/quic.rs"]
mod quic;
#[path = "pin_edge/refusals.rs"]
mod refusals;
