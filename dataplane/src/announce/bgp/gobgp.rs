//! Debian's `gobgpd`. Its orders come by a socket that is root's alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use kuafu_model::state::Speaker;
use serde::Deserialize;

use super::{
    Daemon, Family, HOLD, Order, RETRY_S, Route, Sessions, Silent, is_in_path, keep_private, order, read,
};

pub(super) struct Gobgp;

/// A session that is established (gobgp's `SessionState`).
const ESTABLISHED: u32 = 6;
/// The socket by which it takes orders.
const SOCKET: &str = "gobgpd.sock";
const CONFIG: &str = "gobgpd.toml";

impl Daemon for Gobgp {
    fn name(&self) -> &'static str {
        "gobgpd"
    }

    fn absent(&self) -> &'static str {
        "gobgpd is not installed: apt install gobgpd"
    }

    fn all_programs(&self) -> &'static [&'static str] {
        &["gobgpd"]
    }

    fn programs(&self, _: &Speaker) -> Vec<&'static str> {
        vec!["gobgpd"]
    }

    fn command(&self, run: &Path, _: &str) -> Command {
        let mut command = Command::new("gobgpd");
        command.arg("-f").arg(self.config_file(run));
        command.args([
            &format!("--api-hosts={}", socket(run)),
            "--pprof-disable",
            "--log-plain",
        ]);
        command
    }

    fn config_file(&self, run: &Path) -> PathBuf {
        run.join(CONFIG)
    }

    fn config(&self, sessions: &Sessions<'_>) -> String {
        config(sessions)
    }

    fn is_ready(&self, _: &Path, _: &Speaker) -> Result<(), String> {
        let is_there = ["gobgpd", "gobgp"].into_iter().all(is_in_path);
        is_there.then_some(()).ok_or_else(|| self.absent().to_owned())
    }

    fn lay_out(&self, run: &Path, config: &str) -> io::Result<()> {
        keep_private(&self.config_file(run), config, None)
    }

    fn clear(&self, run: &Path) {
        for name in [CONFIG, SOCKET] {
            let _ = fs::remove_file(run.join(name));
        }
    }

    fn announce(&self, run: &Path, route: Route, attributes: &[String]) -> Result<(), String> {
        let prefix = route.prefix();
        let add = ["global", "rib", "add", "-a", route.family().word(), &prefix];
        let words = add.into_iter().chain(attributes.iter().map(String::as_str));
        gobgp(run, &words.collect::<Vec<_>>()).map(drop)
    }

    fn withdraw(&self, run: &Path, route: Route) -> Result<(), String> {
        let family = route.family().word();
        gobgp(run, &["global", "rib", "del", "-a", family, &route.prefix()]).map(drop)
    }

    fn routes(&self, run: &Path, family: Family) -> Result<BTreeSet<Route>, String> {
        let told = gobgp(run, &["-j", "global", "rib", "-a", family.word()])?;
        let known: BTreeMap<String, serde_json::Value> = read(&told)?;
        let own = |(prefix, paths): (&String, &serde_json::Value)| {
            // What a router has told has it as its source.
            let paths = paths.as_array()?;
            let is_own = paths.iter().any(|path| path.get("source-id").is_none());
            prefix.parse().ok().filter(|_| is_own)
        };
        Ok(known.iter().filter_map(own).collect())
    }

    fn silent(&self, run: &Path) -> Result<Silent, String> {
        Ok(silent(read(&gobgp(run, &["-j", "neighbor"])?)?))
    }
}

/// The configuration of a speaker, in TOML.
fn config(sessions: &Sessions<'_>) -> String {
    let Sessions {
        speaker,
        local,
        has_v6,
        ..
    } = sessions;
    let [hold, keepalive] = HOLD;
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{local}\"\n# It dials, and takes no connections.\nport = -1\n",
        speaker.number
    );
    for router in &speaker.peers {
        let (address, number) = (router.address, router.number);
        let password = sessions.passwords.get(&address);
        // A text of TOML's is one of JSON's.
        let password =
            password.map(|text| format!("auth-password = {}\n", serde_json::Value::from(text.as_str())));
        let families = if *has_v6 { FAMILIES } else { "" };
        let hops = router
            .multihop
            .map(|hops| format!("[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = {hops}\n"));
        // Writing to a text succeeds.
        let _ = write!(
            text,
            "\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {number}\n{}\
             [neighbors.transport.config]\nlocal-address = \"{local}\"\nremote-port = {}\n\
             [neighbors.timers.config]\nconnect-retry = {RETRY_S}\nhold-time = {hold}\nkeepalive-interval = {keepalive}\n\
             idle-hold-time-after-reset = 1\n{}{families}",
            password.unwrap_or_default(),
            speaker.port,
            hops.unwrap_or_default()
        );
    }
    text + POLICY
}

/// What a session carries, of which IPv4 alone needs no words.
const FAMILIES: &str = r#"[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv4-unicast"
[[neighbors.afi-safis]]
[neighbors.afi-safis.config]
afi-safi-name = "ipv6-unicast"
"#;

/// It tells what it announces itself, and takes nothing: it is no way from one router to another.
const POLICY: &str = r#"
[global.apply-policy.config]
import-policy-list = ["own"]
default-import-policy = "reject-route"
export-policy-list = ["own"]
default-export-policy = "reject-route"

[[policy-definitions]]
name = "own"
[[policy-definitions.statements]]
[policy-definitions.statements.conditions.bgp-conditions]
route-type = "local"
[policy-definitions.statements.actions]
route-disposition = "accept-route"
"#;

/// The same as it and gobgp take it.
fn socket(run: &Path) -> String {
    format!("unix://{}", run.join(SOCKET).display())
}

#[derive(Deserialize)]
struct Neighbour {
    conf: NeighbourConfig,
    #[serde(default)]
    state: NeighbourState,
}

#[derive(Deserialize)]
struct NeighbourConfig {
    neighbor_address: String,
}

#[derive(Default, Deserialize)]
struct NeighbourState {
    #[serde(default)]
    session_state: u32,
    /// What the router can do.
    #[serde(default)]
    remote_cap: Vec<serde_json::Value>,
}

/// The capability of a session to carry IPv6 unicast, AFI 2 and SAFI 1 (gobgp's `MultiProtocolCapability`, its octets in
/// base64).
const TAKES_V6: (&str, &str) = ("type.googleapis.com/apipb.MultiProtocolCapability", "CgQIAhAB");

/// One without an address is none of those that were asked for.
fn silent(all: Vec<Neighbour>) -> Silent {
    let mut silent = Silent::default();
    for Neighbour { conf, state } in all {
        let Ok(address) = conf.neighbor_address.parse() else {
            continue;
        };
        let (kind, value) = TAKES_V6;
        let mut can = state.remote_cap.iter();
        if state.session_state != ESTABLISHED {
            silent.sessions.insert(address);
        } else if !can.any(|one| one["type_url"] == kind && one["value"] == value) {
            silent.without_v6.insert(address);
        }
    }
    silent
}

/// Gives `gobgpd` an order. Returns the answer.
fn gobgp(run: &Path, words: &[&str]) -> Result<String, String> {
    let target = ["gobgp".to_owned(), "--target".to_owned(), socket(run)];
    order(&Order {
        program: &target,
        words,
        daemon: &Gobgp,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn ipv6_is_added_to_sessions_that_announce_it() {
        let [without, with] = super::super::tests::without_and_with_v6(config);
        assert!(!without.contains("afi-safi"), "{without}");
        assert_eq!(with.replace(FAMILIES, ""), without);
        assert_eq!(with.matches(FAMILIES).count(), 2, "{with}");
    }

    #[test]
    fn who_takes_no_ipv6_is_seen() {
        let capability = |value: &str| {
            format!(
                r#"{{"type_url": "type.googleapis.com/apipb.MultiProtocolCapability", "value": "{value}"}}"#
            )
        };
        let (v4, v6) = (capability("CgQIARAB"), capability("CgQIAhAB"));
        let neighbour = |last: u8, state: u8, can: &str| {
            format!(
                r#"{{"conf": {{"neighbor_address": "192.0.2.{last}"}}, "state": {{"session_state": {state}, "remote_cap": [{can}]}}}}"#
            )
        };
        let text = [
            neighbour(251, 6, &format!("{v4}, {v6}")),
            neighbour(252, 6, &v4),
            neighbour(253, 3, ""),
        ]
        .join(", ");
        let router = |last| [Ipv4Addr::new(192, 0, 2, last)].into();
        let found = silent(read(&format!("[{text}]")).unwrap());
        let (sessions, without_v6) = (router(253), router(252));
        assert_eq!(found, Silent { sessions, without_v6 });
    }

    #[test]
    fn a_configuration_names_each_router() {
        let speaker = super::super::tests::speaker();
        let text = config(&super::super::tests::sessions(&speaker));
        assert!(
            text.starts_with("[global.config]\nas = 65001\nrouter-id = \"192.0.2.1\"\n"),
            "{text}"
        );
        assert_eq!(text.matches("[[neighbors]]").count(), 2);
        assert_eq!(text.matches("remote-port = 1790\n").count(), 2);
        assert!(text.contains("peer-as = 4200000000\n"), "{text}");
        assert_eq!(text.matches("multihop-ttl = 2\n").count(), 1);
        assert_eq!(text.matches("auth-password").count(), 1);
        assert!(text.contains("auth-password = \"se\\\"c\\\\ret\"\n"), "{text}");
        for default in ["import", "export"] {
            let rejects = format!("default-{default}-policy = \"reject-route\"\n");
            assert!(text.contains(&rejects), "others' routes go no further: {text}");
        }
    }
}
