//! `kuafu node join`: from a bare host to one that carries.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result as Any, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use kuafu_proto::enrol::{self, Joined};
use kuafu_proto::token::JoinToken;
use kuafu_proto::v1::{HostStatus, StatusQuery};

use super::run::Pair;
use super::units;
use crate::args::Global;
use crate::ask;
use crate::doctor::{self, Purpose};
use crate::failure::Result;
use crate::interrupt::Interrupt;
use crate::out;
use crate::verb::agent::{PIN_ROOT, Xdp};

/// Between two looks at the agent.
const LOOK: Duration = Duration::from_millis(100);

/// Make this host the node that the token names, and start it; its key never leaves it
///
/// Looks at what `doctor` looks at before anything is changed, gets the host's papers, starts agent and prober by their
/// systemd units, and waits until the host's state is in force. On a host without systemd --run keeps both running in
/// the foreground; without it the two lines that start them are printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu --controller 192.0.2.1:7440 node join kuafu.osaka.…
  kuafu --controller 192.0.2.1:7440 node join - < token
  kuafu --controller 192.0.2.1:7440 node join --run kuafu.osaka.…    # in a container")]
pub(super) struct Args {
    /// The token, or - to read it from standard input
    token: String,
    /// Run agent and prober here, until Ctrl-C
    #[arg(long)]
    run: bool,
    /// Wait at most so long until the host's state is in force
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
    /// With --run: how the edge is attached; by default as the device allows
    #[arg(long, value_enum, value_name = "MODE", requires = "run")]
    xdp: Option<Xdp>,
    /// With --run: where maps, programs and links are pinned
    #[arg(long, value_name = "DIR", default_value = PIN_ROOT)]
    pin_root: PathBuf,
}

pub(super) async fn run(global: &Global, args: Args) -> Result {
    doctor::require(Purpose::Agent)?;
    let token = if args.token == "-" {
        from_input()?
    } else {
        args.token.clone()
    };
    let token: JoinToken = token.parse()?;
    let address = ask::address(global)?;
    let running = kuafu_dataplane::agent::is_running(&global.places());
    refuse_another(global, &token.node, running)?;
    let joined = enrol::join(&address, &token).await?;
    keep(global, &token.node, &address, &joined)?;
    out::print(&format!(
        "{} is a member of cluster {}.\n",
        token.node, joined.cluster
    ))?;
    if args.run {
        let mut interrupt = Interrupt::catch()?;
        ensure_none(running)?;
        let mut pair = Pair::start(line(global, &args, "agent"), line(global, &args, "probe"))?;
        tokio::select! {
            came = come_into_force(global, &args, &token.node, joined.declared) => {
                if let Err(why) = came {
                    pair.stop().await;
                    return Err(why);
                }
            }
            () = interrupt.wait() => {
                pair.stop().await;
                return Ok(());
            }
        }
        return Ok(pair.keep(&mut interrupt).await?);
    }
    if units::are_here(global) {
        units::enable()?;
    } else if !running {
        return start_yourself(global, &args);
    }
    come_into_force(global, &args, &token.node, joined.declared).await
}

fn from_input() -> Any<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    Ok(text)
}

/// An agent that runs goes on under the name with which it began.
fn refuse_another(global: &Global, node: &str, running: bool) -> Any<()> {
    let known = std::fs::read_to_string(global.places().node()).unwrap_or_default();
    let known = known.trim();
    ensure!(
        !running || known.is_empty() || known == node,
        "this host is node/{known}, and its agent runs; `kuafu node leave` takes it out first"
    );
    Ok(())
}

fn ensure_none(running: bool) -> Any<()> {
    ensure!(!running, "an agent runs on this host already: join without --run");
    Ok(())
}

/// Writes what the agent dials with. The address comes last: with it the host is a member.
fn keep(global: &Global, node: &str, address: &str, joined: &Joined) -> Any<()> {
    let places = global.places();
    joined.identity.save(&places.identity())?;
    write_line(&places.node(), node)?;
    write_line(&places.cluster(), &joined.cluster)?;
    write_line(&places.controller_address(), address)
}

fn write_line(file: &Path, line: &str) -> Any<()> {
    let failed = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    std::fs::write(file, format!("{line}\n")).with_context(failed)
}

/// The arguments of one of the two processes.
fn line(global: &Global, args: &Args, verb: &str) -> Vec<OsString> {
    let mut line: Vec<OsString> = Vec::new();
    if global.root != Path::new("/") {
        line.extend(["--root".into(), global.root.clone().into()]);
    }
    line.push(verb.into());
    if args.pin_root != Path::new(PIN_ROOT) {
        line.extend(["--pin-root".into(), args.pin_root.clone().into()]);
    }
    if let Some(xdp) = args.xdp.filter(|_| verb == "agent") {
        line.extend(["--xdp".into(), xdp.word().into()]);
    }
    line
}

fn start_yourself(global: &Global, args: &Args) -> Result {
    let shown = |verb| {
        let line = line(global, args, verb);
        let words: Vec<_> = line.iter().map(|word| word.to_string_lossy()).collect();
        format!("  kuafu {}\n", words.join(" "))
    };
    out::print(&format!(
        "systemd does not run here. Start these two, and keep them running:\n{}{}",
        shown("agent"),
        shown("probe")
    ))
}

/// Waits for the host's first state, and says what the host does since.
async fn come_into_force(global: &Global, args: &Args, node: &str, declared: bool) -> Result {
    if !declared {
        out::complain(&format!(
            "node/{node} is not declared, and until it is this host does nothing: `kuafu apply` a manifest of kind Node \
             where the admin is, or let the token declare it (kuafu node token {node} --region … --address …)."
        ));
        return Ok(());
    }
    let (deadline, bar) = (Instant::now() + Duration::from_secs(args.wait), bar());
    loop {
        let status = status(global).await;
        let stage = match &status {
            None => "the agent starts",
            Some(status) if status.revision == 0 => "waiting for the controller's state",
            Some(status) => {
                bar.finish_and_clear();
                return out::print(&what_it_does(status));
            }
        };
        bar.set_message(stage);
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            let faults = status.map(|status| status.faults.join("; ")).unwrap_or_default();
            let faults = if faults.is_empty() {
                faults
            } else {
                format!(" ({faults})")
            };
            return Err(anyhow!(
                "{node} has joined, but after {} s no state is in force: {stage}{faults}; `kuafu status` says more",
                args.wait
            )
            .into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn status(global: &Global) -> Option<HostStatus> {
    let mut agent = ask::agent(&global.places().socket()).await.ok()?;
    Some(agent.status(StatusQuery {}).await.ok()?.into_inner())
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(LOOK);
    bar
}

fn what_it_does(status: &HostStatus) -> String {
    let mut text = format!("{} has revision {} in force:\n", status.node, status.revision);
    for program in &status.programs {
        text += &format!(
            "  {} runs on {} ({})\n",
            program.name, program.interface, program.hook
        );
    }
    let attached = status.ports.iter().filter(|port| port.attached).count();
    let nodes = status.paths.iter().filter_map(|path| path.nodes.last());
    let nodes: std::collections::BTreeSet<&String> = nodes.collect();
    text += &format!(
        "  {attached} of {} ports are attached, {} paths lead to {} nodes\n",
        status.ports.len(),
        status.paths.len(),
        nodes.len()
    );
    text.extend(status.faults.iter().map(|fault| format!("  FAULT: {fault}\n")));
    text
}

#[cfg(test)]
mod tests {
    use kuafu_proto::v1::{PathStatus, ProgramStatus};

    use super::*;

    #[test]
    fn what_a_host_does_is_said_in_lines() {
        let status = HostStatus {
            node: "osaka".to_owned(),
            revision: 5,
            programs: vec![ProgramStatus {
                name: "edge".to_owned(),
                interface: "eth0".to_owned(),
                hook: "xdp native".to_owned(),
                id: 7,
            }],
            paths: vec![PathStatus {
                nodes: vec!["osaka".to_owned(), "taipei".to_owned()],
                ..PathStatus::default()
            }],
            ..HostStatus::default()
        };
        assert_eq!(
            what_it_does(&status),
            "osaka has revision 5 in force:\n  edge runs on eth0 (xdp native)\n  0 of 0 ports are attached, 1 paths lead \
             to 1 nodes\n"
        );
    }
}
