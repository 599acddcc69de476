//! HTTP/1.1's `GET`, of which only the answer's head is read.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::sync::Arc;

use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;

use super::{Failure, Way, socket, tls};

/// Octets of the longest head.
const HEAD: usize = 16 << 10;

/// Who asks, in protocols where that is said.
pub(super) const AGENT: &str = "kuafu-health";

/// Asks for `path`, and judges the status.
pub(super) async fn get(
    way: &Way,
    tls: bool,
    path: &str,
    host: &str,
    good: RangeInclusive<u16>,
) -> Result<(), Failure> {
    let request = request(way, path, host)?;
    let stream = socket::tcp(way).await?;
    let found = if tls {
        let connector = TlsConnector::from(Arc::new(tls::config("http/1.1")?));
        let stream = connector.connect(tls::name(host, way.to.ip())?, stream).await?;
        send(request, TokioIo::new(stream)).await
    } else {
        send(request, TokioIo::new(stream)).await
    }
    .map_err(|error| Failure::broken(&error))?;
    good.contains(&found).then_some(()).ok_or(Failure::Status {
        found,
        first: *good.start(),
        last: *good.end(),
    })
}

fn request(way: &Way, path: &str, host: &str) -> Result<Request<String>, Failure> {
    let address = way.to.to_string();
    Request::get(path)
        .header(HOST, if host.is_empty() { &address } else { host })
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "close")
        .body(String::new())
        .map_err(|error| Failure::Host(format!("{path:?} of {host:?}: {error}")))
}

/// The status of the answer.
async fn send(request: Request<String>, stream: impl Read + Write + Unpin) -> hyper::Result<u16> {
    let (mut sender, connection) = http1::Builder::new().max_buf_size(HEAD).handshake(stream).await?;
    // What ends the connection, the request is told too.
    let driver = async {
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer?,
        never = driver => match never {},
    };
    Ok(answer.status().as_u16())
}
