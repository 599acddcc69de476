//! When a server is asked.

use std::time::Duration;

use tokio::time::Instant;

use super::Standing;
use super::signs::Suspicion;

/// From one question to the next, while a server is suspected: such a part of the interval, and at least this. A server
/// that starts anew, or is flooded for a moment, is not down for that.
const HASTE: (u32, Duration) = (10, Duration::from_millis(100));
/// For how long at least a suspicion that was wrong is followed by none.
const QUIET: Duration = Duration::from_secs(1);
/// And at most: each that was wrong doubles it.
const QUIET_AT_MOST: Duration = Duration::from_mins(5);

/// When a server is asked next, and whether it is suspected.
///
/// A suspicion lets it be asked at once, and again until it serves or is down. Where it serves, it is not suspected for
/// an interval, then for two, and so on: so what packets say at most doubles the questions, and nothing but failed ones
/// lets it be down.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Instant,
    suspicion: Option<Suspicion>,
    /// Why it was asked at once, and has not served since.
    because: Option<Suspicion>,
    quiet_until: Instant,
    /// For how long it was quiet last.
    quiet: Duration,
}

/// What a question came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Serves,
    Fails,
    /// It could not be asked.
    ToNothing,
}

impl Pace {
    /// Asked each so often, for the first time then.
    pub(super) const fn new(interval: Duration, first: Instant) -> Self {
        Self {
            interval,
            next: first,
            suspicion: None,
            because: None,
            quiet_until: first,
            quiet: Duration::ZERO,
        }
    }

    /// When it is asked next.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Why what failed was asked at once, where it was.
    pub(super) const fn because(&self) -> Option<Suspicion> {
        self.because
    }

    /// From one question to the next, while it is suspected.
    fn haste(&self) -> Duration {
        let (part, least) = HASTE;
        (self.interval / part).max(least).min(self.interval)
    }

    /// It is suspected now. Returns whether it is asked at once for that.
    pub(super) fn suspected(&mut self, why: Suspicion, standing: Standing, now: Instant) -> bool {
        if self.suspicion.is_some() || standing == Standing::Down || now < self.quiet_until {
            return false;
        }
        self.suspicion = Some(why);
        self.because = Some(why);
        self.next = now;
        true
    }

    /// It was asked `then`, and is asked again after an interval and this much more, unless it is suspected still.
    pub(super) fn asked(&mut self, then: Instant, more: Duration, (came, standing): (Came, Standing)) {
        self.next = then + self.interval + more;
        if came == Came::Fails {
            self.quiet = Duration::ZERO;
            if standing == Standing::Down {
                self.suspicion = None;
            } else if self.suspicion.is_some() {
                self.next = then + self.haste();
            }
            return;
        }
        if self.suspicion.take().is_some() {
            let least = self.interval.max(QUIET);
            self.quiet = (self.quiet * 2).clamp(least, least.max(QUIET_AT_MOST));
            self.quiet_until = then + self.quiet;
        }
        self.because = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const WHY: Suspicion = Suspicion::Silent { begun: 8 };
    const NONE: Duration = Duration::ZERO;
    const TICK: Duration = Duration::from_millis(100);
    use Came::{Fails, Serves, ToNothing};
    use Standing::{Down, Up};

    #[test]
    fn who_is_suspected_is_asked_until_it_is_down() {
        let now = Instant::now();
        let mut pace = Pace::new(INTERVAL, now + INTERVAL);
        assert!(!pace.suspected(WHY, Down, now + INTERVAL), "known to be down");
        let mut now = now + INTERVAL * 3 / 2;
        assert!(pace.suspected(WHY, Up, now));
        assert_eq!(pace.next(), now);
        pace.asked(now, NONE, (Fails, Up));
        assert_eq!(pace.next(), now + INTERVAL / 10);
        now += INTERVAL / 10;
        assert!(!pace.suspected(WHY, Up, now), "it is already");
        pace.asked(now, NONE, (Fails, Down));
        assert_eq!((pace.next(), pace.because()), (now + INTERVAL, Some(WHY)));
        now += INTERVAL;
        pace.asked(now, NONE, (Serves, Down));
        assert_eq!((pace.next(), pace.because()), (now + INTERVAL, None));
    }

    #[test]
    fn who_serves_is_not_suspected_for_an_interval() {
        let now = Instant::now();
        let mut pace = Pace::new(INTERVAL, now);
        let (mut questions, mut at) = (0, now);
        // All the while it seems not to serve.
        while at < now + INTERVAL * 10 {
            pace.suspected(WHY, Up, at);
            if pace.next() <= at {
                pace.asked(at, NONE, (Serves, Up));
                questions += 1;
            }
            at += TICK;
        }
        assert!((10..=20).contains(&questions), "{questions} in ten intervals");
        let mut often = Pace::new(TICK, now);
        often.suspected(WHY, Up, now);
        often.asked(now, NONE, (Serves, Up));
        assert!(!often.suspected(WHY, Up, now + QUIET / 2));
        assert!(often.suspected(WHY, Up, now + QUIET));
        often.asked(now + QUIET, NONE, (Serves, Up));
        assert!(!often.suspected(WHY, Up, now + QUIET * 2), "it was wrong twice");
        assert!(often.suspected(WHY, Up, now + QUIET * 3));
        often.asked(now + QUIET * 3, NONE, (Fails, Up));
        often.asked(now + QUIET * 3, NONE, (Serves, Up));
        assert!(often.suspected(WHY, Up, now + QUIET * 4), "it was not all wrong");
    }

    #[test]
    fn who_cannot_be_asked_is_asked_as_ever() {
        let now = Instant::now();
        let mut pace = Pace::new(INTERVAL, now);
        assert!(pace.suspected(WHY, Up, now));
        pace.asked(now, TICK, (ToNothing, Up));
        assert_eq!((pace.next(), pace.because()), (now + INTERVAL + TICK, None));
        assert!(!pace.suspected(WHY, Up, now + INTERVAL / 2));
    }
}
