//! One path's packets, counted: its probes, and the data that flows on it.

use std::collections::VecDeque;

use kuafu_pipeline::map::Sample;
use kuafu_proto::v1;
use kuafu_proto::v1::alarm::Kind;
use kuafu_topology as topology;
use kuafu_topology::{LegEstimator, LossAlarm, Millis, Verdict};

use super::data::{Counted, Data};
use crate::read::Measured;

/// After so long a probe does not come home any more.
const LOST_MS: u64 = 2_000;
/// So long after an alarm rose its path is watched closely, so that its end is known soon.
const DOUBT_MS: u64 = 600_000;

/// Probes that come home before a leg is reported for the first time: a quarter of a second's.
const FIRST: u64 = 5;

/// Lost in a million of a path that is not watched more closely for it.
const TOLERABLE_PPM: u32 = 3_000;

/// What was measured of a path.
#[derive(Debug)]
pub(super) struct Measurement {
    /// The path's number in the cluster.
    pub(super) id: u64,
    /// Of how many legs it is; those of one are reported.
    legs: u32,
    estimator: LegEstimator,
    loss: LossAlarm,
    /// Lost in a million of the packets that raised the alarm.
    loss_ppm: u32,
    data: Data,
    /// The count of departures, as it was at times of the last two seconds.
    departures: VecDeque<(Millis, u64)>,
    /// The same as of the last look at how many left.
    left: u64,
    /// Numbers below it do not count: until the first probe comes home, the other end may not be there yet.
    first: Option<u64>,
    /// Numbers below it have a fate.
    known: u64,
    /// How many came home since the first drain.
    received: u64,
    /// How many of those that have a fate were told as sent and as lost.
    told: (u64, u64),
    /// The same as of the last report, with what had come home.
    reported: (u64, u64),
    /// The last report; of a leg that takes turns, in this turn or the last.
    last: Option<v1::LegReport>,
    /// Whether there was one ever.
    is_known: bool,
    /// What was said last.
    alarm: Kind,
    /// When an alarm last rose, or became another.
    risen: Option<Millis>,
    shown: Measured,
}

impl Measurement {
    /// A path of which nothing is known.
    pub(super) fn new(id: u64, legs: u32) -> Self {
        Self {
            id,
            legs,
            estimator: LegEstimator::new(),
            loss: LossAlarm::new(),
            loss_ppm: 0,
            data: Data::default(),
            departures: VecDeque::new(),
            left: 0,
            first: None,
            known: 0,
            received: 0,
            told: (0, 0),
            reported: (0, 0),
            last: None,
            is_known: false,
            alarm: Kind::Clear,
            risen: None,
            shown: Measured::default(),
        }
    }

    /// Takes in a probe that came home; returns what it says of the path's data.
    pub(super) fn came_home(&mut self, now: Millis, sample: &Sample) -> Counted {
        let number = u64::from(sample.sequence);
        // Of probes that left before this began, the number is not counted; the round trip is as good.
        if self.first.is_some_and(|first| number >= first) {
            if self.received == 0 {
                self.first = Some(number);
            }
            self.received += 1;
            self.known = self.known.max(number + 1);
        }
        let there_and_back = sample.received.saturating_sub(sample.sent);
        let there = sample.reflector_sent.saturating_sub(sample.reflector_received);
        let rtt_us = there_and_back.saturating_sub(there) / 1_000;
        let round_trip = topology::Sample {
            rtt_us: u32::try_from(rtt_us).ok(),
            ..topology::Sample::default()
        };
        self.estimator.observe(now, round_trip);
        let counted = self.data.observe(sample);
        self.data(now, counted);
        counted
    }

    /// Counts what has a fate by now; `departed` probes have left so far.
    pub(super) fn settle(&mut self, now: Millis, departed: u64) {
        let first = *self.first.get_or_insert(departed);
        self.known = self.known.max(first);
        self.departures.push_back((now, departed));
        while let Some((at, count)) = self.departures.front().copied() {
            if now.since(at) < LOST_MS {
                break;
            }
            self.known = self.known.max(count);
            self.departures.pop_front();
        }
        if self.received == 0 {
            self.first = Some(self.known);
            return;
        }
        let sent = self.known - first;
        let lost = sent.saturating_sub(self.received).max(self.told.1);
        let counted = Counted {
            sent: sent - self.told.0,
            lost: lost - self.told.1,
        };
        self.told = (sent, lost);
        // There and back.
        self.observe(now, counted, 2 * self.legs);
    }

    /// Takes in data packets, which pass the path one way.
    pub(super) fn data(&mut self, now: Millis, counted: Counted) {
        self.observe(now, counted, self.legs);
    }

    fn observe(&mut self, now: Millis, counted: Counted, lines: u32) {
        if counted.sent == 0 {
            return;
        }
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let (sent, lost) = (narrow(counted.sent), narrow(counted.lost.min(counted.sent)));
        let sample = topology::Sample {
            sent,
            lost,
            rtt_us: None,
        };
        self.estimator.observe(now, sample);
        let was_raised = self.loss.is_raised();
        match self.loss.observe(sent, lost, lines) {
            // What is over costs nothing more. Without an alarm it is the average that counts: a leg that loses one
            // in a hundred seems clean now and then.
            Verdict::Clean if was_raised => self.estimator.restart_loss(),
            Verdict::Clean => {}
            Verdict::Lossy { loss_ppm } => self.loss_ppm = loss_ppm,
            Verdict::Undecided => {}
        }
    }

    /// What is to be said at once, if it has changed.
    pub(super) fn alarm(&mut self, now: Millis, is_dead: bool) -> Option<v1::Alarm> {
        let kind = match (is_dead, self.loss.is_raised()) {
            (true, _) => Kind::Dead,
            (false, true) => Kind::Loss,
            (false, false) => Kind::Clear,
        };
        if kind == self.alarm {
            return None;
        }
        if kind != Kind::Clear {
            self.risen = Some(now);
        }
        self.alarm = kind;
        Some(v1::Alarm {
            path_id: self.id,
            kind: kind.into(),
            loss: if kind == Kind::Loss {
                f64::from(self.loss_ppm) / 1e6
            } else {
                0.0
            },
        })
    }

    /// Whether it lost a packet lately that is not made up for yet, or had an alarm not long ago. One whose alarm
    /// stands for longer is not: it may be gone for ever.
    pub(super) fn is_doubted(&self, now: Millis) -> bool {
        let loses = self.loss.is_suspicious() || self.estimator.loss_ppm() > TOLERABLE_PPM;
        (self.alarm == Kind::Clear && loses) || self.risen.is_some_and(|risen| now.since(risen) < DOUBT_MS)
    }

    /// The same as [`report`](Self::report), of a leg that was never reported and of which enough is known by now.
    pub(super) fn first_report(&mut self, now: Millis) -> Option<v1::LegReport> {
        let is_due = self.legs == 1 && !self.is_known && self.received >= FIRST;
        if is_due { self.report(now) } else { None }
    }

    /// The last second, of a leg on which something came home in the last 30 s.
    pub(super) fn report(&mut self, now: Millis) -> Option<v1::LegReport> {
        let (sent, received) = (self.told.0 - self.reported.0, self.received - self.reported.1);
        self.reported = (self.told.0, self.received);
        let stats = self.estimator.stats(now)?;
        let ewma_us = self.estimator.ewma_us()?;
        self.shown = Measured {
            sent: self.told.0,
            received: self.received,
            rtt_p50_us: stats.p50_us,
            rtt_p90_us: stats.p90_us,
            rtt_ewma_us: ewma_us,
        };
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let report = (self.legs == 1).then(|| v1::LegReport {
            path_id: self.id,
            sent: narrow(sent),
            received: narrow(received),
            rtt_p50_us: stats.p50_us,
            rtt_p90_us: stats.p90_us,
            rtt_ewma_us: ewma_us,
            loss: f64::from(stats.loss_ppm) / 1e6,
            age_ms: 0,
        });
        (self.last, self.is_known) = (report, true);
        report
    }

    /// What the last turn came to, of a leg that rests since.
    pub(super) fn rested(&self, now: Millis, since: Millis) -> Option<v1::LegReport> {
        let age_ms = u32::try_from(now.since(since)).unwrap_or(u32::MAX).max(1);
        self.last.map(|report| v1::LegReport {
            sent: 0,
            received: 0,
            age_ms,
            ..report
        })
    }

    /// Its turn begins after a rest: what was measured before is too old to count.
    pub(super) fn begin_turn(&mut self) {
        self.estimator = LegEstimator::new();
        self.last = None;
    }

    /// Whether it is to be watched even where it would rest: it is doubted, or its alarm stands.
    pub(super) fn keeps_turn(&self, now: Millis) -> bool {
        self.alarm != Kind::Clear || self.is_doubted(now)
    }

    /// Probes that have left since this was asked last.
    pub(super) fn departed(&mut self) -> u64 {
        let now = self.departures.back().map_or(self.left, |(_, count)| *count);
        let before = std::mem::replace(&mut self.left, now);
        now.saturating_sub(before.max(self.first.unwrap_or(now)))
    }

    /// What is shown of it.
    pub(super) fn measured(&self) -> Measured {
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u32, rtt_ms: u64) -> Sample {
        Sample {
            sequence: number,
            sent: 1_000_000_000,
            reflector_received: 5_000,
            reflector_sent: 1_005_000,
            received: 1_000_000_000 + rtt_ms * 1_000_000 + 1_000_000,
            ..Sample::default()
        }
    }

    #[test]
    fn what_a_later_probe_overtook_is_lost() {
        let mut path = Measurement::new(7, 1);
        path.settle(Millis(0), 10);
        for number in [10, 11, 13] {
            path.came_home(Millis(100), &sample(number, 80));
        }
        path.settle(Millis(100), 14);
        let report = path.report(Millis(1_000)).unwrap();
        assert_eq!((report.path_id, report.sent, report.received), (7, 4, 3));
        assert_eq!((report.rtt_p50_us, report.rtt_ewma_us), (80_000, 80_000));
        assert!((report.loss - 0.25).abs() < 1e-9);
    }

    #[test]
    fn what_has_not_come_home_for_two_seconds_is_lost() {
        let mut path = Measurement::new(7, 1);
        path.settle(Millis(0), 0);
        path.came_home(Millis(50), &sample(0, 40));
        path.settle(Millis(100), 6);
        path.settle(Millis(2_099), 6);
        assert_eq!(path.told, (1, 0));
        path.settle(Millis(2_100), 6);
        assert_eq!(path.told, (6, 5));
    }

    #[test]
    fn nothing_is_lost_before_the_first_probe_comes_home() {
        let mut path = Measurement::new(7, 1);
        for number in 0..200 {
            path.settle(Millis(number * 50), number);
        }
        assert!(!path.is_doubted(Millis(10_000)));
        assert!(path.report(Millis(10_000)).is_none());
        path.came_home(Millis(10_010), &sample(199, 40));
        path.settle(Millis(10_050), 201);
        assert_eq!(path.told, (1, 0));
    }

    #[test]
    fn lost_data_raises_the_alarm_though_probes_come_home() {
        let mut path = Measurement::new(7, 2);
        path.settle(Millis(0), 0);
        let mut said = None;
        // 20 probes and 120 data packets a second; one data packet in 20 is lost.
        for number in 0..50 {
            let sample = Sample {
                data_sent: number * 6,
                data_received: number * 6 - number * 6 / 20,
                ..sample(number, 80)
            };
            let now = Millis(u64::from(number) * 50);
            path.came_home(now, &sample);
            path.settle(now, u64::from(number) + 1);
            said = said.or(path.alarm(now, false).map(|alarm| (number, alarm)));
        }
        let (number, alarm) = said.expect("an alarm");
        assert!((20..50).contains(&number), "probe {number}");
        assert_eq!(alarm.kind, i32::from(Kind::Loss));
        assert!((0.03..0.06).contains(&alarm.loss), "{}", alarm.loss);
    }

    #[test]
    fn an_alarm_is_said_once() {
        let mut path = Measurement::new(7, 2);
        let mut alarm = |ms, is_dead| path.alarm(Millis(ms), is_dead).map(|alarm| alarm.kind());
        assert_eq!(alarm(0, false), None);
        assert_eq!(alarm(1_000, true), Some(Kind::Dead));
        assert_eq!(alarm(2_000, true), None);
        assert_eq!(alarm(3_000, false), Some(Kind::Clear));
        assert!(path.is_doubted(Millis(600_999)), "for ten minutes after it rose");
        assert!(!path.is_doubted(Millis(601_000)));
    }

    #[test]
    fn a_path_that_lost_a_probe_is_doubted_until_more_have_returned() {
        let mut path = Measurement::new(7, 1);
        path.settle(Millis(0), 0);
        assert!(!path.is_doubted(Millis(0)));
        path.came_home(Millis(50), &sample(0, 80));
        for number in 2..=400 {
            path.came_home(Millis(100), &sample(number, 80));
            path.settle(Millis(100), u64::from(number) + 1);
            assert_eq!(path.is_doubted(Millis(100)), number < 333, "{number}");
        }
    }
}
