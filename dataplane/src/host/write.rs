//! The model's batches, into the kernel's maps.

use kuafu_model::contents::{Batch, NO_PAIR};
use kuafu_pipeline::map::{NextHop, Path, PathState, Slot, SlotState, Vtep, Window};

use crate::bpf::Maps;
use crate::error::Result;

/// Writes a batch. Neighbours are not written here: whoever looks after them does.
///
/// # Errors
/// `Io`.
pub(super) fn batch(maps: &Maps, batch: &Batch<'_>) -> Result<()> {
    match batch {
        Batch::Neighbours(_) | Batch::ForgetNeighbours(_) => Ok(()),
        Batch::Node(node) => maps.node.set(&0, node),
        Batch::Vteps(entries) => maps.vteps.set_all(pairs(entries)),
        Batch::Paths(entries) => maps.paths.set_all(pairs(entries)),
        Batch::Slots(entries) => maps.slots.set_all(pairs(entries)),
        Batch::Pairs(entries) => maps.pairs.set_all(pairs(entries)),
        Batch::Targets(entries) => maps.targets.set_all(pairs(entries)),
        Batch::Services(entries) => maps.services.set_all(pairs(entries)),
        Batch::Ports(entries) => maps.ports.set_all(pairs(entries)),
        Batch::Endpoints(entries) => maps.endpoints.set_all(pairs(entries)),
        Batch::Senders(entries) => maps.senders.set_all(pairs(entries)),
        Batch::Rings(rings) => rings.iter().try_for_each(|(first, targets)| {
            let slots: Vec<u32> = (*first..).take(targets.len()).collect();
            maps.rings.set_all(slots.iter().zip(targets))
        }),
        Batch::FreshWindows(all) => each(all, |at| maps.windows.set(at, &Window::new())),
        Batch::FreshSlotStates(all) => each(all, |at| maps.slot_states.set(at, &SlotState::new())),
        Batch::FreshPathStates(all) => each(all, |at| maps.path_states.set(at, &PathState::new())),
        Batch::NoVteps(all) => each(all, |at| maps.vteps.set(at, &Vtep::default())),
        Batch::NoPaths(all) => each(all, |at| maps.paths.set(at, &Path::default())),
        Batch::NoSlots(all) => each(all, |at| maps.slots.set(at, &Slot::default())),
        Batch::NoPairs(all) => each(all, |at| maps.pairs.set(at, &NO_PAIR)),
        Batch::NoTargets(all) => each(all, |at| maps.targets.set(at, &NextHop::default())),
        Batch::NoServices(all) => each(all, |key| maps.services.delete(key)),
        Batch::NoPorts(all) => each(all, |key| maps.ports.delete(key)),
        Batch::NoEndpoints(all) => each(all, |key| maps.endpoints.delete(key)),
        Batch::NoSenders(all) => each(all, |key| maps.senders.delete(key)),
    }
}

fn pairs<K, V>(entries: &[(K, V)]) -> impl Iterator<Item = (&K, &V)> {
    entries.iter().map(|(key, value)| (key, value))
}

fn each<K>(keys: &[K], write: impl Fn(&K) -> Result<()>) -> Result<()> {
    keys.iter().try_for_each(write)
}
