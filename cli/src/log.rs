//! Logs go to standard error; `KUAFU_LOG` chooses what is logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::Args;

/// The variable that chooses, in the syntax of `tracing_subscriber`: `info,kuafu_dataplane=debug`.
const VARIABLE: &str = "KUAFU_LOG";

/// Starts logging: warnings, of the processes also what they do; more by `-v`, or what `KUAFU_LOG` says.
pub(crate) fn start(args: &Args) {
    let steps = ["warn", "info", "debug", "trace"];
    let from = usize::from(args.verb.is_process());
    let level = steps[(from + usize::from(args.global.verbose)).min(steps.len() - 1)];
    let filter = std::env::var(VARIABLE).unwrap_or_else(|_| level.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        crate::out::complain(&format!("kuafu: {VARIABLE}={filter:?} is ignored: {error}"));
        EnvFilter::new(level)
    });
    let stderr = std::io::stderr();
    // Fails only where another subscriber is set, which nothing here does.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stderr.is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}
