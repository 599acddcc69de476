//! Who holds the addresses that one of several nodes may hold.

use std::collections::{BTreeMap, BTreeSet};

use kuafu_model::compile::{Candidates, Holder, Holders, Server, candidates};
use kuafu_model::kinds::{HostIp, Name};
use serde::{Deserialize, Serialize};

use super::rollout::put_json;
use super::{Command, Core, Now, SessionId, key};

/// A holder that was not heard for so long is dead, as far as its addresses go: agents say each 200 ms that they live.
const DEAD_MS: Now = 600;
/// Who is to take an address was heard in this time, and was never silent for [`GAP_MS`] while the holder was. What cuts
/// the controller off silences all hosts within 200 ms, and they come back one by one: where the first of them is found
/// dead, none is fit to follow it.
const HEARD_MS: Now = 350;
/// See [`HEARD_MS`].
const GAP_MS: Now = 500;
/// Where two looks are further apart, the controller was not there to hear anybody.
const STALL_MS: Now = 250;
/// So long after the controller's start, after an address was declared, and after a time when none of its nodes was heard,
/// a holder that was not heard since is dead: agents dial again each 2 s.
const ARRIVE_MS: Now = 15_000;

/// For so long a holder was without a server that serves while another node had one before an address leaves it for that:
/// hosts find the same server down, and back, one after the other.
const BARREN_MS: Now = 3_000;

/// Who lives, of the nodes that may hold an address.
#[derive(Debug, Default)]
pub(super) struct Hold {
    heard: BTreeMap<Name, Heard>,
    /// Since when each address is known here, and one of its nodes was heard.
    known: BTreeMap<HostIp, Now>,
    /// Since when holders have had no server that serves while another node had one, by address.
    barren: BTreeMap<HostIp, Now>,
    /// When the last look was.
    looked: Option<Now>,
}

/// When a host was heard.
#[derive(Clone, Copy, Debug)]
struct Heard {
    last: Now,
    /// Since when without a gap.
    since: Now,
}

impl Hold {
    fn note(&mut self, now: Now, node: &Name) {
        let heard = self.heard.get(node);
        let unbroken = heard.filter(|heard| now.saturating_sub(heard.last) < GAP_MS);
        let since = unbroken.map_or(now, |heard| heard.since);
        self.heard.insert(node.clone(), Heard { last: now, since });
    }

    /// Whoever lived at the last look may have said since that it lives, where nobody was there to hear it.
    fn excuse_a_stall(&mut self, now: Now) {
        let looked = self.looked.replace(now).unwrap_or(now);
        if now.saturating_sub(looked) > STALL_MS {
            let heard = self.heard.values_mut();
            let lived = heard.filter(|heard| looked.saturating_sub(heard.last) < DEAD_MS);
            lived.for_each(|heard| heard.last += now - looked);
        }
    }

    /// Since when the nodes of an address can be told to be dead: not before one of them is heard.
    fn known_since(&self, now: Now, candidates: &Candidates<'_>) -> Now {
        let lives = |node: &Name| {
            let heard = self.heard.get(node);
            heard.is_some_and(|heard| now.saturating_sub(heard.last) < DEAD_MS)
        };
        let known = self.known.get(&candidates.public);
        let known = known.filter(|_| candidates.nodes.iter().any(lives));
        known.copied().unwrap_or(now)
    }

    /// A node is no member any more.
    pub(super) fn forget(&mut self, node: &Name) {
        self.heard.remove(node);
    }

    fn is_dead(&self, now: Now, address: HostIp, node: &Name) -> bool {
        let known = self.known.get(&address).copied().unwrap_or(now);
        match self.heard.get(node).filter(|heard| heard.last >= known) {
            Some(heard) => now.saturating_sub(heard.last) >= DEAD_MS,
            None => now.saturating_sub(known) >= ARRIVE_MS,
        }
    }

    fn is_fit(&self, now: Now, node: &Name) -> bool {
        let heard = self.heard.get(node);
        heard.is_some_and(|heard| {
            now.saturating_sub(heard.last) < HEARD_MS && now.saturating_sub(heard.since) >= DEAD_MS
        })
    }
}

/// A holder as the store keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredHolder {
    address: HostIp,
    node: Name,
    term: u64,
}

/// The holders that the store kept.
pub(super) fn read(stored: Vec<StoredHolder>) -> Holders {
    let holder = |stored: StoredHolder| {
        let StoredHolder { address, node, term } = stored;
        (address, Holder { node, term })
    };
    stored.into_iter().map(holder).collect()
}

impl Core {
    /// A host that may hold an address lives.
    pub fn handle_alive(&mut self, now: Now, session: SessionId) {
        if let Some(node) = self.node_of(session).cloned() {
            self.note_alive(now, &node);
        }
    }

    pub(super) fn note_alive(&mut self, now: Now, node: &Name) {
        self.hold.note(now, node);
    }

    /// Looks, many times a second, whether an address is to move. It stays where it is unless its holder is dead or
    /// drains, or has had no server that serves for a while where another node has one. Then it goes to the first of its
    /// nodes, in their order, that is fit to follow, does not drain and has a server that serves; where none has one, and
    /// the holder is dead or drains, to the first that is fit and does not drain. Where there is none, nothing moves.
    ///
    /// Silence is nobody's death where the controller has just started or was not there to hear.
    pub fn handle_look(&mut self, now: Now) -> Vec<Command> {
        self.hold.excuse_a_stall(now);
        let known = candidates(&self.intent);
        self.hold.known = known
            .map(|candidates| (candidates.public, self.hold.known_since(now, &candidates)))
            .collect();
        self.note_barren(now);
        let mut next = Holders::new();
        for candidates in candidates(&self.intent) {
            let public = candidates.public;
            let held = self.holders.get(&public);
            let held = held.filter(|holder| candidates.nodes.contains(&holder.node));
            let holder = match held {
                Some(held) => match self.better(now, &candidates, held) {
                    Some(node) => Holder {
                        node: node.clone(),
                        term: held.term + 1,
                    },
                    None => held.clone(),
                },
                None => self.first(&candidates),
            };
            next.insert(public, holder);
        }
        if next == self.holders {
            return Vec::new();
        }
        self.install_holders(next)
    }

    /// Notes which holders have no server that serves, where another node has one.
    fn note_barren(&mut self, now: Now) {
        let is_barren = |candidates: &Candidates<'_>| {
            let held = self.holders.get(&candidates.public);
            held.is_some_and(|held| {
                !self.serves(candidates, &held.node) && self.best(now, candidates, &held.node).is_some()
            })
        };
        let since = |public: HostIp| self.hold.barren.get(&public).copied().unwrap_or(now);
        let barren = candidates(&self.intent).filter(is_barren);
        self.hold.barren = barren.map(|one| (one.public, since(one.public))).collect();
    }

    /// To whom an address is to move; `None`: it stays.
    fn better<'c>(&self, now: Now, candidates: &Candidates<'c>, held: &Holder) -> Option<&'c Name> {
        let (public, holder) = (candidates.public, &held.node);
        let must_go = self.hold.is_dead(now, public, holder) || self.drains(holder);
        let barren = self.hold.barren.get(&public);
        let is_barren = barren.is_some_and(|since| now.saturating_sub(*since) >= BARREN_MS);
        if !must_go && !is_barren {
            return None;
        }
        let any = || self.fit(now, candidates, holder).find(|_| must_go);
        self.best(now, candidates, holder).or_else(any)
    }

    /// Who can follow a holder, in their order.
    fn fit<'c>(
        &self,
        now: Now,
        candidates: &Candidates<'c>,
        holder: &Name,
    ) -> impl Iterator<Item = &'c Name> {
        let nodes = candidates.nodes.iter();
        nodes.filter(move |node| *node != holder && self.hold.is_fit(now, node) && !self.drains(node))
    }

    /// The first of these that has a server that serves.
    fn best<'c>(&self, now: Now, candidates: &Candidates<'c>, holder: &Name) -> Option<&'c Name> {
        let mut fit = self.fit(now, candidates, holder);
        fit.find(|node| self.serves(candidates, node))
    }

    /// Who is the first to hold an address: of the nodes that are connected, or else of all, the first that does not
    /// drain. After a node that has held it, and may not any more, a new term begins.
    fn first(&self, candidates: &Candidates<'_>) -> Holder {
        let mut awake = candidates.nodes.iter().filter(|node| !self.drains(node));
        let connected = awake.clone().find(|node| self.session(node).is_some());
        let node = connected.or_else(|| awake.next());
        let before = self.holders.get(&candidates.public);
        Holder {
            node: node.unwrap_or_else(|| candidates.nodes.preferred()).clone(),
            term: before.map_or(0, |before| before.term + 1),
        }
    }

    fn drains(&self, node: &Name) -> bool {
        let node = self.intent.nodes().get(node);
        node.is_some_and(|node| node.spec.drain)
    }

    fn serves(&self, candidates: &Candidates<'_>, node: &Name) -> bool {
        let down: Option<&BTreeSet<Server>> = self.down.get(node);
        down.is_none_or(|down| candidates.serves(down))
    }

    fn install_holders(&mut self, next: Holders) -> Vec<Command> {
        let before = std::mem::replace(&mut self.holders, next);
        let (target, allocations) = match self.compile(&self.intent.clone(), &self.choices.clone()) {
            Ok(compiled) => compiled,
            Err(error) => {
                tracing::warn!(%error, "who holds an address cannot be compiled; all stay where they are");
                self.holders = before;
                return Vec::new();
            }
        };
        for (address, holder) in &self.holders {
            let from = before.get(address).map(|before| before.node.as_str());
            if from != Some(holder.node.as_str()) {
                tracing::info!(%address, holder = %holder.node, before = from, "an address has another holder");
            }
        }
        let stored = self.holders.iter().map(|(address, holder)| StoredHolder {
            address: *address,
            node: holder.node.clone(),
            term: holder.term,
        });
        let stored: Vec<StoredHolder> = stored.collect();
        let mut writes = self.install(target, allocations);
        writes.extend(put_json(key::HOLDERS, &stored));
        self.roll_out(writes)
    }
}
