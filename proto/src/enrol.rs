//! How a host becomes a member: it makes a key, checks the controller's CA by the token's fingerprint, and has a
//! certificate signed. The key never leaves it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring::default_provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::client::{self, ConnectError, Identity, SERVER_NAME};
use crate::token::{JoinToken, fingerprint};
use crate::v1;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A member's papers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Key, certificate and CA.
    pub identity: Identity,
    /// The cluster's id.
    pub cluster: String,
    /// Whether the node is declared: until it is, its agent is sent nothing.
    pub declared: bool,
}

/// Why a host did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The far end has another CA than the token says.
    #[error("{address} is not the controller that made this token: its CA has another fingerprint")]
    ForeignController {
        /// Whom we dialled.
        address: String,
    },
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The controller's answer is no.
    #[error("{address} refuses: {reason}")]
    Refused {
        /// Whom we dialled.
        address: String,
        /// In the controller's words.
        reason: String,
    },
    /// No key or request could be made.
    #[error("cannot make a certificate request: {0}")]
    Request(#[from] rcgen::Error),
}

/// Joins the cluster of the controller at `host:port`.
///
/// # Errors
/// See [`JoinError`]; nothing was written, and the token may be used again unless the controller took it.
pub async fn join(address: &str, token: &JoinToken) -> Result<Joined, JoinError> {
    let ca = ca_certificate(address, token.fingerprint).await?;
    let ca_pem = to_pem(&ca);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, &token.node);
    let csr_pem = params.serialize_request(&key)?.pem()?;

    let tls = ClientTlsConfig::new()
        .domain_name(SERVER_NAME)
        .ca_certificate(Certificate::from_pem(&ca_pem));
    let channel = client::dial(address, tls).await?;
    let mut enrolment = v1::enrolment_client::EnrolmentClient::new(channel);
    let request = v1::JoinRequest {
        token: token.to_string(),
        node: token.node.clone(),
        csr_pem,
    };
    let answer = enrolment
        .join(request)
        .await
        .map_err(|status| JoinError::Refused {
            address: address.to_owned(),
            reason: status.message().to_owned(),
        })?;
    let answer = answer.into_inner();
    Ok(Joined {
        identity: Identity {
            certificate_pem: answer.certificate_pem,
            key_pem: key.serialize_pem(),
            ca_pem,
        },
        cluster: answer.cluster,
        declared: answer.declared,
    })
}

/// The CA that the controller presents, checked by its fingerprint.
async fn ca_certificate(address: &str, fingerprint: [u8; 32]) -> Result<CertificateDer<'static>, JoinError> {
    let unreachable = |reason: String| ConnectError::Unreachable {
        address: address.to_owned(),
        reason,
    };
    let provider = Arc::new(default_provider());
    let verifier = Arc::new(ByFingerprint {
        fingerprint,
        provider: Arc::clone(&provider),
        found: Mutex::new(None),
    });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unreachable(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let name = ServerName::try_from(SERVER_NAME).map_err(|error| unreachable(error.to_string()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let handshake = async {
        let stream = TcpStream::connect(address).await?;
        connector.connect(name, stream).await
    };
    let done = tokio::time::timeout(TIMEOUT, handshake).await;
    let found = verifier.found.lock().ok().and_then(|mut found| found.take());
    match (found, done) {
        (Some(ca), Ok(Ok(_))) => Ok(ca),
        (None, Ok(Err(error))) if refused_by_us(&error) => Err(JoinError::ForeignController {
            address: address.to_owned(),
        }),
        (_, Ok(Err(error))) => Err(unreachable(error.to_string()).into()),
        (_, Err(_)) => Err(unreachable("no answer within 10 s".to_owned()).into()),
        (None, Ok(Ok(_))) => Err(unreachable("it shows no certificate".to_owned()).into()),
    }
}

fn refused_by_us(error: &std::io::Error) -> bool {
    let tls = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec()))
}

/// Accepts a server whose chain ends in the CA of this fingerprint, and keeps that CA.
#[derive(Debug)]
struct ByFingerprint {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut chain = intermediates.iter();
        let ca = chain.find(|certificate| fingerprint(certificate) == self.fingerprint);
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let ca = ca.ok_or(unknown)?.clone().into_owned();
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified =
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if let Ok(mut found) = self.found.lock() {
            *found = Some(ca);
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
