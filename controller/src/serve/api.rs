//! `Api`: what the CLI asks.

mod answer;
mod path;
mod shield;

pub(super) use answer::words;

use std::sync::Arc;

use kuafu_model::kinds::{Kind, Name, ObjectRef};
use kuafu_model::manifest::{File, to_json, to_yaml};
use kuafu_proto::v1;
use kuafu_proto::v1::query::Ask;
use kuafu_proto::v1::query_answer::Answer;
use tonic::{Request, Response, Status};

use super::identity::admin;
use super::shell::{Shell, unix_seconds};
use crate::core::{DeclareError, Declared, Terms};

pub(super) struct Api(pub(super) Arc<Shell>);

#[tonic::async_trait]
impl v1::api_server::Api for Api {
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Result<Response<v1::ApplyAnswer>, Status> {
        admin(&request)?;
        let v1::ApplyRequest {
            files,
            dry_run,
            confirm_s,
        } = request.into_inner();
        let terms = terms(dry_run, confirm_s);
        let files: Vec<File<'_>> = files
            .iter()
            .map(|file| File {
                name: &file.name,
                text: &file.text,
            })
            .collect();
        self.declare(|core, now| core.handle_apply(now, &files, terms))
    }

    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Result<Response<v1::ApplyAnswer>, Status> {
        admin(&request)?;
        let v1::DeleteRequest { objects, dry_run } = request.into_inner();
        let objects: Vec<ObjectRef> = objects
            .iter()
            .map(|object| object_ref(&object.kind, &object.name))
            .collect::<Result<_, _>>()?;
        self.declare(|core, now| core.handle_delete(now, &objects, terms(dry_run, 0)))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmAnswer>, Status> {
        admin(&request)?;
        let undo = request.get_ref().undo;
        let ended = self.0.drive(|core, now| {
            let ended = if undo {
                core.handle_undo(now, unix_seconds())
            } else {
                core.handle_confirm()
            };
            match ended {
                Ok(ended) => (Ok((ended.revision, ended.undone_by)), ended.commands),
                Err(error) => (Err(Status::failed_precondition(words(&error))), Vec::new()),
            }
        })?;
        let (revision, undone_by) = ended?;
        tracing::info!(revision, undone_by, "a trial has ended");
        Ok(Response::new(v1::ConfirmAnswer { revision, undone_by }))
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryAnswer>, Status> {
        admin(&request)?;
        let revision = request.get_ref().revision;
        let changes = self.0.view(|core, _| match revision {
            0 => Ok(answer::history(core)),
            revision => answer::change(core, revision).map(|change| vec![change]),
        });
        let changes = changes.map_err(|error| Status::not_found(words(&error)))?;
        Ok(Response::new(v1::HistoryAnswer { changes }))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::ApplyAnswer>, Status> {
        admin(&request)?;
        let v1::RollbackRequest {
            revision,
            dry_run,
            confirm_s,
        } = request.into_inner();
        let terms = terms(dry_run, confirm_s);
        self.declare(|core, now| core.handle_rollback(now, revision, terms))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetAnswer>, Status> {
        admin(&request)?;
        let v1::GetRequest { kind, name } = request.into_inner();
        let kind: Option<Kind> = match kind.as_str() {
            "" => None,
            kind => Some(kind.parse().map_err(invalid)?),
        };
        let name = Some(name.as_str()).filter(|name| !name.is_empty());
        let objects = self.0.view(|core, _| core.objects(kind, name));
        if let (true, Some(name)) = (objects.is_empty(), name) {
            let kind = kind.map_or("object", Kind::word);
            return Err(Status::not_found(format!("there is no {kind}/{name}")));
        }
        let internal = |error: kuafu_model::manifest::WriteError| Status::internal(error.to_string());
        let info = objects.iter().map(|object| v1::ObjectInfo {
            kind: object.kind().word().to_owned(),
            name: object.metadata().name.to_string(),
        });
        Ok(Response::new(v1::GetAnswer {
            objects: info.collect(),
            yaml: to_yaml(&objects).map_err(internal)?,
            json: to_json(&objects).map_err(internal)?,
        }))
    }

    async fn take_backup(&self, request: Request<v1::BackupRequest>) -> Result<Response<v1::Backup>, Status> {
        admin(&request)?;
        let backup = self
            .0
            .backup()
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(backup.into_message()))
    }

    async fn node_token(
        &self,
        request: Request<v1::NodeTokenRequest>,
    ) -> Result<Response<v1::NodeTokenAnswer>, Status> {
        admin(&request)?;
        let node: Name = request.into_inner().node.parse().map_err(invalid)?;
        let fingerprint = self.0.authority.fingerprint();
        let token =
            self.0.drive(
                |core, _| match core.handle_token(unix_seconds(), &node, fingerprint) {
                    Ok((token, commands)) => (Ok(token), commands),
                    Err(refusal) => (Err(Status::failed_precondition(refusal.to_string())), Vec::new()),
                },
            )??;
        let token = token.to_string();
        Ok(Response::new(v1::NodeTokenAnswer { token }))
    }

    async fn status(
        &self,
        request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        admin(&request)?;
        let mut status = self.0.view(answer::status);
        status.layout = self.0.layout;
        if request.get_ref().details {
            let asked = self.ask_all(Ask::Status(v1::StatusQuery {})).await;
            for (node, answer) in asked {
                let host = status.hosts.iter_mut().find(|host| host.node == node.as_str());
                if let (Some(host), Ok(Answer::Status(own))) = (host, answer) {
                    host.status = Some(own);
                }
            }
        }
        Ok(Response::new(status))
    }

    async fn routes(
        &self,
        request: Request<v1::RoutesRequest>,
    ) -> Result<Response<v1::RoutesAnswer>, Status> {
        admin(&request)?;
        let v1::RoutesRequest { node, verify } = request.get_ref();
        let (mut routes, costs) = self.0.view(|core, _| {
            let costs = if *verify { answer::costs(core) } else { Vec::new() };
            (answer::routes(core), costs)
        });
        routes.retain(|route| node.is_empty() || route.entry == *node || route.exit == *node);
        Ok(Response::new(v1::RoutesAnswer { routes, costs }))
    }

    async fn flows(
        &self,
        request: Request<v1::ClusterFlowsRequest>,
    ) -> Result<Response<v1::ClusterFlows>, Status> {
        admin(&request)?;
        let limit = request.get_ref().limit;
        let mut all = v1::ClusterFlows::default();
        for (node, answer) in self.ask_all(Ask::Flows(v1::FlowsQuery { limit })).await {
            match answer {
                Ok(Answer::Flows(flows)) => {
                    all.truncated |= flows.truncated;
                    all.flows.extend(flows.flows);
                }
                other => all.errors.push(answer::host_error(&node, other)),
            }
        }
        Ok(Response::new(all))
    }

    async fn drops(
        &self,
        request: Request<v1::ClusterDropsRequest>,
    ) -> Result<Response<v1::ClusterDrops>, Status> {
        admin(&request)?;
        let mut all = v1::ClusterDrops::default();
        for (node, answer) in self.ask_all(Ask::Drops(v1::DropsQuery {})).await {
            match answer {
                Ok(Answer::Drops(drops)) => all.drops.extend(drops.drops),
                other => all.errors.push(answer::host_error(&node, other)),
            }
        }
        Ok(Response::new(all))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::Explanation>, Status> {
        admin(&request)?;
        let v1::ExplainRequest { node, query } = request.into_inner();
        let node: Name = node.parse().map_err(invalid)?;
        let query = query
            .ok_or_else(|| Status::invalid_argument("query: missing; expected a frame and an interface"))?;
        match self.0.ask(&node, Ask::Explain(query)).await {
            Ok(Answer::Explanation(explanation)) => Ok(Response::new(explanation)),
            other => Err(Status::unavailable(answer::host_error(&node, other).error)),
        }
    }

    async fn explain_path(
        &self,
        request: Request<v1::PathRequest>,
    ) -> Result<Response<v1::PathExplanation>, Status> {
        admin(&request)?;
        path::explain(&self.0, request.get_ref()).map(Response::new)
    }

    async fn shield(
        &self,
        request: Request<v1::ShieldRequest>,
    ) -> Result<Response<v1::ClusterShield>, Status> {
        admin(&request)?;
        let v1::ShieldRequest { object } = request.into_inner();
        self.shield_of(object).await.map(Response::new)
    }

    async fn admit(&self, request: Request<v1::AdmitRequest>) -> Result<Response<v1::AdmitAnswer>, Status> {
        admin(&request)?;
        self.admit_client(request.into_inner()).await.map(Response::new)
    }
}

impl Api {
    #[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
    fn declare(
        &self,
        declare: impl FnOnce(&mut crate::core::Core, crate::core::Now) -> Result<Declared, DeclareError>,
    ) -> Result<Response<v1::ApplyAnswer>, Status> {
        let answer = self.0.drive(|core, now| {
            let declared = declare(core, now);
            let revision = core.revision();
            match declared {
                Ok(Declared { changes, commands }) => {
                    // A dry run puts nothing on trial.
                    let trial = core.trial(now).map(answer::trial);
                    (answer::changes(&changes, revision, trial), commands)
                }
                Err(error) => (answer::errors(&error, revision), Vec::new()),
            }
        })?;
        Ok(Response::new(answer))
    }

    /// Asks every host that runs an agent; all at once, since each may take its time.
    async fn ask_all(&self, ask: Ask) -> Vec<(Name, Result<Answer, String>)> {
        let views = self.0.view(|core, now| core.host_views(now));
        let hosts = views
            .into_iter()
            .filter(|host| !host.foreign)
            .map(|host| host.node);
        self.ask_each(hosts, ask).await
    }

    /// Asks these hosts, all at once.
    async fn ask_each(
        &self,
        hosts: impl IntoIterator<Item = Name>,
        ask: Ask,
    ) -> Vec<(Name, Result<Answer, String>)> {
        let mut asked = tokio::task::JoinSet::new();
        for node in hosts {
            let (shell, ask) = (Arc::clone(&self.0), ask.clone());
            asked.spawn(async move {
                let answer = shell.ask(&node, ask).await;
                (node, answer)
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by(|(a, _), (b, _)| a.cmp(b));
        answers
    }
}

fn terms(dry_run: bool, confirm_s: u32) -> Terms {
    Terms {
        at: unix_seconds(),
        dry_run,
        confirm_s: (confirm_s != 0).then_some(confirm_s),
    }
}

fn invalid(error: kuafu_model::kinds::Invalid) -> Status {
    Status::invalid_argument(error.to_string())
}

#[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
fn object_ref(kind: &str, name: &str) -> Result<ObjectRef, Status> {
    Ok(ObjectRef {
        kind: kind.parse().map_err(invalid)?,
        name: name.parse().map_err(invalid)?,
    })
}
