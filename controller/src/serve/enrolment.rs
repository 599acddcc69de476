//! `Enrolment`: how hosts become members.

use std::sync::Arc;

use kuafu_proto::v1;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tonic::{Request, Response, Status};

use super::shell::{Shell, unix_seconds};
use crate::core::JoinRefusal;

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
                let certificate = authority.member(node.as_str(), &request.csr_pem);
                let certificate =
                    certificate.map_err(|error| Status::invalid_argument(format!("the request: {error}")))?;
                let der = CertificateDer::from_pem_slice(certificate.as_bytes())
                    .map_err(|error| Status::internal(error.to_string()))?;
                Ok((node, token, certificate, der))
            });
            match signed {
                Ok((node, token, certificate, der)) => {
                    let commands = core.handle_joined(now, &node, &token, &der);
                    (Ok((certificate, core.cluster().to_owned())), commands)
                }
                Err(status) => (Err(status), Vec::new()),
            }
        })?;
        let (certificate_pem, cluster) = joined.inspect_err(|status| {
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
        }))
    }
}

fn refused(refusal: &JoinRefusal) -> Status {
    match refusal {
        JoinRefusal::Name(_) | JoinRefusal::Form(_) => Status::invalid_argument(refusal.to_string()),
        JoinRefusal::Foreign { .. } => Status::failed_precondition(refusal.to_string()),
        _ => Status::unauthenticated(refusal.to_string()),
    }
}
