//! Numbers that differ, so that hosts and checks do not all act at once. Anybody may guess them.

use std::hash::{BuildHasher, RandomState};

/// From 0 to 1, different each time.
pub(crate) fn noise() -> f64 {
    let word = RandomState::new().hash_one(()) >> 32;
    word as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::noise;

    #[test]
    fn it_is_from_0_to_1_and_differs() {
        let [one, other] = [noise(), noise()];
        assert!(
            (0.0..=1.0).contains(&one) && (0.0..=1.0).contains(&other) && one.to_bits() != other.to_bits()
        );
    }
}
