//! What shields do, and who makes them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use kuafu_model::HostState;
use kuafu_model::contents::Contents;
use kuafu_model::state::{self, ServiceState};
use kuafu_pipeline::map::{HITTERS, Hitter, HitterV6, Shield, ShieldState, guard};
use kuafu_proto::v1;

use super::{View, milliseconds};
use crate::bpf::Maps;
use crate::error::{Error, Result};

/// What is counted, in the order of [`Tally`](kuafu_pipeline::map::Tally).
pub(crate) const TALLIES: [&str; 8] = [
    "new",
    "challenged",
    "verified",
    "blocked",
    "not_admitted",
    "source_limited",
    "over_budget",
    "amplifier",
];
/// After how many looks those who send most are read, and counted anew.
const LOOKS: u32 = 10;
/// How many of them are named.
const NAMED: usize = 10;

/// Packets by [`TALLIES`].
type Counts = [u64; TALLIES.len()];

/// Looks at shields each second: how fast their counts grow, and who sends most.
#[derive(Debug, Default)]
pub struct ShieldWatch {
    looks: u32,
    /// By number.
    seen: BTreeMap<u32, Seen>,
}

#[derive(Debug)]
struct Seen {
    vni: u32,
    at: Instant,
    counts: Counts,
    per_s: Counts,
    sources: Vec<Sender>,
    prefixes: Vec<Sender>,
}

/// A source, or the first address of a prefix, and how many packets it has sent.
type Sender = (IpAddr, u64);

impl ShieldWatch {
    /// Looks again. With each tenth look those who send most are counted anew.
    ///
    /// # Errors
    /// `Io`.
    pub fn look(&mut self, maps: &Maps, contents: &Contents) -> Result<()> {
        let is_there = |number: &u32, seen: &mut Seen| {
            let shield = contents.shields.get(number);
            shield.is_some_and(|shield| shield.vni == seen.vni)
        };
        self.seen.retain(is_there);
        for (number, shield) in &contents.shields {
            let counts = counts(maps, *number)?;
            let seen = self
                .seen
                .entry(*number)
                .or_insert_with(|| Seen::new(shield.vni, counts));
            seen.count(counts);
        }
        self.looks += 1;
        if self.looks >= LOOKS && !self.seen.is_empty() {
            self.looks = 0;
            self.count_anew(maps)?;
        }
        Ok(())
    }

    /// Keeps who sent most since the last time, and forgets all of them in the map.
    fn count_anew(&mut self, maps: &Maps) -> Result<()> {
        for seen in self.seen.values_mut() {
            seen.sources.clear();
            seen.prefixes.clear();
        }
        let (mut places, mut places_v6) = (Vec::new(), Vec::new());
        maps.hitters.for_each(|place, hitter| {
            let (who, lead) = (hitter.who.get(), hitter.lead.get());
            if who == 0 {
                return;
            }
            places.push(place);
            let bits = lower(who) << if place < HITTERS { 0 } else { 8 };
            self.keep(upper(who), place, (Ipv4Addr::from(bits).into(), lead));
        })?;
        maps.hitters_v6.for_each(|place, hitter| {
            let (number, lead) = (hitter.number.get(), hitter.lead.get());
            if number == 0 {
                return;
            }
            places_v6.push(place);
            let network = hitter.network.get() << if place < HITTERS { 0 } else { 16 };
            let address = Ipv6Addr::from(u128::from(network) << 64);
            self.keep(lower(number), place, (address.into(), lead));
        })?;
        for seen in self.seen.values_mut() {
            for all in [&mut seen.sources, &mut seen.prefixes] {
                all.retain(|(_, packets)| *packets != 0);
                all.sort_by_key(|(source, packets)| (Reverse(*packets), *source));
                all.truncate(NAMED);
            }
        }
        let nobody = Hitter::default();
        maps.hitters
            .set_all(places.iter().map(|place| (place, &nobody)))?;
        let nobody = HitterV6::default();
        maps.hitters_v6
            .set_all(places_v6.iter().map(|place| (place, &nobody)))
    }

    /// Keeps what a place of the map says of a shield's sources or prefixes.
    fn keep(&mut self, number: u32, place: u32, sender: Sender) {
        let Some(seen) = self.seen.get_mut(&number) else {
            return;
        };
        let all = if place < HITTERS {
            &mut seen.sources
        } else {
            &mut seen.prefixes
        };
        all.push(sender);
    }
}

/// The upper half of a word.
const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The lower half.
const fn lower(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

impl Seen {
    fn new(vni: u32, counts: Counts) -> Self {
        Self {
            vni,
            at: Instant::now(),
            counts,
            per_s: Counts::default(),
            sources: Vec::new(),
            prefixes: Vec::new(),
        }
    }

    /// How fast counts have grown since the last look.
    fn count(&mut self, counts: Counts) {
        let took_ms = self.at.elapsed().as_millis();
        if took_ms == 0 {
            return;
        }
        for (at, per_s) in self.per_s.iter_mut().enumerate() {
            let more = u128::from(counts[at].saturating_sub(self.counts[at]));
            *per_s = u64::try_from(more * 1000 / took_ms).unwrap_or(u64::MAX);
        }
        self.counts = counts;
        self.at = Instant::now();
    }
}

/// What a shield has counted, all CPUs together.
pub(crate) fn counts(maps: &Maps, number: u32) -> Result<Counts> {
    let mut counts = Counts::default();
    for of_cpu in maps.shield_counts.get(number)? {
        for (all, packets) in counts.iter_mut().zip(of_cpu.packets) {
            *all += packets;
        }
    }
    Ok(counts)
}

/// Whether a shield is up.
pub(crate) fn is_up(maps: &Maps, (number, shield): (u32, &Shield), now: u64) -> Result<bool> {
    let state = maps.shield_states.get(&number)?.unwrap_or_default();
    Ok(shield.has(guard::ALWAYS) || now < state.up_until.get())
}

/// Whose listeners these are, such as `service/web`.
fn object(service: &ServiceState) -> String {
    let kind = if service.own { "service" } else { "accelerator" };
    format!("{kind}/{}", service.name)
}

/// The object of a shield's number.
pub(crate) fn object_of(state: Option<&HostState>, vni: u32) -> Option<String> {
    let mut services = state?.services.iter();
    services.find(|service| service.vni == vni).map(object)
}

/// A listener of an object that has a shield here: the first one's is the one that counts.
pub(crate) fn shielded<'s>(state: Option<&'s HostState>, name: &str) -> Option<&'s ServiceState> {
    let mut entries = state?.services.iter().filter(|service| !service.at_exit);
    entries.find(|service| service.shield.is_some() && object(service) == name)
}

/// What the shield of an object does here.
///
/// # Errors
/// `NoShield`, `Io`.
pub fn shield(view: &View<'_>, object: &str) -> Result<v1::ShieldStatus> {
    let none = || Error::NoShield {
        object: object.to_owned(),
    };
    let service = shielded(view.state, object).ok_or_else(none)?;
    let declared = service.shield.as_ref().ok_or_else(none)?;
    let mut shields = view.contents.shields.iter();
    let (number, shield) = shields
        .find(|(_, shield)| shield.vni == service.vni)
        .ok_or_else(none)?;
    let (now, counts) = (view.clock.jiffies()?, counts(view.maps, *number)?);
    let up = is_up(view.maps, (*number, shield), now)?;
    let state = view.maps.shield_states.get(number)?.unwrap_or_default();
    let seen = view.shields.seen.get(number);
    let per_s = seen.map(|seen| seen.per_s).unwrap_or_default();
    let tallies = TALLIES.iter().zip(counts.into_iter().zip(per_s));
    let most = |of: fn(&Seen) -> &Vec<Sender>| seen.map(of).into_iter().flatten();
    Ok(v1::ShieldStatus {
        node: view.node().to_owned(),
        mode: mode(declared).to_owned(),
        up,
        since_ms: since(shield, &state, now).map(|ticks| milliseconds(view.clock.duration(ticks))),
        does: does(declared, service.local.is_ipv6(), up),
        tallies: tallies
            .map(|(what, (packets, per_s))| v1::ShieldTally {
                what: (*what).to_owned(),
                packets,
                per_s,
            })
            .collect(),
        sources: most(|seen| &seen.sources)
            .map(|(source, packets)| hitter(source, [None, Some(64)], *packets))
            .collect(),
        prefixes: most(|seen| &seen.prefixes)
            .map(|(network, packets)| hitter(network, [Some(24), Some(48)], *packets))
            .collect(),
    })
}

/// A source or a prefix of so many bits, by its family: `None` of a single address.
fn hitter(first: &IpAddr, [v4, v6]: [Option<u8>; 2], packets: u64) -> v1::Hitter {
    let bits = if first.is_ipv6() { v6 } else { v4 };
    let source = bits.map_or_else(|| first.to_string(), |bits| format!("{first}/{bits}"));
    v1::Hitter { source, packets }
}

const fn mode(shield: &state::Shield) -> &'static str {
    match (shield.enforces, shield.alarm_new_per_s) {
        (false, _) => "observe",
        (true, None) => "on",
        (true, Some(_)) => "automatic",
    }
}

/// For how many jiffies it has been as it is; `None`: always.
fn since(shield: &Shield, state: &ShieldState, now: u64) -> Option<u64> {
    let until = state.up_until.get();
    let then = match () {
        () if shield.has(guard::ALWAYS) || until == 0 => return None,
        () if now < until => state.up_since.get(),
        () => until,
    };
    Some(now.saturating_sub(then))
}

/// What a shield does, and why.
fn does(shield: &state::Shield, is_v6: bool, up: bool) -> Vec<String> {
    let mut does = Vec::new();
    match (shield.enforces, shield.alarm_new_per_s) {
        (false, _) => does.push("counts what it would do if it were up, and does nothing".to_owned()),
        (true, None) => does.push("is up, whatever comes".to_owned()),
        (true, Some(alarm)) if up => does.push(format!(
            "is up, since more than {alarm} flows a second began; goes down {} s after the last one too many",
            shield.hold_s
        )),
        (true, Some(alarm)) => does.push(format!("goes up when more than {alarm} flows a second begin")),
    }
    if !shield.allow.is_empty() {
        does.push(format!("lets pass who is on {}", shield.allow.join(", ")));
    }
    if !shield.block.is_empty() {
        does.push(format!("refuses who is on {}", shield.block.join(", ")));
    }
    if shield.admitted_only {
        does.push("refuses what begins otherwise, unless its client is admitted (kuafu admit)".to_owned());
        return does;
    }
    if !up {
        return does;
    }
    if shield.syn_cookies {
        does.push("answers a SYN with a cookie, unless its source has returned one".to_owned());
    }
    if shield.drop_amplifiers {
        does.push("refuses what comes from UDP ports that amplify".to_owned());
    }
    let all = shield
        .new_per_s
        .map_or_else(String::new, |all| format!(", all together {all}"));
    let (source, prefix) = if is_v6 { ("/64", "/48") } else { ("source", "/24") };
    does.push(format!(
        "lets a {source} begin {} flows a second, a {prefix} {}{all}",
        shield.source_new_per_s, shield.prefix_new_per_s
    ));
    does
}
