//! Debian's `gobgpd`. Its orders come by a socket that is root's alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use kuafu_model::state::Speaker;
use serde::Deserialize;

use super::{Daemon, HOLD, Order, RETRY_S, Route, Sessions, is_in_path, keep_private, order, read};

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
        let add = ["global", "rib", "add", &prefix];
        let words = add.into_iter().chain(attributes.iter().map(String::as_str));
        gobgp(run, &words.collect::<Vec<_>>()).map(drop)
    }

    fn withdraw(&self, run: &Path, route: Route) -> Result<(), String> {
        gobgp(run, &["global", "rib", "del", &route.prefix()]).map(drop)
    }

    fn routes(&self, run: &Path) -> Result<BTreeSet<Route>, String> {
        let known: BTreeMap<String, serde_json::Value> = read(&gobgp(run, &["-j", "global", "rib"])?)?;
        let own = |(prefix, paths): (&String, &serde_json::Value)| {
            // What a router has told has it as its source.
            let paths = paths.as_array()?;
            let is_own = paths.iter().any(|path| path.get("source-id").is_none());
            prefix.parse().ok().filter(|_| is_own)
        };
        Ok(known.iter().filter_map(own).collect())
    }

    fn silent(&self, run: &Path) -> Result<BTreeSet<Ipv4Addr>, String> {
        let all: Vec<Neighbour> = read(&gobgp(run, &["-j", "neighbor"])?)?;
        let silent = all.iter().filter(|one| one.state.session_state != ESTABLISHED);
        // One without an address is none of those that were asked for.
        Ok(silent
            .filter_map(|one| one.conf.neighbor_address.parse().ok())
            .collect())
    }
}

/// The configuration of a speaker, in TOML.
fn config(sessions: &Sessions<'_>) -> String {
    let Sessions { speaker, local, .. } = sessions;
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
        let hops = router
            .multihop
            .map(|hops| format!("[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = {hops}\n"));
        // Writing to a text succeeds.
        let _ = write!(
            text,
            "\n[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {number}\n{}\
             [neighbors.transport.config]\nlocal-address = \"{local}\"\nremote-port = {}\n\
             [neighbors.timers.config]\nconnect-retry = {RETRY_S}\nhold-time = {hold}\nkeepalive-interval = {keepalive}\n\
             idle-hold-time-after-reset = 1\n{}",
            password.unwrap_or_default(),
            speaker.port,
            hops.unwrap_or_default()
        );
    }
    text + POLICY
}

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
