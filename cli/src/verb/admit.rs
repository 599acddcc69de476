//! `kuafu admit`.

use std::net::IpAddr;

use kuafu_model::kinds::ObjectRef;
use kuafu_proto::v1::{AdmitAnswer, AdmitRequest};

use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out::{self, Output};

/// Let a client begin flows where only admitted ones may
///
/// Of a service or an accelerator whose shield says admission: required. All hosts where its packets enter are told; one
/// that is away, or reboots, does not know of it: nothing of it is stored. Flows that the client has begun stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu admit 203.0.113.9 accelerator/arena --ttl 600
  kuafu admit 203.0.113.9 service/web --ttl 60 -o json")]
pub(crate) struct Args {
    /// The client's address, as hosts see it, of the family of the object's
    #[arg(value_name = "CLIENT")]
    client: IpAddr,
    /// Such as service/web or accelerator/arena
    #[arg(value_name = "OBJECT")]
    object: ObjectRef,
    /// For how many seconds from now, a day at most; admit it again to prolong that
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    ttl: u32,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut controller = ask::controller(global).await?;
    let request = AdmitRequest {
        client: args.client.to_string(),
        object: args.object.to_string(),
        ttl_s: args.ttl,
    };
    let answer = controller.api.admit(request).await;
    let answer = controller.unwrap(answer)?;
    args.output.print(&answer, |answer| words(&args, answer))?;
    for error in &answer.errors {
        out::complain(&format!("Not at {}: {}.", error.node, error.error));
    }
    if answer.nodes.is_empty() {
        let (client, object) = (args.client, &args.object);
        return Err(anyhow::anyhow!("no host has admitted {client} to {object}").into());
    }
    Ok(())
}

fn words(args: &Args, answer: &AdmitAnswer) -> String {
    if answer.nodes.is_empty() {
        return String::new();
    }
    let (client, object, ttl) = (args.client, &args.object, args.ttl);
    let nodes = answer.nodes.join(", ");
    format!("{client} may begin flows at {object} for {ttl} s, at {nodes}.\n")
}
