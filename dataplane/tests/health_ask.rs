//! What a health check asks: of real servers on loopback, of servers written from the specifications, and of hostile
//! ones. Nothing here measures time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

#[path = "health_ask/datagrams.rs"]
mod datagrams;
#[path = "health_ask/quic.rs"]
mod quic;
#[path = "health_ask/streams.rs"]
mod streams;
#[path = "health_ask/web.rs"]
mod web;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use kuafu_dataplane::health::ask::{Way, ask};
use kuafu_model::state::{Ask, Check};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::PrivateKeyDer;

/// Whence servers are asked.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 5));
/// Longer than any machine thinks about an answer.
const LONG_MS: u32 = 30_000;
/// For servers that do not answer.
const SHORT_MS: u32 = 300;

async fn asked(ask: Ask, port: u16) -> Result<(), String> {
    asked_within(LONG_MS, ask, port).await
}

async fn asked_within(timeout_ms: u32, what: Ask, port: u16) -> Result<(), String> {
    let check = Check {
        service: "test".to_owned(),
        ask: what,
        port: None,
        interval_ms: timeout_ms,
        timeout_ms,
        rise: 1,
        fall: 1,
        least_percent: 0,
        slow_start_s: 0,
    };
    let way = Way {
        from: FROM,
        to: (Ipv4Addr::LOCALHOST, port).into(),
        mark: None,
    };
    ask(&check, &way).await.map_err(|failure| failure.to_string())
}

fn silence() -> Result<(), String> {
    Err(format!("no answer within {SHORT_MS} ms"))
}

fn refused() -> Result<(), String> {
    Err("connection refused".to_owned())
}

/// What must come, on however slow a machine.
async fn comes<T>(event: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, event).await.expect("it came")
}

fn http(tls: bool, path: &str, host: &str, status: (u16, u16)) -> Ask {
    Ask::Http {
        tls,
        path: path.to_owned(),
        host: host.to_owned(),
        status,
    }
}

fn udp(send: &[u8], expect: &[u8]) -> Ask {
    Ask::Udp {
        send: send.to_vec(),
        expect: expect.to_vec(),
    }
}

fn quic(alpn: &str, host: &str) -> Ask {
    Ask::Quic {
        alpn: alpn.to_owned(),
        host: host.to_owned(),
    }
}

fn grpc(service: &str) -> Ask {
    Ask::Grpc {
        service: service.to_owned(),
    }
}

/// A server with a certificate that nobody has signed, for a name that nobody asks for.
fn unknown_server(alpn: &str) -> ServerConfig {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["elsewhere.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}
