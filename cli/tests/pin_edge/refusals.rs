//! What cannot be done is refused with its place.

use std::process::Output;

use serde_json::{Value, json};

use super::instance::{SERVICE, config, kuafu, targets, text};

/// What is said where this file's value at a JSON pointer is another.
fn refused(pointer: &str, value: Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.json");
    let mut config = config(&targets(2, &[]));
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap();
    match key.parse::<usize>() {
        Ok(index) => parent[index] = value,
        Err(_) => parent[key] = value,
    }
    std::fs::write(&file, config.to_string()).unwrap();
    let command = kuafu()
        .arg("--config")
        .arg(&file)
        .args(["--ring", "web"])
        .output();
    let Output { status, stderr, .. } = command.unwrap();
    assert_eq!(status.code(), Some(1), "{config}");
    text(&stderr)
        .replace(&*file.to_string_lossy(), "edge.json")
        .trim_end()
        .to_owned()
}

fn each_refused(cases: &[(&str, Value, &str)]) {
    for (pointer, value, due) in cases {
        let said = refused(pointer, value.clone());
        assert!(
            said.starts_with("kuafu: ") && said.contains(due),
            "{said}\n  instead of {due}"
        );
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_its_place() {
    let port = json!({"kind": "gue", "outer_sources": ["192.0.2.1"]});
    let variant = json!({"kind": "gue", "outer_sources": ["192.0.2.1"], "port": 6080, "variant": 2});
    let sources = "/encapsulation/outer_sources";
    let too_long = json!({"server_ids": [{"id": 1u64 << 32, "target": "192.0.2.9"}]});
    each_refused(&[
        (
            "/gateway_mac",
            json!("02:00"),
            "gateway_mac is 02:00; allowed: six octets",
        ),
        ("/gateway_mac", json!("01:00:00:00:00:01"), "of one host"),
        ("/version", json!(2), "version is 2; this is schema version 1"),
        ("/shield", json!("on"), "shield is on; allowed: off"),
        ("/max_frame", json!(100), "max_frame is 100; allowed: 590 or more"),
        (
            "/policy/ipv4_options",
            json!("forward"),
            "policy.ipv4_options is forward, which is not supported",
        ),
        ("/policy/echo", json!("maybe"), "unknown variant `maybe`"),
        (
            sources,
            json!(["2001:db8::1"]),
            "outer_sources has no IPv4 address",
        ),
        (
            sources,
            json!(["here"]),
            "outer_sources: here is no address or prefix",
        ),
        ("/encapsulation", port, "encapsulation.port is missing or 0"),
        (
            "/encapsulation",
            variant,
            "encapsulation.variant is 2; allowed: 0, 1",
        ),
        (
            "/quic",
            too_long,
            "quic.server_ids[0].id is 4294967296, which does not fit the 32 bits",
        ),
    ]);
}

#[test]
fn services_that_cannot_be_are_refused_with_their_place() {
    let ring = "services[0] (web): ring_size is 65536 for 2 targets; allowed: a prime";
    let prefix = "services[0] (web): address is 198.51.100.0/24; prefixes are not supported";
    let family = "services[0] (web): targets[1]: 2001:db8::1 is of another family";
    let no_source =
        "encapsulation.outer_sources has no IPv6 address; add one, since services[0] (web) is IPv6";
    each_refused(&[
        ("/ring_size", json!(65_536), ring),
        ("/ring_size", json!(1), "ring_size is 1 for 2 targets"),
        ("/services/0/address", json!("198.51.100.0/24"), prefix),
        ("/services/0/address", json!("2001:db8::1"), no_source),
        ("/services/0/targets/1/address", json!("2001:db8::1"), family),
        (
            "/services/0/targets/1/weight",
            json!(2_000_000),
            "targets[1].weight is 2000000; allowed: 0 to 1000000",
        ),
        (
            "/services/0/server_id_option",
            json!(true),
            "server_id_option is not supported",
        ),
        (
            "/services/0/source_routes",
            json!(true),
            "source_routes are not supported",
        ),
        ("/services/0/quic", json!(true), "quic is true, and protocol tcp"),
        (
            "/services/1/name",
            json!("web"),
            "services[1] (web).name is there twice; rename one",
        ),
        (
            "/services/0/name",
            json!("other"),
            "--ring web: there is no such service, only other, game",
        ),
    ]);
    let game = json!({"name": "game", "address": SERVICE, "protocol": "tcp", "port": 443});
    let due = "services[1] (game): another service has its address, protocol and port; remove one of the two";
    assert_eq!(refused("/services/1", game), format!("kuafu: edge.json: {due}"));
}
