//! What this machine lacks, in the words of `kuafu doctor` and of every verb that cannot run without it.

mod check;
mod clock;
mod elf;
mod genetlink;
mod machine;
mod netfilter;
mod reach;
mod system;
mod tcx;
mod xdp;

use std::io::IsTerminal;

use kuafu_dataplane::host::{Device, device};
use kuafu_model::kinds::NodeSpec;
use serde::Serialize;

use crate::args::Global;
use crate::ask;
use crate::failure::{Failure, Result};
use crate::out::{Output, columns};
use crate::verb::wait_for;
pub(crate) use check::{Check, State};
use machine::Machine;

/// The oldest kernel: major and minor.
pub(crate) const KERNEL: (u32, u32) = (6, 12);

/// Say what this machine lacks, and the line that helps
///
/// Looks at the kernel, its BPF, permissions, modules, settings, the underlay, its XDP, the packet filter and the clock;
/// changes nothing. With a controller it asks that one's reflector (STUN over UDP, at the port of the same number and one
/// more) what kind of NAT stands between, whether others reach the backbone's port, how long packets may be on the way,
/// and the time. Exit status 3 where something is missing that the agent needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu doctor
  kuafu --controller 192.0.2.1:7440 doctor    # before joining
  kuafu doctor -o json")]
pub(crate) struct Args {
    /// The backbone's UDP port, as the node's spec will have it
    #[arg(long, value_name = "PORT", default_value_t = NodeSpec::UDP_PORT.get(), value_parser = clap::value_parser!(u16).range(1..))]
    udp_port: u16,
    #[command(flatten)]
    output: Output,
}

/// What a machine is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run an agent.
    Agent,
    /// To build worlds of namespaces and run agents there.
    Lab,
}

/// What was looked at, and how it is.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether nothing is missing.
    fit: bool,
    checks: Vec<Check>,
}

/// `kuafu doctor`.
pub(crate) fn run(global: &Global, args: Args) -> Result {
    let machine = Machine::this();
    let mut checks = system::checks(&machine);
    let underlay = system::default_device(&machine).and_then(|name| device(&name).ok().flatten());
    checks.push(xdp::check(&machine, underlay.as_ref()));
    checks.push(netfilter::check(&machine));
    wait_for(async {
        checks.extend(network(global, args.udp_port, underlay.as_ref()).await?);
        Ok(())
    })?;
    let report = Report::from(checks);
    args.output.print(&report, Report::table)?;
    if report.fit {
        Ok(())
    } else {
        Err(Failure::Unfit(report))
    }
}

/// What the controller sees of this host, where one is named or known.
async fn network(global: &Global, port: u16, device: Option<&Device>) -> Result<Vec<Check>> {
    let places = global.places();
    if global.controller.is_none() && !places.controller_address().exists() {
        return Ok(vec![Check::warn(
            "controller",
            "none is named, so UDP, NAT and the way to other hosts were not looked at",
            "kuafu --controller HOST:PORT doctor",
        )]);
    }
    let controller = ask::address(global)?;
    let attached = places.node().exists() && device.is_some_and(|device| device.xdp.is_some());
    let question = reach::Question {
        controller: &controller,
        port,
        runs: attached || kuafu_dataplane::agent::is_running(&places),
        device,
    };
    Ok(reach::checks(&question).await)
}

/// Nothing, where this machine can; else what it lacks.
pub(crate) fn require(purpose: Purpose) -> Result {
    let report = Report::of(&Machine::this(), purpose);
    if report.fit {
        Ok(())
    } else {
        Err(Failure::Unfit(report))
    }
}

impl Report {
    fn of(machine: &Machine, purpose: Purpose) -> Self {
        let mut checks = system::checks(machine);
        if purpose == Purpose::Lab {
            checks.extend(kuafu_lab::unavailable().map(|lack| {
                let fix = "run it as root, with: apt-get install iproute2 nftables";
                Check::fail("lab", lack, fix)
            }));
        }
        Self::from(checks)
    }

    fn from(checks: Vec<Check>) -> Self {
        let fit = checks.iter().all(|check| check.state != State::Fail);
        Self { fit, checks }
    }

    /// Every line, the fix below what fails.
    fn table(&self) -> String {
        let mut rows = Vec::new();
        for check in &self.checks {
            rows.push([
                check.state.word().to_owned(),
                check.name.to_owned(),
                check.found.clone(),
            ]);
            if let Some(fix) = &check.fix {
                rows.push([String::new(), String::new(), format!("-> {fix}")]);
            }
        }
        columns(["", "CHECK", "FOUND"], rows)
    }

    /// The failed lines and their fixes; the whole reason why a verb refused.
    pub(crate) fn faults(&self) -> String {
        let mut text = String::from("kuafu: this machine cannot:\n");
        for check in self.checks.iter().filter(|check| check.state == State::Fail) {
            text += &format!("  {}: {}\n", check.name, check.found);
            if let Some(fix) = &check.fix {
                text += &format!("    -> {fix}\n");
            }
        }
        if std::io::stderr().is_terminal() {
            text += "`kuafu doctor` shows everything that was looked at.\n";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with nothing mounted, as in a bare initramfs.
    #[test]
    fn nothing_panics_where_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let report = Report::of(&Machine::at(folder.path()), Purpose::Agent);
        assert!(!report.fit);
        assert!(
            report
                .checks
                .iter()
                .filter(|check| check.state == State::Fail)
                .all(|check| check.fix.is_some())
        );
    }

    #[test]
    fn debian_12_with_its_own_kernel_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/osrelease", "6.1.0-35-cloud-amd64\n");
        write(
            "etc/os-release",
            "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n",
        );
        write("sys/kernel/btf/vmlinux", "BPF_XDP\0BPF_PERF_EVENT\0");
        let report = Report::of(&Machine::at(folder.path()), Purpose::Agent);
        let words = report.faults();
        assert!(words.contains("tcx"), "{words}");
        assert!(
            words.contains("apt-get install linux-image-6.12-cloud-amd64"),
            "{words}"
        );
    }
}
