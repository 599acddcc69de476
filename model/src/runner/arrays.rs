//! Arrays whose entries exist from the start, as the kernel's do, but take memory when they are first touched.

use std::cell::OnceCell;

/// An array map of what packets change.
#[derive(Debug)]
pub(super) struct Array<T> {
    entries: Vec<OnceCell<Box<T>>>,
}

impl<T: Default> Array<T> {
    /// So many entries, all as new.
    pub(super) fn new(entries: u32) -> Self {
        Self {
            entries: (0..entries).map(|_| OnceCell::new()).collect(),
        }
    }

    /// An entry; `None` beyond the end.
    pub(super) fn get(&self, index: u32) -> Option<&T> {
        let entry = self.entries.get(index as usize)?;
        Some(entry.get_or_init(Box::default))
    }

    /// Overwrites an entry. What is beyond the end is left out.
    pub(super) fn set(&mut self, index: u32, value: T) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            *entry = OnceCell::from(Box::new(value));
        }
    }

    /// Makes an entry as new.
    pub(super) fn clear(&mut self, index: u32) {
        if let Some(entry) = self.entries.get_mut(index as usize) {
            *entry = OnceCell::new();
        }
    }

    /// Entries that were touched.
    pub(super) fn touched(&self) -> impl Iterator<Item = (usize, &T)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| Some((index, entry.get()?.as_ref())))
    }
}
