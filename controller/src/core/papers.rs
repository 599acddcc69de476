//! What members' certificates are worth: the way to the next one, and the way out.

use kuafu_model::kinds::{Kind, Name, Object, ObjectRef};
use kuafu_model::manifest::{File, to_json};
use kuafu_proto::token::fingerprint;

use super::member::hex;
use super::{Command, Core, DeclareError, Now, SessionRefusal, Terms, commit, key};
use crate::store::Write;

impl Core {
    /// Whether a certificate that our CA signed is the node's: its last one, or the one that it was given to replace
    /// that.
    ///
    /// # Errors
    /// [`SessionRefusal::OldCertificate`].
    pub fn check_papers(&self, node: &Name, certificate_der: &[u8]) -> Result<(), SessionRefusal> {
        let shown = hex(&fingerprint(certificate_der));
        let valid = [self.certificates.get(node), self.renewed.get(node)];
        if valid.into_iter().flatten().any(|valid| *valid == shown) {
            return Ok(());
        }
        let node = node.to_string();
        Err(SessionRefusal::OldCertificate { node })
    }

    /// A member was given its next certificate. The one that it has counts until it shows the new one: the answer may
    /// be lost on its way.
    pub fn handle_renewed(&mut self, node: &Name, certificate_der: &[u8]) -> Vec<Command> {
        let given = hex(&fingerprint(certificate_der));
        let write = Write::Put(key::renewed(node), given.clone().into_bytes());
        self.renewed.insert(node.clone(), given);
        commit(vec![write])
    }

    /// A member has shown a certificate: if it is the next one, the one before is worth nothing.
    pub(super) fn note_shown(&mut self, node: &Name, certificate_der: &[u8]) -> Vec<Write> {
        let shown = hex(&fingerprint(certificate_der));
        if self.renewed.get(node) != Some(&shown) {
            return Vec::new();
        }
        self.renewed.remove(node);
        self.certificates.insert(node.clone(), shown.clone());
        vec![
            Write::Delete(key::renewed(node)),
            Write::Put(key::certificate(node), shown.into_bytes()),
        ]
    }

    /// The node's papers are worth nothing any more.
    pub(super) fn forget_papers(&mut self, node: &Name) -> Vec<Write> {
        let mut writes = Vec::new();
        if self.certificates.remove(node).is_some() {
            writes.push(Write::Delete(key::certificate(node)));
        }
        if self.renewed.remove(node).is_some() {
            writes.push(Write::Delete(key::renewed(node)));
        }
        writes
    }

    /// A node that wishes to leave relays nothing more, if it can leave. Where it relays nothing already, so it stays.
    ///
    /// # Errors
    /// As of [`Self::handle_leave`].
    pub fn handle_drain(
        &mut self,
        now: Now,
        node: &Name,
        terms: Terms,
    ) -> Result<Vec<Command>, DeclareError> {
        let declared = self.intent.nodes().get(node).cloned();
        let Some(declared) = declared.filter(|declared| !declared.spec.drain) else {
            return Ok(Vec::new());
        };
        let dry_run = Terms {
            dry_run: true,
            ..terms
        };
        self.handle_delete(now, &[ObjectRef::new(Kind::Node, node)], dry_run)?;
        let mut drained = (*declared).clone();
        drained.spec.drain = true;
        let text = to_json(&[Object::Node(drained.into())])?;
        let file = File {
            name: node.as_str(),
            text: &text,
        };
        Ok(self.handle_apply(now, &[file], terms)?.commands)
    }

    /// Where the paths begin that may still pass a node between their ends, each as often as there are such.
    #[must_use]
    pub fn passing(&self, node: &Name) -> Vec<Name> {
        self.fleet.passing(node, &self.target)
    }

    /// A node leaves by its own wish: it is deleted, as by an operator.
    ///
    /// # Errors
    /// Where other objects refer to it, or a change is on trial.
    pub fn handle_leave(
        &mut self,
        now: Now,
        node: &Name,
        terms: Terms,
    ) -> Result<Vec<Command>, DeclareError> {
        if self.intent.nodes().contains_key(node) {
            let object = ObjectRef::new(Kind::Node, node);
            return Ok(self.handle_delete(now, &[object], terms)?.commands);
        }
        let mut commands = commit(self.forget_papers(node));
        if let Some(session) = self.hosts.remove(node).and_then(|host| host.session) {
            let node = node.to_string();
            commands.push(Command::Close(session, SessionRefusal::Deleted { node }));
        }
        Ok(commands)
    }
}
