//! `cargo xtask test`: what a change must pass, in order of cost, the first failure ending it.

mod leftovers;
mod lock;
mod tally;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use self::leftovers::Inventory;
use crate::command::Run;
use crate::ebpf::{self, OBJECT_VARIABLE, Outcome};
use crate::setup::{self, Need};
use crate::workspace::{Workspace, require_root};

pub(crate) use self::tally::Tally;

/// For the whole task, on two cores. How fast a shared machine is today no test can ask: one that takes longer says so.
const PROMISED: Duration = Duration::from_secs(25 * 60);
/// A task that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(80 * 60);

/// Runs every step; prints what each took, the tests that were skipped, and last one line with the totals.
pub(crate) fn test(workspace: &Workspace) -> Result<()> {
    require_root(
        "tests make network namespaces, load BPF and install packages",
        "cargo test --workspace",
    )?;
    let mut session = Session::new(workspace);
    let result = session.all_steps();
    println!("\n{session}");
    if result.is_ok() || session.tally.passed() + session.tally.failed() > 0 {
        println!("{}", session.tally);
    }
    result
}

/// One run of the task.
struct Session<'a> {
    workspace: &'a Workspace,
    start: Instant,
    finished: Vec<Finished>,
    tally: Tally,
}

struct Finished {
    step: &'static str,
    took: Duration,
    passed: bool,
}

impl<'a> Session<'a> {
    fn new(workspace: &'a Workspace) -> Self {
        Self {
            workspace,
            start: Instant::now(),
            finished: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn all_steps(&mut self) -> Result<()> {
        self.step("lock file", |session| lock::check(session.workspace))?;
        self.step("setup", |_| setup::setup(Some(Need::Test)))?;
        self.step("format", Self::format)?;
        let outcome = self.lint_and_rebuild()?;
        println!("{outcome}");
        let before = Inventory::take()?;
        self.step("tests", |session| session.tests(&outcome))?;
        self.step("nothing left behind", |_| before.settle())
    }

    /// The workspace and `ebpf` at once: they share no output, and neither keeps two cores busy.
    fn lint_and_rebuild(&mut self) -> Result<Outcome> {
        let (workspace, left, clippy) = (self.workspace, self.left(), self.clippy());
        let (linted, [of_ebpf, checked]) = thread::scope(|scope| {
            let linted = scope.spawn(|| timed("clippy", || clippy.run()));
            let of_ebpf = timed("clippy of ebpf", || ebpf::clippy(workspace, left).map(|()| None));
            let checked = timed("ebpf --check", || ebpf::check(workspace).map(Some));
            (linted.join(), [of_ebpf, checked])
        });
        let linted = linted.map_err(|_| anyhow!("step 'clippy' panicked"))?;
        self.note(linted)?;
        self.note(of_ebpf)?;
        self.note(checked)?.context("no outcome")
    }

    fn step<T>(&mut self, step: &'static str, perform: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let done = timed(step, || perform(self));
        self.note(done)
    }

    fn note<T>(&mut self, (finished, result): (Finished, Result<T>)) -> Result<T> {
        let step = finished.step;
        self.finished.push(finished);
        result.with_context(|| format!("step '{step}'"))
    }

    fn left(&self) -> Duration {
        LIMIT.saturating_sub(self.start.elapsed())
    }

    fn cargo(&self) -> Run {
        Run::within(self.left(), "cargo").dir(self.workspace.root())
    }

    fn format(&mut self) -> Result<()> {
        self.cargo().args(["fmt", "--all", "--check"]).run()?;
        self.cargo()
            .args(["fmt", "--check", "--manifest-path", "ebpf/Cargo.toml"])
            .run()
    }

    fn clippy(&self) -> Run {
        let what = ["clippy", "--workspace", "--all-targets", "--locked"];
        self.cargo().args(what).args(["--", "-D", "warnings"])
    }

    fn tests(&mut self, object: &Outcome) -> Result<()> {
        let mut run = self
            .cargo()
            .args(["test", "--workspace", "--locked", "--no-fail-fast"]);
        if let Outcome::NotComparable(object) = object {
            run = run.env(OBJECT_VARIABLE, object);
        }
        let tally = &mut self.tally;
        let result = run.watch(|line| tally.see(line));
        if tally.passed() == 0 && result.is_ok() {
            bail!("no test ran");
        }
        result
    }
}

/// Performs a step, and says how long it took.
fn timed<T>(step: &'static str, perform: impl FnOnce() -> Result<T>) -> (Finished, Result<T>) {
    println!("\n== {step}");
    let start = Instant::now();
    let result = perform();
    let finished = Finished {
        step,
        took: start.elapsed(),
        passed: result.is_ok(),
    };
    (finished, result)
}

impl fmt::Display for Session<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finished { step, took, passed } in &self.finished {
            writeln!(
                f,
                "{:<20} {:>7.1} s  {}",
                step,
                took.as_secs_f32(),
                if *passed { "ok" } else { "FAILED" }
            )?;
        }
        let all = self.start.elapsed();
        let late = if all > PROMISED {
            "  longer than promised"
        } else {
            ""
        };
        writeln!(f, "{:<20} {:>7.1} s{late}", "all", all.as_secs_f32())?;
        write!(f, "{}", self.tally.skips())
    }
}
