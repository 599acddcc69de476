//! One question to a server: does it serve?
//!
//! Servers are hostile: what they say is read up to a limit, and each question ends with its time-out. Nothing is kept
//! from one question to the next.

mod datagram;
mod failure;
mod game;
mod grpc;
mod http;
mod minecraft;
mod quic;
mod socket;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kuafu_model::state::{Ask, Check};

pub use failure::Failure;

/// From where a server is asked, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// An address of this host, of the server's family; unspecified: it has none.
    pub from: IpAddr,
    /// The server's address and port.
    pub to: SocketAddr,
    /// The socket's mark, by which the port program of `kuafu0` knows a check that goes behind an outer header; `None`:
    /// an ordinary packet.
    pub mark: Option<u32>,
}

/// Asks once.
///
/// # Errors
/// Why the server does not serve; [`Failure::Host`] where it could not be asked.
pub async fn ask(check: &Check, way: &Way) -> Result<(), Failure> {
    let limit = Duration::from_millis(check.timeout_ms.into());
    let answered = tokio::time::timeout(limit, put(&check.ask, way, limit)).await;
    answered.unwrap_or(Err(Failure::Silent {
        limit_ms: check.timeout_ms,
    }))
}

async fn put(ask: &Ask, way: &Way, limit: Duration) -> Result<(), Failure> {
    match ask {
        Ask::Tcp => socket::tcp(way).await.map(drop),
        Ask::Http {
            tls,
            path,
            host,
            status: (first, last),
        } => http::get(way, *tls, path, host, *first..=*last).await,
        Ask::Udp { send, expect } => {
            datagram::answers(
                way,
                limit,
                send,
                |answer| answer.starts_with(expect),
                "expected answer",
            )
            .await
        }
        Ask::A2s => datagram::info(way, limit).await,
        Ask::Quake3 => {
            datagram::answers(way, limit, game::GET_STATUS, game::is_status, "statusResponse").await
        }
        Ask::Minecraft => minecraft::status(way).await,
        Ask::Quic { alpn, host } => quic::handshake(way, limit, alpn, host).await,
        Ask::Grpc { service } => grpc::check(way, service).await,
    }
}
