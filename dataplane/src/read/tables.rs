//! The maps, read back: what programs would meet now.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kuafu_model::contents::Contents;
use kuafu_pipeline::map::{Limit, Neighbour, NextHop, Pair, Path, Service, Shield, Slot, SlotKind, Vtep};

use crate::bpf::{Map, Maps};
use crate::error::Result;
use crate::sys::Octets;

/// What the maps hold of what an agent writes. An array's entry counts as absent where it was never written.
///
/// # Errors
/// `Io`.
pub fn contents(maps: &Maps) -> Result<Contents> {
    let services = all(&maps.services)?;
    let slots = written(&maps.slots, |slot: &Slot| slot.kind() != SlotKind::Free)?;
    let exits = slots.values().filter(|slot| slot.kind() == SlotKind::Exit);
    let mut contents = Contents {
        node: maps.node.get(&0)?.unwrap_or_default(),
        ports: all(&maps.ports)?.into_iter().collect(),
        endpoints: all(&maps.endpoints)?.into_iter().collect(),
        senders: all(&maps.senders)?.into_iter().collect(),
        vteps: written(&maps.vteps, |vtep| *vtep != Vtep::default())?,
        windows: exits.map(|slot| slot.window).collect(),
        paths: written(&maps.paths, |path| *path != Path::default())?,
        pairs: written(&maps.pairs, |pair| *pair != Pair::default())?,
        rings: rings(maps, services.iter().map(|(_, service)| service))?,
        targets: written(&maps.targets, |target| *target != NextHop::default())?,
        members: all(&maps.members)?.into_iter().collect(),
        quic_targets: all(&maps.quic_targets)?.into_iter().collect(),
        limits: written(&maps.limits, |limit| *limit != Limit::default())?,
        shields: written(&maps.shields, |shield| *shield != Shield::default())?,
        list_areas: written(&maps.list_areas, |lists| *lists != 0)?,
        listed: all(&maps.listed)?.into_iter().collect(),
        services: services.into_iter().collect(),
        slots,
        ..Contents::default()
    };
    // Marks are written after what they stand for, and go before it.
    if !contents.listed.is_empty() {
        contents.list_marks = written(&maps.list_marks, |marks| *marks != 0)?;
    }
    contents.recover_neighbours();
    contents.recover_own_windows();
    Ok(contents)
}

/// The links of the neighbours that the agent knows, by the address that they lead to.
pub(crate) fn links(maps: &Maps, contents: &Contents) -> Result<Vec<(IpAddr, Neighbour)>> {
    let mut links = Vec::new();
    for (number, address) in &contents.neighbours {
        let link = maps.neighbours.get(number)?;
        links.extend(link.map(|link| (*address, link)));
    }
    Ok(links)
}

/// The ring of each service, and the one before where that still counts, by its first slot.
fn rings<'s>(maps: &Maps, services: impl Iterator<Item = &'s Service>) -> Result<BTreeMap<u32, Vec<u32>>> {
    let mut rings = BTreeMap::new();
    let both = services.flat_map(|service| {
        [
            (service.first, service.size),
            (service.previous_first, service.previous_size),
        ]
    });
    for (first, size) in both.filter(|(_, size)| *size != 0) {
        if rings.contains_key(&first) {
            continue;
        }
        let slots = first..first.saturating_add(size);
        let ring: Result<Vec<u32>> = slots
            .map(|slot| Ok(maps.rings.get(&slot)?.unwrap_or_default()))
            .collect();
        rings.insert(first, ring?);
    }
    Ok(rings)
}

fn all<K: Octets, V: Octets>(map: &Map<K, V>) -> Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    map.for_each(|key, value| entries.push((key, value)))?;
    Ok(entries)
}

/// The entries of an array that `is_written` takes.
fn written<V: Octets>(map: &Map<u32, V>, is_written: impl Fn(&V) -> bool) -> Result<BTreeMap<u32, V>> {
    let mut entries = BTreeMap::new();
    map.for_each(|index, value| {
        if is_written(&value) {
            entries.insert(index, value);
        }
    })?;
    Ok(entries)
}
