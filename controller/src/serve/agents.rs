//! `Agents`: the stream of each agent.

use std::pin::Pin;
use std::sync::Arc;

use kuafu_model::compile::Server;
use kuafu_model::kinds::{Name, PortNumber};
use kuafu_proto::v1;
use kuafu_proto::v1::agent_message::Message;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::identity;
use super::shell::{Shell, refused};
use crate::core::{Alarm, Command, Core, Hello, LegReport, Now, SessionId};

pub(super) struct Agents(pub(super) Arc<Shell>);

type ToAgent = Pin<Box<dyn Stream<Item = Result<v1::ControllerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl v1::agents_server::Agents for Agents {
    type SessionStream = ToAgent;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<ToAgent>, Status> {
        let (certified, certificate) = identity::member(&request)?;
        let mut messages = request.into_inner();
        let Some(v1::AgentMessage {
            message: Some(Message::Hello(hello)),
        }) = messages.message().await?
        else {
            return Err(Status::invalid_argument("an agent's first message is hello"));
        };
        let (session, outgoing) = self.0.open_stream();
        if let Err(status) = self.greet(session, (certified.clone(), certificate), hello) {
            tracing::warn!(node = %certified, reason = status.message(), "an agent is refused");
            self.0.close_stream(session);
            return Err(status);
        }
        tracing::info!(node = %certified, "an agent has connected");
        tokio::spawn(listen(Arc::clone(&self.0), session, certified, messages));
        Ok(Response::new(stream(outgoing)))
    }
}

fn stream(outgoing: UnboundedReceiver<Result<v1::ControllerMessage, Status>>) -> ToAgent {
    Box::pin(UnboundedReceiverStream::new(outgoing))
}

impl Agents {
    #[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
    fn greet(
        &self,
        session: SessionId,
        (certified, certificate): (Name, Vec<u8>),
        hello: v1::Hello,
    ) -> Result<(), Status> {
        let hello = Hello {
            session,
            certified,
            certificate,
            node: hello.node,
            cluster: hello.cluster,
            layout: hello.layout,
            last_revision: hello.last_revision,
            incarnation: hello.incarnation,
            version: hello.version,
        };
        self.0.drive(|core, now| match core.handle_hello(now, hello) {
            Ok(commands) => (Ok(()), commands),
            Err(refusal) => (Err(refused(&refusal)), Vec::new()),
        })?
    }
}

/// Takes an agent's messages until its stream ends.
async fn listen(
    shell: Arc<Shell>,
    session: SessionId,
    node: Name,
    mut messages: Streaming<v1::AgentMessage>,
) {
    let reason = loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message.message,
            Ok(None) => break "closed by the agent".to_owned(),
            Err(status) => break status.message().to_owned(),
        };
        let Some(message) = message else {
            continue;
        };
        if let Err(status) = handle(&shell, session, &node, message) {
            break status.message().to_owned();
        }
    };
    tracing::info!(%node, reason, "an agent has disconnected");
    shell.close_stream(session);
}

#[allow(clippy::result_large_err, reason = "tonic's own type of a refused call")]
fn handle(shell: &Shell, session: SessionId, node: &Name, message: Message) -> Result<(), Status> {
    match &message {
        Message::Hello(_) => return Err(Status::invalid_argument("hello is an agent's first message only")),
        Message::Refused(refused) => {
            let (revision, reason) = (refused.revision, &refused.reason);
            tracing::warn!(%node, revision, reason, "an agent refuses a state");
            metrics::counter!("kuafu_controller_states_refused_total").increment(1);
        }
        _ => {}
    }
    if let Message::Answer(answer) = message {
        shell.answered(session, answer);
        return Ok(());
    }
    shell.drive(|core, now| ((), hear(core, now, session, message)))
}

/// What follows from an agent's message, in the core's words. The first one and answers to questions are the shell's.
pub fn hear(core: &mut Core, now: Now, session: SessionId, message: Message) -> Vec<Command> {
    match message {
        Message::Ack(ack) => core.handle_ack(now, session, ack.revision),
        Message::Refused(refused) => {
            let (reason, want_snapshot) = (&refused.reason, refused.want_snapshot);
            core.handle_refused(now, session, refused.revision, reason, want_snapshot)
        }
        Message::Reports(reports) => {
            let rounds = reports.rounds;
            let reports: Vec<LegReport> = reports.reports.iter().map(report).collect();
            core.handle_rounds(session, rounds);
            core.handle_reports(now, session, &reports)
        }
        Message::Alarm(alarm) => {
            let said = |kind| core.handle_alarm(now, session, alarm.path_id, (kind, alarm.loss));
            alarm_kind(alarm.kind()).map(said).unwrap_or_default()
        }
        Message::Liveness(liveness) => {
            core.handle_liveness(now, session, liveness.on);
            Vec::new()
        }
        Message::Health(health) => {
            let down = health.down.iter().filter_map(server).collect();
            core.handle_health(session, down)
        }
        Message::ScaledFlows(flows) => {
            let known = flows.servers.iter();
            let flows = known.filter_map(|of| Some((server(of.server.as_ref()?)?, of.flows)));
            core.handle_flows(now, session, flows.collect());
            Vec::new()
        }
        Message::Alive(_) => {
            core.handle_alive(now, session);
            Vec::new()
        }
        Message::Hello(_) | Message::Answer(_) => Vec::new(),
    }
}

/// A server that is none is nothing that a state could name.
fn server(server: &v1::Server) -> Option<Server> {
    let port = u16::try_from(server.port).ok();
    Some(Server {
        service: server.service.parse().ok()?,
        address: server.address.parse().ok()?,
        port: port.and_then(PortNumber::new)?,
    })
}

const fn report(report: &v1::LegReport) -> LegReport {
    LegReport {
        path_id: report.path_id,
        sent: report.sent,
        received: report.received,
        rtt_p50_us: report.rtt_p50_us,
        rtt_p90_us: report.rtt_p90_us,
        rtt_ewma_us: report.rtt_ewma_us,
        loss: report.loss,
        age_ms: report.age_ms,
    }
}

const fn alarm_kind(kind: v1::alarm::Kind) -> Option<Alarm> {
    match kind {
        v1::alarm::Kind::Unspecified => None,
        v1::alarm::Kind::Dead => Some(Alarm::Dead),
        v1::alarm::Kind::Loss => Some(Alarm::Loss),
        v1::alarm::Kind::Clear => Some(Alarm::Clear),
    }
}
