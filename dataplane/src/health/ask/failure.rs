//! Why a server is not one that serves, in words.

use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io;

use nix::errno::Errno;

/// Octets of a wrong answer that are shown.
const SHOWN: usize = 16;
/// Characters of a reason: a server may have chosen them.
const LONGEST: usize = 160;

/// Why a question got no good answer: part of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// This host could not ask, which says nothing of the server.
    #[error("this host cannot ask: {0}")]
    Host(String),
    /// No connection, or it broke, or the server does not speak the protocol.
    #[error("{0}")]
    Broken(String),
    /// The check's time-out passed.
    #[error("no answer within {limit_ms} ms")]
    Silent {
        /// The time-out.
        limit_ms: u32,
    },
    /// HTTP's status is another.
    #[error("status {found}, wanted {first} to {last}")]
    Status {
        /// What the server said.
        found: u16,
        /// The first that is good.
        first: u16,
        /// The last that is good.
        last: u16,
    },
    /// The answer is another.
    #[error("answered what is no {wanted}: {began}")]
    Answer {
        /// What was wanted.
        wanted: &'static str,
        /// How the answer began.
        began: Octets,
    },
    /// The answer is larger than any good one.
    #[error("answered with {octets} octets, at most {most} are read")]
    TooLarge {
        /// What the server announced.
        octets: u32,
        /// What would have been read.
        most: u32,
    },
    /// A gRPC server's health is another.
    #[error("says {0}, wanted SERVING")]
    Health(&'static str),
    /// A gRPC server refused the call.
    #[error("gRPC status {0:?}")]
    Call(tonic::Code),
}

impl Failure {
    /// Whether the server's host said that nobody listens there.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        *self == Self::from(io::Error::from(Errno::ECONNREFUSED))
    }

    /// This host's own fault, by what it tried.
    pub(super) fn host(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Host(format!("{action}: {}", words(&error)))
    }

    /// An answer that is none.
    pub(super) fn answer(wanted: &'static str, answer: &[u8]) -> Self {
        Self::Answer {
            wanted,
            began: Octets(answer.iter().take(SHOWN).copied().collect()),
        }
    }

    /// What broke, by its innermost cause: that one says most.
    pub(super) fn broken(error: &(dyn Error + 'static)) -> Self {
        let mut cause = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let said = cause.downcast_ref().map_or_else(|| cause.to_string(), words);
        // They end on people's terminals.
        Self::Broken(said.chars().filter(|c| !c.is_control()).take(LONGEST).collect())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::broken(&error)
    }
}

fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw(number).desc().to_lowercase(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "closed before it answered".to_owned(),
        None => error.to_string(),
    }
}

/// Octets, shown in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Octets(Vec<u8>);

impl Display for Octets {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [first, rest @ ..] = self.0.as_slice() else {
            return f.write_str("nothing");
        };
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|octet| write!(f, " {octet:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_parts_of_sentences() {
        let refused = io::Error::from(Errno::ECONNREFUSED);
        assert_eq!(Failure::from(refused).to_string(), "connection refused");
        let unmarked = io::Error::from(Errno::EPERM);
        assert_eq!(
            Failure::host("mark the socket")(unmarked).to_string(),
            "this host cannot ask: mark the socket: operation not permitted"
        );
        assert_eq!(
            Failure::answer("A2S_INFO", b"\xff\xff\xff\xffn").to_string(),
            "answered what is no A2S_INFO: ff ff ff ff 6e"
        );
        assert_eq!(
            Failure::answer("A2S_INFO", b"").to_string(),
            "answered what is no A2S_INFO: nothing"
        );
        assert_eq!(
            Failure::answer("A2S_INFO", &[7; 2000]).to_string().len(),
            "answered what is no A2S_INFO: ".len() + 3 * SHOWN - 1
        );
    }

    #[test]
    fn a_server_writes_no_control_characters_to_terminals() {
        let hostile = io::Error::other(format!("\x1b[2J{}", "x".repeat(1000)));
        let Failure::Broken(said) = Failure::from(hostile) else {
            panic!("another failure");
        };
        assert!(said.starts_with("[2Jx") && said.chars().count() == LONGEST);
    }
}
