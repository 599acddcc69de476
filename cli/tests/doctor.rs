//! `kuafu doctor` tells what stands between a host and its controller: each kind of NAT and firewall, real ones.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use kuafu_lab::link::{End, veth};
use kuafu_lab::{Namespace, Process, Signal};
use serde_json::Value;
use tempfile::TempDir;

const CONTROLLER: &str = "198.51.100.1:7440";
/// For one command.
const LIMIT: Duration = Duration::from_secs(60);

const PLAIN: &str = "";
const ONE_TO_ONE: &str = "table ip nat {
    chain in { type nat hook prerouting priority dstnat; iifname wan0 ip daddr 203.0.113.7 dnat to 10.1.0.2; }
    chain out { type nat hook postrouting priority srcnat; oifname wan0 ip saddr 10.1.0.2 snat to 203.0.113.7; }
}";
const MANY: &str = "table ip nat {
    chain out { type nat hook postrouting priority srcnat; oifname wan0 masquerade; }
}";
const REWRITING: &str = "table ip nat {
    chain out { type nat hook postrouting priority srcnat; oifname wan0 meta l4proto udp masquerade to :20000-29999; }
}";
const FIREWALL: &str = "table ip filter {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname lan0 accept
    }
}";
/// On the host itself.
const STRICT: &str = "table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iif lo accept
    }
}";

/// A host, the router before it, and the controller beyond that.
struct Network {
    controller: Process,
    control: Namespace,
    router: Namespace,
    host: Namespace,
    folder: TempDir,
}

impl Network {
    fn build() -> Self {
        let prefix = format!("kfd{}", std::process::id());
        let namespace = |name| Namespace::create(&prefix, name).unwrap();
        let (control, router, host) = (namespace("control"), namespace("router"), namespace("host"));
        let end = |namespace, device, address: &str, gateway: Option<Ipv4Addr>| End {
            addresses: vec![address.parse().unwrap()],
            gateway,
            ..End::new(namespace, device)
        };
        let out = Ipv4Addr::new(198, 51, 100, 254);
        let inner = Ipv4Addr::new(10, 1, 0, 1);
        let wan = end(&router, "wan0", "198.51.100.254/24", None);
        veth(&end(&control, "eth0", "198.51.100.1/24", Some(out)), &wan, 1_500).unwrap();
        let lan = end(&router, "lan0", "10.1.0.1/24", None);
        veth(&end(&host, "eth0", "10.1.0.2/24", Some(inner)), &lan, 1_500).unwrap();
        router.sysctl("net/ipv4/ip_forward", "1").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = kuafu(&folder, "control");
        command.args(["controller", "--listen", CONTROLLER]);
        let mut controller = control.spawn_logged(command, &folder.path().join("log")).unwrap();
        controller.await_line("the controller serves", LIMIT).unwrap();
        Self {
            controller,
            control,
            router,
            host,
            folder,
        }
    }

    /// What `doctor` says of a port that no case before has used, so that no NAT remembers it.
    fn doctor(&self, port: u16) -> Findings {
        let mut command = kuafu(&self.folder, "host");
        command.args(["--controller", CONTROLLER, "doctor", "-o", "json", "--udp-port"]);
        command.arg(port.to_string());
        let output = self.host.output(command, LIMIT).unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap().iter();
        let text = |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
        let checks = checks.map(|check| (text(check, "name"), (text(check, "state"), text(check, "found"))));
        Findings {
            checks: checks.collect(),
            status: output.status.code(),
        }
    }
}

fn kuafu(folder: &TempDir, host: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kuafu"));
    command.arg("--root").arg(folder.path().join(host));
    command
}

/// State and words of each check, by its name.
struct Findings {
    checks: BTreeMap<String, (String, String)>,
    status: Option<i32>,
}

impl Findings {
    /// The check has this state, and says this.
    #[track_caller]
    fn say(&self, name: &str, state: &str, words: &str) {
        let found = self.checks.get(name);
        let said = found.is_some_and(|(is, found)| is == state && found.contains(words));
        assert!(said, "{name} is not {state} with {words:?}: {found:?}");
    }
}

#[test]
fn each_kind_of_nat_and_firewall_is_told_from_the_others() {
    if let Some(why) = kuafu_lab::unavailable() {
        kuafu_lab::skip(why);
        return;
    }
    let mut network = Network::build();
    let set = |namespace: &Namespace, rules: &str| namespace.nft(&format!("flush ruleset\n{rules}")).unwrap();

    let plain = network.doctor(6_081);
    plain.say("controller", "ok", "TCP 198.51.100.1:7440 answers");
    plain.say("udp out", "ok", "answers within");
    plain.say("nat", "ok", "none: 10.1.0.2");
    plain.say("udp in", "ok", "UDP 6081 is open: an answer");
    plain.say("path mtu", "ok", "packets of 1500 come through whole");
    plain.say("clock offset", "ok", "the controller's");
    plain.say("xdp", "ok", "eth0 (veth): generic");
    plain.say("nftables", "ok", "no rule");

    set(&network.router, ONE_TO_ONE);
    let one = network.doctor(6_082);
    one.say("nat", "ok", "--address 10.1.0.2 --public 203.0.113.7");
    one.say("udp in", "ok", "UDP 6082 is open: an answer");
    assert_eq!(one.status, plain.status, "neither has a fault in the network");

    set(&network.router, MANY);
    let many = network.doctor(6_083);
    // It would keep ports, but what came unasked from the other port has taken this one there.
    many.say("nat", "fail", "for another destination");
    many.say("udp in", "fail", "UDP 6083 is blocked");
    assert_eq!(many.status, Some(3));

    set(&network.router, REWRITING);
    network
        .doctor(6_084)
        .say("nat", "fail", "rewrites ports: 10.1.0.2:6084");

    set(&network.router, FIREWALL);
    let walled = network.doctor(6_085);
    walled.say("nat", "ok", "none");
    walled.say(
        "udp in",
        "fail",
        "an answer from another port (UDP 7441) did not arrive",
    );

    set(&network.router, PLAIN);
    set(&network.host, STRICT);
    let strict = network.doctor(6_086);
    strict.say("udp in", "ok", "own packet filter");
    strict.say("nftables", "warn", "inet filter input (policy drop, 2 rules)");
    set(&network.host, PLAIN);

    let narrow = |mtu| {
        let line = |device| format!("link set {device} mtu {mtu}");
        network.router.ip([line("wan0")]).unwrap();
        network.control.ip([line("eth0")]).unwrap();
    };
    narrow(1_400);
    network
        .doctor(6_087)
        .say("path mtu", "warn", "more than 1400 octets do not come through");
    narrow(1_500);

    let taken = network
        .host
        .run(|| UdpSocket::bind("0.0.0.0:6088"))
        .unwrap()
        .unwrap();
    let other = network.doctor(6_088);
    other.say("udp in", "fail", "UDP 6088 is taken by another program");
    other.say("nat", "ok", "none");
    drop(taken);

    network.controller.signal(Signal::SIGKILL).unwrap();
    network.controller.wait(LIMIT).unwrap();
    let gone = network.doctor(6_089);
    gone.say("controller", "fail", "refused");
    gone.say("udp out", "warn", "has no reflector");
}
