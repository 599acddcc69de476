//! The server list ping of Minecraft's Java Edition (minecraft.wiki, "Java Edition protocol/Server List Ping").
//!
//! A packet is its length, its number and its fields; lengths and numbers are `VarInt`s of seven bits an octet, the
//! lowest first.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::de::IgnoredAny;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{Failure, Way, socket};

/// Octets of the longest answer: a string of 32,767 characters, its length, the packet's number.
const LONGEST: u32 = 3 * 32_767 + 8;
/// -1: a client that wants to know.
const PROTOCOL: &[u8] = b"\xff\xff\xff\xff\x0f";
const STATUS_REQUEST: &[u8] = b"\x01\0";
const WANTED: &str = "Minecraft status";

/// Asks for the status, as a list of servers does.
pub(super) async fn status(way: &Way) -> Result<(), Failure> {
    let mut stream = socket::tcp(way).await?;
    stream.write_all(&question(way.to)).await?;
    let packet = read(&mut stream).await?;
    is_status(&packet)
        .then_some(())
        .ok_or_else(|| Failure::answer(WANTED, &packet))
}

/// The handshake and the request for the status.
fn question(to: SocketAddr) -> Vec<u8> {
    let host = to.ip().to_string();
    let handshake = [
        b"\0",
        PROTOCOL,
        &counted(host.as_bytes()),
        &to.port().to_be_bytes(),
        b"\x01",
    ];
    [&counted(&handshake.concat()), STATUS_REQUEST].concat()
}

/// Behind their length, which is one octet: neither an address nor a handshake with one has 128.
fn counted(octets: &[u8]) -> Vec<u8> {
    let [length, ..] = octets.len().to_le_bytes();
    [&[length], octets].concat()
}

/// One packet, without its length.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Failure> {
    let mut length = Vec::with_capacity(5);
    let octets = loop {
        length.push(stream.read_u8().await?);
        match var_int(&length) {
            Some((octets, _)) => break octets,
            None if length.len() < 5 => {}
            None => return Err(Failure::answer(WANTED, &length)),
        }
    };
    if octets > LONGEST {
        return Err(Failure::TooLarge {
            octets,
            most: LONGEST,
        });
    }
    let mut packet = Vec::new();
    let size = stream.take(octets.into()).read_to_end(&mut packet).await?;
    match u32::try_from(size) {
        Ok(size) if size == octets => Ok(packet),
        _ => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Whether a packet is number 0 and holds the JSON of an object that tells a version.
fn is_status(packet: &[u8]) -> bool {
    let json = var_int(packet)
        .filter(|(number, _)| *number == 0)
        .and_then(|(_, fields)| var_int(fields))
        .and_then(|(length, text)| text.get(..usize::try_from(length).ok()?));
    let status = json.map(serde_json::from_slice::<HashMap<String, IgnoredAny>>);
    matches!(status, Some(Ok(status)) if status.contains_key("version"))
}

/// A number of at most five octets, and what follows it; `None` where it does not end.
fn var_int(octets: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0;
    for (place, octet) in octets.iter().enumerate().take(5) {
        value |= u32::from(octet & 0x7f) << (7 * place);
        if octet & 0x80 == 0 {
            return Some((value, octets.get(place + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &[u8] = b"\0\x3f{\"version\":{\"name\":\"1.21.5\",\"protocol\":770},\"description\":\"hi\"}";

    #[test]
    fn the_question_is_the_specifications() {
        let octets = question(SocketAddr::from(([10, 0, 0, 7], 25565)));
        assert_eq!(
            octets,
            b"\x12\0\xff\xff\xff\xff\x0f\x0810.0.0.7\x63\xdd\x01\x01\0"
        );
    }

    #[test]
    fn numbers_are_the_specifications() {
        for (octets, value) in [
            (b"\0".as_slice(), Some(0)),
            (b"\x7f", Some(127)),
            (b"\x80\x01", Some(128)),
            (b"\xdd\xc7\x01", Some(25565)),
            (b"\xff\xff\xff\xff\x07", Some(0x7fff_ffff)),
            (PROTOCOL, Some(u32::MAX)),
            (b"\x80\x80\x80\x80\x80\0", None),
            (b"\x80", None),
            (b"", None),
        ] {
            assert_eq!(var_int(octets).map(|(value, _)| value), value, "{octets:x?}");
        }
    }

    #[test]
    fn a_status_tells_a_version() {
        assert!(is_status(GOOD));
        for other in [
            b"\x01\x0e{\"version\":{}}".as_slice(),
            b"\0\x0f{\"version\":{}}",
            b"\0\x02{}",
            b"\0\x0b[\"version\"]",
            b"\0\x09\"version\"",
            b"\0\0",
            b"\0",
            b"",
        ] {
            assert!(!is_status(other), "{other:x?}");
        }
    }

    #[tokio::test]
    async fn a_packet_larger_than_any_is_not_read() {
        let announced = read(&mut b"\xff\xff\xff\xff\x07{".as_slice()).await;
        assert!(matches!(announced, Err(Failure::TooLarge { .. })));
        let endless = read(&mut [0x80; 64].as_slice()).await;
        assert!(matches!(endless, Err(Failure::Answer { .. })));
        let short = read(&mut b"\x05{".as_slice()).await;
        assert_eq!(
            short,
            Err(Failure::Broken("closed before it answered".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn any_octets_are_read(octets in vec(any::<u8>(), 0..64)) {
            let _ = (is_status(&octets), is_status(&[b"\0", octets.as_slice()].concat()));
        }

        #[test]
        fn what_is_cut_short_is_none(length in 0..GOOD.len()) {
            prop_assert!(!is_status(&GOOD[..length]));
        }

        #[test]
        fn one_wrong_octet_does_no_harm(place in 0..GOOD.len(), octet: u8) {
            let mut wrong = GOOD.to_vec();
            wrong[place] = octet;
            let _ = is_status(&wrong);
        }
    }
}
