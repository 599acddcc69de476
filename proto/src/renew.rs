//! A member's next certificate, before the one that it has ends. The key stays: only one file changes, at once.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tonic::transport::Channel;
use x509_parser::pem::parse_x509_pem;

use crate::client::Identity;
use crate::v1;

/// Seconds since 1970.
pub type UnixSeconds = u64;

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first second.
    pub from: UnixSeconds,
    /// Its last.
    pub until: UnixSeconds,
}

/// No next certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The certificate that there is cannot be read.
    #[error("this host's certificate cannot be read: {0}")]
    Certificate(String),
    /// No request could be made.
    #[error("cannot make a certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The controller's answer is no.
    #[error("the controller does not renew this host's certificate: {0}")]
    Refused(String),
}

impl Validity {
    /// Of a certificate, PEM.
    ///
    /// # Errors
    /// [`RenewError::Certificate`].
    pub fn of(certificate_pem: &str) -> Result<Self, RenewError> {
        let wrong = |error: &dyn std::fmt::Display| RenewError::Certificate(error.to_string());
        let (_, pem) = parse_x509_pem(certificate_pem.as_bytes()).map_err(|error| wrong(&error))?;
        let certificate = pem.parse_x509().map_err(|error| wrong(&error))?;
        let validity = certificate.validity();
        // Before 1970 is long ago.
        let seconds = |timestamp: i64| UnixSeconds::try_from(timestamp).unwrap_or_default();
        Ok(Self {
            from: seconds(validity.not_before.timestamp()),
            until: seconds(validity.not_after.timestamp()),
        })
    }

    /// Whether two thirds are over: time for the next one.
    #[must_use]
    pub const fn is_due(self, at: UnixSeconds) -> bool {
        let life = self.until.saturating_sub(self.from);
        at >= self.from.saturating_add(life / 3 * 2)
    }

    /// Whether it is worth nothing any more.
    #[must_use]
    pub const fn is_over(self, at: UnixSeconds) -> bool {
        at > self.until
    }
}

/// Asks the controller for the next certificate, over a channel that the last one opened.
///
/// # Errors
/// See [`RenewError`]; what there is stays.
pub async fn renew(channel: Channel, node: &str, identity: &Identity) -> Result<Identity, RenewError> {
    let key = KeyPair::from_pem(&identity.key_pem)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, node);
    let csr_pem = params.serialize_request(&key)?.pem()?;
    let mut enrolment = v1::enrolment_client::EnrolmentClient::new(channel);
    let answer = enrolment.renew(v1::RenewRequest { csr_pem }).await;
    let answer = answer.map_err(|status| RenewError::Refused(status.message().to_owned()))?;
    Ok(Identity {
        certificate_pem: answer.into_inner().certificate_pem,
        ..identity.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_after_two_thirds() {
        let day = 86_400;
        let validity = Validity {
            from: 1_000 * day,
            until: 1_090 * day,
        };
        let due = |at| validity.is_due(at * day);
        assert_eq!(
            [due(0), due(1_059), due(1_060), due(2_000)],
            [false, false, true, true]
        );
        assert!(!validity.is_over(1_090 * day));
        assert!(validity.is_over(1_090 * day + 1));
    }

    #[test]
    fn what_is_no_certificate_is_said() {
        let error = Validity::of("no certificate").unwrap_err().to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }
}
