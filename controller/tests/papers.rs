//! A controller over real TLS on loopback: certificates are renewed, nodes leave, and a backup is the same controller.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use std::net::SocketAddr;
use std::path::Path;

use kuafu_controller::backup::Backup;
use kuafu_controller::{Options, Running, start};
use kuafu_proto::client::connect;
use kuafu_proto::enrol::{Joined, join};
use kuafu_proto::renew::{RenewError, Validity, renew};
use kuafu_proto::v1::agent_message::Message;
use kuafu_proto::v1::agents_client::AgentsClient;
use kuafu_proto::v1::api_client::ApiClient;
use kuafu_proto::v1::enrolment_client::EnrolmentClient;
use kuafu_proto::{Identity, Places, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

const NODE: &str =
    "kind: Node\nmetadata: {name: osaka}\nspec: {region: ap-northeast-3, address: {local: 192.0.2.1}}\n";
const POOL: &str = "
kind: AddressPool
metadata: {name: asia}
spec: {addresses: [{node: osaka, public: 203.0.113.1}]}
";
const DAY: u64 = 86_400;

fn options(root: &Path) -> Options {
    Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        metrics: None,
        root: root.to_owned(),
        ..Options::default()
    }
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
        files: vec![file],
        ..v1::ApplyRequest::default()
    };
    assert_eq!(api.apply(request).await.unwrap().into_inner().errors, []);
}

async fn member(api: &mut ApiClient<Channel>, running: &Running) -> Joined {
    let node = "osaka".to_owned();
    let answer = api.node_token(v1::NodeTokenRequest { node }).await.unwrap();
    let token = answer.into_inner().token.parse().unwrap();
    join(&running.address.to_string(), &token).await.unwrap()
}

/// Shows a certificate as an agent does. What the controller sends first, or why not.
async fn show(running: &Running, joined: &Joined, identity: &Identity) -> Result<(), tonic::Status> {
    let channel = connect(&running.address.to_string(), identity).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let hello = v1::Hello {
        node: "osaka".to_owned(),
        cluster: joined.cluster.clone(),
        layout: 1,
        last_revision: 0,
        incarnation: 1,
        version: "test".to_owned(),
    };
    let message = v1::AgentMessage {
        message: Some(Message::Hello(hello)),
    };
    sender.send(message).await.unwrap();
    let mut agents = AgentsClient::new(channel);
    let session = agents.session(ReceiverStream::new(receiver)).await?;
    session.into_inner().message().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_renews_what_it_has_and_leaves() {
    let root = tempfile::tempdir().unwrap();
    let running = start(options(root.path())).await.unwrap();
    let address = running.address.to_string();
    let mut api = admin(root.path(), &running).await;
    apply(&mut api, NODE).await;
    let joined = member(&mut api, &running).await;
    assert!(joined.declared);
    let validity = Validity::of(&joined.identity.certificate_pem).unwrap();
    assert_eq!((validity.until - validity.from) / DAY, 90);
    assert!(!validity.is_due(validity.from + 59 * DAY));
    assert!(validity.is_due(validity.from + 61 * DAY));

    let first = connect(&address, &joined.identity).await.unwrap();
    let next = renew(first.clone(), "osaka", &joined.identity).await.unwrap();
    assert_eq!(next.key_pem, joined.identity.key_pem);
    assert_ne!(next.certificate_pem, joined.identity.certificate_pem);
    show(&running, &joined, &joined.identity).await.unwrap();
    show(&running, &joined, &next).await.unwrap();
    let refused = show(&running, &joined, &joined.identity).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = renew(first, "osaka", &joined.identity).await.unwrap_err();
    assert!(matches!(refused, RenewError::Refused(_)), "{refused}");

    apply(&mut api, POOL).await;
    let mut enrolment = EnrolmentClient::new(connect(&address, &next).await.unwrap());
    for refused in [
        enrolment.drain(v1::DrainRequest {}).await.unwrap_err(),
        enrolment.leave(v1::LeaveRequest {}).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("addresspool/asia"), "{refused}");
    }
    let pool = v1::ObjectInfo {
        kind: "addresspool".to_owned(),
        name: "asia".to_owned(),
    };
    let request = v1::DeleteRequest {
        objects: vec![pool],
        dry_run: false,
    };
    assert_eq!(api.delete(request).await.unwrap().into_inner().errors, []);
    let drained = enrolment.drain(v1::DrainRequest {}).await.unwrap().into_inner();
    assert_eq!(drained.paths, 0);
    enrolment.leave(v1::LeaveRequest {}).await.unwrap();
    let refused = show(&running, &joined, &next).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let nodes = api.get(v1::GetRequest::default()).await.unwrap().into_inner();
    assert_eq!(nodes.objects, []);
    running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_the_same_controller_elsewhere() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let running = start(options(here.path())).await.unwrap();
    let mut api = admin(here.path(), &running).await;
    apply(&mut api, NODE).await;
    let joined = member(&mut api, &running).await;
    let backup = api.take_backup(v1::BackupRequest {}).await.unwrap().into_inner();
    let stranger = connect(&running.address.to_string(), &joined.identity)
        .await
        .unwrap();
    let refused = ApiClient::new(stranger).take_backup(v1::BackupRequest {}).await;
    assert_eq!(
        refused.unwrap_err().code(),
        Code::PermissionDenied,
        "it holds all keys"
    );
    running.stop().await.unwrap();

    let backup = Backup::from_bytes(&backup.to_bytes()).unwrap();
    let to = options(there.path());
    backup.restore_file(&to.store(), false).unwrap();
    let again = backup.restore_file(&to.store(), false).unwrap_err().to_string();
    assert!(again.contains("--force"), "{again}");
    let running = start(to).await.unwrap();
    let held = backup.restore_file(&options(there.path()).store(), true);
    assert!(held.is_err(), "a controller runs over it");
    show(&running, &joined, &joined.identity).await.unwrap();
    let mut api = admin(there.path(), &running).await;
    let nodes = api.get(v1::GetRequest::default()).await.unwrap().into_inner();
    assert_eq!(nodes.objects.len(), 1);
    running.stop().await.unwrap();
}
