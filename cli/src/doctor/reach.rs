//! How this host and the controller's see each other: what a node needs of the network between hosts.

mod findings;
mod line;

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use kuafu_dataplane::host::Device;
use kuafu_proto::stun::LONGEST_PACKET;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

use super::check::Check;
use super::clock;
use findings::{LEAST, Seen};
use line::{Heard, Line};

/// For a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a host to say that nobody listens there.
const REFUSAL: Duration = Duration::from_secs(1);

/// What is asked, and how this host stands.
pub(super) struct Question<'a> {
    /// The controller, `host:port`.
    pub(super) controller: &'a str,
    /// The backbone's port.
    pub(super) port: u16,
    /// Whether Kuafu runs here already: its XDP would take what comes to that port.
    pub(super) runs: bool,
    /// The underlay.
    pub(super) device: Option<&'a Device>,
}

/// Everything that can be found out; what needs an answer that does not come is left out.
pub(super) async fn checks(question: &Question<'_>) -> Vec<Check> {
    let (check, address) = controller(question.controller).await;
    let mut checks = vec![check];
    if let Some(address) = address {
        let found = udp(question, address, &mut checks).await;
        checks.extend(
            found
                .err()
                .map(|error| Check::warn("udp out", format!("not looked at: {error}"), "look again")),
        );
    }
    checks
}

/// Whether the controller can be dialled; its address, if it has one.
async fn controller(named: &str) -> (Check, Option<SocketAddrV4>) {
    const NAME: &str = "controller";
    let found = lookup_host(named).await.map(|mut all| {
        all.find_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        })
    });
    let address = match found {
        Ok(Some(address)) => address,
        Ok(None) => {
            return (
                Check::fail(NAME, format!("{named} has no IPv4 address"), "name another"),
                None,
            );
        }
        Err(error) => {
            return (
                Check::fail(NAME, format!("{named}: {error}"), "--controller HOST:PORT"),
                None,
            );
        }
    };
    let dialled = timeout(PATIENCE, TcpStream::connect(address)).await;
    let why = match dialled {
        Ok(Ok(_)) => return (Check::ok(NAME, format!("TCP {address} answers")), Some(address)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    let fix = format!(
        "start it there (kuafu controller), and let TCP {} in",
        address.port()
    );
    (
        Check::fail(NAME, format!("TCP {address}: {why}"), fix),
        Some(address),
    )
}

/// What UDP shows.
async fn udp(question: &Question<'_>, to: SocketAddrV4, checks: &mut Vec<Check>) -> io::Result<()> {
    let line = match line(question) {
        Ok((line, check)) => {
            checks.extend(check);
            line
        }
        Err(check) => {
            checks.push(check);
            return Ok(());
        }
    };
    let Some(heard) = line.ask(to, false, None).await? else {
        checks.push(silent(to).await?);
        return Ok(());
    };
    checks.push(Check::ok(
        "udp out",
        format!(
            "UDP {to} answers within {:.1} ms",
            heard.after.as_secs_f64() * 1_000.0
        ),
    ));
    if let Some(other) = heard.response.other {
        let other = SocketAddrV4::new(*to.ip(), other.port());
        let seen = seen(&line, to, other, &heard).await?;
        checks.push(findings::nat(&seen));
        if line.port == question.port {
            checks.push(findings::inward(&seen, other.port()));
        }
    }
    if let Some(device) = question.device {
        let mtu = usize::try_from(device.mtu)
            .unwrap_or(usize::MAX)
            .min(LONGEST_PACKET);
        let carried = carried(&line, to, mtu, heard.after).await?;
        checks.push(findings::path_mtu(&device.name, mtu, carried));
    }
    checks.extend(
        heard
            .response
            .clock_ms
            .map(|there| clock::offset(heard.at_ms, there, heard.after)),
    );
    Ok(())
}

/// The backbone's own port, or any where that is not to be had, and why; a failed check where neither is.
fn line(question: &Question<'_>) -> Result<(Line, Option<Check>), Check> {
    const NAME: &str = "udp in";
    let port = question.port;
    let any = |check| match Line::open(0) {
        Ok(line) => Ok((line, Some(check))),
        Err(error) => Err(Check::fail(
            "udp out",
            format!("no UDP socket: {error}"),
            "look again",
        )),
    };
    if question.runs {
        let found = format!(
            "UDP {port}: not tried, since Kuafu runs here and takes it; `kuafu status` says how its legs are"
        );
        return any(Check::ok(NAME, found));
    }
    match Line::open(port) {
        Ok(line) => Ok((line, None)),
        Err(error) => any(Check::fail(
            NAME,
            format!(
                "UDP {port} is taken by another program ({error}): Kuafu's XDP would take that one's packets"
            ),
            format!(
                "end it (ss -ulpn sport = :{port} names it; a geneve device of the kernel has no process), or give the node another udp_port"
            ),
        )),
    }
}

/// How the host looks from both ports. The other one is asked last: what is asked may answer also through a firewall.
async fn seen(line: &Line, to: SocketAddrV4, other: SocketAddrV4, heard: &Heard) -> io::Result<Seen> {
    let inward = line.ask(to, true, Some(heard.after)).await?;
    let from_other = line.ask(other, false, Some(heard.after)).await?;
    Ok(Seen {
        local: SocketAddrV4::new(*source(to).await?.ip(), line.port),
        mapped: heard.response.mapped,
        other: from_other.map(|heard| heard.response.mapped),
        inward: inward.map(|heard| heard.by),
    })
}

/// The address from which this host sends to another.
async fn source(to: SocketAddrV4) -> io::Result<SocketAddrV4> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(to).await?;
    match socket.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => Err(io::Error::other(format!("{address} is none of IPv4"))),
    }
}

/// Nothing answers there: is there no reflector, or no way?
async fn silent(to: SocketAddrV4) -> io::Result<Check> {
    const NAME: &str = "udp out";
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(to).await?;
    socket.send(&[0]).await?;
    let refused = timeout(REFUSAL, socket.recv(&mut [0; 64])).await;
    if matches!(refused, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
        return Ok(Check::warn(
            NAME,
            format!(
                "nobody listens at UDP {to}: the controller has no reflector, so UDP and NAT were not looked at"
            ),
            "start it there without --reflector-port 0",
        ));
    }
    Ok(Check::fail(
        NAME,
        format!("UDP {to} does not answer: UDP is blocked on the way there or back"),
        format!(
            "let UDP out here, with what answers it; at the controller's host let UDP {} in (or its reflector is off)",
            to.port()
        ),
    ))
}

/// The longest packet that comes through there and back, up to the underlay's MTU.
async fn carried(line: &Line, to: SocketAddrV4, mtu: usize, trip: Duration) -> io::Result<Option<usize>> {
    let mut first = vec![LEAST, mtu & !3];
    first.extend(findings::lengths(LEAST, mtu & !3));
    let mut answered = line.answered(to, &first, trip).await?;
    let mut tried = first;
    while let Some(good) = answered.iter().copied().max() {
        let bad = tried.iter().copied().filter(|length| *length > good).min();
        let next = bad.map(|bad| findings::lengths(good, bad)).unwrap_or_default();
        if next.is_empty() {
            // STUN counts in words: the rest of the last one is taken on trust.
            return Ok(Some(if bad.is_none() { mtu } else { good }));
        }
        answered.extend(line.answered(to, &next, trip).await?);
        tried.extend(next);
    }
    Ok(None)
}
