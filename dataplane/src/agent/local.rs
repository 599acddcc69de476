//! The agent's own socket, for a host whose controller is away.

use std::fs::{self, Permissions};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kuafu_proto::v1;
use kuafu_proto::v1::local_server::{Local, LocalServer};
use kuafu_proto::v1::query::Ask;
use kuafu_proto::v1::query_answer::Answer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::handle::Handle;
use super::store::make_folder;
use crate::error::{Error, Result};

/// The socket, in its place until it is dropped.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens in the place of whatever socket is there; only root may connect.
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let failed = || format!("listen on {}", path.display());
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let fresh = path.with_extension("new");
        let _ = fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh).map_err(Error::io(failed()))?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&fresh, path))
            .map_err(Error::io(failed()))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers until `stop` ends.
    pub(super) async fn serve(self, host: Handle, stop: impl Future<Output = ()>) {
        let Self { listener, path } = self;
        let served = Server::builder()
            .add_service(LocalServer::new(Service(host)))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop)
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "the agent's socket is served no more");
        }
        let _ = fs::remove_file(path);
    }
}

struct Service(Handle);

impl Service {
    async fn ask(&self, ask: Ask) -> std::result::Result<Answer, Status> {
        let query = v1::Query {
            id: 0,
            ask: Some(ask),
        };
        let answer = self.0.ask(query).await;
        match answer.map(|answer| answer.answer) {
            Ok(Some(Answer::Error(error))) => Err(Status::failed_precondition(error)),
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Status::internal("no answer")),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

macro_rules! answers {
    ($( $call:ident: $ask:ident($query:ident) -> $answer:ident($message:ident); )+) => {
        #[tonic::async_trait]
        impl Local for Service { $(
            async fn $call(
                &self,
                request: Request<v1::$query>,
            ) -> std::result::Result<Response<v1::$message>, Status> {
                match self.ask(Ask::$ask(request.into_inner())).await? {
                    Answer::$answer(answer) => Ok(Response::new(answer)),
                    _ => Err(Status::internal("an answer to another question")),
                }
            }
        )+ }
    };
}

answers! {
    status: Status(StatusQuery) -> Status(HostStatus);
    drops: Drops(DropsQuery) -> Drops(Drops);
    flows: Flows(FlowsQuery) -> Flows(Flows);
    explain: Explain(ExplainQuery) -> Explanation(Explanation);
    shield: Shield(ShieldQuery) -> Shield(ShieldStatus);
}
