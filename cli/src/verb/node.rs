//! `kuafu node`.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result as Any};
use clap::Subcommand;
use kuafu_model::kinds::Name;
use kuafu_proto::enrol::{self, Joined};
use kuafu_proto::token::JoinToken;
use kuafu_proto::v1::NodeTokenRequest;

use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out;

/// Let a host into the cluster
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  kuafu node token osaka       # where the admin is; then on the host itself:
  kuafu --controller 192.0.2.1:7440 node join kuafu.osaka.…")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print a token by which one host may join once, under this name
    #[command(after_help = "Example:
  kuafu node token osaka")]
    Token {
        /// The node's name, as its manifest says
        node: Name,
    },
    /// Make this host the node that the token names; its key never leaves it
    #[command(after_help = "Examples:
  kuafu --controller 192.0.2.1:7440 node join kuafu.osaka.…
  kuafu --controller 192.0.2.1:7440 node join - < token")]
    Join {
        /// The token, or - to read it from standard input
        token: String,
    },
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    match args.what {
        What::Token { node } => token(global, node).await,
        What::Join { token } => join(global, token).await,
    }
}

async fn token(global: &Global, node: Name) -> Result {
    let mut controller = ask::controller(global).await?;
    let answer = controller
        .api
        .node_token(NodeTokenRequest {
            node: node.to_string(),
        })
        .await;
    let token = controller.unwrap(answer)?.token;
    out::print(&format!("{token}\n"))
}

async fn join(global: &Global, token: String) -> Result {
    let token = if token == "-" { from_input()? } else { token };
    let token: JoinToken = token.parse()?;
    let address = ask::address(global)?;
    let joined = enrol::join(&address, &token).await?;
    keep(global, &token.node, &address, &joined)?;
    out::print(&format!(
        "{} is a member of cluster {}.\n",
        token.node, joined.cluster
    ))
}

fn from_input() -> Any<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    Ok(text)
}

/// Writes what the agent dials with. The address comes last: with it the host is a member.
fn keep(global: &Global, node: &str, address: &str, joined: &Joined) -> Any<()> {
    let places = global.places();
    joined.identity.save(&places.identity())?;
    write_line(&places.node(), node)?;
    write_line(&places.data().join("cluster"), &joined.cluster)?;
    write_line(&places.controller_address(), address)
}

fn write_line(file: &Path, line: &str) -> Any<()> {
    let failed = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    std::fs::write(file, format!("{line}\n")).with_context(failed)
}
