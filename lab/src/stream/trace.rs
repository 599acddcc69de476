//! What happened to a stream, and the questions that are asked about it.

use std::ops::Range;
use std::time::Duration;

/// A packet that came home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The stream's number for it.
    pub number: u64,
    /// The echo's: how many it had sent before.
    pub reply: u64,
    /// When it was sent, since the stream's start.
    pub sent: Duration,
    /// How long it took, there and back.
    pub rtt: Duration,
}

/// A run of numbers that never came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first.
    pub first: u64,
    /// How many.
    pub missing: u64,
}

impl Gap {
    /// Its length in time at `rate` packets per second.
    pub fn length(&self, rate: u32) -> Duration {
        Duration::from_secs_f64(
            f64::from(u32::try_from(self.missing).unwrap_or(u32::MAX)) / f64::from(rate.max(1)),
        )
    }
}

/// All that a stream sent and what came back.
#[derive(Debug, Clone)]
pub struct Trace {
    rate: u32,
    sent: Vec<Duration>,
    replies: Vec<Reply>,
}

impl Trace {
    /// A stream of so many packets a second that has sent none.
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            rate,
            sent: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// The next number was sent, so long after the start.
    pub(crate) fn sent(&mut self, at: Duration) {
        self.sent.push(at);
    }

    /// An answer came, so long after the start.
    pub(crate) fn replied(&mut self, number: u64, reply: u64, at: Duration) {
        let Some(&sent) = usize::try_from(number)
            .ok()
            .and_then(|number| self.sent.get(number))
        else {
            return;
        };
        self.replies.push(Reply {
            number,
            reply,
            sent,
            rtt: at.saturating_sub(sent),
        });
    }

    /// Packets per second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// How many packets were sent: the numbers from 0 up to this were used.
    pub fn sent_count(&self) -> u64 {
        self.sent.len() as u64
    }

    /// The number that was sent first at or after `time`.
    pub fn number_at(&self, time: Duration) -> u64 {
        self.sent.partition_point(|&sent| sent < time) as u64
    }

    /// What came back, in the order in which it did.
    pub fn replies(&self) -> &[Reply] {
        &self.replies
    }

    /// The round-trip time that the share `quantile` of the packets sent in `times` and answered did not
    /// exceed; `None` if there were none.
    pub fn rtt(&self, quantile: f64, times: Range<Duration>) -> Option<Duration> {
        let replies = self.replies.iter().filter(|reply| times.contains(&reply.sent));
        let mut rtts: Vec<_> = replies.map(|reply| reply.rtt).collect();
        rtts.sort_unstable();
        let last = rtts.len().checked_sub(1)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank between 0 and `last`"
        )]
        let rank = (quantile.clamp(0.0, 1.0) * last as f64).round() as usize;
        rtts.get(rank).copied()
    }

    /// What is missing among the packets `numbers` of those that made the round trip.
    pub fn gaps(&self, numbers: Range<u64>) -> Vec<Gap> {
        gaps(numbers, self.replies.iter().map(|reply| reply.number))
    }

    /// What is missing of the echo's answers, from its first up to the last that came: losses on the way
    /// back alone. Those on the way there are the [`gaps`] of [`Echo::arrived`](super::Echo::arrived).
    pub fn gaps_back(&self) -> Vec<Gap> {
        let end = self
            .replies
            .iter()
            .map(|reply| reply.reply + 1)
            .max()
            .unwrap_or(0);
        gaps(0..end, self.replies.iter().map(|reply| reply.reply))
    }
}

/// The runs of `numbers` that are not among `present`, in order; `present` may be in any.
pub fn gaps(numbers: Range<u64>, present: impl IntoIterator<Item = u64>) -> Vec<Gap> {
    let mut present: Vec<_> = present
        .into_iter()
        .filter(|number| numbers.contains(number))
        .collect();
    present.sort_unstable();
    let mut found = Vec::new();
    let mut next = numbers.start;
    for number in present.into_iter().chain([numbers.end]) {
        if number > next {
            found.push(Gap {
                first: next,
                missing: number - next,
            });
        }
        next = next.max(number.saturating_add(1));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_runs_of_what_is_missing() {
        let gap = |first, missing| Gap { first, missing };
        assert_eq!(
            gaps(0..10, [3, 1, 2, 2, 7, 42]),
            [gap(0, 1), gap(4, 3), gap(8, 2)]
        );
        assert_eq!(gaps(0..3, [0, 1, 2]), []);
        assert_eq!(gaps(5..7, []), [gap(5, 2)]);
        assert_eq!(gaps(0..0, [1]), []);
        assert_eq!(gap(0, 300).length(1_000), Duration::from_millis(300));
    }

    #[test]
    fn a_trace_tells_directions_apart() {
        let mut trace = Trace::new(100);
        for at in 0..10 {
            trace.sent(Duration::from_millis(at));
        }
        // The echo never saw 2 and 3; its answers 4 and 5 (to 6 and 7) were lost.
        for (number, reply) in [(0, 0), (1, 1), (4, 2), (5, 3), (8, 6), (9, 7), (77, 9)] {
            trace.replied(number, reply, Duration::from_millis(5 + number));
        }
        assert_eq!(trace.sent_count(), 10);
        assert_eq!(trace.replies().len(), 6);
        assert_eq!(
            trace.gaps(0..10),
            [Gap { first: 2, missing: 2 }, Gap { first: 6, missing: 2 }]
        );
        assert_eq!(trace.gaps_back(), [Gap { first: 4, missing: 2 }]);
        let five = Some(Duration::from_millis(5));
        assert_eq!(trace.rtt(0.5, Duration::ZERO..Duration::MAX), five);
        assert_eq!(trace.rtt(0.5, Duration::from_secs(9)..Duration::MAX), None);
        assert_eq!(trace.number_at(Duration::from_secs(9)), 10);
    }
}
