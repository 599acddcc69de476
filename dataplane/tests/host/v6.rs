//! Services of IPv6: packets leave to servers of IPv6 by the kernel's own routes and neighbours.

use std::net::{Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd;

use kuafu_model::HostState;
use kuafu_model::kinds::PortRange;
use kuafu_model::state::{Encapsulation, ServiceState, Target, TargetState};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::site::{Site, sites, until};

const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const SERVICE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x80);

fn state(site: &Site) -> HostState {
    let target = Target::Direct {
        address: SERVER.into(),
        encapsulation: Encapsulation::Ipip,
    };
    let service = ServiceState {
        name: "web".into(),
        own: true,
        whole_address: true,
        targets: vec![TargetState::unchecked(1, target)],
        ..ServiceState::blank(103, SERVICE.into(), (17, PortRange::literal(7020, 7020)))
    };
    HostState {
        services: vec![service],
        ..site.state()
    }
}

#[test]
fn packets_of_ipv6_reach_a_server_behind_the_kernels_neighbour() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let [site, other] = sites("six");
    for site in [&site, &other] {
        // From the link's own address the kernel asks for neighbours that it keeps; the lab gives none.
        let near = format!("address add fe80::{}/64 dev eth0 nodad", site.number);
        site.host.ip([near]).unwrap();
    }
    let own = |address| [format!("address add {address}/64 dev eth0 nodad")];
    other.host.ip(own(SERVER)).unwrap();
    let route = format!("route add {SERVICE}/128 via {HOST}");
    other.host.ip([route.as_str()]).unwrap();
    let (mut host, mut behind) = (site.open(), other.open());
    other.apply(&mut behind, &other.state()).unwrap();
    let way = format!("route add {SERVER}/128 dev eth0");
    site.host.ip([way.as_str()]).unwrap();
    site.apply(&mut host, &state(&site)).unwrap();
    let faults = site.tick(&mut host);
    let lacks = format!("no address of this host's own leads to {SERVER}: ");
    assert!(faults.iter().any(|fault| fault.starts_with(&lacks)), "{faults:?}");
    site.host.ip(own(HOST)).unwrap();
    site.tick(&mut host);
    assert_eq!(host.facts().local6, Some(HOST));
    until("the server answers", || site.tick(&mut host).is_empty());
    let inside = other.host.run(|| {
        // Whether or not this kernel has a device for IPv6 in IPv6.
        let raw = socket(
            AddressFamily::Packet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        setsockopt(&raw, sockopt::ReceiveTimeout, &TimeVal::seconds(1))?;
        let client = UdpSocket::bind((SERVER, 0))?;
        let mut packet = [0; 2048];
        for _ in 0..30 {
            client.send_to(b"six", (SERVICE, 7020))?;
            while let Ok(length) = recv(raw.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                // IPv6's next header, and where the packet goes.
                if length > 80 && packet[6] == 41 && packet[24..40] == SERVER.octets() {
                    return Ok(packet[..length].to_vec());
                }
            }
        }
        Err(std::io::Error::from(std::io::ErrorKind::TimedOut))
    });
    let packet = inside.unwrap().unwrap();
    assert_eq!(packet[8..24], HOST.octets(), "the host's own address sends");
    assert_eq!(packet[40 + 24..40 + 40], SERVICE.octets());
    assert!(packet.ends_with(b"six"));

    let mut own = state(&site);
    own.services[0].local = HOST.into();
    site.apply(&mut host, &own).unwrap();
    let taken = format!("web takes all that comes to {HOST}, an address of this host's own: ");
    until("that is said", || {
        site.tick(&mut host).iter().any(|fault| fault.starts_with(&taken))
    });
}
