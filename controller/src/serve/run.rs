//! The controller as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kuafu_proto::client::{IdentityError, KEEP_ALIVE};
use kuafu_proto::v1::agents_server::AgentsServer;
use kuafu_proto::v1::api_server::ApiServer;
use kuafu_proto::v1::enrolment_server::EnrolmentServer;
use kuafu_proto::{Identity, Places};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::agents::Agents;
use super::api::Api;
use super::enrolment::Enrolment;
use super::hook;
use super::listen::{TlsError, connections, tls};
use super::metrics;
use super::reflector::Reflector;
use super::shell::{Shell, unix_seconds};
use crate::authority::{Authority, AuthorityError};
use crate::core::{Core, HISTORY_BYTES, RestoreError};
use crate::store::{Embedded, Store, StoreError, Write};

const CA_CERTIFICATE: &str = "ca/certificate";
const CA_KEY: &str = "ca/key";
/// Agents' snapshots and manifests may be large, strangers' requests not.
const LARGEST_REQUEST: usize = 64 << 20;
/// How often it is looked who lives of those that hold addresses.
const LOOK: Duration = Duration::from_millis(50);
/// How long a stopping controller lets connections end by themselves.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a controller runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where agents and the CLI dial. Default: 0.0.0.0:7440.
    pub listen: SocketAddr,
    /// Where `/metrics` is served; `None`: nowhere. Default: 127.0.0.1:7441.
    pub metrics: Option<SocketAddr>,
    /// The second UDP port of the [reflector](super::reflector), whose first has the number of `listen`'s; `None`: there
    /// is no reflector. Default: none.
    pub reflector: Option<u16>,
    /// What prefixes /var/lib/kuafu and /etc/kuafu. Default: `/`.
    pub root: PathBuf,
    /// After how long keys of legs are renewed. Default: a day.
    pub key_lifetime: Duration,
    /// Where store and recordings are. Default: `<root>/var/lib/kuafu/controller`.
    pub data: Option<PathBuf>,
    /// Octets that the history of legs and decisions may take in the store; 0: none is kept. Default: 64 MiB.
    pub history: usize,
    /// The layout of maps that this program's agents have, for who asks for versions. Default: 0, not known.
    pub layout: u32,
}

impl Options {
    /// The store's file.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder().join("store.redb")
    }

    fn folder(&self) -> PathBuf {
        let places = Places::below(&self.root);
        self.data.clone().unwrap_or_else(|| places.controller())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 7440)),
            metrics: Some(SocketAddr::from(([127, 0, 0, 1], 7441))),
            reflector: None,
            root: PathBuf::from("/"),
            key_lifetime: Duration::from_secs(24 * 60 * 60),
            data: None,
            history: HISTORY_BYTES,
            layout: 0,
        }
    }
}

/// Why a controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot be made.
    #[error("{}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// It cannot listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store holds what cannot be.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The CA fails.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// TLS fails.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin's certificate cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server fails.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// What it cannot go on after.
    #[error("stopped: {0}")]
    Stopped(String),
}

/// A controller that serves.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where `/metrics` is.
    pub metrics: Option<SocketAddr>,
    /// The two UDP ports of the reflector.
    pub reflector: Option<[u16; 2]>,
    stop: watch::Sender<bool>,
    server: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Stops it and waits until it has.
    ///
    /// # Errors
    /// Why it stopped before, if it did.
    pub async fn stop(self) -> Result<(), Error> {
        self.stop.send_replace(true);
        self.wait().await
    }

    async fn wait(self) -> Result<(), Error> {
        let ended = self.server.await;
        ended.unwrap_or_else(|error| Err(Error::Stopped(error.to_string())))
    }
}

/// Runs a controller until Ctrl-C, SIGTERM or an error. Everything is in the store before it is answered, so a kill
/// at any moment loses nothing.
///
/// # Errors
/// Why it does not run, or stopped.
pub async fn run(options: Options) -> Result<(), Error> {
    let running = start(options).await?;
    let stop = running.stop.clone();
    tokio::spawn(async move {
        wait_for_signal().await;
        stop.send_replace(true);
    });
    running.wait().await
}

/// Starts a controller; returns when it listens.
///
/// # Errors
/// Why it does not.
pub async fn start(options: Options) -> Result<Running, Error> {
    metrics::install();
    let (shell, config) = shell(&options)?;
    let listener = bind(options.listen).await?;
    let address = listener.local_addr().unwrap_or(options.listen);
    let (metrics, metrics_task) = serve_metrics(options.metrics, &shell).await?;
    let reflector = reflect(address, options.reflector);
    let cluster = shell.view(|core, _| core.cluster().to_owned());
    tracing::info!(%address, cluster, "the controller serves");
    let (stop, stopped) = watch::channel(false);
    let incoming = connections(listener, config);
    let ports = reflector.as_ref().map(Reflector::ports);
    let server = tokio::spawn(async move {
        let ended = serve(Arc::clone(&shell), incoming, stopped).await;
        shell.close();
        drop(reflector);
        if let Some(task) = metrics_task {
            task.abort();
            // It was aborted.
            let _ = task.await;
        }
        ended
    });
    Ok(Running {
        address,
        metrics,
        reflector: ports,
        stop,
        server,
    })
}

/// Opens the store, and makes what a first start makes: the cluster's id, its CA, the admin's certificate.
fn shell(options: &Options) -> Result<(Arc<Shell>, Arc<rustls::ServerConfig>), Error> {
    let places = Places::below(&options.root);
    let data = options.folder();
    std::fs::create_dir_all(&data).map_err(|source| Error::Directory {
        path: data.clone(),
        source,
    })?;
    let mut store = Embedded::open(&options.store())?;
    let (mut core, writes) = Core::restore(store.list("")?, Box::new(random))?;
    core.set_key_lifetime(options.key_lifetime.as_secs());
    core.keep_history(options.history);
    let authority = authority(&mut store, core.cluster(), writes)?;
    let admin = places.admin();
    if !Identity::load(&admin).is_ok_and(|identity| identity.ca_pem == authority.certificate_pem()) {
        authority.admin()?.save(&admin)?;
        tracing::info!(path = %admin.display(), "the admin's certificate is written");
    }
    let config = tls(&authority.controller()?)?;
    let recording = new_recording(&data);
    Ok((
        Arc::new(Shell::new(
            core,
            Box::new(store),
            authority,
            recording,
            options.layout,
        )),
        config,
    ))
}

/// A recording replays from a start on, so each start begins one; the one before is kept.
fn new_recording(data: &Path) -> PathBuf {
    let recording = data.join("steering.jsonl");
    if recording.exists()
        && let Err(error) = std::fs::rename(&recording, recording.with_extension("jsonl.1"))
    {
        tracing::warn!(path = %recording.display(), %error, "the recording before cannot be kept");
    }
    recording
}

async fn serve(
    shell: Arc<Shell>,
    incoming: tokio_stream::wrappers::ReceiverStream<std::io::Result<super::listen::Connection>>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Error> {
    let agents = AgentsServer::new(Agents(Arc::clone(&shell)));
    let api = ApiServer::new(Api(Arc::clone(&shell))).max_decoding_message_size(LARGEST_REQUEST);
    let (finished, finish) = tokio::sync::oneshot::channel::<()>();
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE[0]))
        .http2_keepalive_timeout(Some(KEEP_ALIVE[1]))
        .add_service(EnrolmentServer::new(Enrolment(Arc::clone(&shell))))
        .add_service(agents.max_decoding_message_size(LARGEST_REQUEST))
        .add_service(api)
        .serve_with_incoming_shutdown(incoming, async move { drop(finish.await) });
    tokio::pin!(server);
    let mut failed = shell.failed.subscribe();
    let ended = tokio::select! {
        ended = &mut server => return Ok(ended?),
        _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
        failure = failed.wait_for(Option::is_some) => {
            let reason = failure.ok().and_then(|reason| reason.clone()).unwrap_or_default();
            Err(Error::Stopped(format!("the store failed: {reason}")))
        }
        () = tick(&shell) => Ok(()),
        () = look(&shell) => Ok(()),
        () = hook::call_each(&shell) => Ok(()),
    };
    // The streams of agents end here, calls under way are answered; who does not hang up is not waited for.
    shell.close();
    drop(finished);
    let _ = tokio::time::timeout(FAREWELL, server).await;
    ended
}

async fn tick(shell: &Shell) {
    let mut due = Instant::now();
    loop {
        tokio::time::sleep_until(due.into()).await;
        if end_trial(shell).is_err() {
            return std::future::pending().await;
        }
        let tick = |core: &mut Core, now| {
            let keys = core.handle_keys(unix_seconds());
            let commands = [keys, core.handle_tick(now)].concat();
            (core.next_tick_ms(now), commands)
        };
        let Ok(next_ms) = shell.drive(tick) else {
            return std::future::pending().await;
        };
        // What is late is not made up for.
        due = (due + Duration::from_millis(next_ms)).max(Instant::now());
    }
}

/// Looks again and again who lives of those that hold addresses.
async fn look(shell: &Shell) {
    let mut due = tokio::time::interval(LOOK);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        if shell.drive(|core, now| ((), core.handle_look(now))).is_err() {
            return std::future::pending().await;
        }
    }
}

/// Undoes a change that was not confirmed in time.
#[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
fn end_trial(shell: &Shell) -> Result<(), tonic::Status> {
    let ended = shell.drive(|core, now| match core.handle_trial(now, unix_seconds()) {
        Ok(Some(ended)) => (Ok(Some((ended.revision, ended.undone_by))), ended.commands),
        Ok(None) => (Ok(None), Vec::new()),
        Err(error) => (Err(error), Vec::new()),
    })?;
    match ended {
        Ok(None) => {}
        Ok(Some((revision, undone_by))) => {
            tracing::warn!(
                revision,
                undone_by,
                "a change was not confirmed in time and is undone"
            );
        }
        Err(error) => tracing::error!(%error, "a change was not confirmed in time and cannot be undone"),
    }
    Ok(())
}

async fn serve_metrics(
    address: Option<SocketAddr>,
    shell: &Arc<Shell>,
) -> Result<(Option<SocketAddr>, Option<JoinHandle<()>>), Error> {
    let Some(address) = address else {
        return Ok((None, None));
    };
    let listener = bind(address).await?;
    let address = listener.local_addr().unwrap_or(address);
    let task = tokio::spawn(metrics::serve(listener, Arc::clone(shell)));
    Ok((Some(address), Some(task)))
}

/// The reflector beside the port where we listen. It serves `kuafu doctor` alone: where its ports are taken, the
/// controller goes on without.
fn reflect(beside: SocketAddr, second: Option<u16>) -> Option<Reflector> {
    let second = second?;
    match Reflector::start(beside, second) {
        Ok(reflector) => Some(reflector),
        Err(error) => {
            let ports = [beside.port(), second];
            tracing::warn!(?ports, %error, "no reflector: `kuafu doctor` learns nothing here of UDP and NAT");
            None
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Error::Listen { address, source })
}

/// The CA in the store, or a new one, written together with what else the first start writes.
fn authority(store: &mut dyn Store, cluster: &str, mut writes: Vec<Write>) -> Result<Authority, Error> {
    let text = |store: &dyn Store, key| -> Result<Option<String>, StoreError> {
        let entry = store.get(key)?;
        Ok(entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned()))
    };
    let authority = match (text(store, CA_CERTIFICATE)?, text(store, CA_KEY)?) {
        (Some(certificate), Some(key)) => Authority::load(&certificate, &key)?,
        _ => {
            let authority = Authority::create(cluster)?;
            let put = |key: &str, value: &str| Write::Put(key.to_owned(), value.as_bytes().to_vec());
            writes.push(put(CA_CERTIFICATE, authority.certificate_pem()));
            writes.push(put(CA_KEY, authority.key_pem()));
            authority
        }
    };
    if !writes.is_empty() {
        store.commit(&writes)?;
    }
    Ok(authority)
}

/// The system's randomness. Where there is none, nothing that depends on secrets may go on.
#[allow(
    clippy::panic,
    reason = "a key that can be guessed is worse than no controller"
)]
fn random(bytes: &mut [u8]) {
    use ring::rand::SecureRandom;
    if ring::rand::SystemRandom::new().fill(bytes).is_err() {
        panic!("the system gives no random bytes");
    }
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Ctrl-C alone, where SIGTERM cannot be had.
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
