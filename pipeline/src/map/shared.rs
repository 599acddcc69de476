//! A number that packets on several CPUs change.

use core::cell::Cell;

/// A number that packets on several CPUs change.
///
/// Reading and writing it are plain loads and stores, which do not tear; what must not lose a change goes through
/// [`Atomics`], since BPF has atomic read-modify-write instructions but (before Linux 6.14) no atomic load.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Shared(Cell<u64>);

impl Shared {
    /// With a value.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(Cell::new(value))
    }

    /// Its value now.
    #[inline(always)]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// Overwrites it.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// Where it is, for a runner's [`Atomics`].
    #[inline(always)]
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u64 {
        self.0.as_ptr()
    }
}

/// How a runner changes shared numbers without losing a change.
pub trait Atomics {
    /// Adds, and returns what was there before.
    fn add(&self, number: &Shared, more: u64) -> u64;

    /// Replaces `from` by `to`; `false` where something else was there.
    #[must_use]
    fn exchange(&self, number: &Shared, from: u64, to: u64) -> bool;
}

/// For one thread alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleThreaded;

impl Atomics for SingleThreaded {
    fn add(&self, number: &Shared, more: u64) -> u64 {
        let before = number.get();
        number.set(before.wrapping_add(more));
        before
    }

    fn exchange(&self, number: &Shared, from: u64, to: u64) -> bool {
        let is = number.get() == from;
        if is {
            number.set(to);
        }
        is
    }
}
