//! One direction between two sites.

use std::time::Duration;

use super::delay::{DelayLaw, Follower};
use super::frame::is_geneve_data;
use super::seed::Seed;

/// How long a line with a rate lets frames wait before it drops them.
const QUEUE_NS: u64 = 100_000_000;

/// What one direction is like.
#[derive(Debug, Clone, Copy)]
pub struct LineConfig {
    /// The part of the delay that varies.
    pub law: DelayLaw,
    /// The part that does not: the access links of both ends.
    pub access: Duration,
    /// The share of frames that is lost, 0 to 1.
    pub loss: f64,
    /// Bits of frames per second; no limit if `None`. Frames wait up to 100 ms for their turn.
    pub rate_bps: Option<u64>,
}

/// What became of a frame that entered a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It leaves at this time, in ns since the wire started.
    Leaves(u64),
    /// It is lost.
    Lost,
    /// It would have to wait too long for the line's rate.
    RateLimited,
}

/// A delay line. Times are in ns since the wire started.
#[derive(Debug)]
pub(crate) struct Line {
    delay: Follower,
    access_ns: u64,
    extra_ns: u64,
    loss: f64,
    data_loss: f64,
    rate_bps: Option<u64>,
    seed: Seed,
    frames: u64,
    free_ns: u64,
    last_ns: u64,
}

impl Line {
    /// A line whose losses are drawn from `seed`.
    pub(crate) fn new(config: LineConfig, seed: Seed) -> Self {
        Self {
            delay: Follower::new(config.law),
            access_ns: saturating_ns(config.access),
            extra_ns: 0,
            loss: config.loss,
            data_loss: 0.0,
            rate_bps: config.rate_bps,
            seed,
            frames: 0,
            free_ns: 0,
            last_ns: 0,
        }
    }

    /// Takes a frame that entered at `entry_ns`.
    pub(crate) fn enter(&mut self, entry_ns: u64, frame: &[u8]) -> Entry {
        self.frames += 1;
        let loss = if self.data_loss > self.loss && is_geneve_data(frame) {
            self.data_loss
        } else {
            self.loss
        };
        if loss > 0.0 && self.seed.uniform(self.frames) <= loss {
            return Entry::Lost;
        }
        let Some(start_ns) = self.transmit(entry_ns, frame.len()) else {
            return Entry::RateLimited;
        };
        let leaves = start_ns + self.delay_ns(start_ns);
        // A change of the extra delay, or two stamps out of order, must not let one overtake another.
        self.last_ns = self.last_ns.max(leaves);
        Entry::Leaves(self.last_ns)
    }

    /// How long a frame that starts now is under way.
    pub(crate) fn delay_ns(&mut self, start_ns: u64) -> u64 {
        self.delay.at(start_ns) + self.access_ns + self.extra_ns
    }

    pub(crate) fn set_loss(&mut self, loss: f64) {
        self.loss = loss;
    }

    pub(crate) fn set_data_loss(&mut self, loss: f64) {
        self.data_loss = loss;
    }

    pub(crate) fn set_extra_delay(&mut self, extra: Duration) {
        self.extra_ns = saturating_ns(extra);
    }

    pub(crate) fn set_rate(&mut self, rate_bps: Option<u64>) {
        self.rate_bps = rate_bps;
    }

    /// When the last bit of the frame is on the line.
    fn transmit(&mut self, entry_ns: u64, length: usize) -> Option<u64> {
        let Some(rate) = self.rate_bps else {
            return Some(entry_ns);
        };
        let bits = u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(8);
        let duration = bits.saturating_mul(1_000_000_000) / rate.max(1);
        let start = self.free_ns.max(entry_ns);
        if start - entry_ns > QUEUE_NS {
            return None;
        }
        self.free_ns = start.saturating_add(duration);
        Some(self.free_ns)
    }
}

pub(crate) fn saturating_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn line(loss: f64, rate_bps: Option<u64>) -> Line {
        let config = LineConfig {
            law: DelayLaw::none(),
            access: Duration::from_millis(3),
            loss,
            rate_bps,
        };
        Line::new(config, Seed::new(5))
    }

    #[test]
    fn loss_is_the_share_that_was_asked_for() {
        let lost = |loss| {
            let mut line = line(loss, None);
            (0..100_000)
                .filter(|&entry| line.enter(entry, &[0; 100]) == Entry::Lost)
                .count()
        };
        assert_eq!(lost(0.0), 0);
        assert!((4_800..5_200).contains(&lost(0.05)), "{}", lost(0.05));
        assert_eq!(lost(1.0), 100_000);
    }

    #[test]
    fn data_may_be_lost_where_probes_are_not() {
        let packet = |port: u16, flags: u8| {
            let mut frame = [0; 100];
            frame[12..15].copy_from_slice(&[8, 0, 0x45]);
            frame[23] = 17;
            frame[36..38].copy_from_slice(&port.to_be_bytes());
            frame[43] = flags;
            frame
        };
        let mut line = line(0.0, None);
        line.set_data_loss(1.0);
        assert_eq!(line.enter(0, &packet(6081, 0)), Entry::Lost);
        for other in [packet(6081, 0x80), packet(4789, 0), [0; 100]] {
            assert_ne!(line.enter(0, &other), Entry::Lost);
        }
        line.set_data_loss(0.0);
        assert_ne!(line.enter(0, &packet(6081, 0)), Entry::Lost);
    }

    #[test]
    fn a_rate_spaces_frames_and_drops_what_would_wait_too_long() {
        // 1250 bytes at 1 Mb/s take 10 ms.
        let mut line = line(0.0, Some(1_000_000));
        let fates: Vec<_> = (0..13).map(|_| line.enter(0, &[0; 1_250])).collect();
        assert_eq!(fates[0], Entry::Leaves(13 * MS));
        assert_eq!(fates[10], Entry::Leaves(113 * MS));
        assert_eq!(fates[11..], [Entry::RateLimited; 2]);
        assert_eq!(line.enter(200 * MS, &[0; 1_250]), Entry::Leaves(213 * MS));
    }

    #[test]
    fn order_is_kept_when_the_extra_delay_falls() {
        let mut line = line(0.0, None);
        line.set_extra_delay(Duration::from_millis(50));
        assert_eq!(line.enter(0, &[0; 100]), Entry::Leaves(53 * MS));
        line.set_extra_delay(Duration::ZERO);
        assert_eq!(line.enter(MS, &[0; 100]), Entry::Leaves(53 * MS));
        assert_eq!(line.enter(60 * MS, &[0; 100]), Entry::Leaves(63 * MS));
    }
}
