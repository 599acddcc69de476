//! Requests of a client, one after the other, each by a connection of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kuafu_lab::world::World;

/// Where servers of web pages listen; each says who it is.
pub(super) const HTTP: u16 = 80;
/// For an answer: shorter than what a packet that is lost takes to be sent again.
pub(super) const ANSWER: Duration = Duration::from_millis(900);
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(2);

/// A connection from the calling thread's namespace.
pub(super) fn connect(address: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&SocketAddr::from((address, port)), ANSWER)?;
    connection.set_read_timeout(Some(ANSWER))?;
    Ok(connection)
}

/// Who answers a request from the calling thread's namespace.
pub(super) fn request(address: Ipv4Addr) -> std::io::Result<String> {
    let mut connection = connect(address, HTTP)?;
    connection.write_all(b"GET /who HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    Ok(body.to_owned())
}

/// A request, and who answered it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) began: Instant,
    pub(super) took: Duration,
    pub(super) who: Result<String, String>,
}

/// Those that nobody answered.
pub(super) fn failed(requests: &[Request]) -> impl Iterator<Item = &Request> {
    requests.iter().filter(|request| request.who.is_err())
}

/// Asks each service again and again, a connection each, while `work` goes on, which sees what came of it so far.
pub(super) fn under_load(
    world: &World,
    client: &str,
    addresses: &[Ipv4Addr],
    work: impl FnOnce(&[Mutex<Vec<Request>>]),
) -> Vec<Vec<Request>> {
    let ends = AtomicBool::new(false);
    let all: Vec<Mutex<Vec<Request>>> = addresses.iter().map(|_| Mutex::default()).collect();
    thread::scope(|scope| {
        // Whatever `work` comes to.
        let _ends = End(&ends);
        for (address, requests) in addresses.iter().zip(&all) {
            let until = &ends;
            let client = world.netns(client).unwrap();
            scope.spawn(move || {
                let asking = client.run(|| {
                    while !until.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        let who = request(*address);
                        let took = began.elapsed();
                        let who = who.map_err(|error| format!("{error} after {took:?}"));
                        requests.lock().unwrap().push(Request { began, took, who });
                        thread::sleep(PAUSE);
                    }
                });
                asking.unwrap();
            });
        }
        work(&all);
    });
    all.into_iter()
        .map(|requests| requests.into_inner().unwrap())
        .collect()
}

/// Says that it is over.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
