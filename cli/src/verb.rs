//! The verbs, one a file.

pub(crate) mod admit;
pub(crate) mod agent;
pub(crate) mod apply;
pub(crate) mod capture;
pub(crate) mod completions;
pub(crate) mod confirm;
pub(crate) mod controller;
pub(crate) mod delete;
pub(crate) mod design;
pub(crate) mod dev;
pub(crate) mod drain;
pub(crate) mod drops;
pub(crate) mod explain;
pub(crate) mod flows;
pub(crate) mod get;
pub(crate) mod history;
pub(crate) mod lab;
pub(crate) mod node;
pub(crate) mod probe;
pub(crate) mod replay;
pub(crate) mod routes;
pub(crate) mod status;
pub(crate) mod uninstall;
pub(crate) mod version;

use std::future::Future;

use crate::args::{Args, Verb};
use crate::doctor::{self, Purpose};
use crate::failure::Result;

/// Does what was asked.
pub(crate) fn perform(args: Args) -> Result {
    let global = &args.global;
    match args.verb {
        Verb::Apply(args) => wait_for(apply::run(global, args)),
        Verb::Confirm(args) => wait_for(confirm::run(global, args)),
        Verb::History(args) => wait_for(history::run(global, args)),
        Verb::Rollback(args) => wait_for(history::rollback(global, args)),
        Verb::Get(args) => wait_for(get::run(global, args)),
        Verb::Delete(args) => wait_for(delete::run(global, args)),
        Verb::Node(args) => wait_for(node::run(global, args)),
        Verb::Drain(args) => wait_for(drain::run(global, args)),
        Verb::Admit(args) => wait_for(admit::run(global, args)),
        Verb::Status(args) => wait_for(status::run(global, args)),
        Verb::Routes(args) => routes::run(global, args),
        Verb::Flows(args) => wait_for(flows::run(global, args)),
        Verb::Drops(args) => wait_for(drops::run(global, args)),
        Verb::Capture(args) => capture::run(global, args),
        Verb::Explain(args) => wait_for(explain::run(global, args)),
        Verb::Design(args) => design::run(args),
        Verb::Replay(args) => replay::run(args),
        Verb::Dev(args) => dev::run(&args),
        Verb::Doctor(args) => doctor::run(global, args),
        Verb::Lab(args) => {
            doctor::require(Purpose::Lab)?;
            lab::run(args)
        }
        Verb::Demo(args) => crate::demo::run(args),
        Verb::Uninstall(args) => uninstall::run(global, args),
        Verb::Version(args) => wait_for(version::run(global, args)),
        Verb::Completions(args) => completions::run(args),
        Verb::Controller(args) => wait_for_threads(controller::run(global, args)),
        Verb::Agent(args) => {
            doctor::require(Purpose::Agent)?;
            wait_for_threads(agent::run(global, args))
        }
        Verb::Probe(args) => wait_for(probe::run(global, args)),
    }
}

/// Runs a verb that only asks and waits: one thread is enough.
pub(crate) fn wait_for(verb: impl Future<Output = Result>) -> Result {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(verb)
}

/// Runs a verb that serves: a thread for each CPU.
fn wait_for_threads(verb: impl Future<Output = Result>) -> Result {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(verb)
}
