//! What probes and data of this host's paths measured: reports each second, alarms at once.
//!
//! A probe's fate is known when a later one came home, or two seconds after it left. The round trip is
//! (T4 − T1) − (T3 − T2): the reflector's own time is not the path's. Data packets count by what both ends have
//! counted, which probes bring home: on the path that they take, and where that is direct on its leg too.

mod data;
mod path;
mod turns;
mod watch;

use std::collections::BTreeMap;

use kuafu_model::HostState;
use kuafu_model::state::PathState as PathInfo;
use kuafu_pipeline::map::Sample;
use kuafu_proto::v1;
use kuafu_topology::Millis;

use self::path::Measurement;
use self::turns::Turns;
use self::watch::Used;
use crate::error::Result;
use crate::live::{Live, Word};
use crate::read::Measured;

/// So often, in seconds, it is said again what the last turn of a leg came to that rests: a controller may be new.
const REMIND: u64 = 10;

/// Returns in a row after which a path that was down may carry again.
const RETURNS: u64 = 20;

/// What is to be said at once.
#[derive(Debug, Default)]
pub struct News {
    /// Alarms that rose, fell, or became others.
    pub alarms: Vec<v1::Alarm>,
    /// Legs that are reported for the first time: what waits for them need not wait for the second to end.
    pub first: Option<v1::LegReports>,
}

/// The measurements of every path that begins here. Knows no clock: `now` comes in.
#[derive(Debug, Default)]
pub struct Quality {
    state: Option<HostState>,
    paths: BTreeMap<u32, Measurement>,
    /// Direct paths of pairs, and the legs that they lead over.
    legs: BTreeMap<u32, u32>,
    /// What carried packets as of the last report.
    used: Used,
    turns: Turns,
    probing: v1::Probing,
    liveness: bool,
}

impl Quality {
    /// Another state is in force: its paths are those to be measured.
    pub fn follow(&mut self, state: &HostState) {
        let mut before = std::mem::take(&mut self.paths);
        for path in &state.paths {
            let kept = before.remove(&path.index).filter(|kept| kept.id == path.id);
            let legs = u32::try_from(path.nodes.len().saturating_sub(1)).unwrap_or(1);
            let new = || Measurement::new(path.id, legs);
            self.paths.insert(path.index, kept.unwrap_or_else(new));
        }
        let legs = watch::legs(state);
        let leg = |path: &PathInfo| match path.nodes.as_slice() {
            [_, end] => legs.get(end.as_str()).map(|leg| (path.index, leg.index)),
            _ => None,
        };
        let over = state.paths.iter().filter_map(leg);
        self.legs = over.filter(|(path, leg)| path != leg).collect();
        self.turns.follow(state);
        self.state = Some(state.clone());
    }

    /// Takes in what came home since, lets a path that has come back carry again, and returns what is to be said at
    /// once.
    ///
    /// # Errors
    /// `Io`.
    pub fn drain(&mut self, now: Millis, live: &mut impl Live) -> Result<News> {
        for sample in live.samples() {
            self.came_home(now, &sample);
        }
        let jiffies = live.jiffies()?;
        let (mut alarms, mut reports) = (Vec::new(), Vec::new());
        for (index, path) in &mut self.paths {
            let (is_dead, is_back, departed, watch) = live.read(*index, |state| {
                let is_back = state.down.get() != 0 && state.returns.get() >= RETURNS;
                let is_dead = !state.is_fresh(jiffies);
                (is_dead, is_back, state.departed.get(), state.watch.get())
            });
            if is_back {
                live.set(*index, Word::Down, 0);
            }
            path.settle(now, departed);
            alarms.extend(path.alarm(now, is_dead));
            reports.extend(path.first_report(now));
            let rests = self.turns.rests_since(*index).is_some();
            let word = self.used.word(*index, path.is_doubted(now), rests);
            if word != watch {
                live.set(*index, Word::Watch, word);
            }
        }
        let first = match reports.is_empty() {
            true => None,
            false => Some(v1::LegReports {
                reports,
                rounds: live.rounds()?,
            }),
        };
        Ok(News { alarms, first })
    }

    fn came_home(&mut self, now: Millis, sample: &Sample) {
        let Some(path) = self.paths.get_mut(&sample.path) else {
            return;
        };
        let data = path.came_home(now, sample);
        let leg = self.legs.get(&sample.path);
        if let Some(leg) = leg.and_then(|leg| self.paths.get_mut(leg)) {
            leg.data(now, data);
        }
    }

    /// The last second of each leg; also learns what carries packets, and what probing takes.
    ///
    /// # Errors
    /// `Io`.
    pub fn reports(&mut self, now: Millis, live: &impl Live) -> Result<v1::LegReports> {
        if let Some(state) = &self.state {
            self.liveness = is_watched(live, state)?;
            self.used = Used::now(live, state)?;
        }
        let departed = self.paths.values_mut().map(Measurement::departed).sum();
        self.probing = self.used.probing(departed);
        Ok(v1::LegReports {
            reports: self.each_report(now),
            rounds: live.rounds()?,
        })
    }

    fn each_report(&mut self, now: Millis) -> Vec<v1::LegReport> {
        let paths = &mut self.paths;
        let keeps_turn = |index| paths.get(&index).is_some_and(|path| path.keeps_turn(now));
        for index in self.turns.second(now, keeps_turn) {
            if let Some(path) = paths.get_mut(&index) {
                path.begin_turn();
            }
        }
        let reports = paths.iter_mut().filter_map(|(index, path)| {
            let Some(since) = self.turns.rests_since(*index) else {
                return path.report(now);
            };
            let is_due = since == now || (now.0 / 1_000 + u64::from(*index)).is_multiple_of(REMIND);
            if is_due { path.rested(now, since) } else { None }
        });
        reports.collect()
    }

    /// Whether paths are watched.
    #[must_use]
    pub fn liveness(&self) -> bool {
        self.liveness
    }

    /// What probing takes.
    #[must_use]
    pub fn probing(&self) -> v1::Probing {
        self.probing
    }

    /// What was measured of a path, by its number on this host.
    pub(crate) fn measured(&self, path: u32) -> Option<Measured> {
        self.paths.get(&path).map(Measurement::measured)
    }
}

/// Whether a prober watches the paths: it sent on one of them not long ago, by its own measure.
fn is_watched(live: &impl Live, state: &HostState) -> Result<bool> {
    let now = live.jiffies()?;
    let watched = |path: &PathInfo| {
        live.read(path.index, |state| {
            let since = now.saturating_sub(state.last_probe.get());
            state.stale_after.get() != 0 && since <= state.silent_after.get()
        })
    };
    Ok(state.paths.iter().any(watched))
}

#[cfg(test)]
mod crowd;

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
            near: false,
        }
    }

    pub(super) fn state(paths: Vec<PathInfo>) -> HostState {
        HostState {
            paths,
            ..HostState::blank(
                String::new(),
                1,
                Host {
                    id: 1,
                    name: "a".into(),
                    local: Ipv4Addr::LOCALHOST,
                    public: Ipv4Addr::LOCALHOST,
                    overlay: Ipv4Addr::LOCALHOST,
                    udp_port: 6081,
                    nat_ports: None,
                },
            )
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
