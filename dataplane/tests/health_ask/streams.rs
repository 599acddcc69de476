//! Questions over TCP: what a connection alone says, Minecraft's status, and servers that speak another protocol.

use std::io;

use kuafu_model::state::Ask;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::{FROM, SHORT_MS, asked, asked_within, comes, grpc, http, loopback, refused, silence};

fn every() -> [Ask; 4] {
    [
        http(false, "/", "", (200, 299)),
        http(true, "/", "", (200, 299)),
        Ask::Minecraft,
        grpc(""),
    ]
}

/// Serves one connection.
async fn server<T: Send + 'static, F: Future<Output = T> + Send>(
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (stream, from) = listener.accept().await.unwrap();
        assert_eq!(from.ip(), FROM);
        serve(stream).await
    });
    (port, served)
}

/// Reads on, and says how it ended.
async fn end(mut stream: TcpStream) -> io::Result<u64> {
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
}

#[tokio::test]
async fn a_connection_is_enough_and_is_reset() {
    let (port, ended) = server(end).await;
    assert_eq!(asked(Ask::Tcp, port).await, Ok(()));
    let error = comes(ended).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_closed_port_refuses() {
    // Held, so that nobody else takes it, but not listening.
    let held = TcpSocket::new_v4().unwrap();
    held.bind(loopback()).unwrap();
    let closed = held.local_addr().unwrap().port();
    for ask in [Ask::Tcp].into_iter().chain(every()) {
        assert_eq!(asked(ask, closed).await, refused());
    }
}

#[tokio::test]
async fn a_server_that_only_listens_is_left() {
    for ask in every() {
        let (port, ended) = server(end).await;
        assert_eq!(asked_within(SHORT_MS, ask, port).await, silence());
        let _ = comes(ended).await.unwrap();
    }
}

#[tokio::test]
async fn hostile_answers_fail() {
    let endless = b"HTTP/1.1 200 OK\r\n"
        .iter()
        .chain(b"a: b\r\n".repeat(100_000).iter())
        .copied()
        .collect();
    for answer in [
        Vec::new(),
        vec![0],
        vec![0xff; 1 << 20],
        b"HTTP/1.1 200\r\nx".to_vec(),
        b"HTTP/1.1 99999 OK\r\n\r\n".to_vec(),
        b"220 mail.test ESMTP\r\n".to_vec(),
        b"\x16\x03\x03\xff\xff\x02".to_vec(),
        endless,
    ] {
        for ask in every() {
            let answer = answer.clone();
            let (port, _served) = server(async move |mut stream: TcpStream| {
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
                end(stream).await
            })
            .await;
            let reason = asked(ask, port).await.unwrap_err();
            assert!(!reason.is_empty() && reason.len() <= 200, "{reason}");
        }
    }
}

/// A packet of Minecraft's that is shorter than 128 octets.
fn packet(fields: &[u8]) -> Vec<u8> {
    [&[u8::try_from(fields.len()).unwrap()], fields].concat()
}

fn status(json: &str) -> Vec<u8> {
    packet(&[b"\0", packet(json.as_bytes()).as_slice()].concat())
}

#[tokio::test]
async fn a_minecraft_server_answers() {
    let (port, asked_for) = server(async |mut stream: TcpStream| {
        let mut question = [0; 2 + 5 + 1 + 9 + 2 + 1 + 2];
        stream.read_exact(&mut question).await.unwrap();
        let answer =
            status(r#"{"version":{"name":"1.21.5","protocol":770},"players":{"max":20,"online":3}}"#);
        for octet in answer {
            stream.write_all(&[octet]).await.unwrap();
        }
        question
    })
    .await;
    assert_eq!(asked(Ask::Minecraft, port).await, Ok(()));
    let [high, low] = port.to_be_bytes();
    let question = [
        b"\x13\0\xff\xff\xff\xff\x0f\x09127.0.0.1".as_slice(),
        &[high, low],
        b"\x01\x01\0",
    ];
    assert_eq!(comes(asked_for).await.unwrap().as_slice(), question.concat());
}

#[tokio::test]
async fn another_status_fails() {
    for answer in [status("{}"), status("not JSON"), packet(b"\x01"), packet(b"")] {
        let (port, _served) = server(async move |mut stream: TcpStream| {
            stream.write_all(&answer).await.unwrap();
            end(stream).await
        })
        .await;
        let reason = asked(Ask::Minecraft, port).await.unwrap_err();
        assert!(
            reason.starts_with("answered what is no Minecraft status: "),
            "{reason}"
        );
    }
}
