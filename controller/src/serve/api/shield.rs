//! What shields do, and whom they let in.

use std::net::IpAddr;

use kuafu_model::kinds::{Name, ObjectRef};
use kuafu_proto::v1;
use kuafu_proto::v1::query::Ask;
use kuafu_proto::v1::query_answer::Answer;
use tonic::Status;

use super::{Api, answer, invalid};
use crate::core::ShieldError;

/// For how long a client is admitted at most.
const LONGEST_S: u32 = 86_400;

impl Api {
    /// A shield, as each host says that has it.
    pub(super) async fn shield_of(&self, object: String) -> Result<v1::ClusterShield, Status> {
        let named: ObjectRef = object.parse().map_err(invalid)?;
        let (mode, entries) = self.0.view(|core, _| {
            let found = core.shield(&named).map_err(refused)?;
            let mode = found.shield.mode;
            Ok::<_, Status>((mode, found.entries.into_iter().cloned().collect::<Vec<Name>>()))
        })?;
        let mut shield = v1::ClusterShield {
            object: object.clone(),
            mode: mode.to_string(),
            ..v1::ClusterShield::default()
        };
        if mode == kuafu_model::kinds::ShieldMode::Off {
            return Ok(shield);
        }
        let ask = Ask::Shield(v1::ShieldQuery { object });
        for (node, said) in self.ask_each(entries, ask).await {
            match said {
                Ok(Answer::Shield(host)) => shield.hosts.push(host),
                other => shield.errors.push(answer::host_error(&node, other)),
            }
        }
        Ok(shield)
    }

    /// Admits a client at each host where its packets may enter.
    pub(super) async fn admit_client(&self, request: v1::AdmitRequest) -> Result<v1::AdmitAnswer, Status> {
        let v1::AdmitRequest {
            client,
            object,
            ttl_s,
        } = request;
        let named: ObjectRef = object.parse().map_err(invalid)?;
        if client.parse::<IpAddr>().is_err() {
            let why = format!("client: {client:?} is not an IP address, such as 192.0.2.7 or 2001:db8::7");
            return Err(Status::invalid_argument(why));
        }
        if !(1..=LONGEST_S).contains(&ttl_s) {
            let why = format!("ttl_s: {ttl_s} is not 1 to {LONGEST_S} seconds");
            return Err(Status::invalid_argument(why));
        }
        let entries = self.0.view(|core, _| {
            let entries = core.admitting(&named).map_err(refused)?;
            Ok::<_, Status>(entries.into_iter().cloned().collect::<Vec<Name>>())
        })?;
        let ask = Ask::Admit(v1::AdmitQuery {
            object,
            client,
            ttl_s,
        });
        let mut done = v1::AdmitAnswer::default();
        for (node, said) in self.ask_each(entries, ask).await {
            match said {
                Ok(Answer::Admitted(_)) => done.nodes.push(node.to_string()),
                other => done.errors.push(answer::host_error(&node, other)),
            }
        }
        Ok(done)
    }
}

fn refused(error: ShieldError) -> Status {
    match error {
        ShieldError::NoSuchObject { .. } => Status::not_found(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}
