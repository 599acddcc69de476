//! What an object's shield does, for people.

use kuafu_proto::v1::{ClusterShield, Hitter, ShieldQuery, ShieldRequest, ShieldStatus};

use crate::args::Global;
use crate::ask::{self, Whom};
use crate::failure::Result;
use crate::out::{Output, ago, columns};

/// Asks for the shield of an object, such as service/web, and prints it.
pub(super) async fn run(global: &Global, object: String, node: Option<&str>, output: Output) -> Result {
    let mut shield = match Whom::find(global).await? {
        Whom::Controller(mut controller) => {
            let answer = controller.api.shield(ShieldRequest { object }).await;
            controller.unwrap(answer)?
        }
        Whom::Agent(mut agent) => {
            let query = ShieldQuery {
                object: object.clone(),
            };
            let host = ask::unwrap_local(agent.shield(query).await)?;
            ClusterShield {
                object,
                mode: host.mode.clone(),
                hosts: vec![host],
                errors: Vec::new(),
            }
        }
    };
    if let Some(node) = node {
        shield.hosts.retain(|host| host.node == node);
        shield.errors.retain(|error| error.node == node);
        if shield.hosts.is_empty() && shield.errors.is_empty() {
            return Err(anyhow::anyhow!("no packets for {} enter at {node}", shield.object).into());
        }
    }
    output.print(&shield, table)?;
    ask::missing(&shield.errors);
    Ok(())
}

/// Each host in words, what it has counted, and who sends most.
fn table(shield: &ClusterShield) -> String {
    let mut text = format!("{}: mode {}\n", shield.object, shield.mode);
    for host in &shield.hosts {
        text += &format!("\n{}: {}\n", host.node, standing(host));
        text.extend(host.does.iter().map(|does| format!("  {does}\n")));
    }
    let counted: Vec<_> = shield.hosts.iter().flat_map(counted).collect();
    if !counted.is_empty() {
        text += "\n";
        text += &columns(["HOST", "COUNTED", "LAST SECOND", "ALTOGETHER"], counted);
    }
    let most: Vec<_> = shield.hosts.iter().flat_map(most).collect();
    if !most.is_empty() {
        text += "\n";
        text += &columns(["HOST", "SOURCE", "PACKETS", "PREFIX", "PACKETS"], most);
    }
    text
}

fn standing(host: &ShieldStatus) -> String {
    let word = if host.up { "up" } else { "down" };
    match host.since_ms {
        Some(since) => format!("{word} for {}", ago(since)),
        None => word.to_owned(),
    }
}

/// What was counted at all, and what is new.
fn counted(host: &ShieldStatus) -> Vec<[String; 4]> {
    let tallies = host.tallies.iter();
    tallies
        .filter(|tally| tally.packets != 0 || tally.what == "new")
        .map(|tally| {
            let what = tally.what.replace('_', " ");
            [
                host.node.clone(),
                what,
                tally.per_s.to_string(),
                tally.packets.to_string(),
            ]
        })
        .collect()
}

/// Sources and prefixes side by side.
fn most(host: &ShieldStatus) -> Vec<[String; 5]> {
    let rows = host.sources.len().max(host.prefixes.len());
    let cells = |of: Option<&Hitter>| {
        of.map_or_else(
            || [String::new(), String::new()],
            |hitter| [hitter.source.clone(), hitter.packets.to_string()],
        )
    };
    (0..rows)
        .map(|row| {
            let [source, packets] = cells(host.sources.get(row));
            let [prefix, of_prefix] = cells(host.prefixes.get(row));
            [host.node.clone(), source, packets, prefix, of_prefix]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kuafu_proto::v1::ShieldTally;

    use super::*;

    #[test]
    fn a_shield_is_told() {
        let tally = |what: &str, packets, per_s| ShieldTally {
            what: what.to_owned(),
            packets,
            per_s,
        };
        let hitter = |source: &str, packets| Hitter {
            source: source.to_owned(),
            packets,
        };
        let osaka = ShieldStatus {
            node: "osaka".to_owned(),
            mode: "automatic".to_owned(),
            up: true,
            since_ms: Some(12_345),
            does: vec!["is up, since more than 5000 flows a second began".to_owned()],
            tallies: vec![
                tally("new", 90_000, 8_000),
                tally("not_admitted", 0, 0),
                tally("source_limited", 7, 0),
            ],
            sources: vec![hitter("203.0.113.9", 40), hitter("203.0.113.10", 4)],
            prefixes: vec![hitter("203.0.113.0/24", 50)],
        };
        let taipei = ShieldStatus {
            node: "taipei".to_owned(),
            tallies: vec![tally("new", 0, 0)],
            ..ShieldStatus::default()
        };
        let shield = ClusterShield {
            object: "accelerator/arena".to_owned(),
            mode: "automatic".to_owned(),
            hosts: vec![osaka, taipei],
            errors: Vec::new(),
        };
        let expected = "\
accelerator/arena: mode automatic

osaka: up for 12 s
  is up, since more than 5000 flows a second began

taipei: down

HOST    COUNTED         LAST SECOND  ALTOGETHER
osaka   new             8000         90000
osaka   source limited  0            7
taipei  new             0            0

HOST   SOURCE        PACKETS  PREFIX          PACKETS
osaka  203.0.113.9   40       203.0.113.0/24  50
osaka  203.0.113.10  4
";
        let told = table(&shield);
        let told: Vec<&str> = told.lines().map(str::trim_end).collect();
        assert_eq!(told.join("\n") + "\n", expected);
    }
}
