//! Health checks of servers that answer their clients themselves, by this host's own sockets: their mark alone leads
//! them to a server, behind the encapsulation that clients' packets get.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kuafu_dataplane::host::Host;
use kuafu_lab::decapsulator::{Decapsulator, Unwrapped};
use kuafu_model::HostState;
use kuafu_model::kinds::PortRange;
use kuafu_model::state::{Ask, Check, Encapsulation, ServiceState, Target, TargetState};
use kuafu_pipeline::map::{HopKind, NextHop, Wrap};
use kuafu_pipeline::stage::check::MARK;
use kuafu_pipeline::{Event, Reason};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::site::{Site, dropped, sites, until};

/// The server of IPv4.
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Who asks whom by which family.
struct Ends {
    /// The services' address, which the server has as its own.
    service: IpAddr,
    /// The host that checks.
    host: IpAddr,
    server: IpAddr,
    /// The route of checks, as `ip` shows it, but for its MTU.
    route: &'static str,
    /// Octets of the largest encapsulation, and of IP's and UDP's headers.
    overhead: [usize; 2],
}

const V4: Ends = Ends {
    service: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    host: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    server: IpAddr::V4(SERVER),
    route: "default dev kuafu0 scope link",
    overhead: [50, 28],
};
const V6: Ends = Ends {
    service: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
    host: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    server: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
    route: "default dev kuafu0 metric 1024",
    overhead: [52, 48],
};
/// The port of GUE.
const GUE: u16 = 6080;
/// A port for each encapsulation.
const PORTS: [(u16, Wrap); 4] = [
    (7020, Wrap::Ipip),
    (7021, Wrap::Gue0),
    (7022, Wrap::Gue1),
    (7023, Wrap::Vxlan),
];
/// The VPC behind VXLAN, and the Ethernet address of the server's device.
const VNI: u32 = 100;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 4];
/// What an answer may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long nothing is waited for.
const SILENCE: Duration = Duration::from_millis(300);
/// Octets that a connection carries, each way: many segments.
const TRANSFER: usize = 30_000;

impl Ends {
    /// Octets of the largest datagram that fits behind every encapsulation.
    fn large(&self) -> usize {
        1_500 - self.overhead.iter().sum::<usize>()
    }

    /// The encapsulations that there are, with their ports.
    fn ports(&self) -> &'static [(u16, Wrap)] {
        // No VPC has IPv6.
        if self.host.is_ipv4() { &PORTS } else { &PORTS[..3] }
    }
}

/// All listeners of both families.
fn listeners() -> impl Iterator<Item = (&'static Ends, u16, Wrap)> {
    let listeners = |ends: &'static Ends| ends.ports().iter().map(move |(port, wrap)| (ends, *port, *wrap));
    [&V4, &V6].into_iter().flat_map(listeners)
}

/// A check of this host's services, whatever it asks.
fn check() -> Option<Arc<Check>> {
    Some(Arc::new(Check {
        service: "web".into(),
        ask: Ask::Tcp,
        port: None,
        interval_ms: 1_000,
        timeout_ms: 500,
        rise: 1,
        fall: 3,
        least_percent: 0,
        slow_start_s: 0,
    }))
}

/// A service of one's own behind each encapsulation, over TCP and UDP.
fn state(site: &Site, families: &[&Ends], check: Option<Arc<Check>>) -> HostState {
    let service = |ends: &Ends, protocol, (port, wrap)| ServiceState {
        name: "web".into(),
        own: true,
        whole_address: true,
        targets: vec![TargetState {
            check: check.clone(),
            ..TargetState::unchecked(1, target(ends, wrap))
        }],
        ..ServiceState::blank(
            if ends.host.is_ipv4() { 103 } else { 104 },
            ends.service,
            (protocol, PortRange::literal(port, port)),
        )
    };
    let mut services = Vec::new();
    for ends in families {
        for protocol in [6, 17] {
            services.extend(
                ends.ports()
                    .iter()
                    .map(|listener| service(ends, protocol, *listener)),
            );
        }
    }
    HostState {
        services,
        ..site.state()
    }
}

fn target(ends: &Ends, wrap: Wrap) -> Target {
    let gue = |variant| Encapsulation::Gue { port: GUE, variant };
    Target::Direct {
        address: ends.server,
        encapsulation: match wrap {
            Wrap::Ipip => Encapsulation::Ipip,
            Wrap::Gue0 => gue(0),
            Wrap::Gue1 => gue(1),
            Wrap::Vxlan => Encapsulation::Vxlan {
                vni: VNI,
                mac: MAC,
                host: SERVER,
            },
        },
    }
}

/// The mark of the server behind that encapsulation.
fn mark(host: &Host, ends: &Ends, wrap: Wrap) -> u32 {
    let mut targets = host.contents().targets.iter();
    let is_it = |hop: &NextHop| {
        let is_v4 = matches!(wrap, Wrap::Vxlan) || hop.address.as_v4().is_some();
        hop.kind() == HopKind::Direct(wrap) && is_v4 == ends.host.is_ipv4()
    };
    let (number, _) = targets.find(|(_, hop)| is_it(hop)).unwrap();
    MARK | number
}

/// A socket of the host's own address, connected to a service's port.
fn connected(ends: &Ends, kind: SockType, mark: u32, port: u16) -> io::Result<OwnedFd> {
    let family = if ends.host.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Mark, &mark)?;
    let limit = TimeVal::milliseconds(i64::try_from(LIMIT.as_millis()).unwrap());
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    let at = |address, port| SockaddrStorage::from(SocketAddr::new(address, port));
    bind(socket.as_raw_fd(), &at(ends.host, 0))?;
    connect(socket.as_raw_fd(), &at(ends.service, port))?;
    Ok(socket)
}

/// Sends octets over a connection, and has them back.
fn exchange_tcp(ends: &Ends, mark: u32, port: u16) -> io::Result<()> {
    let mut stream = TcpStream::from(connected(ends, SockType::Stream, mark, port)?);
    let octets: Vec<u8> = (0..=250).cycle().take(TRANSFER).collect();
    stream.write_all(&octets)?;
    let mut answer = vec![0; TRANSFER];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, octets);
    Ok(())
}

/// The same by a datagram.
fn exchange_udp(ends: &Ends, mark: u32, port: u16, length: usize) -> io::Result<()> {
    let socket = UdpSocket::from(connected(ends, SockType::Datagram, mark, port)?);
    let octets: Vec<u8> = (0..=250).cycle().take(length).collect();
    socket.send(&octets)?;
    let mut answer = vec![0; 2 * length];
    let length = socket.recv(&mut answer)?;
    assert_eq!(answer[..length], octets);
    Ok(())
}

/// Both ways of asking, from the host's namespace.
fn exchange(site: &Site, ends: &Ends, mark: u32, port: u16) {
    let asked = site.host.run(|| {
        exchange_tcp(ends, mark, port)?;
        exchange_udp(ends, mark, port, 25)?;
        exchange_udp(ends, mark, port, ends.large())
    });
    asked
        .unwrap()
        .unwrap_or_else(|error| panic!("port {port}: {error}"));
}

/// Answers at all ports until `stop`.
fn serve(stop: &AtomicBool, listeners: &[TcpListener], sockets: &[UdpSocket]) {
    let goes_on = || !stop.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        for listener in listeners {
            listener.set_nonblocking(true).unwrap();
            scope.spawn(move || {
                while goes_on() {
                    match listener.accept() {
                        Ok((stream, _)) => answer(&stream),
                        Err(_) => std::thread::sleep(Duration::from_millis(5)),
                    }
                }
            });
        }
        for socket in sockets {
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            scope.spawn(move || {
                let mut buffer = [0; 2048];
                while goes_on() {
                    if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                        socket.send_to(&buffer[..length], from).unwrap();
                    }
                }
            });
        }
    });
}

/// Sends back what comes, until the other end closes.
fn answer(stream: &TcpStream) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let _ = io::copy(&mut &*stream, &mut &*stream);
}

/// Stops the server also when a test fails.
struct Stops<'s>(&'s AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two sites, the second of which is the server: without an agent, and with the services' address as its own.
fn with_server(test: &str, work: impl FnOnce(&Site, &Decapsulator, &Site)) {
    let [host, server] = sites(test);
    server
        .host
        .ip([
            format!("address add {}/32 dev lo", V4.service),
            format!("address add {}/128 dev lo nodad", V6.service),
        ])
        .unwrap();
    for (site, address) in [(&host, V6.host), (&server, V6.server)] {
        // From the link's own address the kernel asks for neighbours that it keeps; the lab gives none.
        let near = format!("address add fe80::{}/64 dev eth0 nodad", site.number);
        let own = format!("address add {address}/64 dev eth0 nodad");
        site.host.ip([near, own]).unwrap();
    }
    host.host
        .ip([
            format!("route add default via {SERVER} dev eth0"),
            format!("route add default via {} dev eth0", V6.server),
        ])
        .unwrap();
    for interface in ["all", "eth0"] {
        let strict = format!("net/ipv4/conf/{interface}/rp_filter");
        host.host.sysctl(&strict, "1").unwrap();
    }
    let decapsulator = Decapsulator::start(&server.host, &[V4.service, V6.service], GUE).unwrap();
    // The kernel's own takes packets out of VXLAN.
    let mac = MAC.map(|octet| format!("{octet:02x}")).join(":");
    server
        .host
        .ip([
            format!("link add vx0 address {mac} type vxlan id {VNI} dstport 4789 local {SERVER} nolearning"),
            "link set vx0 up".to_owned(),
        ])
        .unwrap();
    for interface in ["all", "vx0"] {
        let filter = format!("net/ipv4/conf/{interface}/rp_filter");
        server.host.sysctl(&filter, "0").unwrap();
    }
    let open = || {
        let both: Vec<_> = listeners().map(|(ends, port, _)| (ends.service, port)).collect();
        let listen = |at: &(IpAddr, u16)| TcpListener::bind(at).unwrap();
        let bind = |at: &(IpAddr, u16)| UdpSocket::bind(at).unwrap();
        (
            both.iter().map(listen).collect::<Vec<_>>(),
            both.iter().map(bind).collect::<Vec<_>>(),
        )
    };
    let (listeners, sockets) = server.host.run(open).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&stop, &listeners, &sockets));
        let stops = Stops(&stop);
        work(&host, &decapsulator, &server);
        drop(stops);
    });
}

/// What `ip` says in the host's namespace.
fn ip(site: &Site, arguments: &str) -> String {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    let output = site.host.output(command, LIMIT).unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The rules of a family's checks, and their routes.
fn led(site: &Site, ends: &Ends) -> (Vec<String>, String) {
    let family = if ends.host.is_ipv4() { "-4" } else { "-6" };
    let rules = ip(site, &format!("{family} rule show"));
    let ours = rules.lines().filter(|line| line.contains("0x4b000000"));
    let routes = ip(site, &format!("{family} route show table 75"));
    (ours.map(str::to_owned).collect(), routes)
}

/// What is counted of an event: packets.
fn counted(host: &Host, event: Event) -> u64 {
    let of_cpus = host.maps().events.get(event as u32).unwrap();
    of_cpus.iter().map(|counter| counter.packets).sum()
}

/// Packets that the server's kernel has taken out of VXLAN.
fn received(server: &Site) -> u64 {
    ip(server, "-s -j link show vx0")
        .split_once("\"rx\":{")
        .and_then(|(_, rest)| rest.split_once("\"packets\":")?.1.split_once(','))
        .map(|(count, _)| count.parse().unwrap())
        .unwrap()
}

/// Whether a family's checks are led as they are to be, for that MTU of the underlay.
fn are_led(site: &Site, ends: &Ends, mtu: usize) -> bool {
    let (rules, routes) = led(site, ends);
    let route = format!("{} mtu {}", ends.route, mtu - ends.overhead[0]);
    rules.len() == 1
        && rules[0].starts_with("75:")
        && rules[0].contains("fwmark 0x4b000000/0xff000000 lookup 75")
        && routes.replace("proto static ", "").replace(" pref medium", "") == route
}

/// What was unwrapped, once nothing comes any more.
fn at_rest(decapsulator: &Decapsulator) -> Unwrapped {
    let mut last = decapsulator.unwrapped();
    until("nothing comes any more", || {
        std::thread::sleep(SILENCE);
        let before = std::mem::replace(&mut last, decapsulator.unwrapped());
        before == last
    });
    last
}

#[test]
fn checks_reach_a_server_through_each_encapsulation_and_its_answers_the_socket() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    with_server("checks", |site, decapsulator, server| {
        let mut host = site.open();
        site.apply(&mut host, &state(site, &[&V4, &V6], check())).unwrap();
        until("neighbours answer", || site.tick(&mut host).is_empty());
        for (ends, port, wrap) in listeners() {
            // The last connection's end comes by itself.
            let (before, sent) = (at_rest(decapsulator), counted(&host, Event::CheckSent));
            let by_vxlan = received(server);
            exchange(site, ends, mark(&host, ends, wrap), port);
            let now = at_rest(decapsulator);
            assert_eq!(now.wrong, Vec::<String>::new());
            let came = [
                now.ipip - before.ipip,
                now.gue[0] - before.gue[0],
                now.gue[1] - before.gue[1],
                received(server) - by_vxlan,
            ];
            let others = came.iter().filter(|came| **came != 0).count();
            let through = came[wrap as usize];
            println!("{wrap:?} to {}: {through} packets", ends.server);
            // A connection's beginning, its octets, its end; two datagrams.
            assert!(
                through >= 3 + (TRANSFER / 1_428) as u64 + 2 && others == 1,
                "{wrap:?}: {came:?}"
            );
            until("all are counted", || {
                counted(&host, Event::CheckSent) - sent >= through
            });
        }
        for reason in Reason::ALL {
            assert_eq!(dropped(&host, *reason), 0, "{}", reason.word());
        }
        assert_eq!(counted(&host, Event::Exited), 0, "no client's packets");
    });
}

#[test]
fn the_mark_alone_leads_through_an_encapsulation() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    with_server("unmarked", |site, decapsulator, _| {
        let mut host = site.open();
        site.apply(&mut host, &state(site, &[&V4], check())).unwrap();
        let before = decapsulator.unwrapped();
        // The server has the address, and the host's usual route leads there.
        exchange(site, &V4, 0, 7020);
        // Marks of somebody else's.
        exchange(site, &V4, MARK ^ 1 << 24, 7020);
        exchange(site, &V4, MARK >> 8, 7020);
        assert_eq!(decapsulator.unwrapped(), before);
        assert_eq!(counted(&host, Event::CheckSent), 0);

        let ask = |mark, length| {
            site.host
                .run(|| {
                    let socket = UdpSocket::from(connected(&V4, SockType::Datagram, mark, 7020)?);
                    socket.set_read_timeout(Some(SILENCE))?;
                    socket.send(&vec![0; length])?;
                    socket.recv(&mut [0; 64])
                })
                .unwrap()
        };
        let is_silent = |asked: io::Result<usize>| {
            let kind = asked.unwrap_err().kind();
            assert!(
                matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "{kind:?}"
            );
        };
        is_silent(ask(MARK | 60_000, 25));
        until("it is counted", || dropped(&host, Reason::NoTarget) == 1);
        // The host's own stack fragments it by its route.
        is_silent(ask(mark(&host, &V4, Wrap::Ipip), V4.large() + 1));
        until("both pieces are counted", || {
            dropped(&host, Reason::Fragment) == 2
        });
        assert_eq!(decapsulator.unwrapped(), before);
    });
}

#[test]
fn the_way_of_checks_is_there_while_a_state_has_any() {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let [site, _other] = sites("ways");
    let nothing = (Vec::<String>::new(), String::new());
    let (checked, unchecked) = (state(&site, &[&V4], check()), state(&site, &[&V4], None));
    let mut host = site.open();
    site.apply(&mut host, &unchecked).unwrap();
    assert_eq!(led(&site, &V4), nothing, "no server is checked");
    for _ in 0..2 {
        site.apply(&mut host, &checked).unwrap();
        assert!(are_led(&site, &V4, 1500), "{:?}", led(&site, &V4));
    }
    drop(host);
    assert!(are_led(&site, &V4, 1500), "without an agent");
    let mut host = site.open();
    site.apply(&mut host, &checked).unwrap();
    assert!(are_led(&site, &V4, 1500), "{:?}", led(&site, &V4));

    let breaks = [
        "rule del pref 75",
        "route flush table 75",
        "route change default dev kuafu0 scope link table 75",
        "link set kuafu0 down",
        "link del kuafu0",
    ];
    for lost in breaks {
        site.host.ip([lost]).unwrap();
        assert!(!are_led(&site, &V4, 1500), "{lost}");
        if lost == "link set kuafu0 down" {
            assert!(!site.tick(&mut host).is_empty(), "it is said");
            site.host.ip(["link set kuafu0 up"]).unwrap();
        }
        until("the way is there again", || {
            site.tick(&mut host);
            are_led(&site, &V4, 1500)
        });
    }
    site.host.ip(["link set eth0 mtu 1400"]).unwrap();
    site.tick(&mut host);
    assert!(are_led(&site, &V4, 1400), "{:?}", led(&site, &V4));

    site.apply(&mut host, &unchecked).unwrap();
    assert_eq!(led(&site, &V4), nothing);
    let of_v6 = state(&site, &[&V6], check());
    site.apply(&mut host, &of_v6).unwrap();
    assert!(are_led(&site, &V6, 1400), "{:?}", led(&site, &V6));
    assert_eq!(led(&site, &V4), nothing, "each family for itself");
    ip(&site, "-6 rule del pref 75");
    until("the way is there again", || {
        site.tick(&mut host);
        are_led(&site, &V6, 1400)
    });
    site.apply(&mut host, &checked).unwrap();
    site.apply(&mut host, &site.state()).unwrap();
    assert_eq!(led(&site, &V4), nothing, "the services have gone");

    site.apply(&mut host, &checked).unwrap();
    site.apply(&mut host, &of_v6).unwrap();
    drop(host);
    let done = site.uninstall();
    assert!(done.iter().any(|line| line.contains("health checks")), "{done:?}");
    assert_eq!([led(&site, &V4), led(&site, &V6)], [nothing.clone(), nothing]);
    assert_eq!(site.uninstall(), Vec::<String>::new(), "twice is once");
}
