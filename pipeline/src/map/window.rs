//! The replay window of a pair, kept at its exit.

use super::{Atomics, Shared, map_types};
use crate::Reason;

/// Sequence counters a pair has.
pub const LANES: usize = 16;
/// Words of a pair's lane, each with 32 sequence numbers: the last 2,016 at least are remembered.
const WORDS: usize = 64;
/// Words of a path's lane: the last 224 numbers at least.
const OWN_WORDS: usize = 8;
/// How often a word is retried that another CPU changes at the same moment.
const RETRIES: usize = 8;
/// The bits of a block's number.
const BLOCKS: u64 = (1 << 27) - 1;
/// A block that is fewer behind is old.
const OLD_BLOCKS: u64 = 1 << 24;
/// Set in `incarnation` once the entry's is known.
const KNOWN: u64 = 0x100;

map_types! {
    /// Which sequence numbers of a pair were seen.
    ///
    /// A lane is a ring of words. The low half of a word has a bit for each of 32 consecutive sequence numbers, the
    /// high half says which 32: their number divided by 32 (27 bits) under the entry's incarnation (4 bits). A word
    /// only ever moves to newer numbers, so what was accepted once is never accepted again; and a new incarnation
    /// needs no clearing, since the words of the old one are known by their high half.
    ///
    /// Numbers go round: what is less than 2^29 behind is old, all else is new. Keys are renewed each 2^28 numbers and
    /// two are valid at most, so the tag of what is further behind is worth nothing.
    #[derive(Debug)]
    pub struct Window {
        incarnation: Shared,
        words: [Shared; LANES * WORDS],
    }

    /// Which sequence numbers of a pair came over one of its paths: where each comes over both, this tells a copy from
    /// what an attacker sent again. A path keeps the order of a lane better than two paths do, so a window needs less.
    #[derive(Debug)]
    pub struct OwnWindow {
        incarnation: Shared,
        words: [Shared; LANES * OWN_WORDS],
    }
}

macro_rules! windows {
    ($($name:ident of $words:ident;)+) => { $(
        impl $name {
            /// A window that has seen nothing.
            #[must_use]
            pub fn new() -> Self {
                Self {
                    incarnation: Shared::new(0),
                    words: [const { Shared::new(0) }; LANES * $words],
                }
            }

            /// Takes in a number, once.
            ///
            /// # Errors
            /// `Duplicate` where it was seen, `Late` where it is older than the window, `OldIncarnation` where the entry
            /// has begun anew since.
            #[inline(always)]
            pub fn admit<A: Atomics>(
                &self,
                atomics: &A,
                incarnation: u32,
                lane: u32,
                sequence: u32,
            ) -> Result<(), Reason> {
                admit::<A, $words, { LANES * $words }>(
                    atomics,
                    (&self.incarnation, &self.words),
                    incarnation,
                    (lane, sequence),
                )
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }
    )+ };
}

windows! {
    Window of WORDS;
    OwnWindow of OWN_WORDS;
}

/// Takes a number into a window of `WORDS` words a lane, `ALL` in all.
#[inline(always)]
fn admit<A: Atomics, const WORDS: usize, const ALL: usize>(
    atomics: &A,
    (known, words): (&Shared, &[Shared; ALL]),
    incarnation: u32,
    (lane, sequence): (u32, u32),
) -> Result<(), Reason> {
    learn(known, incarnation)?;
    let block = sequence >> 5;
    let at = (lane & 15) as usize * WORDS + (block as usize & (WORDS - 1));
    let mark = u64::from(incarnation << 27 | block);
    let bit = 1 << (sequence & 31);
    let word = &words[at & (ALL - 1)];
    for _ in 0..RETRIES {
        let seen = word.get();
        let new = admitted(seen, mark, bit)?;
        if atomics.exchange(word, seen, new) {
            return Ok(());
        }
    }
    Err(Reason::Duplicate)
}

/// Checks the incarnation, and moves to a newer one (1 to 7 ahead, modulo 16).
#[inline(always)]
fn learn(known: &Shared, incarnation: u32) -> Result<(), Reason> {
    let (current, incarnation) = (known.get(), u64::from(incarnation));
    if current == KNOWN | incarnation {
        return Ok(());
    }
    if current & KNOWN != 0 && incarnation.wrapping_sub(current) & 15 > 7 {
        return Err(Reason::OldIncarnation);
    }
    known.set(KNOWN | incarnation);
    Ok(())
}

/// The word after `bit` of the block `mark` was taken in.
#[inline(always)]
const fn admitted(seen: u64, mark: u64, bit: u64) -> Result<u64, Reason> {
    let (seen_mark, fresh) = (seen >> 32, mark << 32 | bit);
    if seen & 0xffff_ffff == 0 {
        return Ok(fresh);
    }
    if seen_mark == mark {
        return if seen & bit != 0 {
            Err(Reason::Duplicate)
        } else {
            Ok(seen | bit)
        };
    }
    let same_incarnation = seen_mark >> 27 == mark >> 27;
    if same_incarnation && seen_mark.wrapping_sub(mark) & BLOCKS < OLD_BLOCKS {
        Err(Reason::Late)
    } else {
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::SingleThreaded;

    #[test]
    fn each_number_once_in_any_order() {
        let window = Window::new();
        for start in [0, 5_000, 3_000_000_000] {
            for sequence in (start..start + 1_000).rev() {
                assert_eq!(
                    window.admit(&SingleThreaded, 3, 2, sequence),
                    Ok(()),
                    "{sequence}"
                );
            }
            for sequence in start..start + 1_000 {
                assert_eq!(
                    window.admit(&SingleThreaded, 3, 2, sequence),
                    Err(Reason::Duplicate)
                );
            }
        }
    }

    #[test]
    fn what_is_older_than_the_window_is_late() {
        let window = Window::new();
        assert_eq!(window.admit(&SingleThreaded, 0, 0, 2_048), Ok(()));
        assert_eq!(window.admit(&SingleThreaded, 0, 0, 0), Err(Reason::Late));
        assert_eq!(
            window.admit(&SingleThreaded, 0, 0, 33),
            Ok(()),
            "its word is still its own"
        );
        assert_eq!(window.admit(&SingleThreaded, 0, 1, 0), Ok(()), "lanes are apart");
    }

    #[test]
    fn numbers_go_round() {
        let window = Window::new();
        for sequence in (0..6_000u32).map(|ahead| (u32::MAX - 3_000).wrapping_add(ahead)) {
            assert_eq!(
                window.admit(&SingleThreaded, 2, 0, sequence),
                Ok(()),
                "{sequence}"
            );
            assert_eq!(
                window.admit(&SingleThreaded, 2, 0, sequence),
                Err(Reason::Duplicate)
            );
        }
        assert_eq!(
            window.admit(&SingleThreaded, 2, 0, u32::MAX - 100),
            Err(Reason::Late)
        );
        let far = Window::new();
        assert_eq!(
            far.admit(&SingleThreaded, 0, 0, 1 << 31 | 5),
            Ok(()),
            "nothing was seen before it"
        );
    }

    #[test]
    fn an_incarnation_begins_anew_and_does_not_return() {
        let window = Window::new();
        assert_eq!(window.admit(&SingleThreaded, 15, 0, 7), Ok(()));
        assert_eq!(
            window.admit(&SingleThreaded, 0, 0, 7),
            Ok(()),
            "15 -> 0 is one ahead"
        );
        assert_eq!(
            window.admit(&SingleThreaded, 15, 0, 8),
            Err(Reason::OldIncarnation)
        );
        assert_eq!(window.admit(&SingleThreaded, 0, 0, 7), Err(Reason::Duplicate));
        assert_eq!(window.admit(&SingleThreaded, 7, 0, 7), Ok(()));
        assert_eq!(
            window.admit(&SingleThreaded, 15, 0, 7),
            Err(Reason::OldIncarnation),
            "8 ahead is behind"
        );
    }

    #[test]
    fn all_of_a_window_is_admitted_behind_its_newest() {
        let window = Window::new();
        assert_eq!(window.admit(&SingleThreaded, 0, 0, 10_000), Ok(()));
        for sequence in (10_000 - 1_984..10_000).rev() {
            assert_eq!(
                window.admit(&SingleThreaded, 0, 0, sequence),
                Ok(()),
                "{sequence}"
            );
        }
    }
}
