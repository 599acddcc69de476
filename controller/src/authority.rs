//! The cluster's own CA: made at the first start, kept in the store, known to hosts by its fingerprint.

use kuafu_proto::client::{ADMIN_NAME, Identity, MEMBER_NAME_SUFFIX, SERVER_NAME};
use kuafu_proto::token::fingerprint;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use crate::core::UnixSeconds;

/// How long a member's certificate is good: agents have theirs renewed when two thirds are over.
const MEMBER_LIFE: Duration = Duration::days(90);
/// Hosts' clocks differ: a certificate is good already so long before it is made.
const SKEW: Duration = Duration::hours(1);

/// The CA's certificate and key.
pub struct Authority {
    certificate_pem: String,
    certificate: CertificateDer<'static>,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority { (secret) }")
    }
}

/// The CA cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// No certificate can be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// What is kept as the CA's certificate is none.
    #[error("the CA's certificate in the store cannot be read: {0}")]
    Stored(#[from] rustls::pki_types::pem::Error),
}

/// Whom a certificate names.
#[derive(Clone, Copy, Debug)]
enum Subject<'a> {
    Controller,
    Admin,
    Member(&'a str),
}

impl Authority {
    /// A new CA for a cluster.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn create(cluster: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = name(&format!("Kuafu CA {cluster}"));
        let certificate_pem = params.self_signed(&key)?.pem();
        Self::load(&certificate_pem, &key.serialize_pem())
    }

    /// The CA that was kept.
    ///
    /// # Errors
    /// When the texts are not a certificate and its key.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem)?;
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            certificate: CertificateDer::from_pem_slice(certificate_pem.as_bytes())?,
            key_pem: key_pem.to_owned(),
            issuer: Issuer::from_ca_cert_pem(certificate_pem, key)?,
        })
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The certificate, DER.
    #[must_use]
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The key, PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// SHA-256 of the certificate: what join tokens carry.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// A key and a certificate for the controller's own end.
    ///
    /// # Errors
    /// When none can be made.
    pub fn controller(&self) -> Result<Identity, AuthorityError> {
        self.identity(Subject::Controller)
    }

    /// A key and a certificate for the admin.
    ///
    /// # Errors
    /// When none can be made.
    pub fn admin(&self) -> Result<Identity, AuthorityError> {
        self.identity(Subject::Admin)
    }

    /// A certificate for a member's key, made at this time. Of its request only the key is taken: what it is called is ours to say.
    ///
    /// # Errors
    /// When the request is none, or not signed by its key.
    pub fn member(&self, node: &str, csr_pem: &str, at: UnixSeconds) -> Result<String, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        let at = i64::try_from(at)
            .ok()
            .and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        self.sign(
            Subject::Member(node),
            &request.public_key,
            Some((at - SKEW, at + MEMBER_LIFE)),
        )
    }

    fn identity(&self, subject: Subject<'_>) -> Result<Identity, AuthorityError> {
        let key = KeyPair::generate()?;
        Ok(Identity {
            // As long as the CA: the controller makes its own anew at each start, the admin's is in a file.
            certificate_pem: self.sign(subject, &key, None)?,
            key_pem: key.serialize_pem(),
            ca_pem: self.certificate_pem.clone(),
        })
    }

    fn sign(
        &self,
        subject: Subject<'_>,
        key: &impl PublicKeyData,
        good: Option<(OffsetDateTime, OffsetDateTime)>,
    ) -> Result<String, AuthorityError> {
        let (dns, usage) = match subject {
            Subject::Controller => (SERVER_NAME.to_owned(), ExtendedKeyUsagePurpose::ServerAuth),
            Subject::Admin => (ADMIN_NAME.to_owned(), ExtendedKeyUsagePurpose::ClientAuth),
            Subject::Member(node) => (
                format!("{node}{MEMBER_NAME_SUFFIX}"),
                ExtendedKeyUsagePurpose::ClientAuth,
            ),
        };
        let mut params = CertificateParams::new([dns.clone()])?;
        params.distinguished_name = name(&dns);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        if let Some((from, until)) = good {
            (params.not_before, params.not_after) = (from, until);
        }
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// X.520 allows 64 characters.
fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(
        DnType::CommonName,
        common_name.chars().take(64).collect::<String>(),
    );
    name
}
