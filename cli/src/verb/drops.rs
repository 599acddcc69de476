//! `kuafu drops`.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use kuafu_pipeline::Reason;
use kuafu_proto::v1::{ClusterDrops, ClusterDropsRequest, Drop, DropsQuery};

use crate::args::Global;
use crate::ask::{self, Whom};
use crate::failure::Result;
use crate::out::{Output, ago, columns, hex, or_dash};

/// Print what was dropped, by its reason
///
/// Each reason that dropped a packet: how many, on which host, when last, and how the last packet began. With -v also
/// what each reason means.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  kuafu drops
  kuafu drops -v --node osaka
  kuafu drops -o json")]
pub(crate) struct Args {
    /// Only this host's
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut drops = match Whom::find(global).await? {
        Whom::Controller(mut controller) => {
            let answer = controller.api.drops(ClusterDropsRequest {}).await;
            controller.unwrap(answer)?
        }
        Whom::Agent(mut agent) => {
            let answer = ask::unwrap_local(agent.drops(DropsQuery {}).await)?;
            ClusterDrops {
                drops: answer.drops,
                errors: Vec::new(),
            }
        }
    };
    let wanted = |drop: &Drop| drop.count > 0 && args.node.as_ref().is_none_or(|node| *node == drop.node);
    drops.drops.retain(wanted);
    drops
        .drops
        .sort_by(|a, b| (&a.node, std::cmp::Reverse(a.count)).cmp(&(&b.node, std::cmp::Reverse(b.count))));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    args.output
        .print(&drops, |drops| table(&drops.drops, now_ms, global.verbose > 0))?;
    ask::missing(&drops.errors);
    Ok(())
}

fn table(drops: &[Drop], now_ms: u64, meanings: bool) -> String {
    if drops.is_empty() {
        return "Nothing was dropped.\n".to_owned();
    }
    let headings = [
        "HOST",
        "REASON",
        "PACKETS",
        "LAST SEEN",
        "INTERFACE",
        "THE LAST ONE BEGAN",
    ];
    let mut text = columns(headings, drops.iter().map(|drop| row(drop, now_ms)));
    if meanings {
        let reasons: BTreeSet<Reason> = drops
            .iter()
            .filter_map(|drop| Reason::from_word(&drop.reason))
            .collect();
        text += "\n";
        for reason in reasons {
            text += &format!("{}: {}\n", reason.word(), reason.meaning().trim());
        }
    }
    text
}

fn row(drop: &Drop, now_ms: u64) -> [String; 6] {
    const SHOWN: usize = 34;
    let start = &drop.first_bytes[..drop.first_bytes.len().min(SHOWN)];
    let last_seen = drop
        .last_seen_unix_ms
        .map(|ms| ago(now_ms.saturating_sub(ms)) + " ago");
    let interface = Some(&drop.interface).filter(|name| !name.is_empty());
    [
        drop.node.clone(),
        drop.reason.clone(),
        drop.count.to_string(),
        or_dash(last_seen),
        or_dash(interface),
        hex(start),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings_follow_where_they_are_wanted() {
        let drop = Drop {
            node: "osaka".to_owned(),
            reason: "spoofed".to_owned(),
            count: 3,
            interface: "veth0".to_owned(),
            last_seen_unix_ms: Some(1_000),
            first_bytes: vec![0xff; 64],
        };
        let drops = [drop];
        insta::assert_snapshot!(table(&drops, 6_000, true));
        assert!(!table(&drops, 6_000, false).contains("spoofed:"));
        assert_eq!(table(&[], 0, true), "Nothing was dropped.\n");
    }
}
