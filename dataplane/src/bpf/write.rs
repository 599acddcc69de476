//! The model's batches, into the kernel's maps.

use kuafu_model::contents::{Batch, NO_PAIR};
use kuafu_pipeline::map::{
    Limit, NextHop, OwnWindow, Path, PathState, Shield, ShieldCounts, ShieldState, Slot, SlotState, Vtep,
    Window,
};

use super::Maps;
use crate::error::Result;

impl Maps {
    /// Writes a batch. Neighbours are not written here: whoever looks after them does.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, batch: &Batch<'_>) -> Result<()> {
        match batch {
            Batch::Neighbours(_) | Batch::ForgetNeighbours(_) => Ok(()),
            Batch::Node(node) => self.node.set(&0, node),
            Batch::Vteps(entries) => self.vteps.set_all(pairs(entries)),
            Batch::Paths(entries) => self.paths.set_all(pairs(entries)),
            Batch::Slots(entries) => self.slots.set_all(pairs(entries)),
            Batch::Pairs(entries) => self.pairs.set_all(pairs(entries)),
            Batch::Targets(entries) => self.targets.set_all(pairs(entries)),
            Batch::Members(entries) => self.members.set_all(pairs(entries)),
            Batch::QuicTargets(entries) => self.quic_targets.set_all(pairs(entries)),
            Batch::Limits(entries) => self.limits.set_all(pairs(entries)),
            Batch::Shields(entries) => self.shields.set_all(pairs(entries)),
            Batch::ListAreas(entries) => self.list_areas.set_all(pairs(entries)),
            Batch::Listed(entries) => self.listed.set_all(pairs(entries)),
            Batch::ListMarks(entries) => self.list_marks.set_all(pairs(entries)),
            Batch::Services(entries) => self.services.set_all(pairs(entries)),
            Batch::Ports(entries) => self.ports.set_all(pairs(entries)),
            Batch::Endpoints(entries) => self.endpoints.set_all(pairs(entries)),
            Batch::Senders(entries) => self.senders.set_all(pairs(entries)),
            Batch::Rings(rings) => rings.iter().try_for_each(|(first, targets)| {
                let slots: Vec<u32> = (*first..).take(targets.len()).collect();
                self.rings.set_all(slots.iter().zip(targets))
            }),
            Batch::FreshWindows(all) => each(all, |at| self.windows.set(at, &Window::new())),
            Batch::FreshOwnWindows(all) => each(all, |at| self.own_windows.set(at, &OwnWindow::new())),
            Batch::FreshSlotStates(all) => each(all, |at| self.slot_states.set(at, &SlotState::new())),
            Batch::FreshPathStates(all) => each(all, |at| self.path_states.set(at, &PathState::new())),
            Batch::FreshShieldStates(all) => each(all, |at| {
                self.shield_counts.set(*at, &ShieldCounts::default())?;
                self.shield_states.set(at, &ShieldState::default())
            }),
            Batch::NoVteps(all) => each(all, |at| self.vteps.set(at, &Vtep::default())),
            Batch::NoPaths(all) => each(all, |at| self.paths.set(at, &Path::default())),
            Batch::NoSlots(all) => each(all, |at| self.slots.set(at, &Slot::default())),
            Batch::NoPairs(all) => each(all, |at| self.pairs.set(at, &NO_PAIR)),
            Batch::NoTargets(all) => each(all, |at| self.targets.set(at, &NextHop::default())),
            Batch::NoLimits(all) => each(all, |at| self.limits.set(at, &Limit::default())),
            Batch::NoShields(all) => each(all, |at| self.shields.set(at, &Shield::default())),
            Batch::NoListAreas(all) => each(all, |at| self.list_areas.set(at, &0)),
            Batch::NoListMarks(all) => each(all, |at| self.list_marks.set(at, &0)),
            Batch::NoListed(all) => each(all, |key| self.listed.delete(key)),
            Batch::NoMembers(all) => each(all, |key| self.members.delete(key)),
            Batch::NoQuicTargets(all) => each(all, |key| self.quic_targets.delete(key)),
            Batch::NoServices(all) => each(all, |key| self.services.delete(key)),
            Batch::NoPorts(all) => each(all, |key| self.ports.delete(key)),
            Batch::NoEndpoints(all) => each(all, |key| self.endpoints.delete(key)),
            Batch::NoSenders(all) => each(all, |key| self.senders.delete(key)),
        }
    }
}

fn pairs<K, V>(entries: &[(K, V)]) -> impl Iterator<Item = (&K, &V)> {
    entries.iter().map(|(key, value)| (key, value))
}

fn each<K>(keys: &[K], write: impl Fn(&K) -> Result<()>) -> Result<()> {
    keys.iter().try_for_each(write)
}
