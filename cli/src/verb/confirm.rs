//! `kuafu confirm`.

use kuafu_proto::v1::{ConfirmAnswer, ConfirmRequest};

use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out::Output;

/// Keep the change that is on trial
///
/// What was applied with --confirm is undone by the hosts themselves unless this is said in time.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu apply -f vpc.yaml --confirm 60s && kuafu confirm
  kuafu confirm --undo     # do not wait until it is undone")]
pub(crate) struct Args {
    /// Undo it now
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut controller = ask::controller(global).await?;
    let answer = controller.api.confirm(ConfirmRequest { undo: args.undo }).await;
    args.output.print(&controller.unwrap(answer)?, words)
}

fn words(answer: &ConfirmAnswer) -> String {
    let revision = answer.revision;
    match answer.undone_by {
        None => format!("Change {revision} is confirmed.\n"),
        Some(by) => format!("Change {revision} is undone, by change {by}.\n"),
    }
}
