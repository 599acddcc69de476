//! `kuafu node token`.

use std::net::Ipv4Addr;

use anyhow::anyhow;
use kuafu_model::kinds::{Kind, Name};
use kuafu_proto::v1::{ApplyRequest, GetRequest, ManifestFile, NodeTokenRequest};
use serde_json::json;
use tonic::Code;

use crate::args::Global;
use crate::ask::{self, Controller};
use crate::failure::{Failure, Result};
use crate::out;
use crate::verb::apply;

/// Print a token by which one host may join once, under this name
///
/// A host that joins before its Node is declared is sent nothing until it is. With --region and --address the node is
/// declared too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu node token osaka
  kuafu node token osaka --region ap-northeast-3 --address 10.1.0.2 --public 203.0.113.7")]
pub(super) struct Args {
    /// The node's name, as its manifest says
    node: Name,
    /// Declare the node too, in this region
    #[arg(long, requires = "address")]
    region: Option<Name>,
    /// Its address on the underlay, as its own interfaces have it
    #[arg(long, value_name = "IPV4", requires = "region")]
    address: Option<Ipv4Addr>,
    /// Its address as others see it, where that is another
    #[arg(long, value_name = "IPV4", requires = "region")]
    public: Option<Ipv4Addr>,
}

pub(super) async fn run(global: &Global, args: Args) -> Result {
    let mut controller = ask::controller(global).await?;
    let declared = is_declared(&mut controller, &args.node).await?;
    match manifest(&args) {
        Some(_) if declared => {
            return Err(anyhow!("node/{} is declared already; `kuafu apply` changes it", args.node).into());
        }
        Some(manifest) => declare(&mut controller, manifest).await?,
        None if !declared => out::complain(&format!(
            "node/{} is not declared yet, and until it is its host is sent nothing: kuafu apply -f FILE, or --region and \
             --address here.",
            args.node
        )),
        None => {}
    }
    let node = args.node.to_string();
    let answer = controller.api.node_token(NodeTokenRequest { node }).await;
    let token = controller.unwrap(answer)?.token;
    out::print(&format!("{token}\n"))
}

async fn is_declared(controller: &mut Controller, node: &Name) -> anyhow::Result<bool> {
    let request = GetRequest {
        kind: Kind::Node.word().to_owned(),
        name: node.to_string(),
    };
    match controller.api.get(request).await {
        Err(status) if status.code() == Code::NotFound => Ok(false),
        answer => controller.unwrap(answer).map(|_| true),
    }
}

/// What declares the node, where that is asked for.
fn manifest(args: &Args) -> Option<String> {
    let (region, local) = (args.region.as_ref()?, args.address?);
    let address = match args.public {
        Some(public) => json!({"local": local, "public": public}),
        None => json!({"local": local}),
    };
    let spec = json!({"region": region.to_string(), "address": address});
    let metadata = json!({"name": args.node.to_string()});
    Some(json!({"kind": "Node", "metadata": metadata, "spec": spec}).to_string())
}

async fn declare(controller: &mut Controller, text: String) -> Result {
    let request = ApplyRequest {
        files: vec![ManifestFile {
            name: "the command line".to_owned(),
            text,
        }],
        dry_run: false,
        confirm_s: 0,
    };
    let answer = controller.api.apply(request).await;
    let answer = controller.unwrap(answer)?;
    if answer.errors.is_empty() {
        return Ok(());
    }
    answer
        .errors
        .iter()
        .for_each(|error| out::complain(&apply::line(error)));
    Err(Failure::Told)
}
