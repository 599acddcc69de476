//! When a server is up, and when it is down.

use kuafu_model::state::Check;

use super::Standing;

/// Judges a server by what its checks come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    standing: Standing,
    /// How many in a row speak against the standing.
    against: u32,
}

impl Judge {
    pub(super) const fn new(standing: Standing) -> Self {
        Self { standing, against: 0 }
    }

    pub(super) const fn standing(&self) -> Standing {
        self.standing
    }

    /// Takes one check's end. The standing, where it has changed: who was not known is up by one success.
    pub(super) fn heard(&mut self, check: &Check, serves: bool) -> Option<Standing> {
        let (to, needed) = match (self.standing, serves) {
            (Standing::Unknown, true) => (Standing::Up, 1),
            (Standing::Down, true) => (Standing::Up, check.rise),
            (Standing::Unknown | Standing::Up, false) => (Standing::Down, check.fall),
            (Standing::Up, true) | (Standing::Down, false) => {
                self.against = 0;
                return None;
            }
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        *self = Self::new(to);
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use kuafu_model::state::Ask;

    use super::Standing::{Down, Unknown, Up};
    use super::*;

    /// What a server is after each of these checks: rise 2, fall 3.
    fn after(begins: Standing, checks: &[bool]) -> Vec<Standing> {
        let check = Check {
            service: "web".into(),
            ask: Ask::Tcp,
            port: None,
            interval_ms: 1000,
            timeout_ms: 1000,
            rise: 2,
            fall: 3,
            least_percent: 0,
            slow_start_s: 0,
        };
        let (mut judge, mut now) = (Judge::new(begins), begins);
        let mut standing = |serves: &bool| {
            now = judge.heard(&check, *serves).unwrap_or(now);
            now
        };
        checks.iter().map(&mut standing).collect()
    }

    #[test]
    fn so_many_in_a_row_change_it() {
        assert_eq!(
            after(Up, &[false, false, true, false, false, false]),
            [Up, Up, Up, Up, Up, Down]
        );
        assert_eq!(after(Down, &[true, false, true, true]), [Down, Down, Down, Up]);
    }

    #[test]
    fn unknown_is_not_down() {
        assert_eq!(after(Unknown, &[false, false, false]), [Unknown, Unknown, Down]);
        assert_eq!(after(Unknown, &[false, true]), [Unknown, Up]);
    }
}
