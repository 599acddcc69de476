//! Small clusters in namespaces, one after the other: a file below `clusters/` each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; the demonstration's parts are used in parts"
)]

#[path = "clusters/announced.rs"]
mod announced;
#[path = "clusters/capture.rs"]
mod capture;
#[path = "../src/demo/cluster.rs"]
mod cluster;
mod common;
#[path = "clusters/copies.rs"]
mod copies;
#[path = "clusters/endpoints.rs"]
mod endpoints;
#[path = "clusters/flood.rs"]
mod flood;
#[path = "clusters/health.rs"]
mod health;
#[path = "../src/demo/intent.rs"]
mod intent;
#[path = "clusters/join.rs"]
mod join;
#[path = "clusters/limit.rs"]
mod limit;
#[path = "clusters/near.rs"]
mod near;
#[path = "clusters/peering.rs"]
mod peering;
#[path = "../src/demo/play.rs"]
mod play;
#[path = "../src/demo/report.rs"]
mod report;
#[path = "clusters/requests.rs"]
mod requests;
#[path = "clusters/scaling.rs"]
mod scaling;
#[path = "clusters/services.rs"]
mod services;
#[path = "clusters/shield.rs"]
mod shield;
#[path = "clusters/suspects.rs"]
mod suspects;
#[path = "../src/demo/tenants.rs"]
mod tenants;
#[path = "clusters/trial.rs"]
mod trial;
#[path = "clusters/vpcs.rs"]
mod vpcs;
#[path = "clusters/vxlan.rs"]
mod vxlan;
