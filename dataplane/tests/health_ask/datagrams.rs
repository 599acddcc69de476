//! Questions of one datagram.

use kuafu_model::state::Ask;
use tokio::net::UdpSocket;

use crate::{FROM, SHORT_MS, asked, asked_within, loopback, quic, refused, silence, udp};

/// Answers each datagram as `answer` says, by how many came before it.
async fn server(answer: impl Fn(usize, &[u8]) -> Option<Vec<u8>> + Send + 'static) -> u16 {
    let socket = UdpSocket::bind(loopback()).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut question = [0; 2048];
        for number in 0.. {
            let (size, from) = socket.recv_from(&mut question).await.unwrap();
            assert_eq!(from.ip(), FROM);
            if let Some(answer) = answer(number, &question[..size]) {
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    port
}

#[tokio::test]
async fn an_answer_counts_by_how_it_begins() {
    let echo = server(|_, question| Some(question.to_vec())).await;
    assert_eq!(asked(udp(b"ping", b"pi"), echo).await, Ok(()));
    assert_eq!(asked(udp(b"ping", b""), echo).await, Ok(()));
    assert_eq!(asked(udp(b"", b""), echo).await, Ok(()));
    let wrong = "answered what is no expected answer: 70 69 6e 67";
    assert_eq!(asked(udp(b"ping", b"pong"), echo).await, Err(wrong.to_owned()));
    let nothing = "answered what is no expected answer: nothing";
    assert_eq!(asked(udp(b"", b"pong"), echo).await, Err(nothing.to_owned()));
}

#[tokio::test]
async fn a_lost_question_is_asked_again() {
    let second = server(|number, question| (number == 1).then(|| question.to_vec())).await;
    assert_eq!(asked_within(4_000, udp(b"ping", b"ping"), second).await, Ok(()));
}

#[tokio::test]
async fn silence_fails() {
    let silent = server(|_, _| None).await;
    for ask in [udp(b"ping", b""), Ask::A2s, Ask::Quake3] {
        assert_eq!(asked_within(SHORT_MS, ask, silent).await, silence());
    }
}

#[tokio::test]
async fn a_closed_port_refuses() {
    // Held, so that nobody else takes it, but open to another alone.
    let held = UdpSocket::bind(loopback()).await.unwrap();
    held.connect("127.0.0.99:9").await.unwrap();
    let closed = held.local_addr().unwrap().port();
    for ask in [udp(b"ping", b""), Ask::A2s, Ask::Quake3, quic("h3", "")] {
        assert_eq!(asked(ask, closed).await, refused());
    }
}

const QUESTION: &[u8] = b"\xff\xff\xff\xffTSource Engine Query\0";
const INFO: &[u8] = b"\xff\xff\xff\xffI\x11A server\0de_dust2\0csgo\0CS:GO\0\xda\x02\x05\x14\0dl\0\x011.0\0";

#[tokio::test]
async fn a_source_server_answers() {
    let plain = server(|_, question| (question == QUESTION).then(|| INFO.to_vec())).await;
    assert_eq!(asked(Ask::A2s, plain).await, Ok(()));
    let old = server(|_, _| Some(b"\xff\xff\xff\xffm127.0.0.1:27015\0Old\0".to_vec())).await;
    assert_eq!(asked(Ask::A2s, old).await, Ok(()));
}

#[tokio::test]
async fn a_challenge_is_given_back() {
    let careful = server(|_, question| {
        let proof = question.strip_prefix(QUESTION)?;
        match proof {
            b"\x0b\xad\xca\xfe" => Some(INFO.to_vec()),
            _ => Some(b"\xff\xff\xff\xffA\x0b\xad\xca\xfe".to_vec()),
        }
    })
    .await;
    assert_eq!(asked(Ask::A2s, careful).await, Ok(()));
    let endless = server(|_, _| Some(b"\xff\xff\xff\xffA\x0b\xad\xca\xfe".to_vec())).await;
    assert_eq!(
        asked(Ask::A2s, endless).await,
        Err("answered what is no A2S_INFO, but one more challenge: 0b ad ca fe".to_owned())
    );
}

#[tokio::test]
async fn a_quake_server_answers() {
    let server = server(|_, question| {
        let status =
            b"\xff\xff\xff\xffstatusResponse\n\\version\\ioq3 1.36\\mapname\\oa_dm1\n0 50 \"player\"\n";
        (question == b"\xff\xff\xff\xffgetstatus\n").then(|| status.to_vec())
    })
    .await;
    assert_eq!(asked(Ask::Quake3, server).await, Ok(()));
}

#[tokio::test]
async fn hostile_answers_fail() {
    for answer in [
        Vec::new(),
        vec![0xff; 4],
        vec![0xff; 1400],
        b"\xff\xff\xff\xffA\x0b".to_vec(),
        b"\xfe\xff\xff\xffI\x11".to_vec(),
        b"\xff\xff\xff\xffstatusRespons".to_vec(),
        vec![b'I'; 65_507],
    ] {
        let said = answer.clone();
        let hostile = server(move |_, _| Some(said.clone())).await;
        for ask in [udp(b"ping", b"pong"), Ask::A2s, Ask::Quake3] {
            let reason = asked(ask, hostile).await.unwrap_err();
            assert!(reason.starts_with("answered what is no"), "{reason}");
            assert!(reason.len() < 100, "{reason}");
        }
        // Anyone may have sent what is no QUIC: it is passed over.
        assert_eq!(asked_within(SHORT_MS, quic("h3", ""), hostile).await, silence());
    }
}
