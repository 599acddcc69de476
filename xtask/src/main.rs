//! `cargo xtask`: everything that is run on a checkout and is more than one cargo command.
//!
//! Each external command is printed before it runs, so that any of them can be repeated by hand.
#![forbid(unsafe_code)]

mod command;
mod ebpf;
mod package;
mod programs;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::workspace::Workspace;

/// Tasks of the Kuafu workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build `kuafu` and run `kuafu demo`; what follows is handed on to it (without root: by the model)
    Demo(Passed),
    /// Everything that a change must pass: style, lints, the BPF object rebuilt, all tests (root)
    Test,
    /// Run one long test by name; without a name, list them (root)
    Soak { name: Option<String> },
    /// Build `kuafu-bench` and run one benchmark; what follows NAME is handed on to it (root)
    Bench {
        name: String,
        #[command(flatten)]
        passed: Passed,
    },
    /// Build the BPF object from `ebpf/` and write it, with its toolchain, to `dataplane/bpf/`
    Ebpf {
        /// Rebuild elsewhere and compare with the committed object instead of writing it
        #[arg(long)]
        check: bool,
    },
    /// Build the Debian package: binary, units, completions, man page
    Package,
    /// Install what is missing on this machine (root for Debian packages)
    Setup {
        /// Only what this task needs; everything when absent
        #[arg(long = "for", value_name = "TASK")]
        need: Option<setup::Need>,
    },
}

/// Arguments that go to the program that is run.
#[derive(Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    if ebpf::wrapper::requested() {
        return ebpf::wrapper::become_rustc();
    }
    let task = Cli::parse().task;
    match Workspace::find().and_then(|workspace| perform(task, &workspace)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task, workspace: &Workspace) -> anyhow::Result<()> {
    match task {
        Task::Demo(passed) => programs::demo(workspace, &passed.args),
        Task::Test => test::test(workspace),
        Task::Soak { name: Some(name) } => programs::soak(workspace, &name),
        Task::Soak { name: None } => programs::list_soaks(),
        Task::Bench { name, passed } => programs::bench(workspace, &name, &passed.args),
        Task::Ebpf { check: false } => ebpf::write(workspace),
        Task::Ebpf { check: true } => ebpf::check(workspace).map(|outcome| println!("{outcome}")),
        Task::Package => package::package(workspace),
        Task::Setup { need } => setup::setup(need),
    }
}
