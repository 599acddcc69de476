//! What the wire did, for tests to compare with.

use std::ops::Range;
use std::time::Duration;

use super::SiteId;

/// The time that one row of the log covers.
const SLICE_NS: u64 = 100_000_000;
/// How old a row may be and still say what its direction is like.
const STALE_SLICES: u32 = 10;

/// What one direction carried in one slice of a tenth of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    number: u32,
    frames: u32,
    min_us: u32,
    max_us: u32,
    sum_us: u64,
}

impl Slice {
    /// When the slice began, since the wire started; a frame counts where it entered.
    pub fn start(&self) -> Duration {
        Duration::from_nanos(u64::from(self.number) * SLICE_NS)
    }

    /// Frames delivered.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The shortest time between a frame's entry and its delivery.
    pub fn min(&self) -> Duration {
        Duration::from_micros(self.min_us.into())
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_us.into())
    }

    /// The mean, lateness included: what was applied, not what was meant.
    pub fn mean(&self) -> Duration {
        Duration::from_micros(self.sum_us / u64::from(self.frames.max(1)))
    }
}

/// The delays applied per direction and tenth of a second.
#[derive(Debug, Clone)]
pub struct WireLog {
    sites: usize,
    lines: Vec<Vec<Slice>>,
}

impl WireLog {
    pub(crate) fn new(sites: usize) -> Self {
        Self {
            sites,
            lines: vec![Vec::new(); sites * sites],
        }
    }

    pub(crate) fn record(&mut self, line: usize, entry_ns: u64, delay_ns: u64) {
        let number = slice_at(Duration::from_nanos(entry_ns));
        let delay_us = u32::try_from(delay_ns / 1_000).unwrap_or(u32::MAX);
        let rows = &mut self.lines[line];
        // Order is kept, so a frame belongs to the last row or opens the next; a stamp of the kernel's that
        // is a little older than the one before stays where the log is.
        match rows.last_mut() {
            Some(row) if row.number >= number => {
                row.frames += 1;
                row.min_us = row.min_us.min(delay_us);
                row.max_us = row.max_us.max(delay_us);
                row.sum_us += u64::from(delay_us);
            }
            _ => rows.push(Slice {
                number,
                frames: 1,
                min_us: delay_us,
                max_us: delay_us,
                sum_us: delay_us.into(),
            }),
        }
    }

    /// The slices in which frames went from `from` to `to`, in order.
    pub fn direction(&self, from: SiteId, to: SiteId) -> &[Slice] {
        &self.lines[from.index() * self.sites + to.index()]
    }

    /// The time along `path` as the wire applied it to what started between `times` (since the wire's
    /// start): the median over the slices in which the first leg carried frames, each followed leg by leg,
    /// where every leg is asked when its turn comes. `None` if no slice can be followed to the end.
    pub fn median(&self, path: &[SiteId], times: Range<Duration>) -> Option<Duration> {
        let legs: Vec<_> = path
            .windows(2)
            .map(|leg| self.direction(leg[0], leg[1]))
            .collect();
        let first = *legs.first()?;
        let (start, end) = (slice_at(times.start), slice_at(times.end));
        let asked = &first[first.partition_point(|row| row.number < start)..];
        let asked = asked.iter().take_while(|row| row.number < end);
        let mut sums: Vec<_> = asked.filter_map(|row| follow(&legs, row.start())).collect();
        sums.sort_unstable();
        sums.get(sums.len() / 2).copied()
    }

    /// The same along `path` and back over the same sites.
    pub fn round_trip(&self, path: &[SiteId], times: Range<Duration>) -> Option<Duration> {
        let back = path.iter().rev().skip(1);
        let whole: Vec<_> = path.iter().chain(back).copied().collect();
        self.median(&whole, times)
    }
}

/// The time that a frame which starts at `start` takes over all `legs`.
fn follow(legs: &[&[Slice]], start: Duration) -> Option<Duration> {
    let mut now = start;
    for rows in legs {
        now += delay_at(rows, slice_at(now))?;
    }
    Some(now - start)
}

/// The delay in slice `number`, or in the last before it that is not stale.
fn delay_at(rows: &[Slice], number: u32) -> Option<Duration> {
    let after = rows.partition_point(|row| row.number <= number);
    let row = rows.get(after.checked_sub(1)?)?;
    (number - row.number <= STALE_SLICES).then(|| row.mean())
}

fn slice_at(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() / u128::from(SLICE_NS)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const ALWAYS: Range<Duration> = Duration::ZERO..Duration::MAX;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_slice_holds_what_entered_in_it() {
        let mut log = WireLog::new(2);
        log.record(1, 205 * MS, 29 * MS);
        log.record(1, 295 * MS, 31 * MS);
        log.record(1, 300 * MS, 99 * MS);
        let rows = log.direction(SiteId::new(0), SiteId::new(1));
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].start(), rows[0].frames(), rows[0].mean()),
            (ms(200), 2, ms(30))
        );
        assert_eq!((rows[0].min(), rows[0].max()), (ms(29), ms(31)));
    }

    #[test]
    fn a_path_is_followed_leg_by_leg_in_time() {
        let mut log = WireLog::new(2);
        let path = [SiteId::new(0), SiteId::new(1)];
        // There it takes 150 ms, so the way back is asked two slices later than the way there.
        for slice in 0..3 {
            log.record(1, slice * 100 * MS, 150 * MS);
        }
        for (slice, delay) in [(0, 1), (1, 10), (2, 20), (3, 30)] {
            log.record(2, slice * 100 * MS, delay * MS);
        }
        assert_eq!(log.median(&path, ALWAYS), Some(ms(150)));
        assert_eq!(log.round_trip(&path, ALWAYS), Some(ms(170)));
        assert_eq!(log.round_trip(&path, ms(0)..ms(100)), Some(ms(160)));
        assert_eq!(log.round_trip(&path, ms(900)..ms(1_000)), None);
    }

    #[test]
    fn a_leg_that_has_been_silent_says_nothing() {
        let mut log = WireLog::new(2);
        log.record(1, 5_000 * MS, MS);
        log.record(2, 3_000 * MS, MS);
        assert_eq!(log.round_trip(&[SiteId::new(0), SiteId::new(1)], ALWAYS), None);
    }
}
