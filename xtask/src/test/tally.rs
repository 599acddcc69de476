//! Counts what `cargo test` prints.
//!
//! A test that cannot run here writes one line `skipped: <why>` and returns. It writes to
//! `std::io::stderr()` itself: the test harness captures only what the print macros write, so the line is seen
//! in a plain `cargo test` too. The harness counts such a test as passed; the totals here do not.

use std::fmt;

const SKIPPED: &str = "skipped: ";

/// The totals of any number of test binaries.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ok: u64,
    failed: u64,
    ignored: u64,
    skips: Vec<String>,
}

impl Tally {
    /// Takes in one line of output.
    pub(crate) fn see(&mut self, line: &str) {
        if let Some((_, skip)) = line.split_once(SKIPPED) {
            self.skips.push(skip.trim().to_owned());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.ok += counted(result, "passed");
            self.failed += counted(result, "failed");
            self.ignored += counted(result, "ignored");
        }
    }

    /// Tests that ran and passed.
    pub(crate) fn passed(&self) -> u64 {
        self.ok.saturating_sub(self.skips.len() as u64)
    }

    /// Tests that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// Tests that did not run: what this machine lacks, and the ignored ones, which are soaks.
    pub(crate) fn skipped(&self) -> u64 {
        self.skips.len() as u64 + self.ignored
    }

    /// Each skipped test with its reason, a line each; empty when none was.
    pub(crate) fn skips(&self) -> String {
        let mut text: String = self
            .skips
            .iter()
            .map(|skip| format!("skipped: {skip}\n"))
            .collect();
        if self.ignored > 0 {
            text += &format!(
                "skipped: {} ignored: long ones, run by `cargo xtask soak`\n",
                self.ignored
            );
        }
        text
    }
}

/// The number before `word` in "ok. 3 passed; 0 failed; …"; 0 when it is not there.
fn counted(result: &str, word: &str) -> u64 {
    let number = result
        .split(['.', ';'])
        .find_map(|part| part.trim().strip_suffix(word));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed(),
            self.failed(),
            self.skipped()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
     Running unittests src/lib.rs (target/debug/deps/kuafu_lab-5e)
running 3 tests
test wan::order ... ok
skipped: lab::pair: needs root
test guest ... skipped: lab::guest: no qemu-system-x86_64: install it
ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 12.40s
";

    #[test]
    fn results_are_summed_and_skips_are_not_passes() {
        let mut tally = Tally::default();
        OUTPUT.lines().for_each(|line| tally.see(line));
        assert_eq!(tally.to_string(), "11 passed, 2 failed, 3 skipped");
        let skips = "skipped: lab::pair: needs root
skipped: lab::guest: no qemu-system-x86_64: install it
skipped: 1 ignored: long ones, run by `cargo xtask soak`
";
        assert_eq!(tally.skips(), skips);
    }

    #[test]
    fn other_lines_count_for_nothing() {
        let mut tally = Tally::default();
        ["test result", "3 passed", "test result: odd", ""]
            .iter()
            .for_each(|line| tally.see(line));
        assert_eq!(tally.to_string(), "0 passed, 0 failed, 0 skipped");
        assert_eq!(tally.skips(), "");
    }
}
