//! Two contestants in turns, so that what the machine does meanwhile meets both.

use anyhow::Result;

/// What both contestants scored, round by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    /// The peer's value in each round.
    pub(crate) peer: Vec<f64>,
    /// Ours, in the same round.
    pub(crate) ours: Vec<f64>,
}

impl Rounds {
    /// Runs `count` rounds; who begins changes each round.
    ///
    /// # Errors
    /// The first error of a contestant.
    pub(crate) fn interleaved(
        count: usize,
        mut peer: impl FnMut() -> Result<f64>,
        mut ours: impl FnMut() -> Result<f64>,
    ) -> Result<Self> {
        let mut rounds = Self::default();
        for round in 0..count {
            if round % 2 == 0 {
                rounds.peer.push(peer()?);
                rounds.ours.push(ours()?);
            } else {
                rounds.ours.push(ours()?);
                rounds.peer.push(peer()?);
            }
        }
        Ok(rounds)
    }

    /// The median of ours ÷ peer within each round; none without rounds.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let ratios = self.ours.iter().zip(&self.peer).map(|(ours, peer)| ours / peer);
        median(&ratios.collect::<Vec<_>>())
    }
}

/// The middle value, or the mean of the two in the middle; none of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(*lower, *upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let cases: [(&[f64], Option<f64>); 4] = [
            (&[], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0, 2.0, 100.0], Some(3.0)),
        ];
        for (values, expected) in cases {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn turns_alternate_and_ratios_are_of_one_round() {
        let order = std::cell::RefCell::new(String::new());
        let turn = |who, value| {
            order.borrow_mut().push(who);
            Ok(value)
        };
        let mut load = 0.0;
        let rounds = Rounds::interleaved(
            3,
            || turn('p', 10.0),
            || {
                load += 10.0;
                turn('o', load)
            },
        )
        .unwrap();
        assert_eq!(order.borrow().as_str(), "pooppo");
        assert_eq!(rounds.ours, [10.0, 20.0, 30.0]);
        assert_eq!(rounds.ratio(), Some(2.0));
    }
}
