//! Manifests as data: the good ones apply, and each wrong one says exactly what stands beside it.
//!
//! `KUAFU_BLESS=1 cargo test -p kuafu-model --test manifests` writes the messages anew, to be reviewed as a change.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests state facts")]

use std::path::{Path, PathBuf};

use kuafu_model::kinds::{Kind, Name, Object};
use kuafu_model::manifest::{File, Intent, ManifestError, parse};

fn data(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/manifests")
        .join(folder);
    let mut files: Vec<PathBuf> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn apply(intent: &Intent, path: &Path) -> Result<Intent, Vec<ManifestError>> {
    let (name, text) = (
        path.file_name().unwrap().to_str().unwrap(),
        std::fs::read_to_string(path).unwrap(),
    );
    intent.apply(&parse(&[File { name, text: &text }])?)
}

fn good(name: &str) -> Intent {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/manifests/good")
        .join(name);
    apply(&Intent::default(), &path).unwrap_or_else(|errors| panic!("{name}: {}", lines(&errors)))
}

fn lines<T: ToString>(errors: &[T]) -> String {
    errors.iter().map(|error| error.to_string() + "\n").collect()
}

#[test]
fn the_examples_are_taken() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for files in [
        ["two-hosts/nodes.yaml", "two-hosts/vpc.yaml"],
        ["accelerate/nodes.yaml", "accelerate/game.yaml"],
        ["containers/nodes.yaml", "containers/shop.yaml"],
        ["scale/nodes.yaml", "scale/web.yaml"],
    ] {
        let mut intent = Intent::default();
        for file in files {
            intent = apply(&intent, &examples.join(file))
                .unwrap_or_else(|errors| panic!("{file}: {}", lines(&errors)));
        }
    }
}

#[test]
fn each_wrong_manifest_says_what_is_wrong_and_changes_nothing() {
    let intent = good("base.yaml");
    let before = intent.clone();
    let cases = data("wrong");
    assert!(cases.len() >= 90, "{} cases", cases.len());
    for path in cases {
        let errors = apply(&intent, &path).expect_err(&format!("{} was taken", path.display()));
        let (found, beside) = (lines(&errors), path.with_extension("txt"));
        if std::env::var_os("KUAFU_BLESS").is_some() {
            std::fs::write(&beside, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&beside).unwrap();
        assert_eq!(found, expected, "{}", path.display());
        assert_eq!(intent, before);
    }
}

#[test]
fn a_ring_takes_all_targets_that_are_declared() {
    let service = |name: &str, network: usize, count: usize| {
        let target = |host: usize| format!("{{address: 198.{network}.{}.{}}}", host / 250, host % 250 + 1);
        let targets: Vec<String> = (0..count).map(target).collect();
        format!(
            "kind: Service\nmetadata: {{name: {name}}}\nspec: {{targets: [{}]}}\n---\n",
            targets.join(", ")
        )
    };
    let refused = |text: &str| {
        lines(
            &good("base.yaml")
                .apply_files(&[File { name: "t", text }])
                .unwrap_err(),
        )
    };
    let long = refused(&service("long", 51, 1001));
    assert_eq!(
        long,
        "t:3: spec.targets: holds 1001 items; at most 1000 are allowed\n"
    );
    let names: Vec<String> = (0..7).map(|number| format!("many-{number}")).collect();
    let many: String = names
        .iter()
        .zip(52..)
        .map(|(name, network)| service(name, network, 1000))
        .collect();
    let groups: Vec<String> = names
        .iter()
        .map(|name| format!("{{service: {name}, region: af-south-1}}"))
        .collect();
    let accelerator = format!(
        "kind: Accelerator\nmetadata: {{name: lobby}}\nspec: {{pool: asia, listeners: [{{protocol: udp, port: 77}}], \
         groups: [{}]}}\n",
        groups.join(", ")
    );
    let many = refused(&(many + &accelerator));
    assert!(
        many.ends_with(
            "spec.groups: the services of its groups have 7000 targets together; at most 6553 fit a ring\n"
        ),
        "{many}"
    );
}

/// Nodes that are servers, and the service that selects them.
fn selected(nodes: &[(&str, &str, u8, &str)], spec: &str) -> String {
    let node = |(name, labels, last, more): &(&str, &str, u8, &str)| {
        format!(
            "kind: Node\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec: {{region: eu-west-1, agent: false, \
             address: {{local: 192.0.2.{last}}}{more}}}\n---\n"
        )
    };
    let nodes: String = nodes.iter().map(node).collect();
    nodes + &format!("kind: Service\nmetadata: {{name: web}}\nspec: {{{spec}}}\n")
}

#[test]
fn nodes_are_targets_by_their_labels() {
    let text = selected(
        &[
            ("web-b", "role: web, tier: \"1\"", 31, ", site: dub-1"),
            ("web-a", "tier: \"1\", role: web, team: blue", 32, ", drain: true"),
            ("web-c", "role: web, tier: \"1\"", 33, ""),
            ("web-d", "role: web", 34, ""),
        ],
        "targets: [{address: 192.0.2.33, weight: 7}, {address: 198.51.100.9}], select: {labels: {role: web, tier: \"1\"}, \
         port: 8080, weight: 3}",
    );
    let of = |intent: &Intent| -> Vec<String> {
        let targets = intent.targets(&intent.services()["web"]).into_owned();
        let shown = targets.iter().map(|target| {
            let port = target.port.map(|port| port.get());
            let place =
                [&target.region, &target.site].map(|place| place.as_ref().map_or("-", |name| name.as_str()));
            format!(
                "{} {port:?} {} {}",
                target.address,
                target.share(),
                place.join(" ")
            )
        });
        shown.collect()
    };
    let declared = ["192.0.2.33 None 7 - -", "198.51.100.9 None 1 - -"];
    let apply = |intent: &Intent, text: &str| {
        let file = File { name: "t", text };
        intent.apply_files(&[file]).map(|applied| applied.intent)
    };
    let intent = apply(&good("base.yaml"), &text).unwrap();
    let of_nodes = [
        "192.0.2.32 Some(8080) 0 eu-west-1 -",
        "192.0.2.31 Some(8080) 3 eu-west-1 dub-1",
    ];
    assert_eq!(of(&intent), [declared, of_nodes].concat());
    // A node that gets the labels joins, one that goes leaves.
    let more = text.replace("labels: {role: web}}", "labels: {role: web, tier: \"1\"}}");
    let more = apply(&intent, &more).unwrap();
    assert_eq!(of(&more)[4..], ["192.0.2.34 Some(8080) 3 eu-west-1 -"]);
    let fewer = intent.delete(&["node/web-b".parse().unwrap()]).unwrap();
    assert_eq!(of(&fewer), [&declared[..], &of_nodes[..1]].concat());
}

#[test]
fn no_more_targets_are_selected_than_a_service_may_have() {
    let node = |number: usize| {
        let (high, low) = (number / 250, number % 250 + 1);
        format!(
            "kind: Node\nmetadata: {{name: web-{number}, labels: {{role: web}}}}\nspec: {{region: a, agent: false, address: \
             {{local: 198.18.{high}.{low}}}}}\n---\n"
        )
    };
    let service = |targets: &str| {
        format!(
            "kind: Service\nmetadata: {{name: web}}\nspec: {{{targets}select: {{labels: {{role: web}}}}}}\n"
        )
    };
    let text: String = (0..1000).map(node).chain([service("")]).collect();
    let apply = |intent: &Intent, text: &str| intent.apply_files(&[File { name: "t", text }]);
    let full = apply(&good("base.yaml"), &text).unwrap().intent;
    assert_eq!(full.targets(&full.services()["web"]).len(), 1000);
    let says = "it has 1001 targets with those that it selects and its hook names; at most 1000 are allowed: select fewer by \
                further labels, let the hook name fewer, or make several services\n";
    let one_more = lines(&apply(&full, &node(1000)).unwrap_err());
    assert_eq!(
        one_more,
        format!("t:2: metadata.labels: this conflicts with service/web, spec.select: {says}")
    );
    let declared = service("targets: [{address: 203.0.113.9}], ");
    assert_eq!(
        lines(&apply(&full, &declared).unwrap_err()),
        format!("t:3: spec.select: {says}")
    );
}

/// A port of a VPC on a node that runs no agent.
fn red_port(number: usize) -> String {
    let (high, low) = (number / 250, number % 250 + 1);
    format!(
        "kind: Port\nmetadata: {{name: web-{number}, labels: {{role: web}}}}\nspec: {{vpc: red, node: rack, address: \
         10.0.{high}.{low}, mac: \"52:54:00:01:{high:02x}:{low:02x}\"}}\n---\n"
    )
}

/// A VPC with room for many, and a service that selects its ports.
const SELECT_PORTS: &str = "kind: Node
metadata: {name: rack}
spec: {region: a, agent: false, address: {local: 192.0.2.4}}
---
kind: Node
metadata: {name: osaka}
spec: {region: a, address: {local: 192.0.2.1}}
---
kind: Vpc
metadata: {name: red}
spec: {cidr: 10.0.0.0/16, vni: 100}
---
kind: AddressPool
metadata: {name: asia}
spec: {addresses: [{node: osaka, public: 203.0.113.1}]}
---
kind: Service
metadata: {name: web}
spec:
  pool: asia
  listeners: [{protocol: tcp, port: 80}]
  mode: vxlan
  vpc: red
  select: {labels: {role: web}}
---
";

#[test]
fn a_port_too_many_is_blamed_for_its_labels() {
    let apply = |intent: &Intent, text: &str| intent.apply_files(&[File { name: "t", text }]);
    let text: String = std::iter::once(SELECT_PORTS.to_owned())
        .chain((0..1000).map(red_port))
        .collect();
    let full = apply(&Intent::default(), &text).unwrap().intent;
    let nobody = apply(&Intent::default(), SELECT_PORTS).unwrap().intent;
    let names = |intent: &Intent| intent.selecting_nobody().map(Name::to_string).collect::<Vec<_>>();
    assert_eq!((names(&nobody), names(&full)), (vec!["web".to_owned()], vec![]));
    // A node with the same labels is none of its targets.
    let node = "kind: Node\nmetadata: {name: web, labels: {role: web}}\nspec: {region: a, agent: false, address: {local: \
                192.0.2.9}}\n";
    assert!(apply(&full, node).is_ok());
    assert_eq!(
        lines(&apply(&full, &red_port(1000)).unwrap_err()),
        "t:2: metadata.labels: this conflicts with service/web, spec.select: it has 1001 targets with those that it selects \
         and its hook names; at most 1000 are allowed: select fewer by further labels, let the hook name fewer, or make \
         several services\n"
    );
}

#[test]
fn a_selected_port_drains_with_its_node() {
    let text = SELECT_PORTS.to_owned() + &red_port(0);
    let drains = |text: &str| -> Vec<bool> {
        let applied = Intent::default().apply_files(&[File { name: "t", text }]);
        let intent = applied.unwrap().intent;
        let all = intent.all_targets();
        let one = intent.targets(&intent.services()["web"]);
        assert_eq!(one, *all.iter().next().unwrap().1);
        one.iter().map(|target| target.drain).collect()
    };
    assert_eq!(drains(&text), [false]);
    assert_eq!(
        drains(&text.replace("agent: false,", "agent: false, drain: true,")),
        [true]
    );
}

#[test]
fn a_node_too_many_for_an_accelerator_is_blamed_for_its_labels() {
    let node = |number: usize| {
        let (high, low) = (number / 250, number % 250 + 1);
        format!(
            "kind: Node\nmetadata: {{name: web-{number}, labels: {{role: web}}}}\nspec: {{region: a, agent: false, address: \
             {{local: 198.18.{high}.{low}}}}}\n---\n"
        )
    };
    let names: Vec<String> = (0..7).map(|number| format!("many-{number}")).collect();
    let service = |name: &String| {
        format!(
            "kind: Service\nmetadata: {{name: {name}}}\nspec: {{select: {{labels: {{role: web}}}}}}\n---\n"
        )
    };
    let group = |name: &String| format!("{{service: {name}, region: af-south-1}}");
    let accelerator = format!(
        "kind: Accelerator\nmetadata: {{name: lobby}}\nspec: {{pool: asia, listeners: [{{protocol: udp, port: 77}}], \
         groups: [{}]}}\n",
        names.iter().map(group).collect::<Vec<_>>().join(", ")
    );
    let services = names.iter().map(service);
    let text: String = (0..936).map(node).chain(services).chain([accelerator]).collect();
    let apply = |intent: &Intent, text: &str| intent.apply_files(&[File { name: "t", text }]);
    let full = apply(&good("base.yaml"), &text).unwrap().intent;
    assert_eq!(
        lines(&apply(&full, &node(936)).unwrap_err()),
        "t:2: metadata.labels: this conflicts with accelerator/lobby, spec.groups: the services of its groups have 6559 \
         targets together; at most 6553 fit a ring\n"
    );
}

#[test]
fn who_makes_targets_near_to_one_node_of_an_address_alone_is_blamed() {
    let node = |name: &str, region: &str, last: u8, more: &str| {
        format!(
            "kind: Node\nmetadata: {{name: {name}{more}}}\nspec: {{region: {region}, address: {{local: 192.0.2.{last}}}}}\n---\n"
        )
    };
    let labels = ", labels: {role: web}";
    let text = [
        node("left", "a", 1, ""),
        node("right", "a", 2, ""),
        node("web-a", "a", 3, labels),
        node("web-b", "b", 4, labels),
        "kind: AddressPool\nmetadata: {name: both}\nspec: {reach: arp, addresses: [{nodes: [left, right], public: \
         192.0.2.9}]}\n---\n"
            .to_owned(),
        "kind: Service\nmetadata: {name: web}\nspec: {pool: both, listeners: [{protocol: tcp, port: 80}], mode: ipip, prefer: \
         region, select: {labels: {role: web}}}\n"
            .to_owned(),
    ];
    let apply = |intent: &Intent, text: &str| intent.apply_files(&[File { name: "t", text }]);
    let intent = apply(&Intent::default(), &text.concat()).unwrap().intent;
    let says = "this conflicts with service/web, spec.prefer: node/left and node/right may both hold 192.0.2.9, and other \
                targets are near to the one than to the other: in mode ipip a flow that moves with the address would go to \
                another server; give the nodes of an address one region, or choose prefer: none, or mode: nat\n";
    assert_eq!(
        lines(&apply(&intent, &node("right", "b", 2, "")).unwrap_err()),
        format!("t:3: spec.region: {says}")
    );
    // To both of them all is equally far: it is the target that makes the difference.
    let far = [node("right", "c", 2, ""), node("web-a", "b", 3, labels)];
    let far = apply(&intent, &far.concat()).unwrap().intent;
    assert_eq!(
        lines(&apply(&far, &node("web-a", "a", 3, labels)).unwrap_err()),
        format!("t:3: spec.region: {says}")
    );
}

#[test]
fn good_manifests_apply_and_apply_again() {
    for path in data("good") {
        let intent = apply(&Intent::default(), &path).unwrap_or_else(|errors| panic!("{}", lines(&errors)));
        assert_eq!(apply(&intent, &path).unwrap(), intent, "{}", path.display());
    }
}

#[test]
fn defaults_are_filled_in() {
    let intent = good("base.yaml");
    let [Object::Node(osaka)] = &*intent
        .get(&"node/osaka".parse().unwrap())
        .into_iter()
        .collect::<Vec<_>>()
    else {
        panic!("no node/osaka");
    };
    assert_eq!(osaka.spec.udp_port.get(), 6081);
    assert_eq!(osaka.spec.nat_ports.to_string(), "10000-29999");
    assert_eq!(osaka.spec.address.public, osaka.spec.address.local);
    assert!(osaka.spec.agent);

    let arena = &intent.accelerators()["arena"];
    assert_eq!(
        (
            arena.spec.idle_timeout.udp_s.get(),
            arena.spec.idle_timeout.tcp_s.get()
        ),
        (60, 3600)
    );
    assert_eq!(
        (arena.spec.class.word(), arena.spec.groups[0].dial.get()),
        ("game", 100)
    );
    let listens: Vec<_> = intent
        .accelerated_addresses(arena)
        .map(|address| address.local.to_string())
        .collect();
    assert_eq!(listens, ["203.0.113.1", "10.0.0.20"]);
    assert_eq!(
        intent.ports()["red-a"].spec.mac().to_string(),
        "02:00:0a:00:00:05"
    );
}

#[test]
fn the_demo_is_all_there() {
    let intent = good("demo-accelerator.yaml");
    assert_eq!(intent.nodes().len(), 10);
    assert_eq!(intent.accelerators().len(), 4);
    let entries = intent.accelerators()["files-oregon"]
        .spec
        .entries
        .as_ref()
        .unwrap();
    assert_eq!(entries[0].as_str(), "calgary");
    let vpc = good("demo-vpc.yaml");
    assert_eq!((vpc.vpcs().len(), vpc.ports().len()), (2, 7));
    assert_eq!(vpc.of_kind(Kind::Port)[0].id().to_string(), "port/blue-a");
}

#[test]
fn an_apply_says_what_becomes_of_each_object() {
    let intent = good("base.yaml");
    let text = "kind: Vpc\nmetadata: {name: green}\nspec: {cidr: 10.0.0.0/24}\n---\n\
                kind: Vpc\nmetadata: {name: blue}\nspec: {cidr: 10.0.0.0/24}\n---\n\
                kind: Vpc\nmetadata: {name: red}\nspec: {cidr: 10.0.0.0/16, vni: 100, mtu: 1400}\n";
    let applied = intent.apply_files(&[File { name: "a.yaml", text }]).unwrap();
    assert_eq!(
        lines(&applied.changes),
        "vpc/green created\nvpc/blue unchanged\nvpc/red updated\n"
    );
    let without = applied.intent.delete(&["vpc/blue".parse().unwrap()]).unwrap();
    assert_eq!(
        lines(&without.changes_since(&intent)),
        "vpc/blue deleted\nvpc/green created\nvpc/red updated\n"
    );
    assert!(intent.changes_since(&intent.clone()).is_empty());
}

#[test]
fn errors_of_several_files_come_together() {
    let wrong = "kind: Vpc\nmetadata: {name: a}\nspec: {}\n";
    let files = [
        File {
            name: "a.yaml",
            text: wrong,
        },
        File {
            name: "b.yaml",
            text: "kind: [",
        },
    ];
    let errors = parse(&files).unwrap_err();
    assert_eq!(
        lines(&errors),
        "a.yaml:3: spec.cidr: missing; expected an IPv4 prefix, such as 10.0.0.0/16\n\
         b.yaml:1: unclosed bracket '['\n"
    );
}

#[test]
fn what_others_use_is_not_deleted() {
    let intent = good("base.yaml");
    let delete = |names: &[&str]| {
        let objects: Vec<_> = names.iter().map(|name| name.parse().unwrap()).collect();
        intent.delete(&objects).map_err(|errors| lines(&errors))
    };
    assert_eq!(
        delete(&["vpc/red"]).unwrap_err(),
        "vpc/red is in use by port/red-a (spec.vpc), port/red-rack (spec.vpc); delete or change them first\n"
    );
    assert_eq!(
        delete(&["node/osaka"]).unwrap_err(),
        "node/osaka is in use by port/red-a (spec.node), addresspool/asia (spec.addresses[0].node); \
         delete or change them first\n"
    );
    assert_eq!(
        delete(&["node/cape-town"]).unwrap_err(),
        "without it accelerator/arena is wrong: spec.groups[0].region: no node with an agent is in region af-south-1; \
         regions with one: ap-east-1, ap-northeast-3\n"
    );
    assert_eq!(
        delete(&["vpc/bleu"]).unwrap_err(),
        "there is no vpc/bleu; did you mean vpc/blue?\n"
    );

    let without = delete(&["vpc/red", "port/red-a", "port/red-rack"]).unwrap();
    assert_eq!(without.vpcs().len(), 1);
    assert!(without.ports().is_empty());
}

/// In the VPC of the base.
const IN_RED: &str = "
kind: AddressPool
metadata: {name: plain}
spec: {addresses: [{node: osaka, public: 203.0.113.99}]}
---
kind: Service
metadata: {name: web}
spec:
  pool: plain
  listeners: [{protocol: tcp, port: 80}]
  mode: vxlan
  vpc: red
  targets: [{address: 10.0.0.5}, {address: 10.0.0.6}]
";

#[test]
fn a_port_that_serves_is_not_taken_away() {
    let file = File {
        name: "web",
        text: IN_RED,
    };
    let intent = good("base.yaml").apply_files(&[file]).unwrap().intent;
    let port = "port/red-a".parse().unwrap();
    let refused = intent.delete(&[port]).unwrap_err();
    assert_eq!(
        lines(&refused),
        "without it service/web is wrong: spec.targets[0].address: 10.0.0.5 is no port of vpc/red; declare that, or \
         name the address of one that is\n"
    );
    let moved = File {
        name: "moved",
        text: "kind: Port\nmetadata: {name: red-a}\nspec: {vpc: red, node: osaka, address: 10.0.0.7, interface: veth-red-a}\n",
    };
    let refused = intent.apply_files(&[moved]).unwrap_err();
    assert_eq!(refused.len(), 1);
    assert_eq!((&*refused[0].file, &*refused[0].field), ("moved", "spec.address"));
}

/// A service at the pool `asia`, whose shield names these lists.
fn shielded(name: &str, port: u16, block: &[String]) -> String {
    format!(
        "kind: Service\nmetadata: {{name: {name}}}\nspec:\n  pool: asia\n  listeners: [{{protocol: tcp, port: {port}}}]\n  \
         targets: [{{address: 198.51.100.8}}]\n  shield: {{block: [{}]}}\n---\n",
        block.join(", ")
    )
}

fn list(name: &str, prefixes: &str) -> String {
    format!("kind: PrefixList\nmetadata: {{name: {name}}}\nspec: {{prefixes: [{prefixes}]}}\n---\n")
}

#[test]
fn a_list_that_a_shield_names_is_not_deleted() {
    let text = list("bots", "198.51.100.0/24") + &shielded("web", 443, &["bots".to_owned()]);
    let file = File {
        name: "t",
        text: &text,
    };
    let intent = good("base.yaml").apply_files(&[file]).unwrap().intent;
    assert_eq!(
        lines(&intent.delete(&["prefixlist/bots".parse().unwrap()]).unwrap_err()),
        "prefixlist/bots is in use by service/web (spec.shield.block[0]); delete or change them first\n"
    );
    assert_eq!(
        lines(&intent.delete(&["prefixlist/bost".parse().unwrap()]).unwrap_err()),
        "there is no prefixlist/bost; did you mean prefixlist/bots?\n"
    );
}

#[test]
fn a_host_tells_32_lists_apart() {
    let names: Vec<String> = (0..33).map(|number| format!("list-{number}")).collect();
    let lists: String = names.iter().map(|name| list(name, "198.51.100.0/24")).collect();
    let text = |names: &[String]| {
        lists.clone() + &shielded("web", 443, &names[..20]) + &shielded("mail", 25, &names[15..])
    };
    let base = good("base.yaml");
    let apply = |text: &str| base.apply_files(&[File { name: "t", text }]);
    let taken = apply(&text(&names[..32])).unwrap().intent;
    assert_eq!(taken.prefix_lists().len(), 33);
    let refused: String = ["hong-kong", "osaka"]
        .iter()
        .map(|node| {
            format!(
                "t:147: spec.shield: the shields on node/{node} name 33 lists together; at most 32 fit a host: join lists \
                 that are named together into one\n"
            )
        })
        .collect();
    assert_eq!(lines(&apply(&text(&names)).unwrap_err()), refused);
    // Of what is there already, what changes is to blame.
    let text = shielded("web", 443, &[&names[..20], &names[32..]].concat());
    let errors = lines(
        &taken
            .apply_files(&[File {
                name: "t",
                text: &text,
            }])
            .unwrap_err(),
    );
    assert!(
        errors.starts_with("t:3: spec.shield: this conflicts with service/mail, spec.shield: ")
            || errors.starts_with("t:7: spec.shield: the shields on node/hong-kong name 33 lists together"),
        "{errors}"
    );
}

/// 8,192 prefixes of /25 take as many places as a host has; who has them twice takes none more.
#[test]
fn a_host_has_places_for_lists() {
    let of = |name: &str, first: u32, count: u32| {
        let prefixes: Vec<String> = (first..first + count)
            .map(|number| format!("{}/25", std::net::Ipv4Addr::from((20 << 24) + number * 256)))
            .collect();
        list(name, &prefixes.join(", "))
    };
    let lists = of("half", 0, 4_096) + &of("whole", 0, 8_192) + &of("more", 8_192, 1);
    let text = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        lists.clone() + &shielded("web", 443, &names)
    };
    let base = good("base.yaml");
    let apply = |text: &str| base.apply_files(&[File { name: "t", text }]);
    apply(&text(&["half", "whole"])).unwrap();
    let refused = lines(&apply(&text(&["whole", "more"])).unwrap_err());
    assert_eq!(refused.lines().count(), 2, "{refused}");
    for (line, node) in refused.lines().zip(["hong-kong", "osaka"]) {
        let expected = format!(
            "t:19: spec.shield: the lists that shields on node/{node} name do not fit it together: a prefix of /17 to /24 \
             takes a place for each /24 in it, a longer one for each address, and there are 1048576; write fewer, or \
             shorter, prefixes"
        );
        assert_eq!(line, expected);
    }
}

#[test]
fn a_list_takes_200_000_prefixes() {
    let of = |count: u32| {
        let prefixes: Vec<String> = (0..count)
            .map(|number| format!("{}/32", std::net::Ipv4Addr::from((1 << 24) + number * 7)))
            .collect();
        list("many", &prefixes.join(", "))
    };
    let text = of(200_000);
    let applied = good("base.yaml").apply_files(&[File {
        name: "t",
        text: &text,
    }]);
    assert_eq!(lines(&applied.unwrap().changes), "prefixlist/many created\n");
    let errors = parse(&[File {
        name: "t",
        text: &of(200_001),
    }])
    .unwrap_err();
    assert_eq!(
        lines(&errors),
        "t:3: spec.prefixes: holds 200001 items; at most 200000 are allowed\n"
    );
}

#[test]
fn expansion_of_aliases_is_bounded() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(10);
        text += &format!("a{level}: &a{level} [{previous}]\n");
    }
    let errors = parse(&[File {
        name: "bomb.yaml",
        text: &text,
    }])
    .unwrap_err();
    assert_eq!(errors.len(), 1);
}
