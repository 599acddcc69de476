//! What a replay came to, for people and programs.

use std::fmt;

use kuafu_topology::replay::{Difference, Report, differences};
use serde::Serialize;

use crate::out::{columns, ms};

/// So many pairs that gain, and so many that lose, are named.
const NAMED: usize = 10;

/// What was replayed.
#[derive(Debug, Serialize)]
#[serde(tag = "recording", rename_all = "snake_case")]
pub(super) enum Kind {
    /// What a controller recorded; every decision is the recorded one.
    Controller {
        /// Ticks that were decided again.
        ticks: usize,
        /// Pairs that were decided in them.
        decisions: usize,
        /// Decisions that changed a path.
        changes: usize,
    },
    /// Measurements.
    Measurements,
}

/// What is printed.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    report: Report,
    /// The policy's file; `None`: the policy in force.
    policy: Option<String>,
    /// What the policy in force came to, beside another one.
    in_force: Option<Report>,
    replayed: Kind,
    /// Pairs whose mean is better than with the policy in force (without another policy: than direct).
    pairs_gaining: usize,
    /// Pairs whose mean is worse.
    pairs_losing: usize,
    /// Those that gain most.
    gain: Vec<Difference>,
    /// Those that lose most.
    lose: Vec<Difference>,
}

impl Answer {
    /// A policy's report; where it is not the one in force, its name and the other's report.
    pub(super) fn new(replayed: Kind, report: Report, other: Option<(String, Report)>) -> Self {
        let all = match &other {
            Some((_, in_force)) => differences(in_force, &report),
            None => report.against_direct(),
        };
        let gaining = || all.iter().filter(|pair| pair.gain_ms > 0.0);
        let losing = || all.iter().rev().filter(|pair| pair.gain_ms < 0.0);
        let (policy, in_force) = other.unzip();
        Self {
            pairs_gaining: gaining().count(),
            pairs_losing: losing().count(),
            gain: gaining().take(NAMED).cloned().collect(),
            lose: losing().take(NAMED).cloned().collect(),
            report,
            policy,
            in_force,
            replayed,
        }
    }

    /// Means, percentiles, switches.
    fn reports(&self) -> String {
        let of = |name: &str, report: &Report| {
            [
                name.to_owned(),
                ms(report.mean_ms),
                ms(report.p50_ms),
                ms(report.p95_ms),
                ms(report.p99_ms),
                format!("{:.2}", report.switches_per_100),
                report.pairs_helped.to_string(),
                report.pairs_harmed.to_string(),
            ]
        };
        let mean_alone = |name: &str, mean_ms: f64| {
            let mut row = [const { String::new() }; 8].map(|_| "-".to_owned());
            (row[0], row[1]) = (name.to_owned(), ms(mean_ms));
            row
        };
        let in_force = self.in_force.as_ref().map(|report| of("in force", report));
        let name = self.policy.as_deref().unwrap_or("in force");
        let rows = [mean_alone("direct", self.report.direct_mean_ms)]
            .into_iter()
            .chain(in_force);
        let rows = rows.chain([
            of(name, &self.report),
            mean_alone("oracle", self.report.oracle_mean_ms),
        ]);
        columns(
            [
                "POLICY", "MEAN", "P50", "P95", "P99", "SWITCHES", "HELPED", "HARMED",
            ],
            rows,
        )
    }

    fn pairs(&self, verb: &str, count: usize, named: &[Difference]) -> String {
        let than = if self.policy.is_some() {
            "the policy in force"
        } else {
            "direct"
        };
        if named.is_empty() {
            return format!("No pair {verb}s against {than}.\n");
        }
        let verb = if count == 1 {
            format!("{verb}s")
        } else {
            verb.to_owned()
        };
        let plural = if count == 1 { "pair" } else { "pairs" };
        let most = if count > named.len() {
            format!(", these {} most", named.len())
        } else {
            String::new()
        };
        let row = |pair: &Difference| {
            [
                pair.entry.clone(),
                pair.exit.clone(),
                pair.class.to_string(),
                ms(pair.from_ms),
                ms(pair.to_ms),
                format!("{:+.1}", pair.gain_ms),
                pair.path.join(" → "),
            ]
        };
        let headings = ["ENTRY", "EXIT", "CLASS", "FROM", "TO", "GAIN", "PATH AT THE END"];
        format!(
            "{count} {plural} {verb} against {than}{most}:\n{}",
            columns(headings, named.iter().map(row))
        )
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Kind::Controller {
            ticks,
            decisions,
            changes,
        } = self.replayed
        {
            writeln!(
                f,
                "Decided again as recorded: {ticks} ticks, {decisions} decisions, {changes} of them changes.\n"
            )?;
        }
        let report = &self.report;
        writeln!(
            f,
            "Realised round trips in ms over {} ticks, of {} pairs; switches per pair in 100 ticks; pairs helped and harmed against direct",
            report.ticks, report.pairs
        )?;
        writeln!(f, "{}", self.reports())?;
        writeln!(f, "{}", self.pairs("gain", self.pairs_gaining, &self.gain))?;
        f.write_str(&self.pairs("lose", self.pairs_losing, &self.lose))
    }
}

#[cfg(test)]
mod tests {
    use kuafu_topology::replay::{Policy, Recording, run};

    use super::*;

    /// A direct leg of 100 ms and a relay that is better in the second half.
    fn answer(policy: Option<&str>) -> Answer {
        let mut text = "tick,src,dst,rtt_ms\n".to_owned();
        for tick in 0..60 {
            let leg_ms = if tick < 30 { 60 } else { 20 };
            for (from, to, ms) in [
                ("osaka", "lima", 100),
                ("osaka", "taipei", leg_ms),
                ("taipei", "lima", leg_ms),
            ] {
                text += &format!("{tick},{from},{to},{ms}\n{tick},{to},{from},{ms}\n");
            }
        }
        let recording = Recording::parse(&text).unwrap();
        let play = |policy: &Policy| run(&recording, policy, || ()).unwrap();
        let Some(text) = policy else {
            return Answer::new(Kind::Measurements, play(&Policy::default()), None);
        };
        let policy = Policy::parse(text).unwrap();
        let in_force = play(&policy.in_force_beside());
        Answer::new(
            Kind::Measurements,
            play(&policy),
            Some(("eager.yaml".to_owned(), in_force)),
        )
    }

    #[test]
    fn the_policy_in_force_against_direct() {
        insta::assert_snapshot!(answer(None));
    }

    #[test]
    fn another_policy_against_the_one_in_force() {
        insta::assert_snapshot!(answer(Some(
            "confirmations: 1\nguard: none\nestimator: {kind: mean, window: 1}"
        )));
    }

    #[test]
    fn a_program_finds_these_keys() {
        let answer = serde_json::to_value(answer(Some("confirmations: 1"))).unwrap();
        let keys = [
            "mean_ms",
            "p50_ms",
            "p95_ms",
            "p99_ms",
            "switches_per_100",
            "direct_mean_ms",
            "oracle_mean_ms",
            "pairs_helped",
            "pairs_harmed",
        ];
        for key in keys {
            assert!(answer[key].is_number(), "{key}");
        }
        assert_eq!(answer["policy"], "eager.yaml");
        assert!(answer["in_force"]["mean_ms"].is_number());
    }
}
