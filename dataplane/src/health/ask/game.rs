//! What game servers are asked in one datagram: Valve's server queries, and Quake III Arena's connectionless packets.
//!
//! Both begin with four octets of ones.

const HEADER: [u8; 4] = [0xff; 4];

/// The question of Valve's `A2S_INFO` (developer.valvesoftware.com, "Server queries").
pub(super) const A2S_INFO: &[u8] = b"\xff\xff\xff\xffTSource Engine Query\0";

/// Quake III Arena's question. ioquake3 answers an address once a second, after ten at once: who asks more often hears
/// nothing for a while.
pub(super) const GET_STATUS: &[u8] = b"\xff\xff\xff\xffgetstatus\n";

/// An answer to `A2S_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Info {
    /// The information.
    Serves,
    /// The question is to be asked again, with this at its end.
    Challenge([u8; 4]),
}

/// Reads an answer to `A2S_INFO`; `None`: it is none.
pub(super) fn info(answer: &[u8]) -> Option<Info> {
    match answer.strip_prefix(&HEADER)? {
        // Source, and GoldSource as it was.
        [b'I' | b'm', ..] => Some(Info::Serves),
        [b'A', a, b, c, d, ..] => Some(Info::Challenge([*a, *b, *c, *d])),
        _ => None,
    }
}

/// Whether an answer to `getstatus` is a status.
pub(super) fn is_status(answer: &[u8]) -> bool {
    answer
        .strip_prefix(&HEADER)
        .is_some_and(|said| said.starts_with(b"statusResponse"))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_told_apart() {
        for (answer, found) in [
            (b"\xff\xff\xff\xffI\x11name\0".as_slice(), Some(Info::Serves)),
            (b"\xff\xff\xff\xffm127.0.0.1:27015\0", Some(Info::Serves)),
            (
                b"\xff\xff\xff\xffA\x0b\xad\xca\xfe",
                Some(Info::Challenge([0x0b, 0xad, 0xca, 0xfe])),
            ),
            (b"\xff\xff\xff\xffA\x0b\xad\xca", None),
            (b"\xff\xff\xff\xffD\0", None),
            (b"\xfe\xff\xff\xffI", None),
            (b"\xff\xff\xff\xff", None),
            (b"", None),
        ] {
            assert_eq!(info(answer), found, "{answer:x?}");
        }
        assert!(is_status(b"\xff\xff\xff\xffstatusResponse\n\\g_gametype\\0\n"));
        assert!(!is_status(b"\xff\xff\xff\xffinfoResponse\n"));
        assert!(!is_status(b"statusResponse\n"));
    }

    proptest! {
        #[test]
        fn any_octets_are_read(octets in vec(any::<u8>(), 0..64)) {
            let framed = [HEADER.as_slice(), &octets].concat();
            let _ = (info(&octets), is_status(&octets));
            prop_assert_eq!(is_status(&framed), octets.starts_with(b"statusResponse"));
            prop_assert_eq!(info(&framed) == Some(Info::Serves), matches!(octets.first(), Some(b'I' | b'm')));
        }
    }
}
