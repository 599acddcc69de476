//! How an agent or the CLI dials: over mutual TLS to the controller, or over the agent's socket.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// The name in the controller's certificate. Each cluster has a CA of its own, so one name is enough.
pub const SERVER_NAME: &str = "controller.kuafu.internal";

/// A member's certificate names it `<node>` + this; the admin's names `admin.kuafu.internal`.
pub const MEMBER_NAME_SUFFIX: &str = ".node.kuafu.internal";

/// The name in the admin's certificate.
pub const ADMIN_NAME: &str = "admin.kuafu.internal";

/// For a connection. TCP asks again after one second and after three, and then too seldom for an outage's end.
const CONNECT: Duration = Duration::from_secs(4);
/// For the controller to judge our certificate.
const JUDGE: Duration = Duration::from_secs(10);

/// How often either end asks whether the other is there, and how long it waits for the answer. TCP itself waits ever
/// longer after each try, so a connection that outlives an outage may say nothing for as long again.
pub const KEEP_ALIVE: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];

/// What proves who we are, and by what we know the controller. All PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// Our certificate.
    pub certificate_pem: String,
    /// Its key (PKCS #8).
    pub key_pem: String,
    /// The cluster's CA.
    pub ca_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity { (secret) }")
    }
}

/// An identity's file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct IdentityError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub source: std::io::Error,
}

impl Identity {
    const CERTIFICATE: &'static str = "certificate.pem";
    const KEY: &'static str = "key.pem";
    const CA: &'static str = "ca.pem";

    /// Reads `certificate.pem`, `key.pem` and `ca.pem` of a directory.
    ///
    /// # Errors
    /// The file that cannot be read.
    pub fn load(directory: &Path) -> Result<Self, IdentityError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|source| IdentityError { path, source })
        };
        Ok(Self {
            certificate_pem: read(Self::CERTIFICATE)?,
            key_pem: read(Self::KEY)?,
            ca_pem: read(Self::CA)?,
        })
    }

    /// Writes them, the key readable by its owner alone; the certificate last, so that its presence says that all
    /// are there.
    ///
    /// # Errors
    /// The file that cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        std::fs::create_dir_all(directory).map_err(|source| IdentityError {
            path: directory.to_owned(),
            source,
        })?;
        write(directory.join(Self::KEY), &self.key_pem, 0o600)?;
        write(directory.join(Self::CA), &self.ca_pem, 0o644)?;
        write(directory.join(Self::CERTIFICATE), &self.certificate_pem, 0o644)
    }
}

fn write(path: PathBuf, text: &str, mode: u32) -> Result<(), IdentityError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let temporary = path.with_extension("new");
    let written = (|| {
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)
    })();
    written.map_err(|source| IdentityError { path, source })
}

/// No connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not an address that can be dialled.
    #[error("{address:?} is not host:port")]
    Address {
        /// What was given.
        address: String,
    },
    /// The far end's certificate is not of the CA that we know.
    #[error(
        "{address} is the controller of another cluster: its certificate is not signed by the CA that this host knows"
    )]
    ForeignController {
        /// Whom we dialled.
        address: String,
    },
    /// The far end refuses our certificate.
    #[error(
        "{address} refuses this certificate: it is not signed by the CA of the controller's cluster, or has expired"
    )]
    ForeignCertificate {
        /// Whom we dialled.
        address: String,
    },
    /// Nothing answers there, or TLS failed otherwise.
    #[error("{address}: {reason}")]
    Unreachable {
        /// Whom we dialled.
        address: String,
        /// What failed, from the outside in.
        reason: String,
    },
}

/// A channel to the controller at `host:port`.
///
/// # Errors
/// When it cannot be reached, is of another cluster, refuses our certificate, or the address is none.
pub async fn connect(address: &str, identity: &Identity) -> Result<Channel, ConnectError> {
    let tls = ClientTlsConfig::new()
        .domain_name(SERVER_NAME)
        .ca_certificate(Certificate::from_pem(&identity.ca_pem))
        .identity(tonic::transport::Identity::from_pem(
            &identity.certificate_pem,
            &identity.key_pem,
        ));
    let channel = dial(address, tls).await?;
    let taken = tokio::time::timeout(JUDGE, is_taken(address, identity)).await;
    let taken = taken.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    taken.map_err(|error| from_error(address, &error))?;
    Ok(channel)
}

/// What a client of HTTP/2 says first: the preface and empty settings (RFC 9113, 3.4).
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Whether the controller takes our certificate. In TLS 1.3 a client is done before the server has judged it, and a
/// channel that breaks then does not say why; so a connection of its own waits for the server's first byte.
async fn is_taken(address: &str, identity: &Identity) -> std::io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let config = config(identity).map_err(std::io::Error::other)?;
    let name = ServerName::try_from(SERVER_NAME).map_err(std::io::Error::other)?;
    let stream = tokio::net::TcpStream::connect(address).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await?;
    stream.write_all(GREETING).await?;
    stream.flush().await?;
    let mut first = [0];
    stream.read_exact(&mut first).await?;
    Ok(())
}

fn config(identity: &Identity) -> Result<ClientConfig, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity.ca_pem.as_bytes())?)?;
    let certificate = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

pub(crate) async fn dial(address: &str, tls: ClientTlsConfig) -> Result<Channel, ConnectError> {
    let invalid = |_| ConnectError::Address {
        address: address.to_owned(),
    };
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .map_err(invalid)?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE[0])
        .keep_alive_timeout(KEEP_ALIVE[1])
        .keep_alive_while_idle(true)
        .tls_config(tls)
        .map_err(|error| from_error(address, &error))?;
    let connected = endpoint.connect().await;
    connected.map_err(|error| from_error(address, &error))
}

/// A channel to the agent's socket on this host.
///
/// # Errors
/// When nothing listens there.
pub async fn connect_local(socket: &Path) -> Result<Channel, ConnectError> {
    let address = socket.display().to_string();
    let endpoint = Endpoint::from_shared(format!("unix://{address}"));
    let endpoint = endpoint.map_err(|_| ConnectError::Address {
        address: address.clone(),
    })?;
    let connected = endpoint.connect().await;
    connected.map_err(|error| from_error(&address, &error))
}

/// The connection error in a call's status, if there is one: a channel connects again by itself, and the certificate
/// may have expired since.
#[must_use]
pub fn explain(address: &str, status: &tonic::Status) -> Option<ConnectError> {
    let source = status.source()?;
    (is_refusal(source) || tls_error(source).is_some()).then(|| from_error(address, source))
}

/// What a server says to a certificate that it does not take.
const REFUSALS: [AlertDescription; 5] = [
    AlertDescription::UnknownCA,
    AlertDescription::DecryptError,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateUnknown,
    AlertDescription::CertificateExpired,
];

fn from_error(address: &str, error: &(dyn Error + 'static)) -> ConnectError {
    let address = address.to_owned();
    if is_refusal(error) {
        return ConnectError::ForeignCertificate { address };
    }
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            ConnectError::ForeignController { address }
        }
        _ => {
            let mut reasons: Vec<String> = chain(error).map(ToString::to_string).collect();
            // An error often says only what its cause says.
            reasons.dedup();
            let reason = reasons.join(": ");
            ConnectError::Unreachable { address, reason }
        }
    }
}

/// Once a connection speaks HTTP/2, of its I/O errors only kind and text are left: an alert is known by its text.
fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    let of_tls = tls_error(error);
    let mut refusals = REFUSALS.iter().map(|alert| rustls::Error::AlertReceived(*alert));
    refusals.any(|refusal| of_tls == Some(&refusal) || chain(error).any(|error| is_io(error, &refusal)))
}

fn is_io(error: &(dyn Error + 'static), refusal: &rustls::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData && io.to_string() == refusal.to_string())
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(|error| {
        let within = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        error
            .downcast_ref::<rustls::Error>()
            .or_else(|| within?.downcast_ref::<rustls::Error>())
    })
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}
