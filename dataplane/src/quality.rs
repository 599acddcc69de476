//! What the probes of this host's paths measured: reports each second, alarms at once.
//!
//! A probe's fate is known when a later one came home, or two seconds after it left. The round trip is
//! (T4 − T1) − (T3 − T2): the reflector's own time is not the path's.

mod path;

use std::collections::BTreeMap;
use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use kuafu_model::HostState;
use kuafu_pipeline::map::{PathState, Sample};
use kuafu_proto::v1;
use kuafu_topology::Millis;

use self::path::Measurement;
use crate::bpf::{Clock, Maps, Reader, Words};
use crate::error::Result;
use crate::read::{self, Measured};

/// Returns in a row after which a path that was down may carry again.
const RETURNS: u64 = 20;

/// The measurements of every path that begins here.
pub(crate) struct Quality {
    start: Instant,
    state: Option<HostState>,
    opened: Option<Opened>,
    paths: BTreeMap<u32, Measurement>,
    liveness: bool,
}

/// What is read and written beside the maps' own calls.
struct Opened {
    samples: Reader<Sample>,
    states: Words,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            state: None,
            opened: None,
            paths: BTreeMap::new(),
            liveness: false,
        }
    }
}

impl fmt::Debug for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quality")
            .field("paths", &self.paths.len())
            .field("liveness", &self.liveness)
            .finish_non_exhaustive()
    }
}

impl Quality {
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn opened(&mut self, maps: &Maps) -> Result<&mut Opened> {
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => Opened {
                samples: maps.samples.reader()?,
                states: maps.path_states.words()?,
            },
        };
        Ok(self.opened.insert(opened))
    }

    /// Another state is in force: its paths are those to be measured.
    pub(crate) fn follow(&mut self, state: &HostState) {
        let mut before = std::mem::take(&mut self.paths);
        for path in &state.paths {
            let kept = before.remove(&path.index).filter(|kept| kept.id == path.id);
            let new = || Measurement::new(path.id, path.nodes.len() == 2);
            self.paths.insert(path.index, kept.unwrap_or_else(new));
        }
        self.state = Some(state.clone());
    }

    /// Takes in what came home since, lets a path that has come back carry again, and returns what is to be said at
    /// once.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn drain(&mut self, maps: &Maps, clock: &Clock) -> Result<Vec<v1::Alarm>> {
        let now = self.now();
        let samples: Vec<Sample> = self.opened(maps)?.samples.by_ref().collect();
        for sample in &samples {
            if let Some(path) = self.paths.get_mut(&sample.path) {
                path.came_home(now, sample);
            }
        }
        let jiffies = clock.jiffies()?;
        let Some(opened) = &self.opened else {
            return Ok(Vec::new());
        };
        let mut alarms = Vec::new();
        for (index, path) in &mut self.paths {
            let live = Live::of(&opened.states, *index);
            if live.down && live.returns >= RETURNS {
                set(&opened.states, *index, offset_of!(PathState, down), 0);
            }
            path.settle(now, live.departed);
            alarms.extend(path.alarm(live.is_dead(jiffies)));
        }
        Ok(alarms)
    }

    /// The last second of each leg.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn reports(&mut self, maps: &Maps, clock: &Clock) -> Result<v1::LegReports> {
        self.liveness = match &self.state {
            Some(state) => read::liveness(maps, state, clock.jiffies()?)?,
            None => false,
        };
        let now = self.now();
        let reports = self.paths.values_mut().filter_map(|path| path.report(now));
        Ok(v1::LegReports {
            reports: reports.collect(),
        })
    }

    /// Whether paths are watched.
    pub(crate) fn liveness(&self) -> bool {
        self.liveness
    }

    /// What was measured of a path, by its number on this host.
    pub(crate) fn measured(&self, path: u32) -> Option<Measured> {
        self.paths.get(&path).map(Measurement::measured)
    }
}

/// What the programs and the prober keep of a path.
struct Live {
    down: bool,
    returns: u64,
    departed: u64,
    last_echo: u64,
    last_probe: u64,
    stale_after: u64,
    silent_after: u64,
}

impl Live {
    fn of(states: &Words, index: u32) -> Self {
        let word = |offset| states.word(index, offset).map_or(0, |word| word.load(Relaxed));
        Self {
            down: word(offset_of!(PathState, down)) != 0,
            returns: word(offset_of!(PathState, returns)),
            departed: word(offset_of!(PathState, departed)),
            last_echo: word(offset_of!(PathState, last_echo)),
            last_probe: word(offset_of!(PathState, last_probe)),
            stale_after: word(offset_of!(PathState, stale_after)),
            silent_after: word(offset_of!(PathState, silent_after)),
        }
    }

    /// As [`PathState::is_fresh`] judges it.
    fn is_dead(&self, now: u64) -> bool {
        let state = PathState::new();
        state.down.set(self.down.into());
        state.last_echo.set(self.last_echo);
        state.last_probe.set(self.last_probe);
        state.stale_after.set(self.stale_after);
        state.silent_after.set(self.silent_after);
        !state.is_fresh(now)
    }
}

fn set(states: &Words, index: u32, offset: usize, value: u64) {
    if let Some(word) = states.word(index, offset) {
        word.store(value, Relaxed);
    }
}
