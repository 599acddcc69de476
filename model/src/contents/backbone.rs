//! Labels, paths and pairs.

use std::net::IpAddr;

use kuafu_pipeline::map::{Be16, Be32, End, Leg, NO_PATH, Pair, Path, Slot, TagKey};

use super::allocate::Numbers;
use super::error::{entry, in_range};
use super::{Capacities, Contents, Error, HostFacts};
use crate::compile::NO_PAIR;
use crate::state::{HostState, LegKey, LegState, PairState, PathState, SlotAction, SlotState};

/// Fills in what the backbone needs.
pub(super) fn fill(
    contents: &mut Contents,
    neighbours: &mut Numbers<'_, IpAddr>,
    state: &HostState,
    host: &HostFacts,
    previous: &Contents,
) -> Result<(), Error> {
    let capacities = &host.capacities;
    let mut own_windows = Numbers::new("own_windows", &previous.own_windows, capacities.own_windows);
    for (index, path) in state.paths.iter().enumerate() {
        add_path(contents, neighbours, (index, path), capacities)?;
    }
    for (index, slot) in state.slots.iter().enumerate() {
        add_slot(
            contents,
            (neighbours, &mut own_windows),
            (index, slot),
            capacities,
        )?;
    }
    contents.own_windows = own_windows.given();
    for (index, pair) in state.pairs.iter().enumerate() {
        add_pair(contents, (index, pair), capacities)?;
    }
    Ok(())
}

fn add_path(
    contents: &mut Contents,
    neighbours: &mut Numbers<'_, IpAddr>,
    (index, path): (usize, &PathState),
    capacities: &Capacities,
) -> Result<(), Error> {
    let field = entry("paths", index, "index");
    numbered(&field, path.index, 1, capacities.paths)?;
    let leg = leg(&entry("paths", index, "leg"), &path.leg, neighbours)?;
    once(field, path.index, contents.paths.insert(path.index, Path { leg }))
}

fn add_slot(
    contents: &mut Contents,
    (neighbours, own_windows): (&mut Numbers<'_, IpAddr>, &mut Numbers<'_, (u32, u32)>),
    (index, slot): (usize, &SlotState),
    capacities: &Capacities,
) -> Result<(), Error> {
    let field = entry("slots", index, "label");
    numbered(&field, slot.label, 1, capacities.slots)?;
    let (keys, epochs) = keys(&entry("slots", index, "keys"), &slot.keys)?;
    let source = Be32::new(u32::from(slot.source));
    let value = match &slot.action {
        SlotAction::Relay(next) => {
            let next = leg(&entry("slots", index, "relay"), next, neighbours)?;
            Slot::relay(source, keys, epochs, next)
        }
        SlotAction::Exit {
            twin,
            window,
            answers,
        } => {
            numbered(&entry("slots", index, "exit.twin"), *twin, 1, capacities.paths)?;
            numbered(
                &entry("slots", index, "exit.window"),
                *window,
                0,
                capacities.windows,
            )?;
            numbered(
                &entry("slots", index, "exit.answers"),
                *answers,
                0,
                capacities.pairs,
            )?;
            contents.windows.insert(*window);
            let copies = if *window == NO_PAIR {
                0
            } else {
                own_windows.of((slot.label, *window))?
            };
            let end = End {
                twin: *twin,
                window: *window,
                answers: *answers,
                copies,
            };
            Slot::exit(source, keys, epochs, end)
        }
    };
    once(field, slot.label, contents.slots.insert(slot.label, value))
}

fn add_pair(
    contents: &mut Contents,
    (index, pair): (usize, &PairState),
    capacities: &Capacities,
) -> Result<(), Error> {
    let field = entry("pairs", index, "index");
    numbered(&field, pair.index, 0, capacities.pairs)?;
    let of = |name: &str, path: Option<u32>| match path {
        None => Ok(NO_PATH),
        Some(path) if contents.paths.contains_key(&path) => Ok(path),
        Some(path) => Err(Error::Dangling {
            field: entry("pairs", index, name),
            value: path,
            missing: "paths",
        }),
    };
    let value = Pair {
        primary: of("primary", pair.primary)?,
        backup: of("backup", pair.backup)?,
        premium: pair.premium.into(),
        duplicate: pair.duplicate.into(),
    };
    once(field, pair.index, contents.pairs.insert(pair.index, value))
}

/// A leg as its sender needs it.
fn leg(field: &str, leg: &LegState, neighbours: &mut Numbers<'_, IpAddr>) -> Result<Leg, Error> {
    in_range(
        format!("{field}.label"),
        leg.label,
        1..=0x000f_ffff,
        "1 to 1048575",
    )?;
    in_range(
        format!("{field}.port"),
        u32::from(leg.port),
        1..=0xffff,
        "1 to 65535",
    )?;
    in_range(
        format!("{field}.address"),
        u32::from(leg.address),
        1..=u32::MAX,
        "an IPv4 address",
    )?;
    let (keys, _) = keys(&format!("{field}.keys"), &leg.keys)?;
    Ok(Leg {
        keys,
        label: leg.label,
        epoch: leg.keys.last().map_or(0, |newest| u32::from(newest.epoch)),
        address: Be32::new(u32::from(leg.address)),
        source_port: Be16::new(leg.source_port),
        port: Be16::new(leg.port),
        neighbour: neighbours.of(leg.address.into())?,
        spare: 0,
    })
}

/// Keys by the lowest bit of their epoch, and the epochs as bits.
fn keys(field: &str, keys: &[LegKey]) -> Result<([TagKey; 2], u32), Error> {
    let epochs: Vec<u8> = keys.iter().map(|key| key.epoch).collect();
    let allowed = match *epochs {
        [only] => only <= 3,
        [older, newer] => older <= 3 && newer == (older + 1) & 3,
        _ => false,
    };
    if !allowed {
        return Err(Error::Value {
            field: field.into(),
            value: format!("epochs {epochs:?}"),
            allowed: "one epoch of 0 to 3, or two that follow each other, the newer last".into(),
        });
    }
    let mut by_bit = [TagKey::default(); 2];
    let mut bits = 0;
    for key in keys {
        by_bit[usize::from(key.epoch & 1)] = tag_key(&key.key);
        bits |= 1 << key.epoch;
    }
    Ok((by_bit, bits))
}

/// A key as SipHash reads it.
#[must_use]
fn tag_key(key: &[u8; 16]) -> TagKey {
    let number = u128::from_le_bytes(*key);
    let [low, high] = [0, 64].map(|shift| {
        let half = (number >> shift) & u128::from(u64::MAX);
        u64::try_from(half).unwrap_or(u64::MAX)
    });
    TagKey { low, high }
}

/// Refuses a number outside its map.
fn numbered(field: &str, number: u32, least: u32, capacity: u32) -> Result<(), Error> {
    let most = capacity.saturating_sub(1);
    in_range(field, number, least..=most, &format!("{least} to {most}"))
}

/// Refuses a number that was there before.
fn once<V>(field: String, number: u32, before: Option<V>) -> Result<(), Error> {
    match before {
        None => Ok(()),
        Some(_) => Err(Error::Repeated {
            field,
            value: number.to_string(),
        }),
    }
}
