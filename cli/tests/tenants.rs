//! Two VPCs with the same addresses on three hosts, and a plain Linux vxlan device as a fourth host of one of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "a test that cannot go on has failed; the demonstration's parts are used in parts"
)]

#[path = "../src/demo/cluster.rs"]
mod cluster;
mod common;
#[path = "../src/demo/intent.rs"]
mod intent;
#[path = "../src/demo/play.rs"]
mod play;
#[path = "../src/demo/report.rs"]
mod report;
#[path = "../src/demo/tenants.rs"]
mod tenants;

use std::process::Command;
use std::time::Duration;

use common::{Stage, skipped};
use tenants::Tenants;

const WORLD: &str = "
seed: 11
mtu: 1500
sites:
  - {name: osaka, role: node, region: ap-northeast-3}
  - {name: bahrain, role: node, region: me-south-1}
  - {name: montreal, role: node, region: ca-central-1}
  - {name: plain, role: client, region: us-east-1, access_ms: 1}
  - {name: control, role: controller, region: us-east-1, access_ms: 1}
";
/// For whatever is waited for.
const LIMIT: Duration = Duration::from_secs(60);
/// The Ethernet address of the plain host's device.
const MAC: &str = "52:54:00:00:00:04";

#[test]
fn tenants_never_meet() {
    if skipped() {
        return;
    }
    let stage = Stage::of(WORLD, intent::nodes).unwrap();
    let tenants = Tenants::build(&stage.world).unwrap();
    let manifests = Tenants::manifests().unwrap();
    stage
        .cluster
        .apply(&stage.world, "tenants.yaml", &manifests)
        .unwrap();
    stage
        .cluster
        .until("the tenants' machines reach each other", LIMIT, || {
            tenants.are_connected().then_some(())
        })
        .unwrap();
    let seen = tenants.try_all().unwrap();
    println!("{seen:?}");
    assert_eq!(seen.foreign, 0);
    assert_eq!(seen.own, 18, "each of six machines hears from three");
    a_plain_vxlan_device_takes_part(&stage, &tenants);
}

/// The kernel's own vxlan, without anything of Kuafu on its host.
fn a_plain_vxlan_device_takes_part(stage: &Stage, tenants: &Tenants) {
    let address = stage.world.site("plain").unwrap().address();
    let manifest = format!(
        "kind: Node\nmetadata: {{name: plain}}\nspec:\n  agent: false\n  region: us-east-1\n  address: {{local: {0}, public: \
         {1}}}\n---\nkind: Port\nmetadata: {{name: acme-plain}}\nspec: {{vpc: acme, node: plain, address: 10.0.0.4, mac: \
         \"{MAC}\"}}\n",
        address.local, address.public
    );
    let mut lines = vec![
        format!(
            "link add vx0 address {MAC} mtu 1450 type vxlan id 100 local {} dstport 4789",
            address.local
        ),
        "address add 10.0.0.4/24 dev vx0".to_owned(),
        "link set vx0 up".to_owned(),
    ];
    let namespace = stage.world.netns("plain").unwrap();
    namespace.ip(lines.drain(..)).unwrap();
    for host in tenants::HOSTS {
        let vtep = stage.world.site(host).unwrap().address().public;
        let mut flood = Command::new("bridge");
        flood.args(["fdb", "append", "00:00:00:00:00:00", "dev", "vx0", "dst"]);
        flood.arg(vtep.to_string());
        assert!(namespace.output(flood, LIMIT).unwrap().status.success());
    }
    stage
        .cluster
        .apply(&stage.world, "plain.yaml", &manifest)
        .unwrap();
    let ping = |namespace: &kuafu_lab::Namespace, to: &str| {
        let mut ping = Command::new("ping");
        ping.args(["-c", "3", "-W", "2", to]);
        namespace.output(ping, LIMIT).unwrap().status.success()
    };
    let both = || {
        let there = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
            .iter()
            .all(|to| ping(namespace, to));
        (there && ping(&tenants.machines[0].namespace, "10.0.0.4")).then_some(())
    };
    stage
        .cluster
        .until("the plain vxlan device talks with every port", LIMIT, both)
        .unwrap();
    assert!(!ping(
        &tenants.machines[tenants::HOSTS.len()].namespace,
        "10.0.0.4"
    ));
}
