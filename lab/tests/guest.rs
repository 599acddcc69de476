//! Debian's kernels boot, and say what they are.

#![allow(clippy::unwrap_used, reason = "tests state facts")]

mod common;

use std::path::PathBuf;

use common::skipped;
use kuafu_lab::guest::{Guest, Kernel};

fn boots(series: &str) {
    if skipped() {
        return;
    }
    let kernel = match Kernel::find(series) {
        Ok(kernel) => kernel,
        Err(why) => return kuafu_lab::skip(why),
    };
    let mut guest = Guest::new(kernel, "uname -r; cat /greeting; ls -d /sys/class/net/v0; exit 7");
    guest.modules = vec!["veth".into()];
    guest
        .script
        .insert_str(0, "ip link add v0 type veth peer name v1; ");
    guest.files = vec![(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("data/README.md"),
        "/greeting".into(),
    )];
    let outcome = guest.run().unwrap();
    println!("{}", outcome.serial);
    assert_eq!(outcome.status, Some(7), "{}", outcome.serial);
    let says = |text: &str| outcome.serial.contains(text);
    assert!(
        outcome
            .serial
            .lines()
            .any(|line| line.starts_with(&format!("{series}.")))
    );
    assert!(says("Measured latency data") && says("/sys/class/net/v0"));
}

#[test]
fn kernel_6_1_boots() {
    boots("6.1");
}

#[test]
fn kernel_6_12_boots() {
    boots("6.12");
}
