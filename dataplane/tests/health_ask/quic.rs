//! QUIC's handshake.

use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{ConnectionError, Endpoint, ServerConfig};
use tokio::net::UdpSocket;

use crate::{FROM, SHORT_MS, asked, asked_within, comes, loopback, quic, silence, unknown_server};

fn server(alpn: &str) -> (Endpoint, u16) {
    let crypto = QuicServerConfig::try_from(unknown_server(alpn)).unwrap();
    let config = ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = Endpoint::server(config, loopback()).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    (endpoint, port)
}

#[tokio::test]
async fn a_handshake_is_completed_and_closed() {
    for host in ["", "game.example"] {
        let (endpoint, port) = server("h3");
        let seen = tokio::spawn(async move {
            let connection = endpoint.accept().await.unwrap().await.unwrap();
            let closed = connection.closed().await;
            (connection.remote_address().ip(), closed)
        });
        assert_eq!(asked(quic("h3", host), port).await, Ok(()));
        let (from, closed) = comes(seen).await.unwrap();
        assert_eq!(from, FROM);
        assert!(
            matches!(closed, ConnectionError::ApplicationClosed(_)),
            "{closed}"
        );
    }
}

#[tokio::test]
async fn a_server_that_wants_an_address_proven_answers() {
    let (endpoint, port) = server("h3");
    tokio::spawn(async move {
        endpoint.accept().await.unwrap().retry().unwrap();
        let connection = endpoint.accept().await.unwrap().await.unwrap();
        connection.closed().await
    });
    assert_eq!(asked(quic("h3", ""), port).await, Ok(()));
}

#[tokio::test]
async fn another_application_fails() {
    let (endpoint, port) = server("h3");
    tokio::spawn(async move { endpoint.accept().await.unwrap().await.map(drop) });
    let reason = asked(quic("game", ""), port).await.unwrap_err();
    assert!(reason.contains("error 120"), "{reason}");
}

#[tokio::test]
async fn a_lost_greeting_is_sent_again() {
    let silent = UdpSocket::bind(loopback()).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    assert_eq!(asked_within(SHORT_MS, quic("h3", ""), port).await, silence());
    for _ in 0..2 {
        let mut greeting = [0; 2048];
        let size = comes(silent.recv(&mut greeting)).await.unwrap();
        // A long header, and what a path must carry (RFC 9000, 14.1 and 17.2).
        assert!(greeting[0] & 0xc0 == 0xc0 && size >= 1200);
    }
}
