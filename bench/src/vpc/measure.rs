//! What two machines see of the way between them.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kuafu_lab::Namespace;

use super::world::{Side, World};
use crate::rounds::median;

/// How long one measurement lasts.
const TCP_S: u32 = 2;
const SMALL: Duration = Duration::from_millis(1000);
const REQUESTS: usize = 10_000;
/// Warm-up of the request-reply measurement, and the first packet's patience.
const WARM_UP: usize = 200;
const SILENCE: Duration = Duration::from_millis(200);
const FIRST_PACKET_TRIES: u32 = 50;
/// Payload of a small packet, in bytes: a game's.
const SMALL_BYTES: usize = 64;
const PORT: u16 = 7777;
const IPERF_LIMIT: Duration = Duration::from_secs(30);

/// TCP from a to b in Gb/s, as the receiver counts it.
pub(super) fn tcp(world: &World) -> Result<f64> {
    let mut server = Command::new("iperf3");
    server.args(["-s", "-1"]).stdout(std::process::Stdio::null());
    let mut server = world.b.machine.spawn(server)?;
    let result = download(world);
    // It ends by itself after one client; after a client that failed it would not.
    if result.is_err() || server.wait(IPERF_LIMIT)?.is_none() {
        server.stop(Duration::from_secs(1))?;
    }
    result
}

fn download(world: &World) -> Result<f64> {
    let seconds = TCP_S.to_string();
    let address = world.b.address.to_string();
    for attempt in 1.. {
        // A namespace cannot choose the default congestion control; iperf3 can.
        let mut client = Command::new("iperf3");
        client.args(["-c", &address, "-t", &seconds, "-C", "cubic", "-J"]);
        client.args(["--connect-timeout", "2000"]);
        let output = world.a.machine.output(client, IPERF_LIMIT)?;
        let answer: serde_json::Value =
            serde_json::from_slice(&output.stdout).context("iperf3 printed no JSON")?;
        if let Some(rate) = answer["end"]["sum_received"]["bits_per_second"].as_f64() {
            return Ok(rate / 1e9);
        }
        // The server may not listen yet.
        if attempt == FIRST_PACKET_TRIES {
            bail!("iperf3: {}", answer["error"].as_str().unwrap_or("no rate"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("iperf3 was not tried")
}

/// The median of UDP request and reply from a to b and back, in µs.
pub(super) fn request_reply(world: &World) -> Result<f64> {
    let (client, server) = sockets(world)?;
    server.set_read_timeout(Some(SILENCE))?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| echo(&server, &done));
        let result = round_trips(&client);
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn echo(server: &UdpSocket, done: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !done.load(Ordering::Relaxed) {
        if let Ok((length, from)) = server.recv_from(&mut buffer) {
            // A reply that cannot be sent is a request that is not answered.
            let _ = server.send_to(&buffer[..length], from);
        }
    }
}

fn round_trips(client: &UdpSocket) -> Result<f64> {
    client.set_read_timeout(Some(SILENCE))?;
    let mut buffer = [0; SMALL_BYTES];
    let mut ask = || -> Result<Option<f64>> {
        let start = Instant::now();
        client.send(&[0; SMALL_BYTES])?;
        match client.recv(&mut buffer) {
            Ok(_) => Ok(Some(start.elapsed().as_secs_f64() * 1e6)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let mut tries = 0;
    while ask()?.is_none() {
        tries += 1;
        ensure!(
            tries < FIRST_PACKET_TRIES,
            "no packet comes back from the other machine"
        );
    }
    let mut times = Vec::with_capacity(REQUESTS);
    for request in 0..WARM_UP + REQUESTS {
        let time = ask()?.context("a request or its reply was lost")?;
        if request >= WARM_UP {
            times.push(time);
        }
    }
    median(&times).context("no request was sent")
}

/// UDP packets of 64 bytes from a that arrive at b, in thousands per second.
pub(super) fn small_packets(world: &World) -> Result<f64> {
    let (client, server) = sockets(world)?;
    server.set_read_timeout(Some(SILENCE))?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| count(&server));
        let start = Instant::now();
        while start.elapsed() < SMALL {
            for _ in 0..64 {
                // What a full queue refuses has not been sent.
                let _ = client.send(&[0; SMALL_BYTES]);
            }
        }
        let received = receiver.join().unwrap_or_default();
        Ok(f64::from(received) / SMALL.as_secs_f64() / 1e3)
    })
}

/// Counts until the wire has been silent.
fn count(server: &UdpSocket) -> u32 {
    let mut buffer = [0; 2048];
    let mut received = 0;
    let mut silent = 0;
    while silent < 2 {
        match server.recv(&mut buffer) {
            Ok(_) => (received, silent) = (received + 1, 0),
            Err(_) => silent += 1,
        }
    }
    received
}

/// A client in machine a connected to a server in machine b.
fn sockets(world: &World) -> Result<(UdpSocket, UdpSocket)> {
    let server = bound(&world.b)?;
    let client = bound(&world.a)?;
    client.connect(SocketAddr::new(world.b.address.into(), PORT))?;
    Ok((client, server))
}

/// A socket belongs to the namespace that it was made in, whoever uses it.
fn bound(side: &Side) -> Result<UdpSocket> {
    let machine: &Namespace = &side.machine;
    let address = SocketAddr::new(side.address.into(), PORT);
    Ok(machine.run(|| UdpSocket::bind(address))??)
}
