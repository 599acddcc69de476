//! Signs that a server does not serve, in what becomes of the flows that begin with it: packets count them
//! ([`TargetSigns`]), and who seems to be silent or to refuse is asked at once.
//!
//! Anybody can make such signs up. So they only ever hasten the asking: see [`checker`](super::checker).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kuafu_model::HostState;
use kuafu_model::contents::{Contents, checked};
use kuafu_model::health::Subject;
use kuafu_pipeline::map::{Sign, TargetSigns};

use crate::bpf::Words;

/// How often signs are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(250);
/// Looks in a window of a second.
const WINDOW: usize = 4;
/// How many refusals in a window are a sign, where they are also half of what began.
const REFUSED: u64 = 3;
/// How many flows in a window that all stay without an answer are a sign.
const SILENT: u64 = 8;

/// What became of flows that began with a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flows {
    begun: u64,
    answered: u64,
    refused: u64,
}

/// Why a server is asked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suspicion {
    /// So many of so many new flows were refused.
    Refused { refused: u64, begun: u64 },
    /// Of so many none was answered.
    Silent { begun: u64 },
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { refused, begun } => write!(f, "{refused} of {begun} new flows were refused"),
            Self::Silent { begun } => write!(f, "none of {begun} new flows was answered"),
        }
    }
}

/// Whether a server is suspected, by the flows of the second before last and of the last one.
///
/// Of refusals those of the last second count. Silence takes both: what began in the second before last had a second for
/// its answer, which of a server that answers itself shows by its client's next packet, a round trip later.
fn suspicion(before: Flows, last: Flows) -> Option<Suspicion> {
    let Flows { begun, refused, .. } = last;
    if refused >= REFUSED && refused * 2 >= begun {
        // Some may have begun before.
        let begun = begun.max(refused);
        return Some(Suspicion::Refused { refused, begun });
    }
    let heard = [before, last].map(|flows| flows.answered + flows.refused);
    if before.begun >= SILENT && heard == [0, 0] {
        let begun = before.begun + last.begun;
        return Some(Suspicion::Silent { begun });
    }
    None
}

impl Flows {
    /// What came since then.
    const fn since(self, then: Self) -> Self {
        Self {
            begun: self.begun.wrapping_sub(then.begun),
            answered: self.answered.wrapping_sub(then.answered),
            refused: self.refused.wrapping_sub(then.refused),
        }
    }
}

/// A server, and what its flows came to at the looks of two seconds, the oldest first.
struct Watched {
    numbers: BTreeSet<u32>,
    looks: VecDeque<Flows>,
}

impl Watched {
    /// Takes a look.
    fn look(&mut self, now: Flows) -> Option<Suspicion> {
        self.looks.push_back(now);
        if self.looks.len() <= WINDOW {
            return None;
        }
        let of = |windows: usize| self.looks.len().checked_sub(windows * WINDOW + 1);
        let then = *self.looks.get(of(1)?)?;
        let before = of(2).and_then(|at| self.looks.get(at).copied());
        if before.is_some() {
            self.looks.pop_front();
        }
        // Without the second before last none began in it.
        let before = before.map(|before| then.since(before)).unwrap_or_default();
        suspicion(before, now.since(then))
    }
}

/// Looks at the signs of all servers that are checked.
pub(crate) struct Signs {
    words: Words,
    watched: BTreeMap<Subject, Watched>,
    /// When they were looked at last.
    looked: Option<Instant>,
}

impl Signs {
    /// Of the targets' mapped signs.
    pub(crate) const fn new(words: Words) -> Self {
        Self {
            words,
            watched: BTreeMap::new(),
            looked: None,
        }
    }

    /// A state is in force.
    pub(crate) fn follow(&mut self, state: &HostState, contents: &Contents) {
        let before = std::mem::take(&mut self.watched);
        self.watched = followed(before, checked(state, contents));
    }

    /// Looks at all. Who is suspected now, and why. After a pause windows begin anew: they are as long as their looks are
    /// apart.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<(Subject, Suspicion)> {
        let before = self.looked.replace(now);
        if before.is_some_and(|before| now - before > LOOK * 2) {
            self.watched
                .values_mut()
                .for_each(|watched| watched.looks.clear());
        }
        let words = &self.words;
        let look = |(subject, watched): (&Subject, &mut Watched)| {
            let flows = flows(words, subject, &watched.numbers);
            Some((subject.clone(), watched.look(flows)?))
        };
        self.watched.iter_mut().filter_map(look).collect()
    }
}

/// Who is watched from now on, with these numbers. Who had others before is looked at anew: a number counts on from what
/// somebody else had.
fn followed(
    mut before: BTreeMap<Subject, Watched>,
    checked: BTreeMap<Subject, BTreeSet<u32>>,
) -> BTreeMap<Subject, Watched> {
    let watch = |(subject, numbers): (Subject, BTreeSet<u32>)| {
        let known = before.remove(&subject);
        let same = known.filter(|known| known.numbers == numbers);
        let watched = same.unwrap_or_else(|| Watched {
            numbers,
            looks: VecDeque::new(),
        });
        (subject, watched)
    };
    checked.into_iter().map(watch).collect()
}

/// What was counted of a server: who answers its clients itself is heard by the flows alone.
fn flows(words: &Words, subject: &Subject, numbers: &BTreeSet<u32>) -> Flows {
    let sum = |sign| {
        let word = |number: &u32| {
            let offsets = TargetSigns::offsets(sign);
            let number = *number;
            offsets.filter_map(move |offset| words.word(number, offset))
        };
        let words = numbers.iter().flat_map(word);
        words.fold(0, |sum: u64, word| sum.wrapping_add(word.load(Relaxed)))
    };
    if subject.encapsulation.is_some() {
        return Flows {
            begun: sum(Sign::Begun),
            answered: sum(Sign::Followed),
            refused: 0,
        };
    }
    Flows {
        begun: sum(Sign::Opened),
        answered: sum(Sign::Answered),
        refused: sum(Sign::Refused),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use kuafu_model::state::{Ask, Check};

    use super::*;

    fn flows(begun: u64, answered: u64, refused: u64) -> Flows {
        Flows {
            begun,
            answered,
            refused,
        }
    }

    #[test]
    fn refusals_are_half_of_what_began() {
        let none = Flows::default();
        let of = |begun, answered, refused| suspicion(none, flows(begun, answered, refused));
        assert_eq!(
            of(12, 0, 12),
            Some(Suspicion::Refused {
                refused: 12,
                begun: 12
            })
        );
        assert_eq!(of(2, 0, 2), None, "too few");
        assert_eq!(of(7, 4, 3), None, "less than half");
        assert!(of(6, 3, 3).is_some());
        assert_eq!(
            of(1, 0, 3).map(|why| why.to_string()).as_deref(),
            Some("3 of 3 new flows were refused"),
            "some began before"
        );
    }

    #[test]
    fn silence_lasts_a_second_after_eight_began() {
        let none = Flows::default();
        assert_eq!(
            suspicion(flows(8, 0, 0), flows(2, 0, 0)).map(|why| why.to_string()),
            Some("none of 10 new flows was answered".into())
        );
        assert!(suspicion(flows(8, 0, 0), none).is_some(), "no more began");
        assert_eq!(suspicion(flows(7, 0, 0), none), None, "too few");
        assert_eq!(suspicion(none, flows(500, 0, 0)), None, "too soon");
        assert_eq!(
            suspicion(flows(500, 1, 0), flows(500, 0, 0)),
            None,
            "one was answered"
        );
        assert_eq!(
            suspicion(flows(500, 0, 0), flows(500, 1, 0)),
            None,
            "one was, later"
        );
        assert_eq!(
            suspicion(flows(8, 0, 2), flows(8, 0, 0)),
            None,
            "who refuses is not silent"
        );
    }

    #[test]
    fn looks_are_compared_over_two_seconds() {
        let mut watched = Watched {
            numbers: BTreeSet::from([1]),
            looks: VecDeque::new(),
        };
        let mut after = |looks: usize, begun: u64| {
            let looks = (0..looks).map(|_| watched.look(flows(begun, 0, 0)));
            looks.collect::<Vec<_>>()
        };
        // What was counted before the first look is somebody else's.
        assert_eq!(after(5, 1_000), [None; 5]);
        assert_eq!(after(WINDOW, 1_008), [None; WINDOW], "a second for the answer");
        let silent = Some(Suspicion::Silent { begun: 8 });
        assert_eq!(after(WINDOW, 1_008), [silent; WINDOW]);
        assert_eq!(after(2, 1_008), [None; 2], "it is forgotten");
        assert_eq!(watched.looks.len(), 2 * WINDOW);
    }

    #[test]
    fn who_gets_another_number_is_looked_at_anew() {
        let subject = |last| Subject {
            server: [198, 51, 100, last].into(),
            to: SocketAddr::from(([198, 51, 100, last], 80)),
            encapsulation: None,
            check: Arc::new(Check {
                service: "web".into(),
                ask: Ask::Tcp,
                port: None,
                interval_ms: 1000,
                timeout_ms: 1000,
                rise: 2,
                fall: 3,
                least_percent: 0,
                slow_start_s: 0,
            }),
        };
        let numbered = |of: [&[u32]; 3]| {
            let all = (1..).map(subject).zip(of);
            all.map(|(subject, numbers)| (subject, numbers.iter().copied().collect()))
                .collect()
        };
        let mut watched = followed(BTreeMap::new(), numbered([&[1], &[2], &[3, 4]]));
        for watched in watched.values_mut() {
            watched.look(flows(9, 0, 0));
        }
        let watched = followed(watched, numbered([&[1], &[5], &[3]]));
        let looks: Vec<usize> = watched.values().map(|watched| watched.looks.len()).collect();
        assert_eq!(looks, [1, 0, 0]);
    }

    #[test]
    fn refusals_count_at_the_next_look() {
        let mut watched = Watched {
            numbers: BTreeSet::from([1]),
            looks: VecDeque::new(),
        };
        for _ in 0..=WINDOW {
            assert_eq!(watched.look(flows(70, 60, 10)), None);
        }
        assert!(watched.look(flows(74, 60, 14)).is_some());
    }
}
