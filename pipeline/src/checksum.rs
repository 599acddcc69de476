//! Internet checksums (RFC 1071), whole and incremental (RFC 1624, equation 3).

/// Adds the 16-bit big-endian halves of `word` to a running one's-complement sum.
#[inline(always)]
#[must_use]
pub const fn add32(sum: u32, word: u32) -> u32 {
    sum + (word >> 16) + (word & 0xffff)
}

/// Folds a running sum to 16 bits. Exact for sums of up to 65,535 halves.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// Folds a sum of few 32-bit words to 16 bits. The words may be little-endian: the result then is, too (RFC 1071, 2 B).
#[inline(always)]
#[must_use]
pub const fn fold_words(sum: u64) -> u16 {
    let words = (sum & 0xffff_ffff) + (sum >> 32);
    let once = (words & 0xffff) + (words >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// A running sum of 64-bit words in the order of their octets, for [`fold_words`].
#[inline(always)]
#[must_use]
pub const fn words<const N: usize>(words: [u64; N]) -> u64 {
    let (mut sum, mut at) = (0, 0);
    while at < N {
        sum += (words[at] >> 32) + (words[at] & 0xffff_ffff);
        at += 1;
    }
    sum
}

/// The checksum field for a running sum.
#[inline(always)]
#[must_use]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// What replacing words does to a checksum: a running sum of new words and complements of old ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change(u32);

impl Change {
    /// Nothing replaced yet.
    #[inline(always)]
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    /// One 16-bit field replaced.
    #[inline(always)]
    #[must_use]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u32 + new as u32)
    }

    /// One 32-bit field replaced.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(add32(add32(self.0, !old), new))
    }

    /// Both changes.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the change.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        finish(self.0 + (!checksum) as u32)
    }

    /// The UDP checksum after the change: zero means "none" and stays, and a computed zero is sent as all ones
    /// (RFC 768).
    #[inline(always)]
    #[must_use]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        let new = self.apply(checksum);
        if new == 0 { 0xffff } else { new }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(words: &[u16]) -> u16 {
        finish(words.iter().map(|&word| u32::from(word)).sum())
    }

    #[test]
    fn known_header() {
        let header = [
            0x4500, 0x0073, 0, 0x4000, 0x4011, 0, 0xc0a8, 0x0001, 0xc0a8, 0x00c7,
        ];
        assert_eq!(whole(&header), 0xb861);
    }

    #[test]
    fn little_endian_words_give_a_little_endian_sum() {
        let octets = *b"\x45\x00\x00\x73\x00\x00\x40\x00\xff\xff\xff\xff\xff\xff\xff\xff\xc0\xa8\x00\xc7";
        let (words, []) = octets.as_chunks::<4>() else {
            unreachable!()
        };
        let little = words
            .iter()
            .map(|word| u64::from(u32::from_le_bytes(*word)))
            .sum();
        let big = words.iter().map(|word| u32::from_be_bytes(*word)).fold(0, add32);
        assert_eq!(fold_words(little), fold(big).swap_bytes());
    }

    #[test]
    fn a_change_equals_a_new_sum() {
        let mut state = 1_u32;
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16
        };
        for _ in 0..10_000 {
            let mut words = [draw(), draw(), draw(), draw(), 0x4500];
            let before = whole(&words);
            let (old, new) = (words[1], draw());
            words[1] = new;
            assert_eq!(Change::none().half(old, new).apply(before), whole(&words));
        }
    }

    #[test]
    fn udp_keeps_none_and_never_sends_zero() {
        assert_eq!(Change::none().half(1, 2).apply_udp(0), 0);
        assert_eq!(Change::none().half(0, 1).apply_udp(1), 0xffff);
    }
}
