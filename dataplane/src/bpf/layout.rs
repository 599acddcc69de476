//! From the maps of one layout to those of another, under traffic.
//!
//! A layout only ever appends: a value of the one before is how the new one begins, and what follows is zero, which
//! must mean what was so before. So entries are carried over octet by octet, to a newer layout and back to an older.

use std::path::Path;

use aya::programs::loaded_programs;
use kuafu_pipeline::map::{PairState, PathState, Shared, SlotState};

use super::pins::{Pins, remove};
use super::program::Program;
use crate::error::{Error, Result};
use crate::sys::{self, Inserted, Octets, RawMap, possible_cpus};

/// How far the numbers of lanes and of probes are put forward: what the programs before send after theirs were read,
/// they send under lower ones.
const ADVANCE: u64 = 1 << 20;
/// What nobody misses: it is full of what was under way.
const LEFT: [&str; 16] = [
    "samples",
    "captured",
    "capture",
    "capture_state",
    "capture_record",
    "icmp_buckets",
    "flow_cache",
    "seen",
    "source_buckets",
    "hitters",
    "hitters_v6",
    "target_signs",
    "chain",
    "chain_frags",
    "passed_on",
    "passed_on_v6",
];
/// What packets change is read last, and what they change most at the very end.
const LAST: [&str; 7] = [
    "connections",
    "tracked",
    "windows",
    "own_windows",
    "slot_states",
    "path_states",
    "pair_states",
];
/// What packets open while it is read.
const OPENED: [&str; 2] = ["connections", "tracked"];
/// Entries that are read by one call.
const BATCH: u32 = 1024;

/// Where maps of another layout are pinned: carries over what they hold, lets these programs take over from those that
/// run, and removes the others. Broken off at any moment, it is done again.
pub(super) fn carry_over(pins: &Pins, programs: &[&Program]) -> Result<()> {
    for other in pins.of_other_layouts()? {
        tracing::info!(from = %other.folder().display(), "maps of another layout are carried over");
        for name in in_order(&other, pins)? {
            copy(&name, &other.map(&name), &pins.map(&name))?;
        }
        take_over(pins, programs)?;
        // Opened meanwhile.
        for name in OPENED
            .into_iter()
            .filter(|name| other.map(name).exists() && pins.map(name).exists())
        {
            add(name, &other.map(name), &pins.map(name))?;
        }
        other.remove_layout()?;
    }
    Ok(())
}

/// The maps that both have, in the order in which they are read.
fn in_order(from: &Pins, to: &Pins) -> Result<Vec<String>> {
    let mut names = from.map_names()?;
    names.retain(|name| !LEFT.contains(&name.as_str()) && to.map(name).exists());
    let rank = |name: &String| LAST.iter().position(|last| last == name).map_or(0, |at| at + 1);
    names.sort_by_key(rank);
    Ok(names)
}

fn copy(name: &str, from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (open(from)?, open(to)?);
    each(name, &from, |key, value| {
        let mut value = resized(value, &from, &to).map_err(failed(name))?;
        adjust(name, key, &mut value, &to).map_err(failed(name))?;
        match to.update(key, &value) {
            // A smaller array, or a full table.
            Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOENT)) => Ok(()),
            written => written.map_err(failed(name)),
        }
    })
}

/// What is not there yet.
fn add(name: &str, from: &Path, to: &Path) -> Result<()> {
    let (from, to) = (open(from)?, open(to)?);
    each(name, &from, |key, value| {
        let value = resized(value, &from, &to).map_err(failed(name))?;
        match to.insert(key, &value) {
            Ok(Inserted::New | Inserted::There) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Ok(()),
            Err(error) => Err(failed(name)(error)),
        }
    })
}

/// Hands over every entry that is not all zeros.
fn each(name: &str, map: &RawMap, mut take: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let (key_size, mut room) = (map.info.key_size as usize, BATCH);
    let (mut cursor, mut more) = (Vec::new(), true);
    while more {
        let mut keys = vec![0; room as usize * key_size];
        let mut values = vec![0; room as usize * map.value_size];
        let (count, rest) = match map.lookup_batch(&mut cursor, &mut keys, &mut values, room) {
            // A bucket of a hash map does not fit.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                room *= 2;
                continue;
            }
            read => read.map_err(failed(name))?,
        };
        more = rest;
        let entries = keys.chunks(key_size).zip(values.chunks(map.value_size));
        for (key, value) in entries.take(count as usize) {
            if value.iter().any(|octet| *octet != 0) {
                take(key, value)?;
            }
        }
    }
    Ok(())
}

/// A value as the other map has it: of each CPU, where it is a per-CPU map.
fn resized(value: &[u8], from: &RawMap, to: &RawMap) -> std::io::Result<Vec<u8>> {
    let cpus = if from.is_per_cpu() { possible_cpus()? } else { 1 };
    let (before, after) = (from.value_size / cpus, to.value_size / cpus);
    let mut resized = vec![0; to.value_size];
    for (new, old) in resized.chunks_mut(after).zip(value.chunks(before)) {
        let both = before.min(after);
        new[..both].copy_from_slice(&old[..both]);
    }
    Ok(resized)
}

/// Puts the numbers of a pair or of a path forward; never behind those that programs over the new map have given.
///
/// What was counted is put back as far: packets that are counted meanwhile would else seem lost, and whoever compares
/// the counts of both ends begins anew where one goes back (`quality::data`).
fn adjust(name: &str, key: &[u8], value: &mut [u8], to: &RawMap) -> std::io::Result<()> {
    match name {
        "pair_states" => change(key, value, to, |state: &PairState, there: &PairState| {
            let lanes = state.lanes.iter().zip(&there.lanes);
            lanes.for_each(|(lane, there)| forward(lane, there));
        }),
        "path_states" => change(key, value, to, |state: &PathState, there: &PathState| {
            forward(&state.next_probe, &there.next_probe);
            state.sent.set(state.sent.get().saturating_sub(ADVANCE));
        }),
        "slot_states" => change(key, value, to, |state: &SlotState, _| {
            state.received.set(state.received.get().saturating_sub(ADVANCE));
        }),
        _ => Ok(()),
    }
}

fn forward(number: &Shared, there: &Shared) {
    number.set((number.get() + ADVANCE).max(there.get()));
}

/// Changes a value by what the new map has in its place. An older layout has only the beginning of both.
fn change<V: Octets>(
    key: &[u8],
    value: &mut [u8],
    to: &RawMap,
    change: impl FnOnce(&V, &V),
) -> std::io::Result<()> {
    let mut there = vec![0; to.value_size];
    to.get(key, &mut there)?;
    let whole = |octets: &[u8]| {
        let mut whole = octets.to_vec();
        whole.resize(octets.len().max(size_of::<V>()), 0);
        V::from_octets(&whole)
    };
    if let (Some(new), Some(there)) = (whole(value), whole(&there)) {
        change(&new, &there);
        let octets = new.to_octets();
        let both = octets.len().min(value.len());
        value[..both].copy_from_slice(&octets[..both]);
    }
    Ok(())
}

/// Lets every pinned link run the program of the same name.
fn take_over(pins: &Pins, programs: &[&Program]) -> Result<()> {
    for link in pins.link_names()? {
        let path = pins.links().join(&link);
        let Some(fd) = Pins::open(&path) else { continue };
        let action = || format!("replace the program of {}", path.display());
        let info = sys::link_info(std::os::fd::AsFd::as_fd(&fd)).map_err(Error::io(action()))?;
        // The kernel keeps 15 letters of a name.
        let running = loaded_programs()
            .flatten()
            .find(|program| program.id() == info.program);
        let name = running.and_then(|program| program.name_as_str().map(str::to_owned));
        let successor = programs
            .iter()
            .find(|program| name.as_deref() == program.name().get(..15.min(program.name().len())));
        match successor {
            Some(program) => {
                sys::link_update(std::os::fd::AsFd::as_fd(&fd), std::os::fd::AsFd::as_fd(*program))
                    .map_err(Error::io(action()))?
            }
            // Its device is gone.
            None => remove(&path)?,
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<RawMap> {
    let opened = sys::open_pin(path).and_then(RawMap::new);
    opened.map_err(Error::io(format!("open {}", path.display())))
}

fn failed(name: &str) -> impl Fn(std::io::Error) -> Error {
    let action = format!("carry over the map {name}");
    move |source| Error::io(action.clone())(source)
}
