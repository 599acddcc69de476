//! Which chains of nftables do not see what Kuafu takes: XDP and tcx come before all of them, and what they send leaves
//! past the rest.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::check::Check;
use super::machine::Machine;

const NAME: &str = "nftables";
/// Hooks that a packet passes on its way through a host, and which Kuafu's do not reach.
const HOOKS: [&str; 5] = ["ingress", "prerouting", "input", "forward", "postrouting"];

/// What of the host's packet filter is passed by.
pub(super) fn check(machine: &Machine) -> Check {
    let legacy = legacy(machine);
    let output = match Command::new("nft").args(["-j", "list", "ruleset"]).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound && !machine.has("/sys/module/nf_tables") => {
            return verdict(Vec::new(), legacy);
        }
        Err(error) => {
            return Check::warn(
                NAME,
                format!("not looked at: nft: {error}"),
                "apt-get install nftables",
            );
        }
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or_default().to_owned();
        return Check::warn(NAME, format!("not looked at: nft: {said}"), "run it as root");
    }
    match serde_json::from_slice(&output.stdout) {
        Ok(ruleset) => verdict(passed_by(&ruleset), legacy),
        Err(error) => Check::warn(
            NAME,
            format!("not looked at: nft's answer: {error}"),
            "nft list ruleset",
        ),
    }
}

/// Tables of iptables before nftables, which nft does not list.
fn legacy(machine: &Machine) -> Vec<String> {
    let tables = machine.text("/proc/net/ip_tables_names").unwrap_or_default();
    tables
        .lines()
        .map(|table| format!("iptables-legacy {table}"))
        .collect()
}

fn verdict(chains: Vec<Chain>, legacy: Vec<String>) -> Check {
    let shown: Vec<String> = chains.iter().map(Chain::shown).chain(legacy).collect();
    if shown.is_empty() {
        return Check::ok(NAME, "no rule that Kuafu passes by");
    }
    let found = format!(
        "what Kuafu takes or sends by XDP and tcx (UDP 6081 and 4789, accelerated addresses) is not seen by: {}",
        shown.join(", ")
    );
    let fix = "nothing, where these rules are for the host's other traffic; what they keep away from Kuafu's ports must be \
               kept away before the host, by the cloud's firewall";
    Check::warn(NAME, found, fix)
}

/// What `nft -j list ruleset` prints (libnftables-json(5)), as far as it is read.
#[derive(Deserialize)]
struct Ruleset {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    chain: Option<Declared>,
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Declared {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct Rule {
    family: String,
    table: String,
    chain: String,
    #[serde(default)]
    expr: Value,
}

/// A base chain that does something.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    name: String,
    drops: bool,
    rules: usize,
}

impl Chain {
    fn shown(&self) -> String {
        let policy = if self.drops { "policy drop, " } else { "" };
        let plural = if self.rules == 1 { "" } else { "s" };
        format!("{} ({policy}{} rule{plural})", self.name, self.rules)
    }
}

/// The base chains on [`HOOKS`] that drop, or have rules, those that they jump to included.
fn passed_by(ruleset: &Ruleset) -> Vec<Chain> {
    let bases = ruleset.nftables.iter().filter_map(|entry| entry.chain.as_ref());
    let hooked = bases.filter(|chain| chain.hook.as_deref().is_some_and(|hook| HOOKS.contains(&hook)));
    let chains = hooked.map(|chain| Chain {
        name: format!("{} {} {}", chain.family, chain.table, chain.name),
        drops: chain.policy.as_deref() == Some("drop"),
        rules: rules_of(ruleset, chain),
    });
    chains.filter(|chain| chain.drops || chain.rules > 0).collect()
}

fn rules_of(ruleset: &Ruleset, base: &Declared) -> usize {
    let (mut count, mut known, mut next) = (0, BTreeSet::new(), vec![base.name.as_str()]);
    while let Some(chain) = next.pop() {
        if !known.insert(chain) {
            continue;
        }
        let rules = ruleset.nftables.iter().filter_map(|entry| entry.rule.as_ref());
        let own = rules
            .filter(|rule| (&rule.family, &rule.table) == (&base.family, &base.table) && rule.chain == chain);
        for rule in own {
            count += 1;
            targets(&rule.expr, &mut next);
        }
    }
    count
}

/// The chains that a rule may go on to, wherever in it they are named.
fn targets<'a>(expression: &'a Value, found: &mut Vec<&'a str>) {
    match expression {
        Value::Array(parts) => parts.iter().for_each(|part| targets(part, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.get("target").and_then(Value::as_str)) {
                    ("jump" | "goto", Some(target)) => found.push(target),
                    _ => targets(value, found),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    /// What nft 1.0.6 printed, without the handles.
    const RULESET: &str = include_str!("../../tests/data/nft.json");

    #[test]
    fn chains_with_rules_or_a_policy_are_named() {
        let chains = passed_by(&serde_json::from_str(RULESET).unwrap());
        let shown: Vec<String> = chains.iter().map(Chain::shown).collect();
        assert_eq!(
            shown,
            [
                "inet filter input (policy drop, 6 rules)",
                "inet filter forward (policy drop, 0 rules)",
                "ip nat prerouting (1 rule)",
                "ip nat postrouting (1 rule)",
            ]
        );
        let check = verdict(chains, vec!["iptables-legacy filter".to_owned()]);
        assert_eq!(check.state, State::Warn);
        assert!(check.found.ends_with("iptables-legacy filter"));
    }

    #[test]
    fn nothing_is_named_where_nothing_is() {
        let chains = passed_by(
            &serde_json::from_str(r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}]}"#).unwrap(),
        );
        assert_eq!(verdict(chains, Vec::new()).state, State::Ok);
    }
}
