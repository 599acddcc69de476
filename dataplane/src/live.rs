//! What an agent and a prober read and write beside the packets, wherever the programs run: in the kernel's maps, or
//! in the tables of a host of the model.

use std::collections::BTreeSet;
use std::mem::offset_of;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use kuafu_model::runner::Host;
use kuafu_pipeline::map::{Pair, PairState, PathState, Sample};

use crate::bpf::{Clock, Maps, Reader, Words};
use crate::error::Result;

/// Keys are renewed each 2^28 numbers of a lane.
const ROUND_BITS: u32 = 28;
/// Jiffies a second of a host of the model.
pub const MODEL_HZ: u64 = 1_000;

/// A word of what packets change in a path that is not theirs to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// `down`: the agent clears it.
    Down,
    /// `watch`: the agent's.
    Watch,
    /// `silent_after`: the prober's.
    SilentAfter,
    /// `stale_after`: the prober's.
    StaleAfter,
}

/// The tables of a host whose programs run.
pub trait Live {
    /// The programs' coarse clock.
    ///
    /// # Errors
    /// `Io`.
    fn jiffies(&self) -> Result<u64>;
    /// A duration by that clock, rounded up.
    fn ticks(&self, duration: Duration) -> u64;
    /// Takes out the measurements that have come home.
    fn samples(&mut self) -> Vec<Sample>;
    /// Reads what packets changed in a path, as it is now; as new beyond the table.
    fn read<T>(&self, path: u32, read: impl FnOnce(&PathState) -> T) -> T;
    /// Writes a word of it.
    fn set(&self, path: u32, word: Word, value: u64);
    /// The pairs that carried a packet since then.
    ///
    /// # Errors
    /// `Io`.
    fn carrying(&self, since: u64) -> Result<BTreeSet<u32>>;
    /// How often lanes of pairs passed 2^28 sequence numbers, together: keys are renewed each time.
    ///
    /// # Errors
    /// `Io`.
    fn rounds(&self) -> Result<u64>;
    /// The pairs.
    ///
    /// # Errors
    /// `Io`.
    fn pairs(&self) -> Result<Vec<(u32, Pair)>>;
    /// The paths that lead somewhere.
    ///
    /// # Errors
    /// `Io`.
    fn installed(&self) -> Result<Vec<u32>>;
    /// Whether a path leads somewhere.
    ///
    /// # Errors
    /// `Io`.
    fn is_installed(&self, path: u32) -> Result<bool>;
}

/// What is open of the kernel's maps beside their own calls.
pub(crate) struct Opened {
    words: Words,
    samples: Option<Reader<Sample>>,
}

impl Opened {
    /// For the agent: there is one reader of samples on a host.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn with_samples(maps: &Maps) -> Result<Self> {
        Ok(Self {
            samples: Some(maps.samples.reader()?),
            ..Self::without_samples(maps)?
        })
    }

    /// For the prober.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn without_samples(maps: &Maps) -> Result<Self> {
        Ok(Self {
            words: maps.path_states.words()?,
            samples: None,
        })
    }
}

/// The kernel's maps.
pub(crate) struct Kernel<'k> {
    pub(crate) maps: &'k Maps,
    pub(crate) clock: &'k Clock,
    pub(crate) opened: &'k mut Opened,
}

impl Live for Kernel<'_> {
    fn jiffies(&self) -> Result<u64> {
        self.clock.jiffies()
    }

    fn ticks(&self, duration: Duration) -> u64 {
        self.clock.ticks(duration)
    }

    fn samples(&mut self) -> Vec<Sample> {
        self.opened.samples.iter_mut().flatten().collect()
    }

    fn read<T>(&self, path: u32, read: impl FnOnce(&PathState) -> T) -> T {
        let words = &self.opened.words;
        let word = |offset| words.word(path, offset).map_or(0, |word| word.load(Relaxed));
        let state = PathState::new();
        state.last_echo.set(word(offset_of!(PathState, last_echo)));
        state.last_probe.set(word(offset_of!(PathState, last_probe)));
        state.sent.set(word(offset_of!(PathState, sent)));
        state.stale_after.set(word(offset_of!(PathState, stale_after)));
        state.silent_after.set(word(offset_of!(PathState, silent_after)));
        state.down.set(word(offset_of!(PathState, down)));
        state.returns.set(word(offset_of!(PathState, returns)));
        state.last_return.set(word(offset_of!(PathState, last_return)));
        state.next_probe.set(word(offset_of!(PathState, next_probe)));
        state.departed.set(word(offset_of!(PathState, departed)));
        state.watch.set(word(offset_of!(PathState, watch)));
        read(&state)
    }

    fn set(&self, path: u32, word: Word, value: u64) {
        let offset = match word {
            Word::Down => offset_of!(PathState, down),
            Word::Watch => offset_of!(PathState, watch),
            Word::SilentAfter => offset_of!(PathState, silent_after),
            Word::StaleAfter => offset_of!(PathState, stale_after),
        };
        if let Some(word) = self.opened.words.word(path, offset) {
            word.store(value, Relaxed);
        }
    }

    fn carrying(&self, since: u64) -> Result<BTreeSet<u32>> {
        let mut carrying = BTreeSet::new();
        self.maps.pair_states.for_each(|index, state| {
            let last_packet = state.last_packet.get();
            if last_packet != 0 && last_packet >= since {
                carrying.insert(index);
            }
        })?;
        Ok(carrying)
    }

    fn rounds(&self) -> Result<u64> {
        let mut sum = 0;
        self.maps.pair_states.for_each(|_, state| sum += rounds(&state))?;
        Ok(sum)
    }

    fn pairs(&self) -> Result<Vec<(u32, Pair)>> {
        let mut pairs = Vec::new();
        self.maps
            .pairs
            .for_each(|index, pair| pairs.push((index, pair)))?;
        Ok(pairs)
    }

    fn installed(&self) -> Result<Vec<u32>> {
        let mut installed = Vec::new();
        self.maps.paths.for_each(|index, path| {
            if path.leg.label != 0 {
                installed.push(index);
            }
        })?;
        Ok(installed)
    }

    fn is_installed(&self, path: u32) -> Result<bool> {
        let path = self.maps.paths.get(&path)?;
        Ok(path.is_some_and(|path| path.leg.label != 0))
    }
}

impl Live for Host {
    fn jiffies(&self) -> Result<u64> {
        Ok(self.clock().0)
    }

    fn ticks(&self, duration: Duration) -> u64 {
        let ticks = (duration.as_micros() * u128::from(MODEL_HZ)).div_ceil(1_000_000);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    fn samples(&mut self) -> Vec<Sample> {
        self.take_samples()
    }

    fn read<T>(&self, path: u32, read: impl FnOnce(&PathState) -> T) -> T {
        read(self.path_state(path).unwrap_or(&PathState::new()))
    }

    fn set(&self, path: u32, word: Word, value: u64) {
        let Some(state) = self.path_state(path) else {
            return;
        };
        match word {
            Word::Down => state.down.set(value),
            Word::Watch => state.watch.set(value),
            Word::SilentAfter => state.silent_after.set(value),
            Word::StaleAfter => state.stale_after.set(value),
        }
    }

    fn carrying(&self, since: u64) -> Result<BTreeSet<u32>> {
        let carrying = self.pair_states().filter(|(_, state)| {
            let last_packet = state.last_packet.get();
            last_packet != 0 && last_packet >= since
        });
        Ok(carrying
            .filter_map(|(index, _)| u32::try_from(index).ok())
            .collect())
    }

    fn rounds(&self) -> Result<u64> {
        Ok(self.pair_states().map(|(_, state)| rounds(state)).sum())
    }

    fn pairs(&self) -> Result<Vec<(u32, Pair)>> {
        let pairs = self.contents().pairs.iter();
        Ok(pairs.map(|(index, pair)| (*index, *pair)).collect())
    }

    fn installed(&self) -> Result<Vec<u32>> {
        Ok(self.contents().paths.keys().copied().collect())
    }

    fn is_installed(&self, path: u32) -> Result<bool> {
        Ok(self.contents().paths.contains_key(&path))
    }
}

fn rounds(state: &PairState) -> u64 {
    state.lanes.iter().map(|lane| lane.get() >> ROUND_BITS).sum()
}
