//! gRPC's own health check: `grpc.health.v1.Health/Check`.

use std::error::Error;
use std::future::ready;
use std::io::{self, ErrorKind};

use hyper_util::rt::TokioIo;
use tonic::Status;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use super::http::AGENT;
use super::{Failure, Way, socket};

/// Octets of the longest answer's fields; a good one has two.
const ANSWER: usize = 1 << 10;
/// Octets of the longest head.
const HEAD: u32 = 16 << 10;

/// Asks about a service; empty: the server as a whole.
pub(super) async fn check(way: &Way, service: &str) -> Result<(), Failure> {
    let mut stream = Some(TokioIo::new(socket::tcp(way).await?));
    // One connection is made, by us.
    let once = service_fn(move |_| {
        ready(
            stream
                .take()
                .ok_or_else(|| io::Error::from(ErrorKind::ConnectionAborted)),
        )
    });
    let channel = endpoint(way)
        .map_err(|error| Failure::Host(error.to_string()))?
        .connect_with_connector(once)
        .await
        .map_err(|error| Failure::broken(&error))?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel)
        .max_decoding_message_size(ANSWER)
        .check(request)
        .await
        .map_err(|status| refusal(&status))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(Failure::Health(other.as_str_name())),
    }
}

fn endpoint(way: &Way) -> Result<Endpoint, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{}", way.to))?
        .http2_max_header_list_size(HEAD)
        .user_agent(AGENT)
}

/// A status that the server sent has no source; one that a broken connection stands for has.
fn refusal(status: &Status) -> Failure {
    match status.source() {
        Some(source) => Failure::broken(source),
        None => Failure::Call(status.code()),
    }
}
