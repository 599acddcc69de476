//! Numbers and ranges that stay what they are while someone uses them.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::Error;

/// Numbers from 1 on for distinct values. A value keeps the number that it had; what becomes free now is given to
/// others by a later update at the earliest.
pub(super) struct Numbers<'p, V> {
    map: &'static str,
    capacity: u32,
    previous: &'p BTreeMap<u32, V>,
    known: HashMap<V, u32>,
    given: BTreeMap<u32, V>,
    next: u32,
}

impl<'p, V: Copy + Eq + Hash> Numbers<'p, V> {
    /// None given yet.
    pub(super) fn new(map: &'static str, previous: &'p BTreeMap<u32, V>, capacity: u32) -> Self {
        Self {
            map,
            capacity,
            previous,
            known: previous.iter().map(|(number, value)| (*value, *number)).collect(),
            given: BTreeMap::new(),
            next: 1,
        }
    }

    /// The number of a value.
    ///
    /// # Errors
    /// `Full` where none is free.
    pub(super) fn of(&mut self, value: V) -> Result<u32, Error> {
        let number = match self.known.get(&value) {
            Some(number) => *number,
            None => self.fresh()?,
        };
        self.known.insert(value, number);
        self.given.insert(number, value);
        Ok(number)
    }

    fn fresh(&mut self) -> Result<u32, Error> {
        while self.previous.contains_key(&self.next) {
            self.next += 1;
        }
        if self.next >= self.capacity {
            return Err(Error::Full {
                map: self.map,
                capacity: self.capacity,
                needed: u64::from(self.next) + 1,
            });
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    /// All that were given.
    pub(super) fn given(self) -> BTreeMap<u32, V> {
        self.given
    }
}

/// Ranges of an array: first slot → length.
pub(super) struct Ranges {
    capacity: u32,
    taken: BTreeMap<u32, u32>,
    /// By length the end of the range that was given last: there is no such gap before it any more.
    searched: HashMap<u32, u32>,
}

impl Ranges {
    /// With these ranges taken: all that packets may still be reading.
    pub(super) fn new(capacity: u32, taken: impl Iterator<Item = (u32, u32)>) -> Self {
        Self {
            capacity,
            taken: taken.filter(|(_, length)| *length != 0).collect(),
            searched: HashMap::new(),
        }
    }

    /// The lowest gap of `length` slots.
    ///
    /// # Errors
    /// `Full` where there is none.
    pub(super) fn take(&mut self, length: u32) -> Result<u32, Error> {
        let mut first = self.searched.get(&length).copied().unwrap_or(0);
        for (taken, length_taken) in self.taken.range(first..) {
            if taken.saturating_sub(first) >= length {
                break;
            }
            first = first.max(taken + length_taken);
        }
        if u64::from(first) + u64::from(length) > u64::from(self.capacity) {
            return Err(Error::Full {
                map: "rings",
                capacity: self.capacity,
                needed: u64::from(first) + u64::from(length),
            });
        }
        self.taken.insert(first, length);
        self.searched.insert(length, first + length);
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_freed_ones_rest() {
        let previous = BTreeMap::from([(1, 'a'), (2, 'b'), (4, 'd')]);
        let mut numbers = Numbers::new("targets", &previous, 6);
        assert_eq!(numbers.of('d'), Ok(4));
        assert_eq!(numbers.of('x'), Ok(3), "1 and 2 may still be in use");
        assert_eq!(numbers.of('y'), Ok(5));
        assert_eq!(numbers.of('x'), Ok(3));
        assert!(matches!(numbers.of('z'), Err(Error::Full { .. })));
        assert_eq!(numbers.given(), BTreeMap::from([(3, 'x'), (4, 'd'), (5, 'y')]));
    }

    #[test]
    fn ranges_take_the_lowest_gap() {
        let mut ranges = Ranges::new(20, [(0, 4), (6, 4)].into_iter());
        assert_eq!(ranges.take(2), Ok(4));
        assert_eq!(ranges.take(5), Ok(10));
        assert_eq!(ranges.take(1), Ok(15), "whatever longer ones have passed by");
        assert_eq!(ranges.take(4), Ok(16));
        assert!(ranges.take(1).is_err());
    }
}
