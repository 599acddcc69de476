//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use kuafu_proto::Places;

use crate::{demo, verb};

/// A software-defined network and a global accelerator for people who run their own Linux hosts
#[derive(Debug, Parser)]
#[command(name = "kuafu", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Examples:
  kuafu doctor                       # can this host do it?
  kuafu controller                   # on one host
  kuafu node token osaka             # there: a token for another
  kuafu --controller 192.0.2.1:7440 node join kuafu.osaka.…    # on the other
  kuafu apply -f vpc.yaml && kuafu status")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// Put this folder before /var/lib/kuafu, /run/kuafu and /etc/kuafu
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "KUAFU_ROOT",
        default_value = "/"
    )]
    pub(crate) root: PathBuf,
    /// The controller; by default the one in /etc/kuafu/controller, else one on this host
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT",
        env = "KUAFU_CONTROLLER",
        value_parser = host_and_port
    )]
    pub(crate) controller: Option<String>,
    /// Say more; KUAFU_LOG=info,kuafu_dataplane=debug chooses what is logged
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// The host's folders.
    pub(crate) fn places(&self) -> Places {
        Places::below(&self.root)
    }
}

fn host_and_port(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err("expected HOST:PORT, such as 192.0.2.1:7440"),
    }
}

/// A number of ms on the command line.
pub(crate) fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ms) if (0.0..=1_000_000.0).contains(&ms) => Ok(ms),
        _ => Err("a number of milliseconds from 0 to 1000000".to_owned()),
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Declare objects by manifests: all of them, or nothing
    Apply(verb::apply::Args),
    /// Keep the change that is on trial
    Confirm(verb::confirm::Args),
    /// Print what was declared when
    History(verb::history::Args),
    /// Declare again what was declared as of a change
    Rollback(verb::history::RollbackArgs),
    /// Print what is declared
    Get(verb::get::Args),
    /// Take declared objects away
    Delete(verb::delete::Args),
    /// Let a host into the cluster, or take it out
    Node(verb::node::Args),
    /// Lead all paths around a node, so that it can be taken away
    Drain(verb::drain::Args),
    /// Let a client begin flows where only admitted ones may
    Admit(verb::admit::Args),
    /// Print how the hosts are: programs, legs, limits, and each fault once with its cause
    Status(verb::status::Args),
    /// Print each pair of nodes: direct, best, path, backup, and why
    Routes(verb::routes::Args),
    /// Print accelerated flows
    Flows(verb::flows::Args),
    /// Print what was dropped, by its reason
    Drops(verb::drops::Args),
    /// Show packets before and after each program on this host, and why they were dropped
    Capture(verb::capture::Args),
    /// Say what becomes of a packet, stage by stage, and why a path is the one in use
    Explain(verb::explain::Args),
    /// Say what places would bring, before anything is rented
    Design(verb::design::Args),
    /// Say what another policy would have done with what was recorded or measured
    Replay(verb::replay::Args),
    /// Say what this machine lacks, and the line that helps
    Doctor(crate::doctor::Args),
    /// Build a world on this machine: hosts as namespaces, a WAN from measured latencies
    Lab(verb::lab::Args),
    /// Let ten hosts on this machine accelerate five games, and write report.html
    Demo(demo::Args),
    /// Leave this host as if Kuafu had never run here
    Uninstall(verb::uninstall::Args),
    /// Run parts of Kuafu on their own, to build or to judge them
    Dev(verb::dev::Args),
    /// Print the versions of all parts, and whether they go together
    Version(verb::version::Args),
    /// Print a shell's completions, or the manual page
    Completions(verb::completions::Args),
    /// Run the controller: intent, path choice, the state of every host
    Controller(verb::controller::Args),
    /// Run this host's agent: programs, maps, ports
    Agent(verb::agent::Args),
    /// Run this host's prober: liveness and quality of paths
    Probe(verb::probe::Args),
}

impl Verb {
    /// Whether it is one of the three processes, which log what they do.
    pub(crate) const fn is_process(&self) -> bool {
        match self {
            Self::Controller(args) => args.is_process(),
            Self::Agent(_) | Self::Probe(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_controller_is_a_host_and_a_port() {
        for good in ["192.0.2.1:7440", "controller.example:7440", "[2001:db8::1]:7440"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "controller",
            "192.0.2.1",
            ":7440",
            "controller:port",
            "controller:70000",
        ] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_help_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string);
            let has = help.is_some_and(|help| help.contains("Example"));
            assert!(has, "{} has no example", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
    }
}
