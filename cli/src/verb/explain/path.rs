//! `kuafu explain path`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kuafu_proto::v1::path_request::When;
use kuafu_proto::v1::{LegCost, PathCost, PathExplanation, PathRequest, PathSwitch, RejectedPath, WayCost};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::Global;
use crate::ask;
use crate::failure::Result;
use crate::out::{Output, ago, columns, ms, or_dash};

/// Say why the path between two nodes is the one in use, and why no other is
///
/// Printed are the path in use with what makes its cost, the backup, the five next by cost (the gate not asked) with
/// the reason why each is not in use, what would be better and cannot be used, and each switch with its cause. A
/// leg's cost is half of what it costs there and half of what it costs back: its estimated round trip, jitter, loss
/// and price, weighted for the class. With --at, by what the controller knew then; of legs it keeps each change of
/// 1 % (kuafu controller --history-mb).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu explain path osaka cape-town
  kuafu explain path osaka cape-town --at -5m
  kuafu explain path osaka cape-town --at 2026-11-25T17:03:20Z --class bulk -o json")]
pub(super) struct Args {
    /// Where packets enter
    #[arg(value_name = "A")]
    entry: String,
    /// Where they leave
    #[arg(value_name = "B")]
    exit: String,
    /// By what was known then: a time (RFC 3339), or how long ago (-90s, -5m, -2h, -1d)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time)]
    at: Option<Then>,
    /// game, voice or bulk; by default the first in which the pair is used, else game
    #[arg(long, value_name = "CLASS", value_parser = ["game", "voice", "bulk"])]
    class: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Switches that people are shown, the last ones.
const SHOWN: usize = 20;

/// A time in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Ago(Duration),
    /// Since 1970.
    At(Duration),
}

fn time(text: &str) -> std::result::Result<Then, String> {
    let expected = || {
        format!(
            "{text:?} is no time: expected one such as 2026-11-25T17:03:20Z, or how long ago, such as -5m"
        )
    };
    if let Some(past) = text.strip_prefix('-') {
        let digits = past.len()
            - past
                .trim_start_matches(|letter: char| letter.is_ascii_digit())
                .len();
        let (number, unit) = past.split_at(digits);
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(expected()),
        };
        let number: u64 = number.parse().map_err(|_| expected())?;
        let seconds = number.checked_mul(seconds).filter(|seconds| *seconds < 1 << 40);
        return seconds
            .map(Duration::from_secs)
            .map(Then::Ago)
            .ok_or_else(expected);
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| expected())?;
    let milliseconds = at.unix_timestamp_nanos() / 1_000_000;
    let milliseconds = u64::try_from(milliseconds).map_err(|_| expected())?;
    Ok(Then::At(Duration::from_millis(milliseconds)))
}

pub(super) async fn run(global: &Global, args: Args) -> Result {
    let whole = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let when = args.at.map(|at| match at {
        Then::Ago(past) => When::AgoMs(whole(past)),
        Then::At(since) => When::AtUnixMs(whole(since)),
    });
    let mut controller = ask::controller(global).await?;
    let request = PathRequest {
        entry: args.entry,
        exit: args.exit,
        class: args.class.unwrap_or_default(),
        when,
    };
    let answer = controller.api.explain_path(request).await;
    let explanation = controller.unwrap(answer)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let live = args.at.is_none();
    args.output
        .print(&explanation, |explanation| told(explanation, whole(now), live))
}

/// The explanation for people.
fn told(of: &PathExplanation, now_ms: u64, live: bool) -> String {
    let then = if live {
        String::new()
    } else {
        format!(", as known at {}", moment(of.known_at_unix_ms, now_ms))
    };
    let mut text = format!("{} > {}, class {}{then}\n", of.entry, of.exit, of.class);
    for note in &of.notes {
        text += &format!("{}\n", sentence(note));
    }
    text += "\n";
    text += &chosen(of, now_ms);
    if let Some(backup) = &of.backup {
        let path = backup.path.as_ref();
        text += &format!(
            "Backup: {}, score {} ms: {}\n",
            path.map(way).unwrap_or_default(),
            or_dash(backup.score_ms.map(ms)),
            backup.why
        );
    } else {
        text += "Backup: none: no other path with one relay at most that shares no relay is usable\n";
    }
    text += "\n";
    text += &costs(of);
    if !of.unmeasured.is_empty() {
        let legs = of
            .unmeasured
            .iter()
            .map(|leg| format!("{} > {}", leg.from, leg.to));
        text += &format!("\nNever measured: {}\n", legs.collect::<Vec<_>>().join(", "));
    }
    text += "\n";
    text += &switches(&of.switches, now_ms);
    if let Some(since) = of.history_since_unix_ms {
        text += &format!("The history begins {}.\n", moment(since, now_ms));
    }
    text
}

fn sentence(note: &str) -> String {
    let mut letters = note.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

fn chosen(of: &PathExplanation, now_ms: u64) -> String {
    let since = of
        .since_unix_ms
        .map(|since| format!(" since {}", moment(since, now_ms)));
    let path = of.chosen.as_ref().map_or_else(|| "none".to_owned(), way);
    format!("Chosen: {path}{}: {}\n", since.unwrap_or_default(), of.why)
}

fn way(path: &PathCost) -> String {
    path.nodes.join(" > ")
}

/// A time, and how long ago it was.
fn moment(unix_ms: u64, now_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms / 1000) * 1_000_000_000);
    let text = at.ok().and_then(|at| at.format(&Rfc3339).ok());
    format!("{} ({} ago)", or_dash(text), ago(now_ms.saturating_sub(unix_ms)))
}

const HEADINGS: [&str; 7] = [
    "COST",
    "PATH, ITS LEGS AND RELAYS",
    "RTT",
    "JITTER",
    "LOSS",
    "PRICE",
    "WHY",
];

fn costs(of: &PathExplanation) -> String {
    let mut rows = Vec::new();
    if let Some(path) = &of.chosen {
        rows.extend(of_path(path, "chosen".to_owned()));
    }
    if let Some(path) = of.backup.as_ref().and_then(|backup| backup.path.as_ref()) {
        rows.extend(of_path(path, "backup".to_owned()));
    }
    let rejected = |one: &RejectedPath| {
        let path = one.path.as_ref()?;
        Some(of_path(path, one.reasons.join("; ")))
    };
    rows.extend(of.next.iter().filter_map(rejected).flatten());
    rows.extend(of.barred.iter().filter_map(rejected).flatten());
    columns(HEADINGS, rows)
}

/// A path's own row, then those of its legs there and back, its relays and its own alarm.
fn of_path(path: &PathCost, why: String) -> Vec<[String; 7]> {
    let ways = || {
        path.legs
            .iter()
            .flat_map(|leg| [&leg.forward, &leg.reverse])
            .flatten()
    };
    let sum = |term: fn(&WayCost) -> f64| ms(ways().map(term).sum());
    let usable = path.cost_ms.is_some();
    let term = |term: fn(&WayCost) -> f64| if usable { sum(term) } else { "-".to_owned() };
    let mut rows = vec![[
        or_dash(path.cost_ms.map(ms)),
        way(path),
        term(|way| way.rtt_ms),
        term(|way| way.jitter_ms),
        term(|way| way.loss_ms.unwrap_or_default()),
        term(|way| way.price_ms),
        why,
    ]];
    rows.extend(path.legs.iter().flat_map(of_leg));
    let alone = |cost: f64, what: String| {
        let none = String::new;
        [ms(cost), what, none(), none(), none(), none(), none()]
    };
    rows.extend(
        path.relays
            .iter()
            .map(|relay| alone(relay.cost_ms, format!("  {} relays", relay.node))),
    );
    if path.own_loss_ms > 0.0 {
        rows.push(alone(path.own_loss_ms, "  alarm of the path".to_owned()));
    }
    rows
}

fn of_leg(leg: &LegCost) -> [[String; 7]; 2] {
    let of_way = |way: &Option<WayCost>, from: &str, to: &str| {
        let name = format!("  {from} > {to}");
        let Some(way) = way else {
            let dash = || "-".to_owned();
            return [
                dash(),
                name,
                dash(),
                dash(),
                dash(),
                dash(),
                "never measured".to_owned(),
            ];
        };
        let sum = way
            .loss_ms
            .map(|loss_ms| way.rtt_ms + way.jitter_ms + loss_ms + way.price_ms);
        let state = match (way.state.as_str(), way.alarm) {
            ("measured", false) => String::new(),
            ("measured", true) => format!("loss alarm: {:.1} %", f64::from(way.loss_ppm) / 1e4),
            (state, _) => format!("{state}; as it last was"),
        };
        [
            or_dash(sum.map(ms)),
            name,
            ms(way.rtt_ms),
            ms(way.jitter_ms),
            or_dash(way.loss_ms.map(ms)),
            ms(way.price_ms),
            state,
        ]
    };
    [
        of_way(&leg.forward, &leg.from, &leg.to),
        of_way(&leg.reverse, &leg.to, &leg.from),
    ]
}

fn switches(switches: &[PathSwitch], now_ms: u64) -> String {
    if switches.is_empty() {
        return "No switch is known.\n".to_owned();
    }
    let cost = |cost: Option<f64>| cost.map_or_else(String::new, |cost| format!(" ({} ms)", ms(cost)));
    let nodes = |nodes: &[String]| match nodes {
        [] => "none".to_owned(),
        nodes => nodes.join(" > "),
    };
    let earlier = switches.len().saturating_sub(SHOWN);
    let rows = switches[earlier..].iter().map(|switch| {
        [
            moment(switch.at_unix_ms, now_ms),
            nodes(&switch.from) + &cost(switch.from_cost_ms),
            nodes(&switch.to) + &cost(switch.to_cost_ms),
            nodes(&switch.backup),
            switch.cause.clone(),
        ]
    });
    let told = columns(["SWITCHED", "FROM", "TO", "BACKUP", "CAUSE"], rows);
    match earlier {
        0 => told,
        earlier => format!("{told}And {earlier} earlier (-o json).\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_how_long_ago() {
        assert_eq!(time("-5m"), Ok(Then::Ago(Duration::from_secs(300))));
        assert_eq!(time("-90s"), Ok(Then::Ago(Duration::from_secs(90))));
        let at = Then::At(Duration::from_millis(1_000));
        assert_eq!(time("1970-01-01T01:00:01+01:00"), Ok(at));
        for bad in [
            "",
            "-",
            "5m",
            "-5",
            "-m",
            "-5w",
            "--5m",
            "-99999999999999999999s",
            "yesterday",
            "2026-11-25",
            "1969-01-01T00:00:00Z",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_is_told_with_its_legs_and_why_others_are_not_taken() {
        let way = |rtt_ms, loss_ms, state: &str| {
            Some(WayCost {
                rtt_ms,
                jitter_ms: 0.5,
                loss_ms: Some(loss_ms),
                price_ms: 0.0,
                state: state.to_owned(),
                ..WayCost::default()
            })
        };
        let leg = |from: &str, to: &str, rtt_ms| LegCost {
            from: from.to_owned(),
            to: to.to_owned(),
            cost_ms: Some(2.0 * rtt_ms + 1.0),
            forward: way(rtt_ms, 0.0, "measured"),
            reverse: way(rtt_ms, 0.0, "measured"),
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let path = PathCost {
            nodes: names(&["osaka", "taipei", "cape-town"]),
            cost_ms: Some(293.0),
            legs: vec![leg("osaka", "taipei", 20.5), leg("taipei", "cape-town", 124.5)],
            relays: vec![kuafu_proto::v1::RelayTransit {
                node: "taipei".to_owned(),
                cost_ms: 1.0,
            }],
            own_loss_ms: 0.0,
        };
        let dead = LegCost {
            cost_ms: None,
            forward: way(187.0, 0.0, "dead"),
            reverse: None,
            ..leg("osaka", "cape-town", 0.0)
        };
        let direct = PathCost {
            nodes: names(&["osaka", "cape-town"]),
            legs: vec![dead],
            ..PathCost::default()
        };
        let explanation = PathExplanation {
            entry: "osaka".to_owned(),
            exit: "cape-town".to_owned(),
            class: "game".to_owned(),
            known_at_unix_ms: 1_700_000_000_000,
            notes: vec!["what goes this way are answers".to_owned()],
            why: "best, direct is unusable".to_owned(),
            since_unix_ms: Some(1_699_999_990_000),
            chosen: Some(path),
            barred: vec![RejectedPath {
                path: Some(direct),
                reasons: vec!["leg osaka > cape-town is dead: nothing comes back".to_owned()],
            }],
            switches: vec![PathSwitch {
                at_unix_ms: 1_699_999_990_000,
                from: names(&["osaka", "cape-town"]),
                to: names(&["osaka", "taipei", "cape-town"]),
                from_cost_ms: Some(375.0),
                to_cost_ms: Some(293.0),
                cause: "the path before is down".to_owned(),
                ..PathSwitch::default()
            }],
            ..PathExplanation::default()
        };
        insta::assert_snapshot!(told(&explanation, 1_700_000_030_000, false));
    }
}
