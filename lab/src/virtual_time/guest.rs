//! A player or a server: a stack of smoltcp that knows nothing of anything but its own address and gateway.
//!
//! It plays the numbered streams of [`crate::stream`], answers them, and carries octets over TCP.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use super::Host;
use crate::stream::{HEADER, Header, LARGEST, SILENCE, StreamConfig, Trace};
use crate::wan::longest;
use crate::world::Site;

/// Datagrams that a socket keeps, and their octets.
const DATAGRAMS: (usize, usize) = (256, 1 << 16);
/// What a TCP socket keeps, each way.
const TCP_BUFFER: usize = 1 << 18;
/// The longest IP packet of a guest: its stack does not look for a path's MTU.
const MTU: u32 = 1_400;
/// The first port that a player sends from.
const FIRST_PORT: u16 = 49_152;

/// A stream of one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId(usize);

/// A host with a stack, and what runs there.
pub struct Guest {
    interface: Interface,
    queue: Queue,
    sockets: SocketSet<'static>,
    now: Duration,
    streams: Vec<Stream>,
    echoes: Vec<SocketHandle>,
    arrived: HashMap<u32, Arrived>,
    speakers: Vec<Speaker>,
    uploads: Vec<Upload>,
    downloads: Vec<Download>,
    ports: u16,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guest {{ address: {:?} }}", self.interface.ipv4_addr())
    }
}

/// A player's stream.
struct Stream {
    config: StreamConfig,
    socket: SocketHandle,
    clock: Clock,
    trace: Trace,
}

/// What a server knows of a stream.
struct Arrived {
    numbers: Vec<u64>,
    /// Where the last came from, by which socket, and when.
    last: (udp::UdpMetadata, SocketHandle, Duration),
}

/// A server's answers by the clock.
struct Speaker {
    stream: u32,
    clock: Clock,
    packet: Vec<u8>,
}

/// Numbers 0, 1, … each `1 / rate` s.
#[derive(Clone, Copy)]
struct Clock {
    start: Duration,
    rate: u32,
    next: u64,
    ended: bool,
}

impl Clock {
    fn due(&self) -> Option<Duration> {
        let next = u32::try_from(self.next).unwrap_or(u32::MAX);
        (!self.ended).then(|| self.start + Duration::from_secs(1) * next / self.rate.max(1))
    }

    /// The next number, if its time has come.
    fn tick(&mut self, now: Duration) -> Option<u64> {
        self.due().filter(|due| *due <= now)?;
        self.next += 1;
        Some(self.next - 1)
    }
}

/// Octets that are sent over a connection.
struct Upload {
    socket: SocketHandle,
    octets: Vec<u8>,
    sent: usize,
}

/// Octets that came over a connection.
struct Download {
    socket: SocketHandle,
    octets: Vec<u8>,
}

impl Guest {
    pub(super) fn new(site: &Site, mtu: u32) -> Self {
        let mut queue = Queue {
            longest: longest(mtu.min(MTU)),
            received: VecDeque::new(),
            sent: Vec::new(),
        };
        let address = EthernetAddress(site.hardware().0);
        let config = Config::new(HardwareAddress::Ethernet(address));
        let mut interface = Interface::new(config, &mut queue, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // One finds room.
            let _ = addresses.push(IpCidr::new(site.address().local.into(), 24));
        });
        // Nothing was there before it.
        let _ = interface.routes_mut().add_default_ipv4_route(site.gateway());
        Self {
            interface,
            queue,
            sockets: SocketSet::new(Vec::new()),
            now: Duration::ZERO,
            streams: Vec::new(),
            echoes: Vec::new(),
            arrived: HashMap::new(),
            speakers: Vec::new(),
            uploads: Vec::new(),
            downloads: Vec::new(),
            ports: FIRST_PORT,
        }
    }

    /// Answers streams at a UDP port.
    pub fn echo(&mut self, port: u16) {
        let socket = self.udp(port);
        self.echoes.push(socket);
    }

    /// The numbers of stream `id` that arrived so far, in the order in which they did.
    pub fn arrived(&self, id: u32) -> Vec<u64> {
        let arrived = self.arrived.get(&id);
        arrived.map(|arrived| arrived.numbers.clone()).unwrap_or_default()
    }

    /// Begins to send a stream, at `now`.
    pub fn play(&mut self, now: Duration, config: StreamConfig) -> StreamId {
        let port = self.port();
        let socket = self.udp(port);
        self.streams.push(Stream {
            config,
            socket,
            clock: Clock {
                start: now,
                rate: config.rate,
                next: 0,
                ended: false,
            },
            trace: Trace::new(config.rate),
        });
        StreamId(self.streams.len() - 1)
    }

    /// Sends nothing more of a stream; what is under way may still come.
    pub fn stop(&mut self, stream: StreamId) {
        self.streams[stream.0].clock.ended = true;
    }

    /// What a stream has sent and received so far.
    pub fn trace(&self, stream: StreamId) -> &Trace {
        &self.streams[stream.0].trace
    }

    /// Accepts one connection at a TCP port, and keeps what comes.
    pub fn accept(&mut self, port: u16) {
        let mut socket = tcp_socket();
        // A port that is not 0, on a closed socket.
        let _ = socket.listen(port);
        let socket = self.sockets.add(socket);
        let octets = Vec::new();
        self.downloads.push(Download { socket, octets });
    }

    /// What came over connections, one after the other.
    pub fn received(&self) -> Vec<u8> {
        self.downloads
            .iter()
            .flat_map(|download| download.octets.clone())
            .collect()
    }

    /// Connects, sends the octets and closes.
    pub fn upload(&mut self, to: SocketAddrV4, octets: Vec<u8>) {
        let mut socket = tcp_socket();
        let port = self.port();
        // An address and ports that are not 0, on a closed socket.
        let _ = socket.connect(self.interface.context(), endpoint(to), port);
        let socket = self.sockets.add(socket);
        self.uploads.push(Upload {
            socket,
            octets,
            sent: 0,
        });
    }

    fn port(&mut self) -> u16 {
        self.ports += 1;
        self.ports - 1
    }

    fn udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || {
            udp::PacketBuffer::new(
                vec![udp::PacketMetadata::EMPTY; DATAGRAMS.0],
                vec![0; DATAGRAMS.1],
            )
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        // A port that is not 0, on a closed socket.
        let _ = socket.bind(port);
        self.sockets.add(socket)
    }

    /// Sends what is due by the clocks. What finds no room is lost.
    fn speak(&mut self, now: Duration) {
        for stream in &mut self.streams {
            while let Some(number) = stream.clock.tick(now) {
                let mut packet = vec![0; stream.config.bytes.clamp(HEADER, LARGEST)];
                Header::of(&stream.config, number).write(&mut packet);
                stream.trace.sent(now.saturating_sub(stream.clock.start));
                if let SocketAddr::V4(to) = stream.config.to {
                    let socket = self.sockets.get_mut::<udp::Socket<'_>>(stream.socket);
                    let _ = socket.send_slice(&packet, endpoint(to));
                }
            }
        }
        for speaker in &mut self.speakers {
            let Some(arrived) = self.arrived.get(&speaker.stream) else {
                continue;
            };
            let (to, socket, at) = arrived.last;
            speaker.clock.ended |= now.saturating_sub(at) > SILENCE;
            while let Some(reply) = speaker.clock.tick(now) {
                let header = Header {
                    stream: speaker.stream,
                    number: arrived.numbers.last().copied().unwrap_or_default(),
                    reply,
                };
                header.write(&mut speaker.packet);
                let socket = self.sockets.get_mut::<udp::Socket<'_>>(socket);
                let _ = socket.send_slice(&speaker.packet, to.endpoint);
            }
        }
        self.speakers.retain(|speaker| !speaker.clock.ended);
    }

    /// Takes what came.
    fn hear(&mut self, now: Duration) {
        for stream in &mut self.streams {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(stream.socket);
            while let Ok((packet, _)) = socket.recv() {
                if let Some(header) = Header::read(packet).filter(|header| header.stream == stream.config.id)
                {
                    let at = now.saturating_sub(stream.clock.start);
                    stream.trace.replied(header.number, header.reply, at);
                }
            }
        }
        for echo in self.echoes.clone() {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(echo);
            let mut came = Vec::new();
            while let Ok((packet, from)) = socket.recv() {
                came.push((packet.to_vec(), from));
            }
            for (packet, from) in came {
                self.answer(now, echo, packet, from);
            }
        }
        self.exchange();
    }

    fn answer(&mut self, now: Duration, echo: SocketHandle, mut packet: Vec<u8>, from: udp::UdpMetadata) {
        let Some(mut header) = Header::read(&packet) else {
            return;
        };
        let last = (from, echo, now);
        let numbers = Vec::new();
        let arrived = self.arrived.entry(header.stream);
        let arrived = arrived.or_insert(Arrived { numbers, last });
        let before = arrived.numbers.len();
        arrived.numbers.push(header.number);
        arrived.last = last;
        match u32::try_from(header.reply) {
            Ok(0) => {
                header.reply = before as u64;
                header.write(&mut packet);
                let socket = self.sockets.get_mut::<udp::Socket<'_>>(echo);
                let _ = socket.send_slice(&packet, from.endpoint);
            }
            Ok(rate) if before == 0 => self.speakers.push(Speaker {
                stream: header.stream,
                clock: Clock {
                    start: now,
                    rate,
                    next: 0,
                    ended: false,
                },
                packet,
            }),
            _ => {}
        }
    }

    /// Moves octets between connections and those who wait for them.
    fn exchange(&mut self) {
        for upload in &mut self.uploads {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(upload.socket);
            if socket.can_send() {
                upload.sent += socket.send_slice(&upload.octets[upload.sent..]).unwrap_or(0);
            }
            if upload.sent == upload.octets.len() && socket.may_send() {
                socket.close();
            }
        }
        for download in &mut self.downloads {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(download.socket);
            while socket.can_recv() {
                let took = socket.recv(|octets| (octets.len(), octets.to_vec()));
                download.octets.extend(took.unwrap_or_default());
            }
            if socket.state() == tcp::State::CloseWait {
                socket.close();
            }
        }
    }

    fn run(&mut self, now: Duration, out: &mut Vec<Vec<u8>>) {
        self.now = now;
        self.speak(now);
        loop {
            let changed = self
                .interface
                .poll(instant(now), &mut self.queue, &mut self.sockets);
            if changed == PollResult::None {
                break;
            }
            self.hear(now);
        }
        out.append(&mut self.queue.sent);
    }
}

impl Host for Guest {
    fn receive(&mut self, now: Duration, frame: Vec<u8>, out: &mut Vec<Vec<u8>>) {
        self.queue.received.push_back(frame);
        self.run(now, out);
    }

    fn work(&mut self, now: Duration, out: &mut Vec<Vec<u8>>) {
        self.run(now, out);
    }

    fn next(&mut self) -> Option<Duration> {
        let stack = self.interface.poll_at(instant(self.now), &self.sockets);
        let stack = stack.map(|at| {
            let at = Duration::from_micros(at.total_micros().unsigned_abs());
            // What is due at once has been tried just now.
            at.max(self.now + Duration::from_micros(1))
        });
        let streams = self.streams.iter().filter_map(|stream| stream.clock.due());
        let speakers = self.speakers.iter().filter_map(|speaker| speaker.clock.due());
        streams.chain(speakers).chain(stack).min()
    }
}

fn tcp_socket() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; TCP_BUFFER]);
    tcp::Socket::new(buffer(), buffer())
}

fn endpoint(to: SocketAddrV4) -> IpEndpoint {
    IpEndpoint::new(IpAddress::from(*to.ip()), to.port())
}

fn instant(time: Duration) -> Instant {
    Instant::from_micros(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

/// The device between a stack and the wire.
struct Queue {
    longest: usize,
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'q>(&'q mut Vec<Vec<u8>>);

impl Device for Queue {
    type RxToken<'q> = Received;
    type TxToken<'q> = Sending<'q>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.longest;
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl phy::TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.push(frame);
        result
    }
}
