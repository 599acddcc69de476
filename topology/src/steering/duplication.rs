//! Whether a pair's packets are sent over both its paths.
//!
//! A copy costs twice the octets, and helps where losses of the two paths do not come together: what one loses the
//! other brings. So it is for little traffic that cannot wait, over paths of about the same length: a copy that comes
//! much later than what it stands for is none.

use serde::{Deserialize, Serialize};

use super::view::View;
use super::{Config, Path};

/// When a pair's packets are sent over both its paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplication {
    /// Never.
    #[default]
    Never,
    /// While the path in use loses packets, and the backup is about as long.
    OnLoss,
    /// Always.
    Always,
}

/// Whether packets are to be sent over both paths; `now`: whether they are. It ends at half the loss at which it
/// begins, or where the paths are half as far apart again.
pub(super) fn is_wanted(config: &Config, view: &View<'_>, paths: (&Path, &Path), now: bool) -> bool {
    match view.duplication {
        Duplication::Never => false,
        Duplication::Always => true,
        Duplication::OnLoss => {
            let (mut loss_ppm, mut apart_us) = (config.duplicate_loss_ppm, config.duplicate_within_us);
            if now {
                loss_ppm /= 2;
                apart_us += apart_us / 2;
            }
            let apart = |apart: u64| apart <= u64::from(apart_us);
            view.loss_ppm(paths.0) > loss_ppm && view.apart_us(paths.0, paths.1).is_some_and(apart)
        }
    }
}
