//! SipHash-2-4 (Aumasson and Bernstein, 2012), as a tag over the words of a header.

/// A 128-bit key, little-endian halves as in the paper.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Octets 0 to 7.
    pub k0: u64,
    /// Octets 8 to 15.
    pub k1: u64,
}

/// A hash under way.
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    const fn new(key: Key) -> Self {
        Self {
            v0: key.k0 ^ 0x736f_6d65_7073_6575,
            v1: key.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: key.k0 ^ 0x6c79_6765_6e65_7261,
            v3: key.k1 ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline(always)]
    const fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    const fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        // Four rounds, as two words of zeros: small code is fast code where decoded instructions are cached.
        for word in [0; 2] {
            self.word(word);
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// What the last of 60 octets' words holds above its four: how many octets there are.
pub const LAST: u64 = 60 << 56;

/// The hash of octets in words, little-endian as a load on x86 gives them; the last word has fewer than eight, and above
/// them how many there are in all, as [`LAST`].
#[inline(always)]
#[must_use]
pub fn hash<const N: usize>(key: Key, words: &[u64; N]) -> u64 {
    let mut state = State::new(key);
    for word in words {
        state.word(*word);
    }
    state.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of the paper's reference vectors (key and message 0, 1, 2 …).
    #[test]
    fn reference_vectors() {
        let key = Key {
            k0: 0x0706_0504_0302_0100,
            k1: 0x0f0e_0d0c_0b0a_0908,
        };
        let word = |at: u64| u64::from_le_bytes(core::array::from_fn(|i| at as u8 + i as u8));
        let mut words: [u64; 8] = core::array::from_fn(|i| word(i as u64 * 8));
        words[7] = LAST | 0x3b3a_3938;
        assert_eq!(hash(key, &words), 0x6ca4_ecb1_5c5f_91e1);
        let fifteen = [word(0), 15 << 56 | 0x0e_0d0c_0b0a_0908];
        assert_eq!(hash(key, &fifteen), 0xa129_ca61_49be_45e5);
    }
}
