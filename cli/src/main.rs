//! `kuafu`, the one binary: what people type, and the three processes.
//!
//! Each verb is a file of [`verb`]; it asks the controller, or where there is none this host's agent ([`ask`]), and
//! prints what it is told ([`out`]). Exit status: 0 it is done, 1 it failed, 2 it was asked wrongly, 3 this machine
//! cannot (in [`doctor`]'s words), 4 what was looked at has faults (`status --check`).
#![forbid(unsafe_code)]

mod args;
mod ask;
mod demo;
mod doctor;
mod failure;
mod interrupt;
mod log;
mod out;
mod verb;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    log::start(&args);
    match verb::perform(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
