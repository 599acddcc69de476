//! `kuafu delete`.

use kuafu_model::kinds::ObjectRef;
use kuafu_proto::v1::{DeleteRequest, ObjectInfo};

use super::apply;
use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out::Output;

/// Take declared objects away
///
/// All of them, or none: an object that others refer to stays, unless they go with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu delete port/red-a
  kuafu delete vpc/red port/red-a port/red-b --dry-run")]
pub(crate) struct Args {
    /// Objects such as vpc/red
    #[arg(value_name = "KIND/NAME", required = true)]
    objects: Vec<ObjectRef>,
    /// Check everything, change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut controller = ask::controller(global).await?;
    let info = |object: &ObjectRef| ObjectInfo {
        kind: object.kind.word().to_owned(),
        name: object.name.to_string(),
    };
    let request = DeleteRequest {
        objects: args.objects.iter().map(info).collect(),
        dry_run: args.dry_run,
    };
    let answer = controller.api.delete(request).await;
    apply::tell(&controller.unwrap(answer)?, args.output)
}
