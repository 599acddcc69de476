//! What runs in the guest: a server that only the printed lines have set up, behind the programs on a device.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kuafu_dataplane::bpf::{Pins, Sizes, XdpMode};
use kuafu_dataplane::health::ask::{Way, ask};
use kuafu_dataplane::health::diagnosis;
use kuafu_dataplane::host::{Host, Options};
use kuafu_lab::Namespace;
use kuafu_lab::link::{Feature, set_offload};
use kuafu_model::contents::marks;
use kuafu_model::health::{Subject, subjects};
use kuafu_model::kinds::PortRange;
use kuafu_model::manifest::{File, Intent};
use kuafu_model::state::{self, Ask, Check, Encapsulation, HostState, ServiceState, Target, TargetState};

use crate::inside::{Pinned, attach};
use crate::kernel::namespace;
use crate::lines;

/// What the worlds' services are, as one would declare them, of both families: by port, an IP header and both variants of
/// GUE. They are set up by name: GUE's entry of IPv6 is there when the lines of IPv4 look for theirs.
const DECLARED: &str = "
kind: Node
metadata: {name: host}
spec: {region: here, address: {local: 192.0.2.1}}
---
kind: AddressPool
metadata: {name: pool}
spec: {addresses: [{node: host, public: 198.51.100.1}]}
---
kind: AddressPool
metadata: {name: six}
spec: {addresses: [{node: host, public: 2001:db8::1}]}
---
kind: Service
metadata: {name: plain}
spec: {pool: pool, listeners: [{protocol: tcp, port: 7020}], mode: ipip, targets: [{address: 192.0.2.80}]}
---
kind: Service
metadata: {name: wrapped}
spec:
  pool: pool
  listeners: [{protocol: tcp, port: 7021}, {protocol: tcp, port: 7022}]
  mode: gue
  gue: {variant: 0}
  targets: [{address: 192.0.2.80}]
---
kind: Service
metadata: {name: plain-six}
spec: {pool: six, listeners: [{protocol: tcp, port: 7020}], mode: ipip, targets: [{address: 2001:db8::180}]}
---
kind: Service
metadata: {name: a-wrapped-six}
spec:
  pool: six
  listeners: [{protocol: tcp, port: 7021}, {protocol: tcp, port: 7022}]
  mode: gue
  gue: {variant: 0}
  targets: [{address: 2001:db8::180}]
";
const PORTS: [u16; 3] = [7020, 7021, 7022];
/// A service's address, its server's and a client's.
struct Ends {
    service: IpAddr,
    server: IpAddr,
    client: IpAddr,
}

const ENDS: [Ends; 2] = [
    Ends {
        service: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
        server: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80)),
        client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
    },
    Ends {
        service: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x1)),
        server: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x180)),
        client: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x7)),
    },
];
/// For a packet on its way.
const PATIENCE: Duration = Duration::from_secs(20);
/// Octets of an upload: many segments as large as the server lets them be.
const UPLOAD: usize = 200_000;

#[test]
#[ignore = "runs in a guest"]
fn clients_are_served() {
    fallback_devices(false);
    let host = namespace("guest");
    let pins = Pins::new(Path::new("/sys/fs/bpf/kuafu-guest"), "host");
    let pinned = Pinned(&pins);
    let outside = Namespace::create(host.name(), "outside").unwrap();
    fallback_devices(true);
    let server = Namespace::create(host.name(), "server").unwrap();
    wire(&host, &outside, &server);
    host.run(|| attach(&pins)).unwrap();
    set_up(&server);
    for ends in &ENDS {
        for port in PORTS {
            datagrams(&outside, &server, (ends, port));
            upload(&outside, &server, (ends, port));
            println!("port {port} of {} is served", ends.service);
        }
    }
    drop(pinned);
}

/// Whether new namespaces get `tunl0`, as a machine has it; it would take an interface's number that the worlds give.
fn fallback_devices(are_made: bool) {
    let only_first = if are_made { "0" } else { "1" };
    std::fs::write("/proc/sys/net/core/fb_tunnels_only_for_init_net", only_first).unwrap();
}

/// Outside is the client, and the way to the server.
fn wire(host: &Namespace, outside: &Namespace, server: &Namespace) {
    host.ip([format!("link set under-peer netns {}", outside.name())])
        .unwrap();
    host.ip(["link set under mtu 1500"]).unwrap();
    outside
        .ip([
            "link set under-peer address 02:00:00:00:00:03 mtu 1500 up".to_owned(),
            "addr add 192.0.2.3/25 dev under-peer".into(),
            "neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 nud permanent dev under-peer".into(),
            "addr add 203.0.113.7/32 dev lo".into(),
            "route add 198.51.100.1/32 via 192.0.2.1 dev under-peer src 203.0.113.7".into(),
            "link add to-server type veth peer name eth0".into(),
            format!("link set eth0 netns {}", server.name()),
            "addr add 10.1.0.1/24 dev to-server".into(),
            "link set to-server up".into(),
            "route add 192.0.2.80/32 via 10.1.0.2 dev to-server".into(),
            "addr add 2001:db8::203/64 dev under-peer nodad".into(),
            "neigh replace 2001:db8::201 lladdr 02:00:00:00:00:01 nud permanent dev under-peer".into(),
            "addr add 2001:db8:f::7/128 dev lo nodad".into(),
            "route add 2001:db8::1/128 via 2001:db8::201 dev under-peer src 2001:db8:f::7".into(),
            "addr add 2001:db8:1::1/64 dev to-server nodad".into(),
            "route add 2001:db8::180/128 via 2001:db8:1::2 dev to-server".into(),
        ])
        .unwrap();
    outside.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    for interface in ["all", "under-peer", "to-server"] {
        outside
            .sysctl(&format!("net/ipv4/conf/{interface}/forwarding"), "1")
            .unwrap();
        outside
            .sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0")
            .unwrap();
    }
    server
        .ip([
            "addr add 10.1.0.2/24 dev eth0",
            "addr add 192.0.2.80/32 dev lo",
            "link set eth0 up",
            "route add default via 10.1.0.1 dev eth0",
            "addr add 2001:db8:1::2/64 dev eth0 nodad",
            "addr add 2001:db8::180/128 dev lo nodad",
            "route add default via 2001:db8:1::1 dev eth0",
        ])
        .unwrap();
    // A wire's checksums are complete, and no packet on it is larger than the MTU.
    for feature in [Feature::TxChecksum, Feature::Tso, Feature::Gso] {
        set_offload(outside, "under-peer", feature, false).unwrap();
    }
}

/// Runs the printed lines, twice, as one may; the guest has its modules from the start.
fn set_up(server: &Namespace) {
    let file = File {
        name: "declared",
        text: DECLARED,
    };
    let intent = Intent::default().apply_files(&[file]).unwrap().intent;
    for service in intent.services().values() {
        let lines = lines::of(&intent, service).unwrap();
        println!("{lines}");
        let twice = lines.lines().chain(lines.lines());
        for line in twice.filter(|line| !line.starts_with("modprobe")) {
            // Busybox's shell has an `ip` of its own, which Debian's has not.
            let own =
                ["fou", "link", "address"].map(|verb| (format!(" ip {verb} "), format!(" /bin/ip {verb} ")));
            let line = own
                .iter()
                .fold(format!(" {line}"), |line, (from, to)| line.replace(from, to));
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &line]);
            let done = server.output(command, PATIENCE).unwrap();
            assert!(done.status.success(), "{line}: {done:?}");
        }
    }
}

/// A client's datagram is answered from the service's address.
fn datagrams(outside: &Namespace, server: &Namespace, (ends, port): (&Ends, u16)) {
    let there = SocketAddr::new(ends.service, port);
    let bound = |namespace: &Namespace, address: SocketAddr| {
        let socket = namespace.run(|| UdpSocket::bind(address)).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let listens = bound(server, there);
    let client = bound(outside, SocketAddr::new(ends.client, 4000));
    client.send_to(b"question", there).unwrap();
    let mut octets = [0; 64];
    let (length, from) = listens.recv_from(&mut octets).expect("a question in time");
    assert_eq!(
        (&octets[..length], from),
        (&b"question"[..], client.local_addr().unwrap())
    );
    listens.send_to(b"answer", from).unwrap();
    let (length, from) = client.recv_from(&mut octets).expect("an answer in time");
    assert_eq!((&octets[..length], from), (&b"answer"[..], there));
}

/// A client's stream, in segments that the server's lines have made small enough, arrives whole.
fn upload(outside: &Namespace, server: &Namespace, (ends, port): (&Ends, u16)) {
    let there = SocketAddr::new(ends.service, port);
    let listens = server.run(|| TcpListener::bind(there)).unwrap().unwrap();
    let sends = || {
        let sent = outside.run(|| -> std::io::Result<Vec<u8>> {
            let mut connection = TcpStream::connect_timeout(&there, PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.write_all(&[7; UPLOAD])?;
            connection.shutdown(std::net::Shutdown::Write)?;
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer)?;
            Ok(answer)
        });
        sent.unwrap()
    };
    std::thread::scope(|scope| {
        let client = scope.spawn(sends);
        let (mut connection, from) = listens.accept().unwrap();
        assert_eq!(from.ip(), ends.client);
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut octets = Vec::new();
        connection.read_to_end(&mut octets).unwrap();
        assert!(octets == [7; UPLOAD], "{} octets", octets.len());
        connection.write_all(&octets[..9]).unwrap();
        drop(connection);
        assert_eq!(client.join().unwrap().unwrap(), [7; 9]);
    });
}

/// The services' check, on the first listener of each.
const ASKED: [(u16, Encapsulation); 2] = [
    (7020, Encapsulation::Ipip),
    (
        7021,
        Encapsulation::Gue {
            port: 6080,
            variant: 0,
        },
    ),
];
/// What its set-up lacks is said of a server that does not answer checks.
#[test]
#[ignore = "runs in a guest"]
fn what_a_server_lacks_is_named() {
    let host = Namespace::create("check", "host").unwrap();
    fallback_devices(true);
    let server = Namespace::create("check", "server").unwrap();
    on_one_link(&host, &server);
    let pins = Pins::new(Path::new("/sys/fs/bpf/kuafu-guest"), "host");
    let (checking, asked) = host.run(|| checking(&pins)).unwrap();
    let pinned = Pinned(&pins);
    // Of both families.
    let listen = |(port, _): &(u16, _)| TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).unwrap();
    let _listening = server
        .run(|| ASKED.iter().map(listen).collect::<Vec<_>>())
        .unwrap();
    let said = |what: &str| -> Vec<String> {
        let say = |(subject, way): &(Subject, Way)| host.run(|| found(subject, way)).unwrap();
        let said: Vec<String> = asked.iter().map(say).collect();
        println!("{what}: {said:#?}");
        said
    };
    let all = |said: &[String], words: &str| said.iter().all(|said| said.contains(words));

    assert!(all(
        &said("nothing is set up"),
        "no device there takes packets out of"
    ));
    set_up(&server);
    assert!(all(&said("by the printed lines"), "it answers"));
    let services = ["198.51.100.1/32 dev lo", "2001:db8::1/128 dev lo nodad"];
    server.ip(services.map(|at| format!("address del {at}"))).unwrap();
    assert!(all(
        &said("without the address"),
        " is not its address: add that to lo"
    ));
    server.ip(services.map(|at| format!("address add {at}"))).unwrap();
    server.sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
    // IPv6 has none.
    let (of_v4, of_v6): (Vec<_>, Vec<_>) = asked
        .iter()
        .zip(said("with a strict rp_filter"))
        .partition(|((subject, _), _)| subject.server.is_ipv4());
    let words = "rp_filter of the device that takes them out";
    assert!(of_v4.iter().all(|(_, said)| said.contains(words)));
    assert!(of_v6.iter().all(|(_, said)| said == "it answers"));
    assert_eq!([of_v4.len(), of_v6.len()], [2, 2]);
    server.sysctl("net/ipv4/conf/all/rp_filter", "0").unwrap();
    assert!(all(&said("set right again"), "it answers"));
    server.ip(["link set eth0 down"]).unwrap();
    assert!(all(&said("off the network"), "nothing can be told"));
    drop((checking, pinned));
}

/// The host and the server, on one link.
fn on_one_link(host: &Namespace, server: &Namespace) {
    host.ip([
        "link add under type veth peer name eth0".to_owned(),
        format!("link set eth0 netns {}", server.name()),
        "addr add 192.0.2.1/24 dev under".into(),
        "addr add 2001:db8::201/64 dev under nodad".into(),
        "link set under up".into(),
        "route add default via 192.0.2.80 dev under".into(),
    ])
    .unwrap();
    server
        .ip([
            "addr add 192.0.2.80/24 dev eth0",
            "addr add 2001:db8::180/64 dev eth0 nodad",
            "link set eth0 up",
            "route add default via 192.0.2.1 dev eth0",
        ])
        .unwrap();
}

/// A host whose state has the checks, and how it asks.
fn checking(pins: &Pins) -> (Host, Vec<(Subject, Way)>) {
    let check = Check {
        service: "web".into(),
        ask: Ask::Tcp,
        port: None,
        interval_ms: 1000,
        timeout_ms: 1000,
        rise: 1,
        fall: 1,
        least_percent: 0,
        slow_start_s: 0,
    };
    let from = Ipv4Addr::new(192, 0, 2, 1);
    let service = |(ends, (port, encapsulation)): (&Ends, (u16, Encapsulation))| ServiceState {
        name: "web".into(),
        own: true,
        whole_address: true,
        targets: vec![TargetState {
            check: Some(Arc::new(check.clone())),
            ..TargetState::unchecked(
                1,
                Target::Direct {
                    address: ends.server,
                    encapsulation,
                },
            )
        }],
        ..ServiceState::blank(103, ends.service, (6, PortRange::literal(port, port)))
    };
    let of_both = ENDS.iter().flat_map(|ends| ASKED.map(|asked| (ends, asked)));
    let state = HostState {
        services: of_both.map(service).collect(),
        ..HostState::blank(
            "guest".into(),
            1,
            state::Host {
                id: 1,
                name: "host".into(),
                local: from,
                public: from,
                overlay: Ipv4Addr::new(100, 64, 0, 1),
                udp_port: 6081,
                nat_ports: None,
            },
        )
    };
    let options = Options {
        node: "host".into(),
        pins: pins.clone(),
        data: "/tmp/kuafu".into(),
        xdp: Some(XdpMode::Generic),
        sizes: Sizes::default(),
    };
    let mut host = Host::open(options).unwrap();
    host.apply(&state).unwrap();
    let asked = subjects(&state);
    let marks = marks(&asked, host.contents());
    let ways = asked.iter().map(|subject| {
        let (to, mark) = (subject.to, marks.get(subject).copied());
        let from = match to {
            SocketAddr::V4(_) => from.into(),
            SocketAddr::V6(_) => host.facts().local6.unwrap().into(),
        };
        (subject.clone(), Way { from, to, mark })
    });
    let ways = ways.collect();
    (host, ways)
}

/// What the host says of the server.
fn found(subject: &Subject, way: &Way) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        match ask(&subject.check, way).await {
            Ok(()) => "it answers".to_owned(),
            Err(failure) => match diagnosis::of(subject, way).await {
                Some(found) => format!("{failure}: {found}"),
                None => format!("{failure}: nothing can be told"),
            },
        }
    })
}
