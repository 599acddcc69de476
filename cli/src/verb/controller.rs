//! `kuafu controller`.

use std::net::SocketAddr;

use kuafu_controller::Options;

use crate::args::Global;
use crate::failure::Result;

/// The port of the controller.
const PORT: u16 = 7440;

/// Run the controller: intent, path choice, the state of every host
///
/// On its first start it makes the cluster's own CA, and the admin's certificate in /etc/kuafu/admin. Everything is on
/// disk before it is answered: a kill at any moment loses nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu controller
  kuafu controller --listen 192.0.2.1:7440 --metrics 192.0.2.1:7441
  kuafu controller --key-lifetime 1h")]
pub(crate) struct Args {
    /// Where agents and this program dial
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([0, 0, 0, 0], PORT)))]
    listen: SocketAddr,
    /// Where Prometheus scrapes /metrics
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], 7441)))]
    metrics: SocketAddr,
    /// After how long the backbone's keys are renewed; no packet is lost by it
    #[arg(long, value_name = "TIME", default_value = "24h")]
    key_lifetime: humantime::Duration,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let options = Options {
        listen: args.listen,
        metrics: Some(args.metrics),
        root: global.root.clone(),
        key_lifetime: args.key_lifetime.into(),
        data: None,
    };
    Ok(kuafu_controller::run(options).await?)
}

/// Where a controller on this host listens by default.
pub(crate) fn here() -> String {
    format!("127.0.0.1:{PORT}")
}
