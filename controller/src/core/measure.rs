//! What agents measure, by leg and path.

use std::collections::BTreeMap;

use kuafu_model::kinds::Name;

use super::rollout::Target;
use super::{Command, Core, Now, SessionId};

/// A second's report that comes so long after an alarm began after it.
const WHOLE_SECOND_MS: Now = 2_000;

/// Paths are not chosen anew sooner than so long after the last time because a leg is reported for the first time.
const HURRY_MS: Now = 200;

/// One path's figures of a second, from where it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LegReport {
    /// The path's number in the cluster.
    pub path_id: u64,
    /// Packets of the last second.
    pub sent: u32,
    /// Of these, what arrived.
    pub received: u32,
    /// Round trip, median of the last 30 s, µs.
    pub rtt_p50_us: u32,
    /// The 90th percentile.
    pub rtt_p90_us: u32,
    /// Smoothed.
    pub rtt_ewma_us: u32,
    /// Lost fraction of the last 30 s, 0 to 1.
    pub loss: f64,
    /// 0: it is measured now; else it waits for its turn to be probed again, and this was measured so many ms ago.
    pub age_ms: u32,
}

/// What an agent says at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Nothing comes back on the path.
    Dead,
    /// A line of the path loses at least 5 %.
    Loss,
    /// Neither any more.
    Clear,
}

/// A path as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathInfo {
    /// The nodes that it passes.
    pub(super) nodes: Vec<String>,
}

/// A report and when it came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reported {
    pub(super) at: Now,
    pub(super) report: LegReport,
}

impl Reported {
    /// Milliseconds since it was measured.
    pub(super) fn age(&self, now: Now) -> Now {
        now.saturating_sub(self.at) + Now::from(self.report.age_ms)
    }

    /// Whether it waits for its turn to be measured again.
    pub(super) fn rests(&self) -> bool {
        self.report.age_ms > 0
    }
}

/// What is known of paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// By number.
    paths: BTreeMap<u64, PathInfo>,
    /// The last report of each path, by number.
    reports: BTreeMap<u64, Reported>,
    /// The path of each directed leg.
    legs: BTreeMap<(String, String), u64>,
    /// Alarms that stand, and since when.
    alarms: BTreeMap<u64, (Alarm, Now)>,
}

impl Measured {
    /// Learns the paths of the target. Of paths over the same two nodes the one with the lowest number is the leg.
    pub(super) fn index(&mut self, target: &Target) {
        self.paths.clear();
        self.legs.clear();
        for path in target.values().flat_map(|state| &state.paths) {
            let nodes = path.nodes.clone();
            self.paths.insert(path.id, PathInfo { nodes });
            if let [from, to] = path.nodes.as_slice() {
                let leg = self.legs.entry((from.clone(), to.clone())).or_insert(path.id);
                *leg = path.id.min(*leg);
            }
        }
        self.reports.retain(|id, _| self.paths.contains_key(id));
        self.alarms.retain(|id, _| self.paths.contains_key(id));
    }

    /// The loss of a path is over, and its agent counts anew; the last report was before that.
    fn restart_loss(&mut self, id: u64) {
        if let Some(reported) = self.reports.get_mut(&id) {
            reported.report.loss = 0.0;
        }
    }

    /// The last report of a directed leg.
    pub(super) fn leg(&self, from: &str, to: &str) -> Option<&Reported> {
        let id = self.legs.get(&(from.to_owned(), to.to_owned()))?;
        self.reports.get(id)
    }

    /// The directed legs and their last reports.
    pub(super) fn legs(&self) -> impl Iterator<Item = (&str, &str, &Reported)> {
        self.legs.iter().filter_map(|((from, to), id)| {
            let reported = self.reports.get(id)?;
            Some((from.as_str(), to.as_str(), reported))
        })
    }

    /// The directed legs on which nothing comes back.
    pub(super) fn dead(&self) -> impl Iterator<Item = (&str, &str)> {
        let dead = self.legs.iter().filter(|(_, id)| self.has_died(id));
        dead.map(|((from, to), _)| (from.as_str(), to.as_str()))
    }

    /// Whether nothing comes back on a directed leg, by its own alarm.
    pub(super) fn is_dead(&self, from: &str, to: &str) -> bool {
        let id = self.legs.get(&(from.to_owned(), to.to_owned()));
        id.is_some_and(|id| self.has_died(id))
    }

    fn has_died(&self, id: &u64) -> bool {
        let alarm = self.alarms.get(id);
        alarm.is_some_and(|(alarm, _)| *alarm == Alarm::Dead)
    }

    /// Whether a path is the leg between its two ends.
    pub(super) fn is_leg(&self, id: u64) -> bool {
        let nodes = self.paths.get(&id).map(|path| path.nodes.as_slice());
        let Some([from, to]) = nodes else { return false };
        self.legs.get(&(from.clone(), to.clone())) == Some(&id)
    }

    /// Whether a report of this path is the first of a leg whose other direction is known.
    fn completes(&self, id: u64) -> bool {
        let nodes = self.paths.get(&id).map(|path| path.nodes.as_slice());
        let Some([from, to]) = nodes.filter(|_| !self.reports.contains_key(&id)) else {
            return false;
        };
        self.is_leg(id) && self.leg(to, from).is_some()
    }

    /// A path by its number.
    pub(super) fn path(&self, id: u64) -> Option<&PathInfo> {
        self.paths.get(&id)
    }

    /// Round trip of a path by the estimates of its legs, in ms.
    pub(super) fn round_trip_ms(&self, nodes: &[String]) -> Option<f64> {
        let mut sum = 0.0;
        for pair in nodes.windows(2) {
            let [from, to] = pair else {
                return None;
            };
            let reported = self.leg(from, to).or_else(|| self.leg(to, from))?;
            sum += estimate_us(&reported.report) / 1000.0;
        }
        Some(sum)
    }
}

/// r = max(ewma, (ewma + p90) / 2): see `topology::estimate`.
fn estimate_us(report: &LegReport) -> f64 {
    let (ewma, p90) = (f64::from(report.rtt_ewma_us), f64::from(report.rtt_p90_us));
    ewma.max(f64::midpoint(ewma, p90))
}

impl Core {
    /// A second's figures of one host. Those of paths that do not begin there are not taken. Where a leg is now known
    /// both ways, paths are chosen at once: a new relay need not wait for the second to end.
    pub fn handle_reports(&mut self, now: Now, session: SessionId, reports: &[LegReport]) -> Vec<Command> {
        let Some(node) = self.node_of(session).cloned() else {
            return Vec::new();
        };
        let mut completes = false;
        for report in reports {
            if self.begins_at(report.path_id, &node) && report.loss.is_finite() {
                let report = LegReport {
                    loss: report.loss.clamp(0.0, 1.0),
                    ..*report
                };
                self.clear_if_alive(now, &report);
                completes |= self.measured.completes(report.path_id);
                self.measured
                    .reports
                    .insert(report.path_id, Reported { at: now, report });
            }
        }
        if completes && now.saturating_sub(self.steer.told.now.0) >= HURRY_MS {
            return self.handle_tick(now);
        }
        Vec::new()
    }

    /// An agent that was started anew knows nothing of an alarm that it raised before. A second in which packets come
    /// back, wholly after the alarm, says that the path lives.
    fn clear_if_alive(&mut self, now: Now, report: &LegReport) {
        let id = report.path_id;
        let Some((Alarm::Dead, since)) = self.measured.alarms.get(&id).copied() else {
            return;
        };
        if report.received > 0 && now.saturating_sub(since) >= WHOLE_SECOND_MS {
            self.measured.alarms.remove(&id);
            self.note_alarm(id, Some(Alarm::Dead), Alarm::Clear, report.loss);
        }
    }

    /// An alarm of one host, and of a loss the fraction lost: taken where the path begins there, and acted upon at once.
    pub fn handle_alarm(
        &mut self,
        now: Now,
        session: SessionId,
        path_id: u64,
        (alarm, loss): (Alarm, f64),
    ) -> Vec<Command> {
        let Some(node) = self.node_of(session).cloned() else {
            return Vec::new();
        };
        if !self.begins_at(path_id, &node) {
            return Vec::new();
        }
        let before = if alarm == Alarm::Clear {
            self.measured.alarms.remove(&path_id)
        } else {
            self.measured.alarms.insert(path_id, (alarm, now))
        };
        let before = before.map(|(before, _)| before);
        if (before, alarm) == (Some(Alarm::Loss), Alarm::Clear) {
            self.measured.restart_loss(path_id);
        }
        self.note_alarm(path_id, before, alarm, loss);
        self.handle_tick(now)
    }

    fn begins_at(&self, path_id: u64, node: &Name) -> bool {
        let path = self.measured.path(path_id);
        path.and_then(|path| path.nodes.first())
            .is_some_and(|first| first == node.as_str())
    }
}
