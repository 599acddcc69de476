//! HTTP, HTTPS and gRPC, of servers that others use too.

use std::future::pending;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::ServingStatus;

use crate::{SHORT_MS, asked, asked_within, comes, grpc, http, loopback, silence, unknown_server};

async fn site() -> u16 {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = Router::new()
        .route("/good", get(|| async { "here" }))
        .route("/down", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
        .route("/large", get(|| async { "x".repeat(4 << 20) }))
        .route("/silent", get(pending::<StatusCode>))
        .route("/headers", get(move |headers: HeaderMap| judge(headers, port)));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    port
}

/// 200 for a request without a host of its own, 202 for one with, 400 for what we never send.
async fn judge(headers: HeaderMap, port: u16) -> StatusCode {
    let said = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let address = format!("127.0.0.1:{port}");
    let rest = (said("user-agent"), said("connection"), headers.len());
    if rest != (Some("kuafu-health".to_owned()), Some("close".to_owned()), 3) {
        return StatusCode::BAD_REQUEST;
    }
    match said("host").as_deref() {
        Some("game.example") => StatusCode::ACCEPTED,
        Some(host) if host == address => StatusCode::OK,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[tokio::test]
async fn a_status_is_good_or_not() {
    let port = site().await;
    assert_eq!(asked(http(false, "/good", "", (200, 299)), port).await, Ok(()));
    assert_eq!(
        asked(http(false, "/good?x=1", "", (200, 200)), port).await,
        Ok(())
    );
    assert_eq!(asked(http(false, "/large", "", (200, 200)), port).await, Ok(()));
    assert_eq!(asked(http(false, "/down", "", (503, 503)), port).await, Ok(()));
    for (path, first, last, reason) in [
        ("/down", 200, 299, "status 503, wanted 200 to 299"),
        ("/none", 200, 399, "status 404, wanted 200 to 399"),
        ("/good", 300, 301, "status 200, wanted 300 to 301"),
    ] {
        let answer = asked(http(false, path, "", (first, last)), port).await;
        assert_eq!(answer, Err(reason.to_owned()));
    }
}

#[tokio::test]
async fn a_request_names_the_host_and_who_asks() {
    let port = site().await;
    assert_eq!(asked(http(false, "/headers", "", (200, 200)), port).await, Ok(()));
    assert_eq!(
        asked(http(false, "/headers", "game.example", (202, 202)), port).await,
        Ok(())
    );
}

#[tokio::test]
async fn a_slow_answer_is_none() {
    let port = site().await;
    let silent = http(false, "/silent", "", (200, 299));
    assert_eq!(asked_within(SHORT_MS, silent, port).await, silence());
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_the_servers_fault() {
    let port = site().await;
    let reason = asked(http(false, "no path", "", (200, 299)), port)
        .await
        .unwrap_err();
    assert!(reason.starts_with("this host cannot ask: "), "{reason}");
    let reason = asked(http(true, "/", "no name!", (200, 299)), port)
        .await
        .unwrap_err();
    assert!(reason.starts_with("this host cannot ask: "), "{reason}");
}

#[tokio::test]
async fn any_certificate_will_do() {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(unknown_server("http/1.1")));
    let names = tokio::spawn(async move {
        let mut names = Vec::new();
        for _ in 0..2 {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut request = [0; 1024];
            let size = stream.read(&mut request).await.unwrap();
            assert!(request[..size].starts_with(b"GET /health HTTP/1.1\r\n"));
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            let _ = stream.flush().await;
            names.push(stream.get_ref().1.server_name().map(ToOwned::to_owned));
        }
        names
    });
    assert_eq!(
        asked(http(true, "/health", "game.example", (200, 299)), port).await,
        Ok(())
    );
    assert_eq!(
        asked(http(true, "/health", "", (200, 200)), port).await,
        Err("status 204, wanted 200 to 200".to_owned())
    );
    assert_eq!(
        comes(names).await.unwrap(),
        [Some("game.example".to_owned()), None]
    );
}

#[tokio::test]
async fn a_grpc_server_says_whether_it_serves() {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("game.Lobby", ServingStatus::NotServing)
        .await;
    let incoming = TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(incoming));
    assert_eq!(asked(grpc(""), port).await, Ok(()));
    assert_eq!(
        asked(grpc("game.Lobby"), port).await,
        Err("says NOT_SERVING, wanted SERVING".to_owned())
    );
    assert_eq!(
        asked(grpc("game.Shop"), port).await,
        Err("gRPC status NotFound".to_owned())
    );
    reporter
        .set_service_status("game.Lobby", ServingStatus::Serving)
        .await;
    assert_eq!(asked(grpc("game.Lobby"), port).await, Ok(()));
}

#[tokio::test]
async fn a_site_without_grpc_fails() {
    let reason = asked(grpc(""), site().await).await.unwrap_err();
    assert_ne!(reason, "");
}
