//! Health checks of servers that answer their clients themselves, by this host's own sockets: their mark alone leads
//! them to a server, behind the encapsulation that clients' packets get.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
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
use kuafu_pipeline::map::{HopKind, Wrap};
use kuafu_pipeline::stage::check::MARK;
use kuafu_pipeline::{Event, Reason};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::site::{Site, dropped, sites, until};

/// The services' address, which the server has as its own.
const SERVICE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The host that checks, and the server.
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
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
/// Octets of the largest datagram that fits behind every encapsulation.
const LARGE: usize = 1_500 - 50 - 28;

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
fn state(site: &Site, check: Option<Arc<Check>>) -> HostState {
    let service = |protocol, (port, wrap)| ServiceState {
        name: "web".into(),
        own: true,
        whole_address: true,
        targets: vec![TargetState {
            check: check.clone(),
            ..TargetState::unchecked(1, target(wrap))
        }],
        ..ServiceState::blank(103, SERVICE.into(), (protocol, PortRange::literal(port, port)))
    };
    let services = [6, 17].map(|protocol| PORTS.map(|listener| service(protocol, listener)));
    HostState {
        services: services.concat(),
        ..site.state()
    }
}

fn target(wrap: Wrap) -> Target {
    let gue = |variant| Encapsulation::Gue { port: GUE, variant };
    Target::Direct {
        address: SERVER.into(),
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
fn mark(host: &Host, wrap: Wrap) -> u32 {
    let mut targets = host.contents().targets.iter();
    let (number, _) = targets
        .find(|(_, hop)| hop.kind() == HopKind::Direct(wrap))
        .unwrap();
    MARK | number
}

/// A socket of the host's own address, connected to a service's port.
fn connected(kind: SockType, mark: u32, port: u16) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Mark, &mark)?;
    let limit = TimeVal::milliseconds(i64::try_from(LIMIT.as_millis()).unwrap());
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    let at = |address, port| SockaddrIn::from(SocketAddrV4::new(address, port));
    bind(socket.as_raw_fd(), &at(HOST, 0))?;
    connect(socket.as_raw_fd(), &at(SERVICE, port))?;
    Ok(socket)
}

/// Sends octets over a connection, and has them back.
fn exchange_tcp(mark: u32, port: u16) -> io::Result<()> {
    let mut stream = TcpStream::from(connected(SockType::Stream, mark, port)?);
    let octets: Vec<u8> = (0..=250).cycle().take(TRANSFER).collect();
    stream.write_all(&octets)?;
    let mut answer = vec![0; TRANSFER];
    stream.read_exact(&mut answer)?;
    assert_eq!(answer, octets);
    Ok(())
}

/// The same by a datagram.
fn exchange_udp(mark: u32, port: u16, length: usize) -> io::Result<()> {
    let socket = UdpSocket::from(connected(SockType::Datagram, mark, port)?);
    let octets: Vec<u8> = (0..=250).cycle().take(length).collect();
    socket.send(&octets)?;
    let mut answer = vec![0; 2 * LARGE];
    let length = socket.recv(&mut answer)?;
    assert_eq!(answer[..length], octets);
    Ok(())
}

/// Both ways of asking, from the host's namespace.
fn exchange(site: &Site, mark: u32, port: u16) {
    let asked = site.host.run(|| {
        exchange_tcp(mark, port)?;
        exchange_udp(mark, port, 25)?;
        exchange_udp(mark, port, LARGE)
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
        .ip([format!("address add {SERVICE}/32 dev lo")])
        .unwrap();
    host.host
        .ip([format!("route add default via {SERVER} dev eth0")])
        .unwrap();
    for interface in ["all", "eth0"] {
        let strict = format!("net/ipv4/conf/{interface}/rp_filter");
        host.host.sysctl(&strict, "1").unwrap();
    }
    let decapsulator = Decapsulator::start(&server.host, &[SERVICE], GUE).unwrap();
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
        let listen = PORTS.map(|(port, _)| TcpListener::bind((SERVICE, port)).unwrap());
        (
            listen,
            PORTS.map(|(port, _)| UdpSocket::bind((SERVICE, port)).unwrap()),
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

/// The rules of checks, and their routes.
fn led(site: &Site) -> (Vec<String>, String) {
    let rules = ip(site, "rule show");
    let ours = rules.lines().filter(|line| line.contains("0x4b000000"));
    (ours.map(str::to_owned).collect(), ip(site, "route show table 75"))
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

/// Whether checks are led as they are to be, for that MTU of the route.
fn are_led(site: &Site, mtu: u32) -> bool {
    let (rules, routes) = led(site);
    let route = format!("default dev kuafu0 scope link mtu {mtu}");
    rules.len() == 1
        && rules[0].starts_with("75:")
        && rules[0].contains("fwmark 0x4b000000/0xff000000 lookup 75")
        && routes.replace("proto static ", "") == route
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
        site.apply(&mut host, &state(site, check())).unwrap();
        for (port, wrap) in PORTS {
            // The last connection's end comes by itself.
            let (before, sent) = (at_rest(decapsulator), counted(&host, Event::CheckSent));
            let by_vxlan = received(server);
            exchange(site, mark(&host, wrap), port);
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
            println!("{wrap:?}: {through} packets");
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
        site.apply(&mut host, &state(site, check())).unwrap();
        let before = decapsulator.unwrapped();
        // The server has the address, and the host's usual route leads there.
        exchange(site, 0, 7020);
        // Marks of somebody else's.
        exchange(site, MARK ^ 1 << 24, 7020);
        exchange(site, MARK >> 8, 7020);
        assert_eq!(decapsulator.unwrapped(), before);
        assert_eq!(counted(&host, Event::CheckSent), 0);

        let ask = |mark, length| {
            site.host
                .run(|| {
                    let socket = UdpSocket::from(connected(SockType::Datagram, mark, 7020)?);
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
        is_silent(ask(mark(&host, Wrap::Ipip), LARGE + 1));
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
    let (checked, unchecked) = (state(&site, check()), state(&site, None));
    let mut host = site.open();
    site.apply(&mut host, &unchecked).unwrap();
    assert_eq!(led(&site), nothing, "no server is checked");
    for _ in 0..2 {
        site.apply(&mut host, &checked).unwrap();
        assert!(are_led(&site, 1450), "{:?}", led(&site));
    }
    drop(host);
    assert!(are_led(&site, 1450), "without an agent");
    let mut host = site.open();
    site.apply(&mut host, &checked).unwrap();
    assert!(are_led(&site, 1450), "{:?}", led(&site));

    let breaks = [
        "rule del pref 75",
        "route flush table 75",
        "route change default dev kuafu0 scope link table 75",
        "link set kuafu0 down",
        "link del kuafu0",
    ];
    for lost in breaks {
        site.host.ip([lost]).unwrap();
        assert!(!are_led(&site, 1450), "{lost}");
        if lost == "link set kuafu0 down" {
            assert!(!site.tick(&mut host).is_empty(), "it is said");
            site.host.ip(["link set kuafu0 up"]).unwrap();
        }
        until("the way is there again", || {
            site.tick(&mut host);
            are_led(&site, 1450)
        });
    }
    site.host.ip(["link set eth0 mtu 1400"]).unwrap();
    site.tick(&mut host);
    assert!(are_led(&site, 1350), "{:?}", led(&site));

    site.apply(&mut host, &unchecked).unwrap();
    assert_eq!(led(&site), nothing);
    site.apply(&mut host, &checked).unwrap();
    site.apply(&mut host, &site.state()).unwrap();
    assert_eq!(led(&site), nothing, "the services have gone");

    site.apply(&mut host, &checked).unwrap();
    drop(host);
    let done = site.uninstall();
    assert!(done.iter().any(|line| line.contains("health checks")), "{done:?}");
    assert_eq!(led(&site), nothing);
    assert_eq!(site.uninstall(), Vec::<String>::new(), "twice is once");
}
