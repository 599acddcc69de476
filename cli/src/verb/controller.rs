//! `kuafu controller`.

use std::net::SocketAddr;

use kuafu_controller::{HISTORY_BYTES, Options};

use crate::args::Global;
use crate::failure;

/// The port of the controller.
const PORT: u16 = 7440;
/// A TiB.
const MOST_MB: usize = 1 << 20;

/// Run the controller: intent, path choice, the state of every host
///
/// On its first start it makes the cluster's own CA, and the admin's certificate in /etc/kuafu/admin. Everything is on
/// disk before it is answered: a kill at any moment loses nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu controller
  kuafu controller --listen 192.0.2.1:7440 --metrics 192.0.2.1:7441
  kuafu controller --key-lifetime 1h
  kuafu controller --history-mb 512")]
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
    /// What the history of legs and decisions may take in the store, in MiB; the oldest goes first, 0 keeps none
    ///
    /// `kuafu explain path --at` answers from it. A leg whose cost keeps changing takes about 0.4 MB a day.
    #[arg(long, value_name = "MIB", default_value_t = HISTORY_BYTES >> 20, value_parser = history_mb)]
    history_mb: usize,
}

fn history_mb(text: &str) -> Result<usize, &'static str> {
    match text.parse() {
        Ok(mb) if mb <= MOST_MB => Ok(mb),
        _ => Err("expected a whole number of MiB, from 0 to 1048576"),
    }
}

pub(crate) async fn run(global: &Global, args: Args) -> failure::Result {
    let options = Options {
        listen: args.listen,
        metrics: Some(args.metrics),
        root: global.root.clone(),
        key_lifetime: args.key_lifetime.into(),
        data: None,
        history: args.history_mb << 20,
    };
    Ok(kuafu_controller::run(options).await?)
}

/// Where a controller on this host listens by default.
pub(crate) fn here() -> String {
    format!("127.0.0.1:{PORT}")
}
