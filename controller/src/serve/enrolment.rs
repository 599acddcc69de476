//! `Enrolment`: how hosts become members.

use std::sync::Arc;

use kuafu_model::kinds::Name;
use kuafu_proto::v1;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::{Request, Response, Status};

use super::identity::member;
use super::shell::{Shell, unix_seconds};
use crate::authority::Authority;
use crate::core::{Command, Core, DeclareError, JoinRefusal, Now, Terms};

pub(super) struct Enrolment(pub(super) Arc<Shell>);

#[tonic::async_trait]
impl v1::enrolment_server::Enrolment for Enrolment {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinAnswer>, Status> {
        let request = request.into_inner();
        let authority = &self.0.authority;
        // Checked, signed and used up under one lock: of two hosts with one token, one joins.
        let joined = self.0.drive(|core, now| {
            let checked = core
                .check_join(
                    unix_seconds(),
                    &request.token,
                    &request.node,
                    authority.fingerprint(),
                )
                .map_err(|refusal| refused(&refusal));
            let signed = checked.and_then(|(node, token)| {
                let (certificate, der) = sign(authority, &node, &request.csr_pem)?;
                Ok((node, token, certificate, der))
            });
            match signed {
                Ok((node, token, certificate, der)) => {
                    let commands = core.handle_joined(now, &node, &token, &der);
                    let declared = core.intent().nodes().contains_key(&node);
                    (Ok((certificate, core.cluster().to_owned(), declared)), commands)
                }
                Err(status) => (Err(status), Vec::new()),
            }
        })?;
        let (certificate_pem, cluster, declared) = joined.inspect_err(|status| {
            tracing::warn!(
                node = request.node,
                reason = status.message(),
                "a host may not join"
            );
        })?;
        tracing::info!(node = request.node, "a host has joined");
        Ok(Response::new(v1::JoinAnswer {
            certificate_pem,
            ca_pem: authority.certificate_pem().to_owned(),
            cluster,
            declared,
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewAnswer>, Status> {
        let (node, shown) = member(&request)?;
        let csr_pem = request.into_inner().csr_pem;
        let authority = &self.0.authority;
        let renewed = self.0.drive(|core, _| {
            let signed = core
                .check_papers(&node, &shown)
                .map_err(|refusal| super::shell::refused(&refusal))
                .and_then(|()| sign(authority, &node, &csr_pem));
            match signed {
                Ok((certificate, der)) => (Ok(certificate), core.handle_renewed(&node, &der)),
                Err(status) => (Err(status), Vec::new()),
            }
        })?;
        let certificate_pem = renewed?;
        tracing::info!(%node, "a member has its next certificate");
        Ok(Response::new(v1::RenewAnswer { certificate_pem }))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainAnswer>, Status> {
        let node = self.by_wish(&request, Core::handle_drain)?;
        let mut from: Vec<String> = self
            .0
            .view(|core, _| core.passing(&node).iter().map(Name::to_string).collect());
        let paths = u32::try_from(from.len()).unwrap_or(u32::MAX);
        from.dedup();
        Ok(Response::new(v1::DrainAnswer { paths, from }))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveAnswer>, Status> {
        let node = self.by_wish(&request, Core::handle_leave)?;
        tracing::info!(%node, "a node has left");
        Ok(Response::new(v1::LeaveAnswer {}))
    }
}

/// What becomes of a node by its own wish.
type Wish = fn(&mut Core, Now, &Name, Terms) -> Result<Vec<Command>, DeclareError>;

impl Enrolment {
    /// Fulfils the wish of the member that calls, or says why not.
    #[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
    fn by_wish<T>(&self, request: &Request<T>, wish: Wish) -> Result<Name, Status> {
        let (node, shown) = member(request)?;
        let terms = Terms {
            at: unix_seconds(),
            ..Terms::default()
        };
        let done = self.0.drive(|core, now| {
            if let Err(refusal) = core.check_papers(&node, &shown) {
                return (Err(super::shell::refused(&refusal)), Vec::new());
            }
            match wish(core, now, &node, terms) {
                Ok(commands) => (Ok(()), commands),
                Err(error) => {
                    let words = super::api::words(&error);
                    (Err(Status::failed_precondition(words)), Vec::new())
                }
            }
        })?;
        done.map(|()| node)
    }
}

/// A member's certificate for the key of a request, PEM and DER.
#[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
fn sign(
    authority: &Authority,
    node: &Name,
    csr_pem: &str,
) -> Result<(String, CertificateDer<'static>), Status> {
    let certificate = authority.member(node.as_str(), csr_pem, unix_seconds());
    let certificate =
        certificate.map_err(|error| Status::invalid_argument(format!("the request: {error}")))?;
    let der = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok((certificate, der))
}

fn refused(refusal: &JoinRefusal) -> Status {
    match refusal {
        JoinRefusal::Name(_) | JoinRefusal::Form(_) => Status::invalid_argument(refusal.to_string()),
        JoinRefusal::Foreign { .. } => Status::failed_precondition(refusal.to_string()),
        _ => Status::unauthenticated(refusal.to_string()),
    }
}
