//! Other constructions of a ring, of members of equal weight.

use kuafu_model::contents::ring::Member;
use kuafu_pipeline::siphash::{self, Key};

/// Maglev's table (Eisenbud et al., NSDI 2016, §3.4, algorithm 1): members take turns, each walks on to its next free
/// slot. `size` is prime.
pub(super) fn maglev(members: &[Member], size: u32) -> Vec<u32> {
    let below = |draw: u64, limit: u32| u32::try_from(draw % u64::from(limit)).unwrap_or(0);
    let mut walks: Vec<(u32, u32, u32)> = members
        .iter()
        .map(|member| {
            let (at, step) = (below(draw(member, 0), size), 1 + below(draw(member, 1), size - 1));
            (at, step, member.number)
        })
        .collect();
    let (mut slots, mut taken) = (vec![0; size as usize], vec![false; size as usize]);
    let mut free = size;
    while free > 0 {
        for (at, step, number) in walks.iter_mut().take(free as usize) {
            while taken[*at as usize] {
                *at = after(*at, *step, size);
            }
            taken[*at as usize] = true;
            slots[*at as usize] = *number;
            free -= 1;
        }
    }
    slots
}

/// A table of rendezvous (highest random weight; Thaler and Ravishankar, 1998): each slot is the member's whose hash
/// with it is highest. Nothing bounds a member's share.
pub(super) fn rendezvous(members: &[Member], size: u32) -> Vec<u32> {
    let seeds: Vec<(u64, u32)> = members
        .iter()
        .map(|member| (draw(member, 0), member.number))
        .collect();
    let highest = |slot: u32| seeds.iter().max_by_key(|(seed, _)| mixed(seed ^ u64::from(slot)));
    (0..size).filter_map(highest).map(|(_, number)| *number).collect()
}

/// A random number that the member always draws.
fn draw(member: &Member, which: u64) -> u64 {
    const KEY: Key = Key { k0: 1, k1: 2 };
    let [first, second, ..] = member.identity;
    siphash::hash(KEY, &[which, first, second, 0, 0, 0, 0, siphash::LAST])
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014).
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn after(at: u32, step: u32, size: u32) -> u32 {
    let next = at + step;
    if next < size { next } else { next - size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_someones() {
        let member = |number| Member {
            identity: [7, u64::from(number), 0, 0],
            weight: 1,
            number,
        };
        let members: Vec<Member> = (1..=10).map(member).collect();
        let share = |ring: &[u32], number| ring.iter().filter(|slot| **slot == number).count();
        let (exact, drawn) = (maglev(&members, 4093), rendezvous(&members, 4093));
        for number in 1..=10 {
            assert!((409..=410).contains(&share(&exact, number)), "{number}");
            assert!((300..=500).contains(&share(&drawn, number)), "{number}");
        }
    }
}
