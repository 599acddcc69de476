//! What makes a stock Debian server receive the packets of a service.

use std::net::Ipv4Addr;

use anyhow::bail;
use kuafu_model::kinds::{AddressPool, Mode, Name, Protocol, Service};

/// The MTU that servers are taken to have.
const MTU: u16 = 1500;
/// Octets of IPv4's and TCP's headers in front of a segment.
const HEADERS: u16 = 40;

/// The lines, each to be run as root.
///
/// # Errors
/// Of a service that rewrites.
pub(crate) fn of(service: &Service, pool: Option<&AddressPool>) -> anyhow::Result<String> {
    let name = &service.metadata.name;
    let Some(pool) = pool.filter(|_| service.spec.mode != Mode::Nat) else {
        bail!("service/{name} rewrites packets (mode: nat): its servers need no set-up");
    };
    let mut addresses: Vec<Ipv4Addr> = pool.spec.addresses.iter().map(|at| at.local.get()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let mut text = format!(
        "# Lets a Debian server receive service/{name} by {}, and answer clients itself. As root, as often as one
# likes; gone after a reboot.\n",
        service.spec.mode
    );
    let mut line = |text_of: String| text.push_str(&(text_of + "\n"));
    line("modprobe ipip".into());
    if service.spec.mode == Mode::Gue {
        line("modprobe fou".into());
        let port = service.spec.gue.port;
        line(format!(
            "ip fou show | grep -q 'port {port} ' || ip fou add port {port} gue"
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
    line("# The service's address is this server's own, but nobody on its link shall hear that.".into());
    line("sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2".into());
    for address in &addresses {
        line(format!("ip address replace {address}/32 dev lo"));
    }
    let tcp = service
        .spec
        .listeners
        .iter()
        .filter(|listener| listener.protocol == Protocol::Tcp);
    let ports: Vec<String> = tcp.map(|listener| listener.port.to_string()).collect();
    if !ports.is_empty() {
        let more = overhead(service);
        line(format!(
            "# Requests come with {more} octets more: clients shall send segments that fit {MTU}."
        ));
        line(rules(name, (&addresses, &ports.join(", ")), MTU - HEADERS - more));
    }
    Ok(text)
}

/// Octets that the encapsulation adds.
fn overhead(service: &Service) -> u16 {
    match (service.spec.mode, service.spec.gue.variant.get()) {
        (Mode::Gue, 0) => 32,
        (Mode::Gue, _) => 28,
        _ => 20,
    }
}

/// What clamps the segments that the server asks for.
fn rules(name: &Name, (addresses, ports): (&[Ipv4Addr], &str), segment: u16) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!(
        "nft 'table ip kuafu-{name}; delete table ip kuafu-{name}; table ip kuafu-{name} {{ chain out {{ type filter hook \
         output priority 0; ip saddr {{ {} }} tcp sport {{ {ports} }} tcp flags & syn == syn tcp option maxseg size set \
         {segment}; }}; }}'",
        addresses.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use kuafu_model::kinds::Object;
    use kuafu_model::manifest::{File, parse};

    use super::*;

    const DECLARED: &str = "
kind: AddressPool
metadata: {name: europe}
spec: {addresses: [{node: paris, public: 203.0.113.7}]}
---
kind: Service
metadata: {name: web}
spec: {pool: europe, listeners: [{protocol: tcp, port: 80}], mode: gue, targets: [{address: 192.0.2.9}]}
";

    #[test]
    fn each_mode_has_its_lines() {
        let file = File {
            name: "t",
            text: DECLARED,
        };
        let manifests = parse(&[file]).unwrap();
        let [Object::AddressPool(pool), Object::Service(service)] = [0, 1].map(|at| manifests[at].object())
        else {
            panic!("a pool and a service");
        };
        let gue = of(service, Some(pool)).unwrap();
        for line in [
            "ip fou show | grep -q 'port 6080 ' || ip fou add port 6080 gue",
            "ip address replace 203.0.113.7/32 dev lo",
            "nft 'table ip kuafu-web; delete table ip kuafu-web; table ip kuafu-web { chain out { type filter hook output \
             priority 0; ip saddr { 203.0.113.7 } tcp sport { 80 } tcp flags & syn == syn tcp option maxseg size set 1432; }; }'",
        ] {
            assert!(gue.lines().any(|known| known == line), "{line}\n{gue}");
        }
        let mut service = Service::clone(service);
        service.spec.mode = Mode::Ipip;
        let ipip = of(&service, Some(pool)).unwrap();
        assert!(!ipip.contains("fou") && ipip.contains("size set 1440"), "{ipip}");
        service.spec.mode = Mode::Nat;
        let none = of(&service, Some(pool)).unwrap_err().to_string();
        assert_eq!(
            none,
            "service/web rewrites packets (mode: nat): its servers need no set-up"
        );
    }
}
