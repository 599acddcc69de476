//! `kuafu controller`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Subcommand;
use kuafu_controller::backup::Backup;
use kuafu_controller::{HISTORY_BYTES, Options};
use kuafu_proto::v1::BackupRequest;

use crate::args::Global;
use crate::failure::{self, Failure};
use crate::{ask, out};

/// The port of the controller.
const PORT: u16 = 7440;
/// The reflector's second port; its first is [`PORT`].
const REFLECTOR_PORT: u16 = 7441;
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
  kuafu controller --history-mb 512
  kuafu controller backup /root/kuafu.backup")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Where agents and this program dial
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([0, 0, 0, 0], PORT)))]
    listen: SocketAddr,
    /// Where Prometheus scrapes /metrics
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::from(([127, 0, 0, 1], 7441)))]
    metrics: SocketAddr,
    /// The second UDP port of the reflector that `kuafu doctor` asks; the first has --listen's number. 0: no reflector
    #[arg(long, value_name = "PORT", default_value_t = REFLECTOR_PORT)]
    reflector_port: u16,
    /// After how long the backbone's keys are renewed; no packet is lost by it
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = key_lifetime)]
    key_lifetime: humantime::Duration,
    /// What the history of legs and decisions may take in the store, in MiB; the oldest goes first, 0 keeps none
    ///
    /// `kuafu explain path --at` answers from it. A leg whose cost keeps changing takes about 0.4 MB a day.
    #[arg(long, value_name = "MIB", default_value_t = HISTORY_BYTES >> 20, value_parser = history_mb)]
    history_mb: usize,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write everything that the controller keeps to one file: intent, numbers, keys, its authority
    ///
    /// A copy as of one moment, also while the controller runs. Who reads it can be the controller: it is readable by
    /// its owner alone, and belongs where nobody else looks.
    #[command(after_help = "Example:
  kuafu controller backup /root/kuafu.backup")]
    Backup {
        /// The file; what is there is replaced
        file: PathBuf,
    },
    /// Make a backup the store of the controller on this host, which must not run
    ///
    /// Started again, it goes on from there: agents connect, are brought to what was declared then, and no packet is
    /// touched where that is what they have. Hosts that joined after the backup must join again.
    #[command(after_help = "Example:
  systemctl stop kuafu-controller && kuafu controller restore /root/kuafu.backup --force")]
    Restore {
        /// The file
        file: PathBuf,
        /// Also where a controller's store is already: it is replaced
        #[arg(long)]
        force: bool,
    },
}

impl Args {
    /// Whether it is the process.
    pub(crate) const fn is_process(&self) -> bool {
        self.what.is_none()
    }
}

fn key_lifetime(text: &str) -> Result<humantime::Duration, String> {
    match text.parse::<humantime::Duration>() {
        Ok(lifetime) if lifetime.as_secs() >= 1 => Ok(lifetime),
        _ => Err("expected a time of one second or more, such as 90m or 24h".to_owned()),
    }
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
        reflector: (args.reflector_port != 0).then_some(args.reflector_port),
        root: global.root.clone(),
        key_lifetime: args.key_lifetime.into(),
        data: None,
        history: args.history_mb << 20,
        layout: kuafu_dataplane::bpf::LAYOUT,
    };
    match args.what {
        None => Ok(kuafu_controller::run(options).await?),
        Some(What::Backup { file }) => backup(global, &options, &file).await,
        Some(What::Restore { file, force }) => restore(&options, &file, force),
    }
}

async fn backup(global: &Global, options: &Options, file: &Path) -> failure::Result {
    let bytes = match ask::controller(global).await {
        Ok(mut controller) => {
            let answer = controller.api.take_backup(BackupRequest {}).await;
            controller.unwrap(answer)?.to_bytes()
        }
        Err(Failure::Failed(why)) if options.store().exists() && global.controller.is_none() => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Backup::of_file(&options.store(), now.as_secs())
                .with_context(|| format!("{why:#}; nor can its store be read"))?
                .to_bytes()
        }
        Err(failure) => return Err(failure),
    };
    write(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    let backup = Backup::from_bytes(&bytes)?;
    out::print(&format!(
        "The controller of cluster {} is in {}, {}.\n",
        backup.cluster(),
        file.display(),
        out::octets(bytes.len() as u64)
    ))
}

/// Whole or not at all, readable by its owner alone.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = file.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut writer = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    writer.write_all(bytes)?;
    writer.sync_all()?;
    std::fs::rename(fresh, file)
}

fn restore(options: &Options, file: &Path, force: bool) -> failure::Result {
    let shown = file.display();
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let backup = Backup::from_bytes(&bytes).with_context(|| shown.to_string())?;
    backup.restore_file(&options.store(), force)?;
    out::print(&format!(
        "This host's controller is that of cluster {}, as of {}; start it: kuafu controller\n",
        backup.cluster(),
        out::when(backup.at())
    ))
}

/// Where a controller on this host listens by default.
pub(crate) fn here() -> String {
    format!("127.0.0.1:{PORT}")
}
