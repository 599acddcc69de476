//! What probes and data of this host's paths measured: reports each second, alarms at once.
//!
//! A probe's fate is known when a later one came home, or two seconds after it left. The round trip is
//! (T4 − T1) − (T3 − T2): the reflector's own time is not the path's. Data packets count by what both ends have
//! counted, which probes bring home: on the path that they take, and where that is direct on its leg too.

mod data;
mod path;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use kuafu_model::HostState;
use kuafu_model::state::PathState as PathInfo;
use kuafu_pipeline::map::{PathState, Sample};
use kuafu_proto::v1;
use kuafu_topology::Millis;

use self::path::Measurement;
use self::watch::Used;
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
    /// Direct paths of pairs, and the legs that they lead over.
    legs: BTreeMap<u32, u32>,
    /// What carried packets as of the last report.
    used: Used,
    probing: v1::Probing,
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
            legs: BTreeMap::new(),
            used: Used::default(),
            probing: v1::Probing::default(),
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
        let legs = watch::legs(state);
        let leg = |path: &PathInfo| match path.nodes.as_slice() {
            [_, end] => legs.get(end.as_str()).map(|leg| (path.index, leg.index)),
            _ => None,
        };
        let over = state.paths.iter().filter_map(leg);
        self.legs = over.filter(|(path, leg)| path != leg).collect();
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
            self.came_home(now, sample);
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
            alarms.extend(path.alarm(now, live.is_dead(jiffies)));
            let word = self.used.word(*index, path.is_doubted(now));
            if word != live.watch {
                set(&opened.states, *index, offset_of!(PathState, watch), word);
            }
        }
        Ok(alarms)
    }

    fn came_home(&mut self, now: Millis, sample: &Sample) {
        let Some(path) = self.paths.get_mut(&sample.path) else {
            return;
        };
        let data = path.came_home(now, sample);
        let leg = self.legs.get(&sample.path);
        if let Some(leg) = leg.and_then(|leg| self.paths.get_mut(leg)) {
            leg.observe(now, data);
        }
    }

    /// The last second of each leg; also learns what carries packets, and what probing takes.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn reports(&mut self, maps: &Maps, clock: &Clock) -> Result<v1::LegReports> {
        if let Some(state) = &self.state {
            self.liveness = read::liveness(maps, state, clock.jiffies()?)?;
            self.used = Used::now(maps, state, clock)?;
        }
        let departed = self.paths.values_mut().map(Measurement::departed).sum();
        self.probing = self.used.probing(departed);
        let now = self.now();
        let reports = self.paths.values_mut().filter_map(|path| path.report(now));
        Ok(v1::LegReports {
            reports: reports.collect(),
            rounds: self.used.rounds(),
        })
    }

    /// Whether paths are watched.
    pub(crate) fn liveness(&self) -> bool {
        self.liveness
    }

    /// What probing takes.
    pub(crate) fn probing(&self) -> v1::Probing {
        self.probing
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
    watch: u64,
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
            watch: word(offset_of!(PathState, watch)),
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use kuafu_model::state::{Host, LegState};

    use super::*;

    pub(super) fn path(index: u32, id: u64, nodes: &[&str]) -> PathInfo {
        PathInfo {
            index,
            id,
            nodes: nodes.iter().map(ToString::to_string).collect(),
            leg: LegState {
                keys: Vec::new(),
                label: 1,
                address: Ipv4Addr::LOCALHOST,
                port: 6081,
                source_port: 50_000,
            },
        }
    }

    pub(super) fn state(paths: Vec<PathInfo>) -> HostState {
        HostState {
            cluster: String::new(),
            revision: 1,
            node: Host {
                id: 1,
                name: "a".into(),
                local: Ipv4Addr::LOCALHOST,
                public: Ipv4Addr::LOCALHOST,
                overlay: Ipv4Addr::LOCALHOST,
                udp_port: 6081,
                nat_ports: None,
            },
            ports: Vec::new(),
            endpoints: Vec::new(),
            vteps: Vec::new(),
            slots: Vec::new(),
            paths,
            pairs: Vec::new(),
            services: Vec::new(),
        }
    }

    #[test]
    fn data_of_a_direct_path_counts_on_its_leg() {
        let mut quality = Quality::default();
        quality.follow(&state(vec![
            path(1, 10, &["a", "b"]),
            path(2, 11, &["a", "c"]),
            path(3, 20, &["a", "b"]),
            path(4, 21, &["a", "c", "b"]),
        ]));
        assert_eq!(quality.legs, BTreeMap::from([(3, 1)]));
        for (at, sequence) in (0..).zip(0..3) {
            for path in [1, 3, 4] {
                let sample = Sample {
                    path,
                    sequence,
                    data_sent: if path == 1 { 0 } else { sequence * 100 },
                    data_received: if path == 1 { 0 } else { sequence * 90 },
                    ..Sample::default()
                };
                quality.came_home(Millis(at * 50), &sample);
            }
        }
        let mut raised = |index| {
            quality
                .paths
                .get_mut(&index)
                .unwrap()
                .alarm(Millis(150), false)
                .is_some()
        };
        assert_eq!([1, 2, 3, 4].map(&mut raised), [true, false, true, true]);
    }
}
