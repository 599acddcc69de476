//! Who may join, and who has.

use kuafu_model::kinds::{Invalid, Name};
use kuafu_proto::{JoinToken, token::fingerprint};
use serde::{Deserialize, Serialize};

use super::rollout::put_json;
use super::{Command, Core, Now, SessionRefusal, key};
use crate::store::Write;

/// Seconds since 1970: what outlives a restart is measured by the calendar.
pub type UnixSeconds = u64;

/// How long a token is good for.
const TOKEN_LIFE: UnixSeconds = 24 * 60 * 60;

/// A token as the store keeps it, under the digest of its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Token {
    node: String,
    used: bool,
    /// From when on it is worth nothing.
    #[serde(default)]
    expires: UnixSeconds,
}

/// Why a host may not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// Not a token.
    #[error(transparent)]
    Form(#[from] kuafu_proto::token::InvalidToken),
    /// The token is of another cluster.
    #[error("this token is of another cluster: it names another CA")]
    ForeignToken,
    /// Nobody made it.
    #[error("this token is not known here; `kuafu node token NAME` makes one")]
    Unknown,
    /// It was used.
    #[error(
        "this token was used already, by node/{node}; each is for one use: `kuafu node token {node}` makes another"
    )]
    Used {
        /// The node that it is for.
        node: String,
    },
    /// It was not used in time.
    #[error("this token has expired, a day after it was made; `kuafu node token {node}` makes another")]
    Expired {
        /// The node that it is for.
        node: String,
    },
    /// It is for another node.
    #[error("this token is for node/{node}, not for node/{asked}")]
    OtherNode {
        /// The node that it is for.
        node: String,
        /// The node that asks.
        asked: String,
    },
    /// The node is a foreign VTEP.
    #[error("node/{node} is declared with `agent: false`; no agent joins for it")]
    Foreign {
        /// The node.
        node: String,
    },
    /// Not a name.
    #[error(transparent)]
    Name(#[from] Invalid),
}

impl Core {
    /// A token with which a host may join once as this node, and what makes it valid.
    ///
    /// # Errors
    /// For a foreign VTEP. The node need not be declared yet.
    pub fn handle_token(
        &mut self,
        at: UnixSeconds,
        node: &Name,
        ca_fingerprint: [u8; 32],
    ) -> Result<(JoinToken, Vec<Command>), JoinRefusal> {
        self.refuse_foreign(node)?;
        let mut secret = [0; 16];
        (self.random)(&mut secret);
        let token = Token {
            node: node.to_string(),
            used: false,
            expires: at.saturating_add(TOKEN_LIFE),
        };
        let digest = digest(&secret);
        let commands = super::commit(put_json(&key::token(&digest), &token).into_iter().collect());
        self.tokens.insert(digest, token);
        let token = JoinToken {
            node: node.to_string(),
            secret,
            fingerprint: ca_fingerprint,
        };
        Ok((token, commands))
    }

    /// Whether a token lets this node join now; nothing is changed.
    ///
    /// # Errors
    /// Why not.
    pub fn check_join(
        &self,
        at: UnixSeconds,
        token: &str,
        node: &str,
        ca_fingerprint: [u8; 32],
    ) -> Result<(Name, JoinToken), JoinRefusal> {
        let token: JoinToken = token.parse()?;
        if token.fingerprint != ca_fingerprint {
            return Err(JoinRefusal::ForeignToken);
        }
        let known = self.tokens.get(&digest(&token.secret));
        let known = known.ok_or(JoinRefusal::Unknown)?;
        if known.node != node {
            let (node, asked) = (known.node.clone(), node.to_owned());
            return Err(JoinRefusal::OtherNode { node, asked });
        }
        if known.used {
            let node = known.node.clone();
            return Err(JoinRefusal::Used { node });
        }
        if known.expires <= at {
            let node = known.node.clone();
            return Err(JoinRefusal::Expired { node });
        }
        let node = node.parse()?;
        self.refuse_foreign(&node)?;
        Ok((node, token))
    }

    /// The node has a new certificate: the token is used, and what the node had before is worth nothing.
    pub fn handle_joined(
        &mut self,
        _now: Now,
        node: &Name,
        token: &JoinToken,
        certificate_der: &[u8],
    ) -> Vec<Command> {
        let digest = digest(&token.secret);
        let used = Token {
            node: node.to_string(),
            used: true,
            ..self.tokens.get(&digest).cloned().unwrap_or_default()
        };
        let certificate = hex(&fingerprint(certificate_der));
        let mut writes: Vec<Write> = put_json(&key::token(&digest), &used).into_iter().collect();
        let stored = Write::Put(key::certificate(node), certificate.clone().into_bytes());
        writes.push(stored);
        self.tokens.insert(digest, used);
        self.certificates.insert(node.clone(), certificate);
        if self.renewed.remove(node).is_some() {
            writes.push(Write::Delete(key::renewed(node)));
        }
        let mut commands = super::commit(writes);
        if let Some(session) = self.hosts.get_mut(node).and_then(|host| host.session.take()) {
            let node = node.to_string();
            commands.push(Command::Close(session, SessionRefusal::Superseded { node }));
        }
        commands
    }

    fn refuse_foreign(&self, node: &Name) -> Result<(), JoinRefusal> {
        let declared = self.intent.nodes().get(node);
        if declared.is_some_and(|declared| !declared.spec.agent) {
            let node = node.to_string();
            return Err(JoinRefusal::Foreign { node });
        }
        Ok(())
    }
}

/// What is kept of a secret.
fn digest(secret: &[u8]) -> String {
    hex(&fingerprint(secret))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
