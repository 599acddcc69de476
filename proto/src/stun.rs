//! The little of STUN by which a host learns how others see it: Binding (RFC 8489), and of RFC 5780 an answer from
//! another port (CHANGE-REQUEST, OTHER-ADDRESS) and longer messages (PADDING). IPv4 alone.
//!
//! A message is read whole or not at all: what is cut off, of another kind or padded wrongly is none. No integrity is
//! asked for or checked; an answer is known by its transaction, which nobody beside the way can guess.

use std::net::{Ipv4Addr, SocketAddrV4};

use ring::rand::SecureRandom;

/// Octets of a message's header.
const HEADER: usize = 20;
/// Octets of each attribute of an answer.
const ATTRIBUTE: usize = 12;
/// Fixes what a STUN message is (RFC 8489, section 5).
const COOKIE: u32 = 0x2112_a442;
const BINDING: u16 = 0x0001;
const BOUND: u16 = 0x0101;

const CHANGE_REQUEST: u16 = 0x0003;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PADDING: u16 = 0x0026;
const OTHER_ADDRESS: u16 = 0x802c;
/// Kuafu's own, of those that nobody need understand: the answering host's clock, in ms of the Unix epoch.
const CLOCK: u16 = 0xcb46;
/// Attributes below must be understood by who is asked.
const OPTIONAL: u16 = 0x8000;
const CHANGE_PORT: u32 = 0x2;

/// Octets of the longest IP packet that a reflector reads: of a device with large frames.
pub const LONGEST_PACKET: usize = 9_216;

/// What tells one question from all others.
pub type Transaction = [u8; 12];

/// Asks how the sender looks from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The answer has the same.
    pub transaction: Transaction,
    /// The answer is to come from the other port.
    pub from_other_port: bool,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The question's.
    pub transaction: Transaction,
    /// Where the question came from.
    pub mapped: SocketAddrV4,
    /// Where the other port is. The address is the one that the answering host knows of itself.
    pub other: Option<SocketAddrV4>,
    /// The answering host's clock, in ms of the Unix epoch.
    pub clock_ms: Option<u64>,
}

impl Request {
    /// A question with a transaction that nobody can guess.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(from_other_port: bool) -> std::io::Result<Self> {
        let mut transaction = [0; 12];
        let filled = ring::rand::SystemRandom::new().fill(&mut transaction);
        filled.map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
        Ok(Self {
            transaction,
            from_other_port,
        })
    }

    /// The message, padded to `length` octets where it is shorter; rounded down to the four that STUN counts in.
    #[must_use]
    pub fn to_bytes(&self, length: usize) -> Vec<u8> {
        let mut message = Message::new(BINDING, self.transaction);
        if self.from_other_port {
            message.put(CHANGE_REQUEST, &CHANGE_PORT.to_be_bytes());
        }
        message.pad(length);
        message.finish()
    }

    /// The question, if that is what it is and all of it is understood; an answer from another address is not given.
    #[must_use]
    pub fn from_bytes(octets: &[u8]) -> Option<Self> {
        let (transaction, mut attributes) = open(octets, BINDING)?;
        let mut from_other_port = false;
        while let Some((kind, value)) = attributes.next()? {
            match kind {
                CHANGE_REQUEST => {
                    let asked = u32::from_be_bytes(value.try_into().ok()?);
                    if asked & !CHANGE_PORT != 0 {
                        return None;
                    }
                    from_other_port = asked != 0;
                }
                PADDING => {}
                kind if kind >= OPTIONAL => {}
                _ => return None,
            }
        }
        Some(Self {
            transaction,
            from_other_port,
        })
    }
}

impl Response {
    /// The message in exactly `length` octets, rounded down to four: as much of it as fits, in the order of its fields,
    /// padded. Nothing where not even the mapped address fits.
    #[must_use]
    pub fn to_bytes(&self, length: usize) -> Option<Vec<u8>> {
        let mut message = Message::new(BOUND, self.transaction);
        let mapped = address(self.mapped, COOKIE);
        let other = self.other.map(|other| address(other, 0));
        let clock = self.clock_ms.map(u64::to_be_bytes);
        let attributes = [
            Some((XOR_MAPPED_ADDRESS, mapped)),
            other.map(|other| (OTHER_ADDRESS, other)),
            clock.map(|clock| (CLOCK, clock)),
        ];
        if length < HEADER + ATTRIBUTE {
            return None;
        }
        for (kind, value) in attributes.into_iter().flatten() {
            if message.octets.len() + ATTRIBUTE <= length {
                message.put(kind, &value);
            }
        }
        message.pad(length);
        Some(message.finish())
    }

    /// The answer, if that is what it is.
    #[must_use]
    pub fn from_bytes(octets: &[u8]) -> Option<Self> {
        let (transaction, mut attributes) = open(octets, BOUND)?;
        let (mut mapped, mut other, mut clock_ms) = (None, None, None);
        while let Some((kind, value)) = attributes.next()? {
            match kind {
                XOR_MAPPED_ADDRESS => mapped = Some(from_address(value, COOKIE)?),
                OTHER_ADDRESS => other = from_address(value, 0),
                CLOCK => clock_ms = Some(u64::from_be_bytes(value.try_into().ok()?)),
                _ => {}
            }
        }
        Some(Self {
            transaction,
            mapped: mapped?,
            other,
            clock_ms,
        })
    }
}

/// An address as attributes hold it, each word changed by `mask` (RFC 8489, 14.1 and 14.2).
fn address(address: SocketAddrV4, mask: u32) -> [u8; 8] {
    let [high, low, ..] = mask.to_be_bytes();
    let port = address.port() ^ u16::from_be_bytes([high, low]);
    let [a, b] = port.to_be_bytes();
    let [c, d, e, f] = (u32::from(*address.ip()) ^ mask).to_be_bytes();
    [0, 1, a, b, c, d, e, f]
}

fn from_address(value: &[u8], mask: u32) -> Option<SocketAddrV4> {
    let [_, 1, a, b, c, d, e, f] = *value else {
        return None;
    };
    let [high, low, ..] = mask.to_be_bytes();
    let port = u16::from_be_bytes([a ^ high, b ^ low]);
    let address = u32::from_be_bytes([c, d, e, f]) ^ mask;
    Some(SocketAddrV4::new(Ipv4Addr::from(address), port))
}

/// A message as it is written.
struct Message {
    octets: Vec<u8>,
}

impl Message {
    fn new(kind: u16, transaction: Transaction) -> Self {
        let mut octets = Vec::with_capacity(HEADER + 4 * ATTRIBUTE);
        octets.extend(kind.to_be_bytes());
        octets.extend([0; 2]);
        octets.extend(COOKIE.to_be_bytes());
        octets.extend(transaction);
        Self { octets }
    }

    /// A value of whole words, shorter than 65,536 octets.
    fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.octets.extend(kind.to_be_bytes());
        self.octets.extend(length.to_be_bytes());
        self.octets.extend(value);
    }

    fn pad(&mut self, length: usize) {
        // An IP packet is no longer.
        let length = length.min(usize::from(u16::MAX)) & !3;
        if let Some(rest) = length.checked_sub(self.octets.len() + 4) {
            self.put(PADDING, &vec![0; rest]);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u16::try_from(self.octets.len() - HEADER).unwrap_or(u16::MAX);
        self.octets[2..4].copy_from_slice(&length.to_be_bytes());
        self.octets
    }
}

/// What follows a header, attribute by attribute.
struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The next one, `Some(None)` at the end; `None` where one is cut off.
    #[allow(clippy::option_option, reason = "the end is no error")]
    fn next(&mut self) -> Option<Option<(u16, &'a [u8])>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        let [a, b, c, d] = *head;
        let length = usize::from(u16::from_be_bytes([c, d]));
        let value = rest.get(..length)?;
        self.0 = rest.get(length.next_multiple_of(4)..)?;
        Some(Some((u16::from_be_bytes([a, b]), value)))
    }
}

/// Transaction and attributes of a message of this kind, which the octets are from first to last.
fn open(octets: &[u8], kind: u16) -> Option<(Transaction, Attributes<'_>)> {
    let (header, rest) = octets.split_first_chunk::<HEADER>()?;
    let [a, b, c, d, e, f, g, h, transaction @ ..] = *header;
    let length = usize::from(u16::from_be_bytes([c, d]));
    let whole = length == rest.len() && length.is_multiple_of(4);
    let ours = u16::from_be_bytes([a, b]) == kind && u32::from_be_bytes([e, f, g, h]) == COOKIE;
    (whole && ours).then_some((transaction, Attributes(rest)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 5769, section 2.2: the sample response with an IPv4 address.
    const SAMPLE: [u8; 80] = [
        0x01, 0x01, 0x00, 0x3c, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa,
        0x87, 0xdf, 0xae, 0x80, 0x22, 0x00, 0x0b, 0x74, 0x65, 0x73, 0x74, 0x20, 0x76, 0x65, 0x63, 0x74, 0x6f,
        0x72, 0x20, 0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43, 0x00, 0x08, 0x00,
        0x14, 0x2b, 0x91, 0xf5, 0x99, 0xfd, 0x9e, 0x90, 0xc3, 0x8c, 0x74, 0x89, 0xf9, 0x2a, 0xf9, 0xba, 0x53,
        0xf0, 0x6b, 0xe7, 0xd7, 0x80, 0x28, 0x00, 0x04, 0xc0, 0x7d, 0x4c, 0x96,
    ];

    #[test]
    fn the_sample_of_the_rfc_is_read() {
        let response = Response::from_bytes(&SAMPLE).unwrap();
        assert_eq!(response.mapped, "192.0.2.1:32853".parse().unwrap());
        assert_eq!(
            response.transaction,
            [
                0xb7, 0xe7, 0xa7, 1, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae
            ]
        );
        assert_eq!((response.other, response.clock_ms), (None, None));
        assert_eq!(Request::from_bytes(&SAMPLE), None);
        for end in 0..SAMPLE.len() {
            assert_eq!(Response::from_bytes(&SAMPLE[..end]), None, "{end} octets of it");
        }
    }

    #[test]
    fn what_must_be_understood_and_is_not_gets_no_answer() {
        let asking = |attributes: &[u8]| {
            let mut message = Message::new(BINDING, [7; 12]);
            message.octets.extend(attributes);
            Request::from_bytes(&message.finish())
        };
        assert!(asking(&[]).is_some_and(|request| !request.from_other_port));
        assert!(asking(&[0, 3, 0, 4, 0, 0, 0, 2]).is_some_and(|request| request.from_other_port));
        assert_eq!(asking(&[0, 3, 0, 4, 0, 0, 0, 6]), None, "another address");
        assert_eq!(asking(&[0, 6, 0, 4, 1, 2, 3, 4]), None, "USERNAME");
        assert!(
            asking(&[0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]).is_some(),
            "SOFTWARE"
        );
        assert_eq!(
            asking(&[0, 0x26, 0, 8, 0, 0, 0, 0]),
            None,
            "longer than the message"
        );
    }

    #[test]
    fn an_answer_says_what_there_is_room_for() {
        let response = Response {
            transaction: [9; 12],
            mapped: "203.0.113.7:6081".parse().unwrap(),
            other: Some("192.0.2.1:7441".parse().unwrap()),
            clock_ms: Some(1_700_000_000_000),
        };
        let at = |length| Response::from_bytes(&response.to_bytes(length).unwrap()).unwrap();
        assert_eq!(response.to_bytes(31), None);
        assert_eq!((at(32).mapped, at(32).other), (response.mapped, None));
        assert_eq!((at(44).other, at(44).clock_ms), (response.other, None));
        assert_eq!(at(56), response);
        for length in 32..200 {
            let octets = response.to_bytes(length).unwrap();
            assert_eq!(octets.len(), length & !3, "never longer than what was asked");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Request::from_bytes(&octets), Response::from_bytes(&octets));
        }

        /// As above, but mostly past the header.
        #[test]
        fn any_attributes_are_read_without_a_panic(
            kind in prop::sample::select(vec![BINDING, BOUND]),
            mut octets in prop::collection::vec(any::<u8>(), 0..200),
            small in any::<bool>(),
        ) {
            if small {
                octets.iter_mut().step_by(2).for_each(|octet| *octet &= 0x2f);
            }
            octets.truncate(octets.len() & !3);
            let mut message = Message::new(kind, [1; 12]);
            message.octets.extend(&octets);
            let message = message.finish();
            let _ = (Request::from_bytes(&message), Response::from_bytes(&message));
        }

        #[test]
        fn what_is_written_is_read(
            transaction in any::<Transaction>(),
            from_other_port in any::<bool>(),
            length in 0_usize..2_000,
            mapped in any::<(u32, u16)>(),
        ) {
            let request = Request { transaction, from_other_port };
            let octets = request.to_bytes(length);
            prop_assert!(octets.len() <= length.max(HEADER + 8));
            prop_assert_eq!(Request::from_bytes(&octets), Some(request));
            let mapped = SocketAddrV4::new(mapped.0.into(), mapped.1);
            let response = Response { transaction, mapped, other: Some(mapped), clock_ms: Some(3) };
            let read = response.to_bytes(length.max(56)).and_then(|octets| Response::from_bytes(&octets));
            prop_assert_eq!(read, Some(response));
        }
    }
}
