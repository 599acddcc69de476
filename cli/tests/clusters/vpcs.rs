//! Two VPCs with the same addresses on three hosts, and a plain Linux vxlan device as a fourth host of one of them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::time::Duration;

use super::common::programs::{self, Capture};
use super::common::sizes::{self, Cut, LARGE, TRANSFER, Talk, Watch};
use super::common::{Stage, skipped};
use super::tenants::Tenants;
use super::{intent, tenants};

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
    let stage = Stage::of(WORLD, |world| intent::nodes(world)).unwrap();
    let tenants = Tenants::rent(&stage.world, &stage.cluster, LIMIT).unwrap();
    the_wire_carries_vxlan(&stage, &tenants);
    large_packets_have_a_defined_result(&stage, &tenants);
    let seen = tenants.try_all().unwrap();
    println!("{seen:?}");
    assert_eq!(seen.foreign, 0);
    assert_eq!(seen.own, 18, "each of six machines hears from three");
    a_plain_vxlan_device_takes_part(&stage, &tenants);
}

/// tshark reads both VPCs' VXLAN between two hosts, and finds nothing malformed.
fn the_wire_carries_vxlan(stage: &Stage, tenants: &Tenants) {
    if let Some(absent) = programs::absent() {
        return kuafu_lab::skip(format!("no {absent}: cargo xtask setup"));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("osaka.pcap");
    let capture = Capture::start(stage.world.netns("osaka").unwrap(), "eth0", &file);
    assert!(tenants.are_connected());
    let vnis: BTreeSet<String> = capture.decode("vxlan", &["vxlan.vni"]).into_iter().collect();
    assert_eq!(vnis.len(), 2, "{vnis:?}");
    assert_eq!(
        programs::decode(&file, "_ws.malformed", &["frame.number"]),
        Vec::<String>::new()
    );
}

/// Datagrams whose packets have 1,500 octets where a VPC carries 1,450, and 10 MB of TCP.
///
/// | sender | must not be cut (DF) | may be cut |
/// |---|---|---|
/// | knows 1,450: by its device, or as it was told | refused by its own stack | two fragments, delivered |
/// | does not | `too_big`: it is told | `needs_fragmentation` |
fn large_packets_have_a_defined_result(stage: &Stage, tenants: &Tenants) {
    let hosts = tenants::HOSTS.map(|host| (host, stage.world.netns(host).unwrap()));
    let mut watch = Watch::start(hosts.to_vec());
    let (acme, globex) = tenants.machines.split_at(tenants::HOSTS.len());
    let to = |last| SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, last), 9_001);

    let knowing = Talk::begin(&acme[0].namespace, &acme[1].namespace, to(2));
    watch.settle();
    knowing.is_refused(0);
    watch.expect(&[]);
    two_fragments_arrive(&knowing, &mut watch);

    for ((_, host), machine) in hosts.iter().zip(globex) {
        host.ip(["link set dev globex0 mtu 1500"]).unwrap();
        machine.namespace.ip(["link set dev eth0 mtu 1500"]).unwrap();
    }
    let ignorant = Talk::begin(&globex[0].namespace, &globex[1].namespace, to(2));
    watch.settle();
    ignorant.send(0, LARGE, Cut::Freely).unwrap();
    watch.expect(&[("osaka", "needs_fragmentation", 1)]);
    ignorant.send(0, LARGE, Cut::Never).unwrap();
    ignorant.is_told(0, 1_450);
    watch.expect(&[("osaka", "too_big", 1)]);
    ignorant.is_refused(0);
    watch.expect(&[]);
    two_fragments_arrive(&ignorant, &mut watch);

    let change = sizes::transfer(&mut watch, &globex[0].namespace, &globex[2].namespace, to(3));
    let words: Vec<_> = change
        .keys()
        .map(|(host, word)| format!("{host} {word}"))
        .collect();
    let each = ["too_big", "vxlan_received", "vxlan_sent"];
    let both = ["montreal", "osaka"].map(|host| each.map(|word| format!("{host} {word}")));
    assert_eq!(words, both.concat());
    let carried = change.iter().filter(|((_, word), _)| word != "too_big");
    for (key, [_, octets]) in carried {
        assert!(*octets > TRANSFER as u64, "{key:?}: {octets}");
    }
}

fn two_fragments_arrive(talk: &Talk, watch: &mut Watch<'_>) {
    talk.send(0, LARGE, Cut::Freely).unwrap();
    talk.arrives(1, LARGE);
    watch.expect(&[("bahrain", "vxlan_received", 2), ("osaka", "vxlan_sent", 2)]);
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
