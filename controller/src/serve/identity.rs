//! Who is at the other end of a connection.

use kuafu_model::kinds::Name;
use kuafu_proto::client::{ADMIN_NAME, MEMBER_NAME_SUFFIX};
use rustls::pki_types::CertificateDer;
use tonic::{Request, Status};

/// A peer, by the certificate that it showed. What is signed by our CA says the truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// It showed none.
    Anonymous,
    /// The admin.
    Admin,
    /// A member.
    Member {
        /// The node's name.
        node: Name,
        /// The certificate, DER.
        certificate: Vec<u8>,
    },
}

impl Peer {
    /// The peer that a certificate of our CA names.
    pub(super) fn of(certificate: Option<&CertificateDer<'_>>) -> Self {
        let named = certificate.and_then(|certificate| {
            let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
            let name = parsed.valid_dns_names().next()?;
            if name == ADMIN_NAME {
                return Some(Self::Admin);
            }
            Some(Self::Member {
                node: name.strip_suffix(MEMBER_NAME_SUFFIX)?.parse().ok()?,
                certificate: certificate.to_vec(),
            })
        });
        named.unwrap_or(Self::Anonymous)
    }
}

fn peer<T>(request: &Request<T>) -> &Peer {
    request.extensions().get::<Peer>().unwrap_or(&Peer::Anonymous)
}

/// Lets the admin through.
#[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
pub(super) fn admin<T>(request: &Request<T>) -> Result<(), Status> {
    match peer(request) {
        Peer::Admin => Ok(()),
        Peer::Member { node, .. } => Err(Status::permission_denied(format!(
            "node/{node}'s certificate is for its agent; this call needs the admin's, from /etc/kuafu/admin of the \
             controller's host"
        ))),
        Peer::Anonymous => Err(Status::unauthenticated(
            "this call needs the admin's certificate, from /etc/kuafu/admin of the controller's host",
        )),
    }
}

/// The member that calls, and its certificate.
#[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
pub(super) fn member<T>(request: &Request<T>) -> Result<(Name, Vec<u8>), Status> {
    match peer(request) {
        Peer::Member { node, certificate } => Ok((node.clone(), certificate.clone())),
        Peer::Admin => Err(Status::permission_denied(
            "an agent needs its node's certificate, not the admin's",
        )),
        Peer::Anonymous => Err(Status::unauthenticated(
            "an agent needs its node's certificate; `kuafu node join TOKEN` gets one",
        )),
    }
}
