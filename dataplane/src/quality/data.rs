//! The data packets of one path, as both ends count them.

use kuafu_pipeline::map::Sample;

/// A probe that comes home so many numbers behind the newest is late; one further behind is of a new beginning.
const LATE: i32 = 64;

/// Packets that have a fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) sent: u64,
    /// At most as many.
    pub(super) lost: u64,
}

/// Counts lost data by the counters that probes bring home.
///
/// A probe leaves with the number of data packets sent before it, and takes the number of those that had arrived when
/// it did: on one 5-tuple it runs behind the packets that it counts. Where it overtook some (another CPU was about to
/// send them) they are missing for a moment only. So what is missing is believed when the next probe says it too, of
/// both the less.
///
/// The counters have 32 bits and go round. Where one goes back, an end has begun anew, and so does the count.
#[derive(Debug, Default)]
pub(super) struct Data {
    last: Option<Sample>,
    /// Sent, and sent but not arrived, from the beginning to the last probe.
    now: (u64, i64),
    /// The part of `now` that is told.
    told: Counted,
}

impl Data {
    /// Takes in a probe that came home; returns what has a fate since.
    pub(super) fn observe(&mut self, sample: &Sample) -> Counted {
        let Some(last) = self.last.replace(*sample) else {
            return Counted::default();
        };
        let forward = |new: u32, old: u32| new.wrapping_sub(old).cast_signed();
        let ahead = forward(sample.sequence, last.sequence);
        if ahead <= 0 && ahead > -LATE {
            self.last = Some(last);
            return Counted::default();
        }
        let sent = u64::try_from(forward(sample.data_sent, last.data_sent));
        let received = u64::try_from(forward(sample.data_received, last.data_received));
        let (Ok(sent), Ok(received), 0..) = (sent, received, ahead) else {
            *self = Self {
                last: self.last,
                ..Self::default()
            };
            return Counted::default();
        };
        let before = self.now;
        let missing = before
            .1
            .saturating_add_unsigned(sent)
            .saturating_sub_unsigned(received);
        self.now = (before.0 + sent, missing);
        self.settle((before.0, before.1.min(missing)))
    }

    /// What is told of what was sent before the probe before; what is lost of more than that is told with the next.
    fn settle(&mut self, (sent, missing): (u64, i64)) -> Counted {
        let lost = u64::try_from(missing).unwrap_or(0).saturating_sub(self.told.lost);
        let sent = sent - self.told.sent;
        let counted = Counted {
            sent,
            lost: lost.min(sent),
        };
        self.told.sent += counted.sent;
        self.told.lost += counted.lost;
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(sequence: u32, data_sent: u32, data_received: u32) -> Sample {
        Sample {
            sequence,
            data_sent,
            data_received,
            ..Sample::default()
        }
    }

    /// What is told at each of these samples, as (sent, lost).
    fn told(samples: &[(u32, u32, u32)]) -> Vec<(u64, u64)> {
        let mut data = Data::default();
        let observe = |&(sequence, sent, received): &(u32, u32, u32)| {
            let counted = data.observe(&sample(sequence, sent, received));
            (counted.sent, counted.lost)
        };
        samples.iter().map(observe).collect()
    }

    #[test]
    fn what_two_probes_miss_is_lost() {
        let samples = [(1, 1_000, 200), (2, 1_010, 209), (3, 1_020, 219), (4, 1_030, 225)];
        assert_eq!(told(&samples), [(0, 0), (0, 0), (10, 1), (10, 0)]);
        let later = [&samples[..], &[(5, 1_030, 225)]].concat();
        assert_eq!(told(&later)[4], (10, 4), "nothing more was sent");
    }

    #[test]
    fn what_is_under_way_is_not_lost() {
        let overtaken = [(1, 0, 0), (2, 10, 3), (3, 20, 20), (4, 30, 30), (5, 40, 40)];
        assert_eq!(told(&overtaken), [(0, 0), (0, 0), (10, 0), (10, 0), (10, 0)]);
        let late = [(1, 0, 0), (3, 20, 20), (2, 10, 10), (4, 30, 30), (5, 40, 40)];
        assert_eq!(told(&late), [(0, 0), (0, 0), (0, 0), (20, 0), (10, 0)]);
        let ahead = [(1, 0, 0), (2, 10, 15), (3, 20, 20), (4, 30, 30)];
        assert_eq!(told(&ahead), [(0, 0), (0, 0), (10, 0), (10, 0)]);
    }

    #[test]
    fn probes_may_be_lost_between() {
        let samples = [(1, 0, 0), (9, 100, 95), (17, 200, 190), (18, 210, 200)];
        assert_eq!(told(&samples), [(0, 0), (0, 0), (100, 5), (100, 5)]);
    }

    #[test]
    fn counters_go_round() {
        let (sent, received) = (u32::MAX - 5, u32::MAX - 20);
        let after = |sequence: u32, data: u32, lost: u32| {
            let (sent, received) = (sent.wrapping_add(data), received.wrapping_add(data - lost));
            (u32::MAX.wrapping_add(sequence), sent, received)
        };
        let samples = [after(0, 0, 0), after(1, 10, 2), after(2, 40, 2)];
        assert_eq!(told(&samples), [(0, 0), (0, 0), (10, 2)]);
    }

    #[test]
    fn an_end_that_begins_anew_loses_nothing() {
        let exit = [
            (1, 1_000, 900),
            (2, 1_010, 910),
            (3, 1_020, 4),
            (4, 1_030, 14),
            (5, 1_040, 24),
        ];
        assert_eq!(told(&exit), [(0, 0), (0, 0), (0, 0), (0, 0), (10, 0)]);
        let entry = [(900, 1_000, 900), (0, 5, 905), (1, 15, 915), (2, 25, 925)];
        assert_eq!(told(&entry), [(0, 0), (0, 0), (0, 0), (10, 0)]);
    }

    #[test]
    fn loss_found_late_is_told_bit_by_bit() {
        let samples = [(1, 0, 0), (2, 100, 0), (3, 102, 0), (4, 103, 0)];
        assert_eq!(told(&samples), [(0, 0), (0, 0), (100, 100), (2, 2)]);
    }
}
