//! Who answers: the controller, or on a host without one its agent.

use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use kuafu_model::manifest::{File, Intent};
use kuafu_proto::client::{self, ConnectError, Identity};
use kuafu_proto::v1::GetRequest;
use kuafu_proto::v1::api_client::ApiClient;
use kuafu_proto::v1::local_client::LocalClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::args::Global;
use crate::failure::{Failure, Result};
use crate::out;

/// The largest answer, in octets: a host's flows are many.
const LARGEST: usize = 256 << 20;

/// Who can be asked about hosts.
pub(crate) enum Whom {
    /// The controller.
    Controller(Controller),
    /// This host's agent, through its socket.
    Agent(LocalClient<Channel>),
}

impl Whom {
    /// The controller, if this host knows one and it answers; else the agent of this host, and a note that says so.
    pub(crate) async fn find(global: &Global) -> Result<Self> {
        let socket = global.places().socket();
        let why = match Controller::dial(global).await {
            Ok(controller) => return Ok(Self::Controller(controller)),
            Err(why) if global.controller.is_some() || !socket.exists() => return Err(why.into()),
            Err(why) => why,
        };
        let agent = agent(&socket)
            .await
            .with_context(|| format!("{why:#}; nor does the agent here answer"))?;
        out::complain(&format!("This host's answer alone: {why:#}."));
        Ok(Self::Agent(agent))
    }
}

/// This host's agent.
pub(crate) async fn agent(socket: &Path) -> anyhow::Result<LocalClient<Channel>> {
    let channel = client::connect_local(socket).await?;
    Ok(LocalClient::new(channel).max_decoding_message_size(LARGEST))
}

/// The controller, with what is needed to explain its errors.
pub(crate) struct Controller {
    /// Its API.
    pub(crate) api: ApiClient<Channel>,
    address: String,
}

impl Controller {
    /// Dials the controller with the admin's papers.
    pub(crate) async fn dial(global: &Global) -> anyhow::Result<Self> {
        let identity = admin(global)?;
        let address = address(global)?;
        let channel = client::connect(&address, &identity).await;
        let channel = channel.map_err(|error| match error {
            ConnectError::Unreachable { .. } => anyhow!(
                "no controller answers at {error}; start it there (kuafu controller), or name another by --controller HOST:PORT"
            ),
            error => error.into(),
        })?;
        let api = ApiClient::new(channel).max_decoding_message_size(LARGEST);
        Ok(Self { api, address })
    }

    /// Everything that is declared.
    pub(crate) async fn intent(&mut self) -> anyhow::Result<Intent> {
        let answer = self.api.get(GetRequest::default()).await;
        let answer = self.unwrap(answer)?;
        let file = File {
            name: "the controller's answer",
            text: &answer.yaml,
        };
        let applied = Intent::default().apply_files(&[file]);
        Ok(applied.map_err(|errors| anyhow!("{}", errors[0]))?.intent)
    }

    /// What an answer holds, or the error in words.
    pub(crate) fn unwrap<T>(&self, answer: std::result::Result<Response<T>, Status>) -> anyhow::Result<T> {
        answer
            .map(Response::into_inner)
            .map_err(|status| match client::explain(&self.address, &status) {
                Some(refused) => refused.into(),
                None => anyhow!("the controller at {}: {}", self.address, words(&status)),
            })
    }
}

/// What this host's agent answered, or its error in words.
pub(crate) fn unwrap_local<T>(answer: std::result::Result<Response<T>, Status>) -> anyhow::Result<T> {
    answer
        .map(Response::into_inner)
        .map_err(|status| anyhow!("the agent here: {}", words(&status)))
}

fn words(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    }
}

/// The controller's address: as told, as written on this host, or this host.
pub(crate) fn address(global: &Global) -> anyhow::Result<String> {
    if let Some(address) = &global.controller {
        return Ok(address.clone());
    }
    let file = global.places().controller_address();
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(crate::verb::controller::here()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn admin(global: &Global) -> anyhow::Result<Identity> {
    let folder = global.places().admin();
    ensure!(
        folder.exists(),
        "no admin's certificate on this host; copy the folder {} from the controller's host",
        folder.display()
    );
    Ok(Identity::load(&folder)?)
}

/// Says which hosts did not answer.
pub(crate) fn missing(errors: &[kuafu_proto::v1::HostError]) {
    for error in errors {
        out::complain(&format!("No answer from {}: {}.", error.node, error.error));
    }
}

/// The controller, for what only it can do.
pub(crate) async fn controller(global: &Global) -> Result<Controller> {
    Controller::dial(global).await.map_err(Failure::Failed)
}
