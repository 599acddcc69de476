//! Packets as large as the underlay carries, and what every counter of the hosts makes of them.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use kuafu_lab::Namespace;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu, set_ip_mtu_discover};

/// Octets of a datagram whose packet has 1,500.
pub const LARGE: usize = 1_472;
/// Octets that a transfer carries, each way.
pub const TRANSFER: usize = 10_000_000;
/// Where an agent serves its metrics, in its own namespace.
const METRICS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 7_442);
/// What moves without any packet of a test: ARP and probes, which relays count as they count data, and which end with
/// `no_path` when theirs is replaced. And `tracked`, which is no packet's end: it counts flows.
const RESTLESS: [&str; 8] = [
    "arp_answered",
    "relayed",
    "no_path",
    "probe_sent",
    "probe_reflected",
    "probe_returned",
    "sample_lost",
    "tracked",
];
/// For whatever is waited for.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks; counters that have not moved for so long are still.
const PAUSE: Duration = Duration::from_millis(700);

/// By host and word of the reason or event: packets and octets.
pub type Counts = BTreeMap<(String, String), [u64; 2]>;

/// The counters of some hosts, from when they last stood still.
pub struct Watch<'w> {
    hosts: Vec<(&'w str, &'w Namespace)>,
    before: Counts,
}

impl<'w> Watch<'w> {
    /// Begins when nothing moves any more.
    pub fn start(hosts: Vec<(&'w str, &'w Namespace)>) -> Self {
        let mut watch = Self {
            hosts,
            before: Counts::new(),
        };
        watch.settle();
        watch
    }

    /// Waits until nothing moves, and returns the whole change since the last time.
    pub fn settle(&mut self) -> Counts {
        let deadline = Instant::now() + LIMIT;
        let mut last = self.counts();
        loop {
            std::thread::sleep(PAUSE);
            let now = self.counts();
            if now == last {
                let change = difference(&now, &self.before);
                self.before = now;
                return change;
            }
            assert!(
                Instant::now() < deadline,
                "still moving: {:?}",
                difference(&now, &last)
            );
            last = now;
        }
    }

    /// The whole change must be these packets, by host and word.
    #[track_caller]
    pub fn expect(&mut self, packets: &[(&str, &str, u64)]) {
        let change = self.settle();
        let change: Vec<_> = change
            .iter()
            .map(|((host, word), count)| (host.as_str(), word.as_str(), count[0]))
            .collect();
        assert_eq!(change, packets);
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::new();
        for (host, namespace) in &self.hosts {
            for line in scrape(namespace).lines() {
                if let Some((word, unit, value)) = counter(line) {
                    counts.entry(((*host).to_owned(), word.to_owned())).or_default()[unit] = value;
                }
            }
        }
        counts
    }
}

fn scrape(namespace: &Namespace) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(METRICS)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        io::read_to_string(stream)
    };
    namespace.run(ask).unwrap().unwrap()
}

/// Word, unit and value of a line that counts packets (unit 0) or octets (unit 1), unless it is restless.
fn counter(line: &str) -> Option<(&str, usize, u64)> {
    let (name, value) = line.split_once(' ')?;
    let (name, label) = name.strip_suffix("\"}")?.split_once('{')?;
    let unit = match name {
        "kuafu_packets_total" | "kuafu_dropped_packets_total" => 0,
        "kuafu_octets_total" | "kuafu_dropped_octets_total" => 1,
        _ => return None,
    };
    let (_, word) = label.split_once('"')?;
    (!RESTLESS.contains(&word)).then_some((word, unit, value.parse().ok()?))
}

fn difference(now: &Counts, before: &Counts) -> Counts {
    let change = |(key, value): (&(String, String), &[u64; 2])| {
        let before = before.get(key).copied().unwrap_or_default();
        let change = [value[0] - before[0], value[1] - before[1]];
        (change != [0, 0]).then(|| (key.clone(), change))
    };
    now.iter().filter_map(change).collect()
}

/// Whether routers, and the sender's own stack, may cut a datagram.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// DF is set.
    Never,
    /// DF is not set.
    Freely,
}

/// Two sockets that are connected to each other, in namespaces of their own: who began, and the other.
pub struct Talk(pub [UdpSocket; 2]);

impl Talk {
    /// `from` sends a first small datagram to `to`, which arrives at its port in `at`.
    pub fn begin(from: &Namespace, at: &Namespace, to: SocketAddrV4) -> Self {
        let bind = |namespace: &Namespace, port| {
            let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)));
            let socket = socket.unwrap().unwrap();
            socket.set_read_timeout(Some(LIMIT)).unwrap();
            socket
        };
        let (caller, called) = (bind(from, 0), bind(at, to.port()));
        caller.connect(to).unwrap();
        caller.send(b"here I am").unwrap();
        let (_, seen) = called.recv_from(&mut [0; 16]).unwrap();
        called.connect(seen).unwrap();
        Self([caller, called])
    }

    /// One of the two sends so many octets.
    pub fn send(&self, who: usize, octets: usize, cut: Cut) -> io::Result<usize> {
        let discovery = match cut {
            Cut::Never => Ipv4PathMtuDiscovery::DO,
            Cut::Freely => Ipv4PathMtuDiscovery::DONT,
        };
        set_ip_mtu_discover(&self.0[who], discovery)?;
        self.0[who].send(&pattern(octets))
    }

    /// The next datagram that one of the two receives has so many octets, and they are the sender's.
    #[track_caller]
    pub fn arrives(&self, who: usize, octets: usize) {
        let mut buffer = [0; 4_000];
        let length = self.0[who].recv(&mut buffer).unwrap();
        assert!(buffer[..length] == pattern(octets), "{length} octets");
    }

    /// One of the two is told that its datagram was too big, and knows what is not.
    #[track_caller]
    pub fn is_told(&self, who: usize, mtu: u32) {
        let deadline = Instant::now() + LIMIT;
        let error = loop {
            if let Some(error) = self.0[who].take_error().unwrap() {
                break error;
            }
            assert!(Instant::now() < deadline, "nothing was said");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(is_too_big(&error), "{error}");
        assert_eq!(ip_mtu(&self.0[who]).unwrap(), mtu);
    }

    /// The own stack of one of the two refuses a large datagram that must not be cut.
    #[track_caller]
    pub fn is_refused(&self, who: usize) {
        let error = self.send(who, LARGE, Cut::Never).unwrap_err();
        assert!(is_too_big(&error), "{error}");
    }
}

fn is_too_big(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

fn pattern(octets: usize) -> Vec<u8> {
    (0..=250).cycle().take(octets).collect()
}

/// Sends 10 MB by TCP to `to`, which arrive at its port in `at` and come back, the same octets. Returns what `watch`
/// counted, but for `icmp_limited`: both ends learn the path's MTU, and may be sending more than the bucket answers.
pub fn transfer(watch: &mut Watch<'_>, from: &Namespace, at: &Namespace, to: SocketAddrV4) -> Counts {
    let listen = || TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, to.port())));
    let listener = at.run(listen).unwrap().unwrap();
    let connect = || TcpStream::connect_timeout(&to.into(), LIMIT);
    let mut near = from.run(connect).unwrap().unwrap();
    let (far, _) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
    }
    let sent = pattern(TRANSFER);
    let mut back = vec![0; TRANSFER];
    std::thread::scope(|scope| {
        scope.spawn(|| io::copy(&mut &far, &mut &far).unwrap());
        let mut into = near.try_clone().unwrap();
        let sent = &sent;
        scope.spawn(move || into.write_all(sent).unwrap());
        near.read_exact(&mut back).unwrap();
        near.shutdown(std::net::Shutdown::Both).unwrap();
    });
    assert!(sent == back, "other octets");
    drop((near, far));
    let mut change = watch.settle();
    println!("10 MB of TCP each way to {to}: {change:?}");
    change.retain(|(_, word), _| word != "icmp_limited");
    change
}
