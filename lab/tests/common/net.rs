//! Hosts on a wire.

use std::net::Ipv4Addr;
use std::time::Duration;

use kuafu_lab::Namespace;
use kuafu_lab::link::{End, Mac, Offloads, veth};
use kuafu_lab::wan::{Change, DelayLaw, LineConfig, Seed, SiteId, Socket, Wan, WanConfig};

/// Hosts at 198.18.1.2, 198.18.2.2, … on one wire.
pub(crate) struct Net {
    pub(crate) wan: Wan,
    pub(crate) hosts: Vec<Namespace>,
    pub(crate) wire: Namespace,
}

/// The site at `index`.
pub(crate) fn site(index: usize) -> SiteId {
    SiteId::new(u16::try_from(index).unwrap())
}

/// The address of the host at `index`.
pub(crate) fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, u8::try_from(index).unwrap() + 1, 2)
}

/// A line with a measured round trip.
pub(crate) fn line(p50_ms: f64, p90_ms: f64, seed: u64) -> LineConfig {
    let law = DelayLaw::of_round_trip(p50_ms, p90_ms, Seed::new(seed));
    LineConfig {
        law,
        access: Duration::ZERO,
        loss: 0.0,
        rate_bps: None,
    }
}

fn mac(kind: u8, index: usize) -> Mac {
    Mac([2, 0, 0, 0, kind, u8::try_from(index).unwrap()])
}

/// Builds `count` hosts; `line` says what each direction is like.
pub(crate) fn net(
    prefix: &str,
    count: usize,
    line: impl Fn(usize, usize) -> LineConfig,
    events: Vec<(Duration, Change)>,
) -> Net {
    let wire = Namespace::create(prefix, "wan").unwrap();
    let hosts: Vec<_> = (0..count)
        .map(|index| Namespace::create(prefix, &format!("h{index}")).unwrap())
        .collect();
    let sockets = (0..count)
        .map(|index| plug(&wire, &hosts[index], index))
        .collect();
    let lines = (0..count * count)
        .map(|index| line(index / count, index % count))
        .collect();
    let wan = Wan::start(
        &wire,
        WanConfig {
            mtu: 1500,
            seed: Seed::new(1),
            sockets,
            lines,
            events,
        },
    )
    .unwrap();
    Net { wan, hosts, wire }
}

/// Puts the cable between a host and the wire.
pub(crate) fn plug(wire: &Namespace, host: &Namespace, index: usize) -> Socket {
    let device = format!("site{index}");
    let [a, b, c, _] = address(index).octets();
    let end = End {
        mac: Some(mac(1, index)),
        addresses: vec![format!("{}/24", address(index)).parse().unwrap()],
        gateway: Some(Ipv4Addr::new(a, b, c, 1)),
        offloads: Offloads::Wire,
        ..End::new(host, "eth0")
    };
    let tap = End {
        mac: Some(mac(2, index)),
        offloads: Offloads::WireTap,
        ..End::new(wire, &device)
    };
    veth(&tap, &end, 1500).unwrap();
    Socket {
        device,
        mac: mac(2, index),
        peer: mac(1, index),
        addresses: vec![address(index)],
    }
}
