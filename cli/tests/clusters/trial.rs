//! A manifest that takes a host's own device: refused, and where it is on trial, undone by the host itself.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::common::{Stage, skipped, soon};
use super::intent;
use kuafu_proto::v1::{ClusterStatus, HistoryAnswer};

const WORLD: &str = "
seed: 12
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3}
  - {name: bahrain, role: node, region: me-south-1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
/// A port on the device by which the host is reached: what it sends is not the port's, so it is dropped.
const CUT: &str = "
kind: Vpc
metadata: {name: red}
spec: {cidr: 10.0.0.0/24}
---
kind: Port
metadata: {name: wrong}
spec: {vpc: red, node: osaka, address: 10.0.0.5, interface: eth0}
";
/// For one answer.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn an_apply_that_cuts_a_host_off_comes_back_by_itself() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cut.yaml");
    std::fs::write(&file, CUT).unwrap();
    let mut stage = Stage::of(WORLD, |world| intent::nodes(world)).unwrap();
    stage.until_connected("osaka");
    stage.until_connected("bahrain");
    let history =
        |stage: &Stage| -> HistoryAnswer { stage.cluster.json(&stage.world, &["history"]).unwrap() };
    let nodes = history(&stage).changes[0].revision;

    it_is_refused_where_it_would_stay(&stage, &file);
    ask(&stage, &["rollback", &nodes.to_string()]);
    soon("the refused state is gone", || {
        stage.status("osaka").filter(|host| host.refused.is_empty())
    });
    assert!(is_reached(&stage));

    let began = Instant::now();
    ask(
        &stage,
        &["apply", "-f", &file.to_string_lossy(), "--confirm", "15s"],
    );
    soon("osaka is cut off", || (!is_reached(&stage)).then_some(()));
    println!("cut off {:?} after the apply", began.elapsed());
    let refused = stage
        .cluster
        .ask(&stage.world, &["delete", "port/wrong"])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("is on trial"), "{refused}");
    // Neither process lives through it.
    stage.kill("osaka", "agent");
    stage.start("osaka", "agent");
    stage.kill_controller();
    stage.start_controller(&[]);

    soon("osaka is back", || is_reached(&stage).then_some(()));
    println!("back {:?} after the apply", began.elapsed());
    stage.until_connected("osaka");
    let words = soon("the history says so", || {
        let history = history(&stage).changes;
        let undone = history.iter().find(|change| change.trial == "undone")?;
        assert_eq!(
            (history[0].cause.as_str(), history[0].of),
            ("return", Some(undone.revision))
        );
        Some(history)
    });
    assert_eq!(words.iter().filter(|change| change.trial == "undone").count(), 1);
    let host = soon("osaka has what it should", || {
        let host = stage.status("osaka")?;
        (host.acked == host.revision && host.refused.is_empty()).then_some(host)
    });
    assert!(host.status.unwrap().ports.is_empty());
    let status: ClusterStatus = stage.cluster.json(&stage.world, &["status"]).unwrap();
    assert_eq!(status.trial, None);

    what_is_confirmed_stays(&stage, folder.path());
}

fn it_is_refused_where_it_would_stay(stage: &Stage, file: &Path) {
    ask(stage, &["apply", "-f", &file.to_string_lossy()]);
    let why = soon("osaka refuses", || {
        let host = stage.status("osaka")?;
        (!host.refused.is_empty()).then_some(host.refused)
    });
    assert!(why.contains("port/wrong takes eth0"), "{why}");
    assert!(why.contains("--confirm"), "{why}");
}

/// A port whose device may still come harms nobody.
fn what_is_confirmed_stays(stage: &Stage, folder: &Path) {
    let file = folder.join("right.yaml");
    std::fs::write(&file, CUT.replace("eth0", "tenant0")).unwrap();
    ask(
        stage,
        &[
            "apply",
            "-f",
            &file.to_string_lossy(),
            "--confirm",
            "60s",
            "--wait",
            "30",
        ],
    );
    ask(stage, &["confirm"]);
    let host = soon("osaka has what it should", || {
        let host = stage.status("osaka")?;
        (host.acked == host.revision).then_some(host)
    });
    assert_eq!(host.status.unwrap().ports.len(), 1);
    let history: HistoryAnswer = stage.cluster.json(&stage.world, &["history"]).unwrap();
    assert_eq!(history.changes[0].trial, "confirmed");
}

fn ask(stage: &Stage, verb: &[&str]) -> String {
    stage.cluster.ask(&stage.world, verb).unwrap()
}

/// Whether the host answers somebody elsewhere.
fn is_reached(stage: &Stage) -> bool {
    let address = stage.world.site("osaka").unwrap().address().public.to_string();
    let mut ping = Command::new("ping");
    ping.args(["-c", "1", "-W", "1", &address]);
    let answered = stage.world.netns("control").unwrap().output(ping, LIMIT);
    answered.unwrap().status.success()
}
