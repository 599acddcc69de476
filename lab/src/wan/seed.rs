//! Chance that depends on nothing but a seed, a name and a count.

use std::f64::consts::TAU;

/// The root of everything drawn in one place. The same seed and names give the same draws on any machine,
/// in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// A root.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of what is called `name` under this one (FNV-1a over the name, then mixed).
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(mix(self.0 ^ hash))
    }

    /// The draw number `index`, uniform over u64 (SplitMix64; Steele, Lea, Flood 2014).
    pub(crate) fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// The draw number `index`, uniform over (0, 1].
    pub(crate) fn uniform(self, index: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (self.bits(index) >> 11) as f64 + 1.0;
        unit * (1.0 / 9_007_199_254_740_992.0)
    }

    /// The draw number `index` of the standard normal law (Box and Muller 1958, the cosine branch).
    pub(crate) fn normal(self, index: u64) -> f64 {
        let (radius, angle) = (self.uniform(2 * index), self.uniform(2 * index + 1));
        (-2.0 * radius.ln()).sqrt() * (TAU * angle).cos()
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_reproducible_and_apart() {
        let seed = Seed::new(1);
        assert_eq!(seed.named("a").bits(7), Seed::new(1).named("a").bits(7));
        assert_ne!(seed.named("a").bits(7), seed.named("b").bits(7));
        assert_ne!(seed.named("a").bits(7), seed.named("a").bits(8));
    }

    #[test]
    fn the_normal_law_has_its_moments() {
        let draws: Vec<f64> = (0..100_000).map(|index| Seed::new(3).normal(index)).collect();
        let count = f64::from(u32::try_from(draws.len()).unwrap());
        let mean = draws.iter().sum::<f64>() / count;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / count;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
    }
}
