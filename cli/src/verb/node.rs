//! `kuafu node`.

mod join;
mod leave;
mod run;
mod token;
mod units;

use clap::Subcommand;

use crate::args::Global;
use crate::failure::Result;

/// Let a host into the cluster, or take it out
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
    Token(token::Args),
    /// Make this host the node that the token names, and start it; its key never leaves it
    Join(join::Args),
    /// Take this host out of its cluster, and leave it as it was before it joined
    Leave(leave::Args),
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    match args.what {
        What::Token(args) => token::run(global, args).await,
        What::Join(args) => join::run(global, args).await,
        What::Leave(args) => leave::run(global, args).await,
    }
}
