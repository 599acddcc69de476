//! What makes a stock Debian server receive the packets of a service.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::bail;
use kuafu_model::kinds::{AddressPool, Listener, Mode, Mtu, Name, Node, Port, Protocol, Service, Vpc};
use kuafu_model::manifest::Intent;

/// The MTU that servers are taken to have.
const MTU: u16 = 1500;
/// Octets of IPv4's and TCP's headers in front of a segment.
const HEADERS: u16 = 40;
/// Octets that IPv6's header has more.
const MORE_OF_V6: u16 = 20;

/// The lines, each to be run as root.
///
/// # Errors
/// Of a service that rewrites.
pub(crate) fn of(intent: &Intent, service: &Service) -> anyhow::Result<String> {
    let pool = service.spec.pool.as_ref();
    let pool = pool.and_then(|pool| intent.address_pools().get(pool));
    let Some(pool) = pool.filter(|_| service.spec.mode != Mode::Nat) else {
        let name = &service.metadata.name;
        bail!("service/{name} rewrites packets (mode: nat): its servers need no set-up");
    };
    let addresses = addresses(pool);
    if service.spec.mode == Mode::Vxlan {
        return Ok(of_ports(intent, service, &addresses));
    }
    if pool.spec.is_v6() {
        return Ok(of_v6(service, &addresses));
    }
    let mut text = head(service);
    let mut line = |text_of: String| text.push_str(&(text_of + "\n"));
    line("modprobe ipip".into());
    if service.spec.mode == Mode::Gue {
        line("modprobe fou".into());
        let port = service.spec.gue.port;
        line(format!(
            "ip fou show | grep -v -e -6 | grep -q 'port {port} ' || ip fou add port {port} gue"
        ));
    }
    let from = match service.spec.mode {
        Mode::Gue => format!("UDP port {}", service.spec.gue.port),
        _ => "IP protocol 4".to_owned(),
    };
    line(format!(
        "# Where a packet filter runs here or in front: let {from} in, from the nodes of the pool."
    ));
    line("ip link set dev tunl0 up".into());
    line(
        "# Packets come out of tunl0 whose senders are elsewhere: the stricter of these two decides.".into(),
    );
    line("sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0".into());
    line(OWN.into());
    line(SILENT.into());
    for address in &addresses {
        line(own(*address));
    }
    text += &segments(service, &addresses, None);
    Ok(text)
}

const OWN: &str = "# The service's address is this server's own, but nobody on its link shall hear that.";
const SILENT: &str = "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2";

fn own(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("ip address replace {address}/32 dev lo"),
        IpAddr::V6(address) => format!("ip address replace {address}/128 dev lo nodad"),
    }
}

/// The lines of IPv6. What comes from anybody is taken by a device that is `external`, not by the module's own `ip6tnl0`;
/// and Linux answers neighbour solicitations for the addresses of the asked device alone, not for those of `lo`.
fn of_v6(service: &Service, addresses: &[IpAddr]) -> String {
    let port = service.spec.gue.port;
    let mut lines = vec!["modprobe ip6_tunnel".to_owned()];
    let from = if service.spec.mode == Mode::Gue {
        lines.push("modprobe fou".to_owned());
        lines.push(format!(
            "ip fou show | grep -q 'port {port} .*-6' || ip fou add port {port} gue -6"
        ));
        format!("UDP port {port}")
    } else {
        "IP protocol 41".to_owned()
    };
    lines.push(format!(
        "# Where a packet filter runs here or in front: let {from} in, from the nodes of the pool."
    ));
    lines.push(format!(
        "ip link show {V6_DEVICE} >/dev/null 2>&1 || ip link add {V6_DEVICE} type ip6tnl external"
    ));
    lines.push(format!("ip link set dev {V6_DEVICE} up"));
    lines.push(OWN.to_owned());
    lines.extend(addresses.iter().map(|address| own(*address)));
    head(service) + &lines.join("\n") + "\n" + &segments(service, addresses, None)
}

/// Out of it come IPv6 packets that were wrapped in IPv6.
const V6_DEVICE: &str = "kuafu6";

/// A pool's addresses, as packets carry them.
fn addresses(pool: &AddressPool) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = pool.spec.addresses.iter().map(|at| at.local.get()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn head(service: &Service) -> String {
    format!(
        "# Lets a Debian server receive service/{} by {}, and answer clients itself. As root, as often as one
# likes; gone after a reboot.\n",
        service.metadata.name, service.spec.mode
    )
}

/// Octets in the largest IP packet that a server gets, where its VPC or its port may say less than its link.
fn largest(overhead: u16, declared: Option<Mtu>) -> u16 {
    let left = MTU - overhead;
    declared.map_or(left, |declared| left.min(declared.get()))
}

/// What clamps the segments that clients send; nothing without TCP.
fn segments(service: &Service, addresses: &[IpAddr], declared: Option<Mtu>) -> String {
    let tcp = service
        .spec
        .listeners
        .iter()
        .filter(|listener| listener.protocol == Protocol::Tcp);
    let ports =
        tcp.map(|Listener { ports, .. }| ports.only().map_or(ports.to_string(), |one| one.to_string()));
    let ports: Vec<String> = ports.collect();
    if ports.is_empty() {
        return String::new();
    }
    let of_v6 = addresses.iter().any(IpAddr::is_ipv6);
    let of_family = if of_v6 { MORE_OF_V6 } else { 0 };
    let (name, more) = (&service.metadata.name, overhead(service) + of_family);
    let largest = largest(more, declared);
    let rules = rules(
        name,
        (addresses, &ports.join(", ")),
        largest - HEADERS - of_family,
    );
    let why = if largest + more == MTU {
        format!("Requests come with {more} octets more: clients shall send segments that fit {MTU}")
    } else {
        format!("Clients shall send segments that fit this VPC's {largest} octets")
    };
    format!("# {why}.\n{rules}\n")
}

/// The lines of mode vxlan: one script for all targets, of which each server and each container runs its own part.
fn of_ports(intent: &Intent, service: &Service, addresses: &[IpAddr]) -> String {
    let targets = intent.targets(service);
    let is_target = |port: &&Arc<Port>| {
        let mut targets = targets.iter();
        service.spec.vpc.as_ref() == Some(&port.spec.vpc)
            && targets.any(|target| target.address == port.spec.address)
    };
    let mut text = head(service)
        + "# For a container: in its network namespace, for example by `nsenter --net` from its host.\n";
    for port in intent.ports().values().filter(is_target) {
        let (node, vpc) = (
            intent.nodes().get(&port.spec.node),
            intent.vpcs().get(&port.spec.vpc),
        );
        let (Some(node), Some(vpc)) = (node, vpc) else {
            continue;
        };
        text += &if node.spec.agent {
            of_container(service, (port, vpc), addresses)
        } else {
            of_foreign(service, port, (node, vpc), addresses)
        };
    }
    text
}

/// A port where an agent is: the VPC's device is there. What it answers as the service leaves by that device, whatever
/// the container's routes; any next hop will do, since the host takes every packet.
fn of_container(service: &Service, (port, vpc): (&Port, &Vpc), addresses: &[IpAddr]) -> String {
    let (name, node, own_address) = (&port.metadata.name, &port.spec.node, port.spec.address);
    let segment = largest(overhead(service), port.spec.mtu_in(vpc)) - HEADERS;
    let table = table(own_address.get());
    let mut lines = vec![
        format!("# port/{name} on node/{node}"),
        format!("dev=$(ip -o -4 address show to {own_address} | awk '{{print $2; exit}}')"),
        "if [ -n \"$dev\" ]; then".to_owned(),
        UNFILTERED.to_owned(),
        OWN.to_owned(),
        SILENT.to_owned(),
        format!("ip neighbour replace {GATEWAY} lladdr {GATEWAY_MAC} dev $dev nud permanent"),
        format!("ip route replace default via {GATEWAY} dev $dev onlink table {table} advmss {segment}"),
    ];
    for address in addresses {
        lines.push(own(*address));
        // The same rule twice is refused.
        lines.push(format!(
            "ip rule add pref {RULE} from {address} lookup {table} 2>/dev/null || true"
        ));
    }
    lines.push("fi\n".to_owned());
    lines.join("\n")
}

/// The routing table of what a container answers by a port: one for each.
fn table(own_address: Ipv4Addr) -> u32 {
    0x4b00_0000 | u32::from(own_address) & 0x00ff_ffff
}

/// The place of the rules that lead there.
const RULE: u32 = 1075;
/// The only next hop in such a table, which nobody has.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 75, 1);
const GATEWAY_MAC: &str = "02:00:a9:fe:4b:01";
/// Packets come out of the VPC's device whose senders are elsewhere: the stricter of these two decides.
const UNFILTERED: &str = "sysctl -w net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/$dev/rp_filter=0";

/// A port of a host without agent: its VXLAN device, unless it has one that has the port's address.
fn of_foreign(service: &Service, port: &Port, (node, vpc): (&Node, &Vpc), addresses: &[IpAddr]) -> String {
    let (name, node_name, local) = (&port.metadata.name, &node.metadata.name, node.spec.address.local);
    let vni = vpc.spec.vni.map(|vni| vni.to_string()).unwrap_or_default();
    let (own_address, mac) = (port.spec.address, port.spec.mac());
    let declared = port.spec.mtu_in(vpc);
    let mtu = declared.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
    let mut lines = vec![
        format!("# port/{name} on node/{node_name}"),
        format!("if ip -o -4 address show to {local} | grep -q .; then"),
        format!("dev=$(ip -o -4 address show to {own_address} | awk '{{print $2; exit}}')"),
        "if [ -z \"$dev\" ]; then".to_owned(),
        format!("dev=kuafu-{vni}"),
        format!(
            "ip link show $dev >/dev/null 2>&1 || ip link add $dev{mtu} type vxlan id {vni} dstport 4789 local \
             {local} nolearning"
        ),
        format!("ip address replace {own_address}/32 dev $dev"),
        "fi".to_owned(),
        format!("ip link set dev $dev address {mac} up"),
        "# Where a packet filter runs here or in front: let UDP port 4789 in, from the nodes of the pool."
            .to_owned(),
        UNFILTERED.to_owned(),
        OWN.to_owned(),
        SILENT.to_owned(),
    ];
    lines.extend(addresses.iter().map(|address| own(*address)));
    lines.join("\n") + "\n" + &segments(service, addresses, declared) + "fi\n"
}

/// Octets that the encapsulation adds, over IPv4.
fn overhead(service: &Service) -> u16 {
    match (service.spec.mode, service.spec.gue.variant.get()) {
        (Mode::Gue, 0) => 32,
        (Mode::Gue, _) => 28,
        (Mode::Vxlan, _) => 50,
        _ => 20,
    }
}

/// What clamps the segments that the server asks for.
fn rules(name: &Name, (addresses, ports): (&[IpAddr], &str), segment: u16) -> String {
    let family = if addresses.iter().any(IpAddr::is_ipv6) {
        "ip6"
    } else {
        "ip"
    };
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!(
        "nft 'table {family} kuafu-{name}; delete table {family} kuafu-{name}; table {family} kuafu-{name} {{ chain out {{ type \
         filter hook output priority 0; {family} saddr {{ {} }} tcp sport {{ {ports} }} tcp flags & syn == syn tcp option maxseg size set \
         {segment}; }}; }}'",
        addresses.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use kuafu_model::manifest::File;

    use super::*;

    const DECLARED: &str = "
kind: Node
metadata: {name: paris}
spec: {region: r1, address: {local: 192.0.2.1}}
---
kind: AddressPool
metadata: {name: europe}
spec: {addresses: [{node: paris, public: 203.0.113.7}]}
---
kind: Service
metadata: {name: web}
spec: {pool: europe, listeners: [{protocol: tcp, port: 80}], mode: gue, targets: [{address: 192.0.2.9}]}
";

    fn intent(text: &str) -> Intent {
        let file = File { name: "t", text };
        Intent::default().apply_files(&[file]).unwrap().intent
    }

    #[test]
    fn each_port_of_a_service_has_a_part_of_the_lines() {
        let text = "
kind: Node
metadata: {name: rack}
spec: {region: r1, agent: false, address: {local: 192.0.2.9}}
---
kind: Vpc
metadata: {name: red}
spec: {cidr: 10.0.0.0/24, vni: 100}
---
kind: Port
metadata: {name: one}
spec: {vpc: red, node: paris, address: 10.0.0.5, interface: a}
---
kind: Port
metadata: {name: two, labels: {app: web}}
spec: {vpc: red, node: rack, address: 10.0.0.6, mac: \"52:54:00:00:00:06\"}
---
kind: Port
metadata: {name: three}
spec: {vpc: red, node: paris, address: 10.0.0.7, interface: c}
";
        let declared = DECLARED.replace(
            "mode: gue, targets: [{address: 192.0.2.9}]",
            "mode: vxlan, vpc: red, targets: [{address: 10.0.0.5}], select: {labels: {app: web}}",
        );
        let intent = intent(&(declared.clone() + "---" + text));
        let lines = of(&intent, &intent.services()["web"]).unwrap();
        for line in [
            "# port/one on node/paris",
            "ip route replace default via 169.254.75.1 dev $dev onlink table 1258291205 advmss 1410",
            "ip rule add pref 1075 from 203.0.113.7 lookup 1258291205 2>/dev/null || true",
            "# port/two on node/rack",
            "if ip -o -4 address show to 192.0.2.9 | grep -q .; then",
            "ip link show $dev >/dev/null 2>&1 || ip link add $dev type vxlan id 100 dstport 4789 local 192.0.2.9 nolearning",
            "ip link set dev $dev address 52:54:00:00:00:06 up",
            "# Requests come with 50 octets more: clients shall send segments that fit 1500.",
        ] {
            assert!(lines.lines().any(|known| known == line), "{line}\n{lines}");
        }
        assert!(!lines.contains("port/three"), "{lines}");

        let narrow = self::intent(&(declared + "---" + &text.replace("vni: 100", "vni: 100, mtu: 1300")));
        let lines = of(&narrow, &narrow.services()["web"]).unwrap();
        for line in [
            "ip route replace default via 169.254.75.1 dev $dev onlink table 1258291205 advmss 1260",
            "ip link show $dev >/dev/null 2>&1 || ip link add $dev mtu 1300 type vxlan id 100 dstport 4789 local 192.0.2.9 nolearning",
            "# Clients shall send segments that fit this VPC's 1300 octets.",
        ] {
            assert!(lines.lines().any(|known| known == line), "{line}\n{lines}");
        }
    }

    #[test]
    fn ipv6_has_lines_of_its_own() {
        let declared = DECLARED
            .replace("203.0.113.7", "2001:db8::80")
            .replace("192.0.2.9", "2001:db8::9");
        let gue = intent(&declared);
        let gue = of(&gue, &gue.services()["web"]).unwrap();
        for line in [
            "ip fou show | grep -q 'port 6080 .*-6' || ip fou add port 6080 gue -6",
            "ip link show kuafu6 >/dev/null 2>&1 || ip link add kuafu6 type ip6tnl external",
            "ip address replace 2001:db8::80/128 dev lo nodad",
            "nft 'table ip6 kuafu-web; delete table ip6 kuafu-web; table ip6 kuafu-web { chain out { type filter hook output \
             priority 0; ip6 saddr { 2001:db8::80 } tcp sport { 80 } tcp flags & syn == syn tcp option maxseg size set 1392; }; }'",
        ] {
            assert!(gue.lines().any(|known| known == line), "{line}\n{gue}");
        }
        let ipip = intent(&declared.replace("mode: gue", "mode: ipip"));
        let ipip = of(&ipip, &ipip.services()["web"]).unwrap();
        assert!(!ipip.contains("fou") && ipip.contains("size set 1400"), "{ipip}");
    }

    #[test]
    fn each_mode_has_its_lines() {
        let gue = intent(DECLARED);
        let gue = of(&gue, &gue.services()["web"]).unwrap();
        for line in [
            "ip fou show | grep -v -e -6 | grep -q 'port 6080 ' || ip fou add port 6080 gue",
            "ip address replace 203.0.113.7/32 dev lo",
            "nft 'table ip kuafu-web; delete table ip kuafu-web; table ip kuafu-web { chain out { type filter hook output \
             priority 0; ip saddr { 203.0.113.7 } tcp sport { 80 } tcp flags & syn == syn tcp option maxseg size set 1432; }; }'",
        ] {
            assert!(gue.lines().any(|known| known == line), "{line}\n{gue}");
        }
        let of_mode = |mode| {
            let intent = intent(&DECLARED.replace("mode: gue", mode));
            of(&intent, &intent.services()["web"])
        };
        let ipip = of_mode("mode: ipip").unwrap();
        assert!(!ipip.contains("fou") && ipip.contains("size set 1440"), "{ipip}");
        let none = of_mode("mode: nat").unwrap_err().to_string();
        assert_eq!(
            none,
            "service/web rewrites packets (mode: nat): its servers need no set-up"
        );
    }
}
