//! Shields on this host.

use std::collections::BTreeMap;

use kuafu_pipeline::map::{Rate, Shield, guard};

use super::allocate::Numbers;
use super::error::{entry, in_range};
use super::{Contents, Error, HostFacts, lists};
use crate::state::{self, HostState};

/// For how many seconds a source that returned a cookie counts as verified.
const VERIFIED_S: u64 = 600;
/// What a source may begin at once: what its rate brings in so many seconds,
const SOURCE_BURST_S: u64 = 2;
/// and never less than so many.
const SOURCE_BURST: u64 = 10;

/// Packets of a flow that come before it has a server: what shields count.
const PACKETS: u64 = 2;

/// Gives each accelerator and service with a shield, where it is entered, a number and its shield. Returns the numbers by
/// VNI.
///
/// While a change is rolled out an accelerator's listeners may say different things: the first one's shield counts.
pub(super) fn fill(
    contents: &mut Contents,
    state: &HostState,
    host: &HostFacts,
    previous: &Contents,
) -> Result<BTreeMap<u32, u32>, Error> {
    let known = previous
        .shields
        .iter()
        .map(|(number, shield)| (*number, shield.vni))
        .collect();
    let mut numbers = Numbers::new("shields", &known, host.capacities.shields);
    let mut of_vni = BTreeMap::new();
    lists::fill(contents, state, host, previous)?;
    for (index, service) in state.services.iter().enumerate() {
        let Some(declared) = service.shield.as_ref().filter(|_| !service.at_exit) else {
            continue;
        };
        if of_vni.contains_key(&service.vni) {
            continue;
        }
        check(index, declared)?;
        let shield = Shield {
            vni: service.vni,
            blocked: lists::bits(contents, index, "block", &declared.block)?,
            allowed: lists::bits(contents, index, "allow", &declared.allow)?,
            ..shield(declared, host)
        };
        let number = numbers.of(service.vni)?;
        contents.shields.insert(number, shield);
        of_vni.insert(service.vni, number);
    }
    Ok(of_vni)
}

/// Services whose lists are not what they were, so that known flows are to be looked at once more.
pub(super) fn vnis_whose_lists_change(contents: &Contents, previous: &Contents) -> Vec<u32> {
    let lists = |contents: &Contents| -> BTreeMap<u32, [u32; 3]> {
        let shields = contents.shields.values();
        let shields = shields.filter(|shield| shield.blocked | shield.allowed != 0);
        // One that only observed has let pass what it refuses now.
        shields
            .map(|shield| {
                (
                    shield.vni,
                    [shield.blocked, shield.allowed, shield.flags & guard::ENFORCES],
                )
            })
            .collect()
    };
    let (now, before) = (lists(contents), lists(previous));
    if now.is_empty() {
        return Vec::new();
    }
    // What an agent that starts anew reads back has no names.
    let is_same = contents.lists == previous.lists
        || contents.listed == previous.listed && contents.list_areas == previous.list_areas;
    let changed = now.into_iter();
    changed
        .filter(|(vni, lists)| !is_same || before.get(vni) != Some(lists))
        .map(|(vni, _)| vni)
        .collect()
}

/// Refuses rates and times that cannot be.
fn check(index: usize, shield: &state::Shield) -> Result<(), Error> {
    let rates = [
        ("alarm_new_per_s", shield.alarm_new_per_s),
        ("source_new_per_s", Some(shield.source_new_per_s)),
        ("prefix_new_per_s", Some(shield.prefix_new_per_s)),
        ("new_per_s", shield.new_per_s),
    ];
    for (name, rate) in rates {
        let field = entry("services", index, &format!("shield.{name}"));
        in_range(field, rate.unwrap_or(1), 1..=100_000_000, "1 to 100000000")?;
    }
    let field = entry("services", index, "shield.hold_s");
    in_range(field, shield.hold_s, 1..=3600, "1 to 3600")
}

/// A shield without its lists.
fn shield(declared: &state::Shield, host: &HostFacts) -> Shield {
    let flags = [
        (declared.enforces, guard::ENFORCES),
        (declared.alarm_new_per_s.is_none(), guard::ALWAYS),
        (declared.syn_cookies, guard::COOKIES),
        (declared.drop_amplifiers, guard::NO_AMPLIFIERS),
        (declared.admitted_only, guard::ADMISSION),
    ];
    let rate = |a_second: u64, at_once: u64| Rate::new(PACKETS * a_second, PACKETS * at_once, host.hz);
    let source = u64::from(declared.source_new_per_s);
    let prefix = u64::from(declared.prefix_new_per_s);
    Shield {
        flags: flags
            .iter()
            .filter(|(is_set, _)| *is_set)
            .map(|(_, bit)| bit)
            .sum(),
        key: host.cookie_key,
        source: rate(source, (SOURCE_BURST_S * source).max(SOURCE_BURST)),
        prefix: rate(prefix, prefix),
        budget: declared
            .new_per_s
            .map_or_else(Rate::default, |budget| rate(budget.into(), budget.into())),
        alarm: declared
            .alarm_new_per_s
            .map_or_else(Rate::default, |alarm| rate(alarm.into(), u64::from(alarm) / 2)),
        hold: u64::from(declared.hold_s) * host.hz,
        verified_for: VERIFIED_S * host.hz,
        ..Shield::default()
    }
}
