//! The agent as a whole, in a network namespace: by a state file, and by a controller on loopback.
//!
//! Needs root; says that it was skipped elsewhere.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kuafu_controller::authority::Authority;
use kuafu_controller::store::{Embedded, Store, Write};
use kuafu_controller::{Options as ControllerOptions, Running, start};
use kuafu_dataplane::agent::{self, Options};
use kuafu_lab::Namespace;
use kuafu_proto::client::{connect, connect_local};
use kuafu_proto::enrol::join;
use kuafu_proto::renew::Validity;
use kuafu_proto::token::fingerprint;
use kuafu_proto::v1::api_client::ApiClient;
use kuafu_proto::v1::local_client::LocalClient;
use kuafu_proto::{Identity, JoinToken, Places, v1};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// By when what must happen has happened, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where the agent serves metrics: each test has a loopback device of its own.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7442);

/// A host: its interfaces, its files, its pins.
struct Lab {
    root: tempfile::TempDir,
    pin_root: PathBuf,
}

impl Lab {
    fn places(&self) -> Places {
        Places::below(self.root.path())
    }

    fn options(&self) -> Options {
        Options {
            places: self.places(),
            pin_root: self.pin_root.clone(),
            state_file: None,
            controller: None,
            xdp: None,
            metrics_listen: None,
        }
    }

    fn by_file(&self) -> Options {
        Options {
            state_file: Some(self.root.path().join("state.json")),
            ..self.options()
        }
    }

    /// Writes the state file as an editor does.
    fn write(&self, revision: u64, interface: &str) {
        let text = format!(
            r#"{{"cluster": "test", "revision": {revision},
                 "node": {{"id": 1, "name": "osaka", "local": "192.0.2.1", "public": "192.0.2.1",
                           "overlay": "100.64.0.1", "udp_port": 6081}},
                 "ports": [{{"name": "a", "vni": 2, "address": "10.0.0.5", "mac": "02:00:0a:00:00:05",
                             "interface": "{interface}"}}]}}"#
        );
        self.write_text(&text);
    }

    fn write_text(&self, text: &str) {
        let (new, path) = (self.root.path().join("new"), self.root.path().join("state.json"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// Takes away what a reboot takes away.
    fn forget_pins(&self) {
        let _ = std::fs::remove_dir_all(&self.pin_root);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.forget_pins();
    }
}

/// Runs a test in a namespace with an underlay and a port's veth.
fn in_namespace<F: Future<Output = ()>>(name: &str, test: impl FnOnce(Lab) -> F + Send) {
    if let Some(why) = kuafu_lab::unavailable() {
        return kuafu_lab::skip(why);
    }
    let prefix = format!("kfa{}", std::process::id());
    let namespace = Namespace::create(&prefix, name).unwrap();
    namespace
        .ip([
            "link add under type veth peer name wire",
            "addr add 192.0.2.1/24 dev under",
            "link set under up",
            "link set wire up",
            "link add veth-a type veth peer name guest-a",
            "link set veth-a up",
            "link set guest-a up",
        ])
        .unwrap();
    let lab = Lab {
        root: tempfile::tempdir().unwrap(),
        pin_root: PathBuf::from(format!("/sys/fs/bpf/{prefix}-{name}")),
    };
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test(lab));
    };
    namespace.run(run).unwrap();
}

/// An agent that runs.
struct Agent {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), agent::Error>>,
}

impl Agent {
    fn start(options: Options) -> Self {
        let (stop, stopped) = oneshot::channel();
        let run = agent::run(options, async {
            let _ = stopped.await;
        });
        Self {
            stop,
            task: tokio::spawn(run),
        }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

/// Waits until `ask` gives something that `is` as it must be.
async fn until<T: std::fmt::Debug, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    is: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + DEADLINE;
    let mut last = None;
    while Instant::now() < end {
        match ask().await {
            Some(answer) if is(&answer) => return answer,
            answer => last = answer.or(last),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within {DEADLINE:?}: {what}; the last answer: {last:#?}");
}

async fn local(places: &Places) -> Option<LocalClient<Channel>> {
    Some(LocalClient::new(connect_local(&places.socket()).await.ok()?))
}

async fn status(places: Places) -> Option<v1::HostStatus> {
    let answer = local(&places).await?.status(v1::StatusQuery {}).await;
    Some(answer.ok()?.into_inner())
}

async fn at_revision(places: &Places, revision: u64) -> v1::HostStatus {
    let ask = || status(places.clone());
    until("the revision", ask, |status| status.revision == revision).await
}

#[test]
fn a_state_file_is_followed_and_stays_in_force() {
    in_namespace("file", |lab| async move {
        let places = lab.places();
        lab.write(1, "veth-a");
        let options = Options {
            metrics_listen: Some(METRICS),
            ..lab.by_file()
        };
        let agent = Agent::start(options);
        let first = at_revision(&places, 1).await;
        assert_eq!((first.node.as_str(), first.cluster.as_str()), ("osaka", "test"));
        assert!(first.ports[0].attached, "{first:#?}");
        let mode = std::fs::metadata(places.socket()).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);

        let second = Agent::start(lab.by_file()).task.await.unwrap();
        assert!(matches!(second, Err(agent::Error::Running { .. })), "{second:?}");

        lab.write(2, "not-there");
        let waiting = at_revision(&places, 2).await;
        assert!(!waiting.ports[0].attached);
        assert!(
            waiting.faults.iter().any(|fault| fault.contains("not-there")),
            "{waiting:#?}"
        );
        lab.write_text("{\"node\": 3}");
        let ask = || status(places.clone());
        let refused = until("a fault", ask, |status| {
            status
                .faults
                .iter()
                .any(|fault| fault.contains("state.json: not a state"))
        });
        assert_eq!(refused.await.revision, 2);
        lab.write(3, "veth-a");
        let third = at_revision(&places, 3).await;
        assert!(
            !third.faults.iter().any(|fault| fault.contains("state.json")),
            "{third:#?}"
        );
        let metrics = scrape().await;
        for line in [
            "kuafu_revision 3",
            "kuafu_dropped_packets_total{reason=\"bad_tag\"} 0",
            "kuafu_octets_total{event=\"vxlan_sent\"} 0",
            "kuafu_port_attached{port=\"a\"} 1",
        ] {
            assert!(
                metrics.lines().any(|found| found == line),
                "{line} is not in\n{metrics}"
            );
        }
        agent.stop().await;
        assert!(!places.socket().exists());
        assert!(lab.pin_root.join("osaka/links").read_dir().unwrap().count() >= 2);

        // What is pinned is adopted: the same incarnation, and the port was attached all the time.
        let agent = Agent::start(lab.by_file());
        let adopted = at_revision(&places, 3).await;
        assert_eq!(adopted.incarnation, first.incarnation);
        agent.stop().await;
    });
}

async fn scrape() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(METRICS).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: kuafu\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn a_host_that_is_no_member_says_what_to_do() {
    in_namespace("stranger", |lab| async move {
        let error = Agent::start(lab.options()).task.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("kuafu node join"), "{error}");
    });
}

const NODE: &str =
    "kind: Node\nmetadata: {name: osaka}\nspec: {region: ap-northeast-3, address: {local: 192.0.2.1}}\n";
const VPC: &str = "
kind: Vpc
metadata: {name: red}
spec: {cidr: 10.0.0.0/24}
---
kind: Port
metadata: {name: a}
spec: {vpc: red, node: osaka, address: 10.0.0.5, interface: veth-a}
";

async fn controller(root: &Path, listen: SocketAddr) -> Running {
    let options = ControllerOptions {
        listen,
        metrics: None,
        root: root.to_owned(),
        ..ControllerOptions::default()
    };
    start(options).await.unwrap()
}

async fn admin(root: &Path, running: &Running) -> ApiClient<Channel> {
    let identity = Identity::load(&Places::below(root).admin()).unwrap();
    ApiClient::new(connect(&running.address.to_string(), &identity).await.unwrap())
}

async fn apply(api: &mut ApiClient<Channel>, text: &str) {
    let file = v1::ManifestFile {
        name: "test.yaml".to_owned(),
        text: text.to_owned(),
    };
    let request = v1::ApplyRequest {
        confirm_s: 0,
        files: vec![file],
        dry_run: false,
    };
    let answer = api.apply(request).await.unwrap().into_inner();
    assert_eq!(answer.errors, []);
}

/// Makes the host a member, as `kuafu node join` does.
async fn become_member(api: &mut ApiClient<Channel>, address: SocketAddr, places: &Places) {
    let request = v1::NodeTokenRequest {
        node: "osaka".to_owned(),
    };
    let token: JoinToken = api
        .node_token(request)
        .await
        .unwrap()
        .into_inner()
        .token
        .parse()
        .unwrap();
    let joined = join(&address.to_string(), &token).await.unwrap();
    joined.identity.save(&places.identity()).unwrap();
    std::fs::create_dir_all(places.config()).unwrap();
    std::fs::write(places.node(), "osaka\n").unwrap();
    std::fs::write(places.data().join("cluster"), format!("{}\n", joined.cluster)).unwrap();
    std::fs::write(places.controller_address(), format!("{address}\n")).unwrap();
}

/// The controller's entry for the host, once it has acknowledged what it should have.
async fn acknowledged(api: &ApiClient<Channel>) -> v1::HostEntry {
    let is = |host: &v1::HostEntry| host.connected && host.acked == host.revision && host.status.is_some();
    entry("an acknowledgement", api, is).await
}

/// The controller's entry for the host, once it `is` as it must be.
async fn entry(what: &str, api: &ApiClient<Channel>, is: impl Fn(&v1::HostEntry) -> bool) -> v1::HostEntry {
    let ask = || {
        let mut api = api.clone();
        async move {
            let status = api
                .status(v1::ClusterStatusRequest { details: true })
                .await
                .ok()?;
            status.into_inner().hosts.pop()
        }
    };
    until(what, ask, is).await
}

#[test]
fn a_member_follows_its_controller_and_needs_none_to_come_back() {
    in_namespace("member", |lab| async move {
        let places = lab.places();
        let controller_root = tempfile::tempdir().unwrap();
        let running = controller(controller_root.path(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let address = running.address;
        let mut api = admin(controller_root.path(), &running).await;
        apply(&mut api, NODE).await;
        become_member(&mut api, address, &places).await;

        let agent = Agent::start(lab.options());
        acknowledged(&api).await;
        apply(&mut api, VPC).await;
        let with_port = acknowledged(&api).await;
        let status = with_port.status.unwrap();
        assert!(status.ports[0].attached, "{status:#?}");
        // What the host cannot satisfy is refused, and what was in force stays.
        apply(&mut api, &NODE.replace("192.0.2.1", "192.0.2.99")).await;
        let refused = entry("a refusal", &api, |host| !host.refused.is_empty()).await;
        assert!(refused.refused.contains("192.0.2.99"), "{refused:#?}");
        let status = refused.status.unwrap();
        assert_eq!(
            (status.revision, status.ports[0].attached),
            (with_port.acked, true)
        );
        apply(&mut api, NODE).await;
        let with_port = acknowledged(&api).await;
        let kept = agent::read_state(&places.state()).unwrap();
        assert_eq!(kept.revision, with_port.acked);
        drop(api);
        running.stop().await.unwrap();
        let alone = at_revision(&places, kept.revision).await;
        assert_eq!(alone.incarnation, with_port.incarnation);
        agent.stop().await;

        // A reboot with the controller down.
        lab.forget_pins();
        let agent = Agent::start(lab.options());
        let back = at_revision(&places, kept.revision).await;
        assert!(back.ports[0].attached, "{back:#?}");
        assert_ne!(back.incarnation, alone.incarnation);

        let running = controller(controller_root.path(), address).await;
        let api = admin(controller_root.path(), &running).await;
        let again = acknowledged(&api).await;
        assert_eq!(again.incarnation, back.incarnation);
        agent.stop().await;
        drop(api);
        running.stop().await.unwrap();

        // 70 days later.
        age_certificate(controller_root.path(), &places);
        let running = controller(controller_root.path(), address).await;
        let api = admin(controller_root.path(), &running).await;
        let agent = Agent::start(lab.options());
        let is_due = || {
            Validity::of(&papers(&places).certificate_pem)
                .unwrap()
                .is_due(unix_seconds())
        };
        assert!(is_due());
        until("a new certificate", || async { Some(is_due()) }, |is_due| !is_due).await;
        agent.stop().await;
        let agent = Agent::start(lab.options());
        acknowledged(&api).await;
        agent.stop().await;
        drop(api);
        running.stop().await.unwrap();
    });
}

fn papers(places: &Places) -> Identity {
    Identity::load(&places.identity()).unwrap()
}

fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// Makes the member's certificate one of 70 days ago.
fn age_certificate(controller_root: &Path, places: &Places) {
    let store = Places::below(controller_root).controller().join("store.redb");
    let mut store = Embedded::open(&store).unwrap();
    let text = |key: &str| String::from_utf8(store.get(key).unwrap().unwrap().value).unwrap();
    let authority = Authority::load(&text("ca/certificate"), &text("ca/key")).unwrap();
    let identity = papers(places);
    let key = rcgen::KeyPair::from_pem(&identity.key_pem).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key);
    let request = request.unwrap().pem().unwrap();
    let certificate_pem = authority
        .member("osaka", &request, unix_seconds() - 70 * 86_400)
        .unwrap();
    let digest = fingerprint(pem::parse(&certificate_pem).unwrap().contents());
    let digest: String = digest.iter().map(|octet| format!("{octet:02x}")).collect();
    let known = Write::Put("certificate/osaka".to_owned(), digest.into_bytes());
    store.commit(&[known]).unwrap();
    let aged = Identity {
        certificate_pem,
        ..identity
    };
    aged.save(&places.identity()).unwrap();
}
