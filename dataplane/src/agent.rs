//! The agent of a host: one thread has the host, tasks around it talk to the controller and to people.
//!
//! ```text
//! controller <-> session -+
//! agent.sock <-> local ---+-> requests -> worker (Host, Quality, drops) -> events -> session
//! /metrics   <-> metrics -+
//! ```
//!
//! What is in force stays in force when the agent ends: programs, links and maps are pinned.

mod error;
mod handle;
mod local;
mod metrics;
mod refusal;
mod session;
mod store;
mod worker;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use kuafu_proto::Places;
use kuafu_proto::v1::agent_message::Message;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, oneshot, watch};

use crate::bpf::{Pins, Sizes, XdpMode};
use crate::health::{self, checker};
use crate::host::{self, Host};
pub use error::Error;
use handle::{Handle, Request};
pub use store::read_state;
use store::{make_folder, read_line};
use worker::{Begin, Source, Worker, port_of};

/// What may wait for a session: an alarm for each of some hundred paths, and the reports between.
const EVENTS: usize = 1024;

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its files and its socket are.
    pub places: Places,
    /// Where its nodes' pins are: `/sys/fs/bpf/kuafu`.
    pub pin_root: PathBuf,
    /// A state to run without a controller, binary or JSON; looked at again when it changes.
    pub state_file: Option<PathBuf>,
    /// `host:port` of the controller; `None`: what `kuafu node join` has written.
    pub controller: Option<String>,
    /// How the edge is attached; `None`: as the device allows.
    pub xdp: Option<XdpMode>,
    /// Where `/metrics` is served.
    pub metrics_listen: Option<SocketAddr>,
}

/// Runs an agent until `shutdown` ends. What it has brought into force stays. The calling thread's network namespace
/// is the host.
///
/// # Errors
/// Why it does not run, or stopped.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let _only_one = lock(&options.places)?;
    let metrics = match options.metrics_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let (events, _) = broadcast::channel(EVENTS);
    let (line, told) = health::line();
    let (host, begun, thread) = start(&options, events, line)?;
    // The controller is dialled while the host is opened: the greeting waits for it.
    let mut talking = Box::pin(talk(&options, host.clone()));
    tokio::select! {
        biased;
        begun = begun => begun.map_err(|_| Error::Stopped("it panicked"))??,
        error = &mut talking => return error,
    }
    let mut thread = tokio::task::spawn_blocking(move || thread.join());
    let socket = local::Socket::bind(&options.places.socket())?;
    let (stop, stopped) = watch::channel(());
    let until = || ended(stopped.clone());
    let verdicts = host.clone();
    let checking = tokio::spawn(checker::run(told, move |verdict| verdicts.tell(verdict)));
    let serving = tokio::spawn(socket.serve(host.clone(), until()));
    let metrics = metrics.map(|listener| tokio::spawn(metrics::serve(listener, host.clone(), until())));
    let result = tokio::select! {
        () = shutdown => Ok(()),
        error = &mut talking => error,
        _ = &mut thread => return Err(Error::Stopped("it panicked")),
    };
    drop(stop);
    drop((host, talking));
    checking.abort();
    let _ = checking.await;
    let _ = serving.await;
    if let Some(metrics) = metrics {
        let _ = metrics.await;
    }
    // With the last handle gone the thread ends.
    match thread.await {
        Ok(Ok(())) => result,
        _ => Err(Error::Stopped("it panicked")),
    }
}

/// Ends when the sender is dropped.
async fn ended(mut stopped: watch::Receiver<()>) {
    let _ = stopped.changed().await;
}

/// Whether an agent runs over these places.
#[must_use]
pub fn is_running(places: &Places) -> bool {
    let Ok(file) = std::fs::File::open(places.run().join("agent.lock")) else {
        return false;
    };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

/// Holds a lock that keeps a second agent away from the same places.
fn lock(places: &Places) -> Result<Flock<std::fs::File>, Error> {
    let path = places.run().join("agent.lock");
    make_folder(&places.run())?;
    let file = std::fs::File::create(&path).map_err(crate::Error::io(format!("open {}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| Error::Running { path })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| Error::Listen { address, source })
}

/// What the host's thread begins with: who this host is, and where its states come from.
fn begin(
    options: &Options,
    events: broadcast::Sender<Message>,
    line: health::Line,
    may_hold: Arc<AtomicBool>,
) -> Result<Begin, Error> {
    let places = &options.places;
    if let Some(path) = &options.state_file {
        return Ok(Begin {
            node: read_state(path)?.node.name,
            source: Source::File(path.clone()),
            cluster: None,
            control_port: None,
            events,
            line,
            run: places.run(),
            may_hold,
        });
    }
    Ok(Begin {
        node: read_line(&places.node())?.ok_or(Error::NoMember)?,
        source: Source::Controller(places.state()),
        cluster: read_line(&places.cluster())?,
        control_port: controller(options)?.as_deref().and_then(port_of),
        events,
        line,
        run: places.run(),
        may_hold,
    })
}

/// The host's thread; what it says when its first state is in force, or why it ends before.
type Started = (
    Handle,
    oneshot::Receiver<Result<(), crate::Error>>,
    JoinHandle<()>,
);

/// Starts the host's thread.
fn start(
    options: &Options,
    events: broadcast::Sender<Message>,
    line: health::Line,
) -> Result<Started, Error> {
    let may_hold = Arc::new(AtomicBool::new(false));
    let begin = begin(options, events, line, Arc::clone(&may_hold))?;
    let host = host::Options {
        pins: Pins::new(&options.pin_root, &begin.node),
        node: begin.node.clone(),
        data: options.places.data(),
        xdp: options.xdp,
        sizes: Sizes::of_host(),
    };
    let (requests, asked): (_, Receiver<Request>) = std::sync::mpsc::channel();
    let (ready, begun) = oneshot::channel();
    let open = move || Worker::begin(begin, Host::open(host)?);
    let work = move || match open() {
        Ok(worker) => {
            let _ = ready.send(Ok(()));
            worker.run(&asked);
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    };
    let thread = std::thread::Builder::new().name("host".to_owned()).spawn(work);
    let thread = thread.map_err(crate::Error::io("start the host's thread"))?;
    Ok((Handle { requests, may_hold }, begun, thread))
}

/// Where the controller is, as told or as written on this host.
fn controller(options: &Options) -> Result<Option<String>, Error> {
    match &options.controller {
        Some(controller) => Ok(Some(controller.clone())),
        None => Ok(read_line(&options.places.controller_address())?),
    }
}

/// Talks to the controller; with a state file to nobody.
async fn talk(options: &Options, host: Handle) -> Result<(), Error> {
    if options.state_file.is_some() {
        return std::future::pending().await;
    }
    let member = session::Member {
        controller: controller(options)?.ok_or(Error::NoMember)?,
        places: options.places.clone(),
    };
    session::keep(host, member).await
}
