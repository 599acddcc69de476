//! The token that lets a host join once.

use std::fmt;
use std::str::FromStr;

use crate::hex;

/// `kuafu.<node>.<secret>.<fingerprint>`: which node may join, what proves it (16 random bytes, of one use), and
/// the SHA-256 of the CA's certificate in DER, by which the host knows whom it talks to.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// The node that may join.
    pub node: String,
    /// What proves it; the controller keeps only a digest.
    pub secret: [u8; 16],
    /// SHA-256 of the CA's certificate.
    pub fingerprint: [u8; 32],
}

/// Not a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a join token: {0}; expected kuafu.<node>.<32 hex digits>.<64 hex digits>, as `kuafu node token` prints it"
)]
pub struct InvalidToken(&'static str);

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secret, fingerprint) = (hex::encode(&self.secret), hex::encode(&self.fingerprint));
        write!(f, "kuafu.{}.{secret}.{fingerprint}", self.node)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken {{ node: {:?}, secret: (secret) }}", self.node)
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let &["kuafu", node, secret, fingerprint] = parts.as_slice() else {
            return Err(InvalidToken("it has not four parts"));
        };
        if node.is_empty() {
            return Err(InvalidToken("the node's name is empty"));
        }
        Ok(Self {
            node: node.to_owned(),
            secret: bytes(secret).ok_or(InvalidToken("its secret is not 32 hex digits"))?,
            fingerprint: bytes(fingerprint).ok_or(InvalidToken("its fingerprint is not 64 hex digits"))?,
        })
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    hex::decode(text)?.try_into().ok()
}

/// SHA-256 of a certificate in DER.
#[must_use]
pub fn fingerprint(certificate_der: &[u8]) -> [u8; 32] {
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate_der).as_ref());
    fingerprint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_reads_what_it_writes() {
        let token = JoinToken {
            node: "osaka-1".to_owned(),
            secret: [0xab; 16],
            fingerprint: [7; 32],
        };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("abab"));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "kuafu.a.b", "kuafu..00.00", "kuafu.a.zz.00", "other.a.b.c"] {
            assert!(text.parse::<JoinToken>().is_err(), "{text}");
        }
    }
}
