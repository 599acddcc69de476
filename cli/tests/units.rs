//! The units with which systemd runs a host.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

#[test]
fn systemd_understands_the_units() {
    const VERIFIER: &str = "systemd-analyze";
    if Command::new(VERIFIER).arg("--version").output().is_err() {
        return kuafu_lab::skip(format!("no {VERIFIER}"));
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd");
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for unit in std::fs::read_dir(units).unwrap() {
        let unit = unit.unwrap();
        let text = std::fs::read_to_string(unit.path()).unwrap();
        // The program need not be installed here, and neither its manual.
        let text = text.replace("/usr/bin/kuafu", env!("CARGO_BIN_EXE_kuafu"));
        let file = folder.path().join(unit.file_name());
        std::fs::write(&file, text).unwrap();
        files.push(file);
    }
    assert_eq!(files.len(), 3);
    let verified = Command::new(VERIFIER)
        .args(["verify", "--man=no"])
        .args(&files)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{complaint}");
    assert_eq!(complaint, "", "not even a warning");
}
