//! A controller over real TLS on loopback, and an agent that takes what it is sent.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::net::SocketAddr;
use std::path::Path;

use kuafu_controller::store::{Embedded, Store, Write};
use kuafu_controller::{Options, Running, start};
use kuafu_model::HostState;
use kuafu_proto::client::{ConnectError, connect};
use kuafu_proto::enrol::{JoinError, Joined, join};
use kuafu_proto::v1::agent_message::Message;
use kuafu_proto::v1::agents_client::AgentsClient;
use kuafu_proto::v1::api_client::ApiClient;
use kuafu_proto::v1::controller_message::Message as Said;
use kuafu_proto::{Delta, Identity, JoinToken, Places, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

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

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn controller(root: &Path) -> Running {
    let options = Options {
        listen: loopback(),
        metrics: Some(loopback()),
        root: root.to_owned(),
        ..Options::default()
    };
    start(options).await.unwrap()
}

fn admin_identity(root: &Path) -> Identity {
    Identity::load(&Places::below(root).admin()).unwrap()
}

async fn admin(root: &Path, running: &Running) -> ApiClient<Channel> {
    let channel = connect(&running.address.to_string(), &admin_identity(root)).await;
    ApiClient::new(channel.unwrap())
}

async fn apply(api: &mut ApiClient<Channel>, text: &str) -> v1::ApplyAnswer {
    let file = v1::ManifestFile {
        name: "test.yaml".to_owned(),
        text: text.to_owned(),
    };
    let request = v1::ApplyRequest {
        confirm_s: 0,
        files: vec![file],
        dry_run: false,
    };
    api.apply(request).await.unwrap().into_inner()
}

async fn everything(api: &mut ApiClient<Channel>) -> String {
    let request = v1::GetRequest::default();
    api.get(request).await.unwrap().into_inner().yaml
}

async fn token(api: &mut ApiClient<Channel>, node: &str) -> JoinToken {
    let request = v1::NodeTokenRequest {
        node: node.to_owned(),
    };
    let answer = api.node_token(request).await.unwrap().into_inner();
    answer.token.parse().unwrap()
}

/// An agent without a kernel.
struct Agent {
    sender: mpsc::Sender<v1::AgentMessage>,
    messages: Streaming<v1::ControllerMessage>,
    state: Option<HostState>,
}

impl Agent {
    async fn dial(
        running: &Running,
        joined: &Joined,
        cluster: &str,
        state: Option<HostState>,
    ) -> Result<Self, tonic::Status> {
        let channel = connect(&running.address.to_string(), &joined.identity)
            .await
            .unwrap();
        let (sender, receiver) = mpsc::channel(8);
        let hello = v1::Hello {
            node: "osaka".to_owned(),
            cluster: cluster.to_owned(),
            layout: 1,
            last_revision: state.as_ref().map_or(0, |state| state.revision),
            incarnation: 1,
            version: "test".to_owned(),
        };
        sender.send(message(Message::Hello(hello))).await.unwrap();
        let session = AgentsClient::new(channel)
            .session(ReceiverStream::new(receiver))
            .await?;
        Ok(Self {
            sender,
            messages: session.into_inner(),
            state,
        })
    }

    async fn next(&mut self) -> Said {
        self.messages.message().await.unwrap().unwrap().message.unwrap()
    }

    async fn say(&self, said: Message) {
        self.sender.send(message(said)).await.unwrap();
    }

    /// Takes a snapshot or a delta and acknowledges it. Which was it?
    async fn take(&mut self) -> &'static str {
        let (state, kind) = match self.next().await {
            Said::Snapshot(state) => (HostState::try_from(state).unwrap(), "snapshot"),
            Said::Delta(delta) => {
                let delta = Delta::try_from(delta).unwrap();
                (delta.apply(self.state.as_ref().unwrap()).unwrap(), "delta")
            }
            Said::Query(query) => panic!("{query:?}"),
        };
        let revision = state.revision;
        self.state = Some(state);
        self.say(Message::Ack(v1::Ack { revision })).await;
        kind
    }
}

const fn message(message: Message) -> v1::AgentMessage {
    v1::AgentMessage {
        message: Some(message),
    }
}

async fn host(api: &mut ApiClient<Channel>, details: bool) -> v1::HostEntry {
    let status = api.status(v1::ClusterStatusRequest { details }).await.unwrap();
    status.into_inner().hosts.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_life_across_a_restart_of_the_controller() {
    let root = tempfile::tempdir().unwrap();
    let running = controller(root.path()).await;
    let mut api = admin(root.path(), &running).await;
    let created = apply(&mut api, NODE).await;
    assert_eq!(
        (created.changes[0].change.as_str(), created.errors.len()),
        ("created", 0)
    );

    let token = token(&mut api, "osaka").await;
    let address = running.address.to_string();
    let joined = join(&address, &token).await.unwrap();
    let again = join(&address, &token).await.unwrap_err().to_string();
    assert!(again.contains("used already, by node/osaka"), "{again}");

    let mut agent = Agent::dial(&running, &joined, &joined.cluster, None)
        .await
        .unwrap();
    assert_eq!(agent.take().await, "snapshot");
    apply(&mut api, VPC).await;
    assert_eq!(agent.take().await, "delta");
    assert_eq!(agent.state.as_ref().unwrap().ports[0].interface, "veth-a");
    let before = everything(&mut api).await;

    let (metrics, state) = (running.metrics.unwrap(), agent.state.clone());
    let text = scrape(metrics).await;
    assert!(
        text.contains("kuafu_controller_agent_connected{node=\"osaka\"} 1"),
        "{text}"
    );
    // Of this process, in which other tests run too.
    for name in [
        "kuafu_controller_revision ",
        "kuafu_controller_snapshots_total ",
        "kuafu_controller_deltas_total ",
    ] {
        assert!(text.contains(name), "{text}");
    }
    // The answer to its last change is on the way; a controller that stops before it is here does not know it.
    let acknowledged = async {
        while host(&mut api, false).await.acked < state.as_ref().unwrap().revision {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), acknowledged)
        .await
        .unwrap();
    drop(agent);
    running.stop().await.unwrap();

    let running = controller(root.path()).await;
    let mut api = admin(root.path(), &running).await;
    assert_eq!(everything(&mut api).await, before);
    let mut agent = Agent::dial(&running, &joined, &joined.cluster, state)
        .await
        .unwrap();
    let more = VPC
        .replace("name: a", "name: b")
        .replace("10.0.0.5", "10.0.0.6")
        .replace("veth-a", "veth-b");
    let added = apply(&mut api, &more).await;
    assert_eq!(added.errors, []);
    assert_eq!(
        agent.take().await,
        "delta",
        "what the agent runs is known across the restart"
    );
    assert_eq!(agent.state.as_ref().unwrap().ports.len(), 2);
    running.stop().await.unwrap();
}

const SHIELDED: &str = "
kind: Node
metadata: {name: taipei}
spec: {region: ap-east-2, address: {local: 192.0.2.2}}
---
kind: AddressPool
metadata: {name: asia}
spec: {addresses: [{node: osaka, public: 203.0.113.1}, {node: taipei, public: 203.0.113.2}]}
---
kind: Service
metadata: {name: web}
spec:
  pool: asia
  listeners: [{protocol: tcp, port: 443}]
  targets: [{address: 198.51.100.7}]
  shield: {admission: required}
---
kind: Service
metadata: {name: mail}
spec:
  pool: asia
  listeners: [{protocol: tcp, port: 25}]
  targets: [{address: 198.51.100.7}]
  shield: {mode: on}
---
kind: Service
metadata: {name: quiet}
spec:
  pool: asia
  listeners: [{protocol: tcp, port: 53}]
  targets: [{address: 198.51.100.7}]
  shield: {mode: off, admission: required}
---
kind: Service
metadata: {name: bare}
spec: {targets: [{address: 198.51.100.7}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_are_asked_to_admit_and_who_is_away_is_named() {
    let root = tempfile::tempdir().unwrap();
    let running = controller(root.path()).await;
    let mut api = admin(root.path(), &running).await;
    apply(&mut api, NODE).await;
    assert_eq!(apply(&mut api, SHIELDED).await.errors, []);
    let token = token(&mut api, "osaka").await;
    let joined = join(&running.address.to_string(), &token).await.unwrap();
    let mut agent = Agent::dial(&running, &joined, &joined.cluster, None)
        .await
        .unwrap();
    assert_eq!(agent.take().await, "snapshot");
    let services = &agent.state.as_ref().unwrap().services;
    let shields = services.iter().filter(|service| service.shield.is_some());
    assert_eq!(shields.count(), 2, "of web and of mail");

    let away = v1::HostError {
        node: "taipei".to_owned(),
        error: "node/taipei's agent is not connected".to_owned(),
    };
    let request = v1::AdmitRequest {
        client: "203.0.113.9".to_owned(),
        object: "service/web".to_owned(),
        ttl_s: 60,
    };
    let (done, ()) = tokio::join!(api.admit(request.clone()), async {
        let Said::Query(query) = agent.next().await else {
            panic!("no query");
        };
        let asked = v1::AdmitQuery {
            object: "service/web".to_owned(),
            client: "203.0.113.9".to_owned(),
            ttl_s: 60,
        };
        assert_eq!(query.ask, Some(v1::query::Ask::Admit(asked)));
        let answer = Some(v1::query_answer::Answer::Admitted(v1::Admitted {}));
        agent
            .say(Message::Answer(v1::QueryAnswer { id: query.id, answer }))
            .await;
    });
    let done = done.unwrap().into_inner();
    assert_eq!(
        (done.nodes, done.errors),
        (vec!["osaka".to_owned()], vec![away.clone()])
    );

    let object = "service/web".to_owned();
    let (shield, ()) = tokio::join!(api.shield(v1::ShieldRequest { object }), async {
        let Said::Query(query) = agent.next().await else {
            panic!("no query");
        };
        let status = v1::ShieldStatus {
            node: "osaka".to_owned(),
            up: true,
            ..v1::ShieldStatus::default()
        };
        let answer = Some(v1::query_answer::Answer::Shield(status));
        agent
            .say(Message::Answer(v1::QueryAnswer { id: query.id, answer }))
            .await;
    });
    let shield = shield.unwrap().into_inner();
    assert_eq!((shield.mode.as_str(), shield.hosts.len()), ("automatic", 1));
    assert_eq!(shield.errors, [away]);
    refused_admissions(&mut api, request).await;
    let object = "service/quiet".to_owned();
    let off = api
        .shield(v1::ShieldRequest { object })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (off.mode.as_str(), off.hosts.len(), off.errors.len()),
        ("off", 0, 0)
    );
    running.stop().await.unwrap();
}

async fn refused_admissions(api: &mut ApiClient<Channel>, request: v1::AdmitRequest) {
    type Change = fn(&mut v1::AdmitRequest);
    let cases: [(Change, Code, &str); 7] = [
        (
            |request| request.object = "service/mail".to_owned(),
            Code::FailedPrecondition,
            "service/mail lets clients in that are not admitted (its admission is open); set spec.shield.admission: \
             required",
        ),
        (
            |request| request.object = "service/quiet".to_owned(),
            Code::FailedPrecondition,
            "service/quiet lets clients in that are not admitted (its mode is off); set spec.shield.mode to another",
        ),
        (
            |request| request.object = "service/bare".to_owned(),
            Code::FailedPrecondition,
            "service/bare has no shield; a service with a pool or an accelerator has one by its spec.shield",
        ),
        (
            |request| request.object = "accelerator/web".to_owned(),
            Code::NotFound,
            "there is no accelerator/web",
        ),
        (
            |request| request.object = "web".to_owned(),
            Code::InvalidArgument,
            "web is not a kind and a name, such as node/osaka",
        ),
        (
            |request| request.client = "192.0.2.0/24".to_owned(),
            Code::InvalidArgument,
            "client: \"192.0.2.0/24\" is not an IP address, such as 192.0.2.7 or 2001:db8::7",
        ),
        (
            |request| request.ttl_s = 86_401,
            Code::InvalidArgument,
            "ttl_s: 86401 is not 1 to 86400 seconds",
        ),
    ];
    for (change, code, words) in cases {
        let mut wrong = request.clone();
        change(&mut wrong);
        let refused = api.admit(wrong).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (code, words));
    }
}

async fn scrape(address: SocketAddr) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: kuafu\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_manifest_is_answered_by_line_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let running = controller(root.path()).await;
    let mut api = admin(root.path(), &running).await;
    apply(&mut api, NODE).await;
    let before = everything(&mut api).await;
    let wrong = apply(
        &mut api,
        &format!("{VPC}---\n{}", VPC.replace("10.0.0.0/24", "10.0.0.1/24")),
    )
    .await;
    assert_eq!(wrong.changes, []);
    let error = &wrong.errors[0];
    assert_eq!(
        (error.file.as_str(), error.line, error.field.as_str()),
        ("test.yaml", 13, "spec.cidr")
    );
    assert_eq!(everything(&mut api).await, before);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_of_another_cluster_is_refused_at_both_ends() {
    let (root, other_root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (controller(root.path()).await, controller(other_root.path()).await);
    let mut api = admin(root.path(), &ours).await;
    let token = token(&mut api, "osaka").await;

    // The host refuses the other controller, for the fingerprint in its token.
    let error = join(&theirs.address.to_string(), &token).await.unwrap_err();
    assert!(matches!(error, JoinError::ForeignController { .. }), "{error}");
    // And for the CA that it knows since it joined.
    let joined = join(&ours.address.to_string(), &token).await.unwrap();
    let error = connect(&theirs.address.to_string(), &joined.identity)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::ForeignController { .. }), "{error}");

    // The controller refuses another CA's certificate, even from who knows our CA.
    let forged = Identity {
        ca_pem: joined.identity.ca_pem.clone(),
        ..admin_identity(other_root.path())
    };
    let address = ours.address.to_string();
    let error = connect(&address, &forged).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::ForeignCertificate { .. }),
        "{error}"
    );

    // Of its own members it refuses who says that it belongs to another cluster.
    let refused = Agent::dial(&ours, &joined, "ffffffffffffffff", None)
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused.message().contains("belongs to cluster ffffffffffffffff"),
        "{refused}"
    );
    // And a member is no admin.
    let channel = connect(&address, &joined.identity).await.unwrap();
    let status = ApiClient::new(channel)
        .get(v1::GetRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    ours.stop().await.unwrap();
    theirs.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_go_to_agents_and_their_answers_come_back() {
    let root = tempfile::tempdir().unwrap();
    let running = controller(root.path()).await;
    let mut api = admin(root.path(), &running).await;
    apply(&mut api, NODE).await;
    let errors = api
        .drops(v1::ClusterDropsRequest {})
        .await
        .unwrap()
        .into_inner()
        .errors;
    assert_eq!(errors[0].error, "node/osaka's agent is not connected");

    let token = token(&mut api, "osaka").await;
    let joined = join(&running.address.to_string(), &token).await.unwrap();
    let mut agent = Agent::dial(&running, &joined, &joined.cluster, None)
        .await
        .unwrap();
    agent.take().await;
    let answering = tokio::spawn(async move {
        let Said::Query(query) = agent.next().await else {
            panic!("no query");
        };
        let drop = v1::Drop {
            node: "osaka".to_owned(),
            reason: "bad_tag".to_owned(),
            count: 3,
            ..v1::Drop::default()
        };
        let drops = v1::Drops { drops: vec![drop] };
        let answer = v1::QueryAnswer {
            id: query.id,
            answer: Some(v1::query_answer::Answer::Drops(drops)),
        };
        agent.say(Message::Answer(answer)).await;
        agent
    });
    let drops = api.drops(v1::ClusterDropsRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (
            drops.drops[0].reason.as_str(),
            drops.drops[0].count,
            drops.errors.len()
        ),
        ("bad_tag", 3, 0)
    );
    let agent = answering.await.unwrap();
    let entry = host(&mut api, false).await;
    assert!(entry.connected);
    drop(agent);
    running.stop().await.unwrap();
}

/// Makes every token of a stopped controller a day older.
fn let_tokens_expire(root: &Path) {
    let mut store = Embedded::open(&Places::below(root).controller().join("store.redb")).unwrap();
    let aged = store.list("token/").unwrap().into_iter().map(|(key, entry)| {
        let mut token: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
        token["expires"] = (token["expires"].as_u64().unwrap() - 24 * 60 * 60).into();
        Write::Put(key, serde_json::to_vec(&token).unwrap())
    });
    let aged: Vec<Write> = aged.collect();
    assert_eq!(aged.len(), 1);
    store.commit(&aged).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_expired_or_is_nobodys_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let running = controller(root.path()).await;
    let mut api = admin(root.path(), &running).await;
    apply(&mut api, NODE).await;
    let made = token(&mut api, "osaka").await;
    let guessed = JoinToken {
        secret: [7; 16],
        ..made.clone()
    };
    let refusal = |address: String, token: JoinToken| async move {
        join(&address, &token).await.unwrap_err().to_string()
    };
    let refused = refusal(running.address.to_string(), guessed).await;
    assert!(refused.contains("not known here"), "{refused}");
    // The host refuses whoever has not the fingerprint that its token names.
    let other = JoinToken {
        fingerprint: [7; 32],
        ..made.clone()
    };
    let error = join(&running.address.to_string(), &other).await.unwrap_err();
    assert!(matches!(error, JoinError::ForeignController { .. }), "{error}");
    running.stop().await.unwrap();

    let_tokens_expire(root.path());
    let running = controller(root.path()).await;
    let refused = refusal(running.address.to_string(), made).await;
    assert!(refused.contains("has expired"), "{refused}");
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_controller_leaves_its_addresses_and_its_store() {
    let root = tempfile::tempdir().unwrap();
    let first = controller(root.path()).await;
    let mut api = admin(root.path(), &first).await;
    let (listen, metrics) = (first.address, first.metrics);
    first.stop().await.unwrap();
    let options = Options {
        listen,
        metrics,
        root: root.path().to_owned(),
        ..Options::default()
    };
    let second = start(options).await.unwrap();
    assert_eq!((second.address, second.metrics), (listen, metrics));
    // Who asked the first asks the second over the same channel, perhaps after a hiccup.
    while api.get(v1::GetRequest::default()).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    second.stop().await.unwrap();
}
