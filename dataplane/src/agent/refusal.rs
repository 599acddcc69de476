//! How a state is refused.

use kuafu_proto::v1::Refused;

/// For a reason that stays.
pub(super) fn of(revision: u64, reason: &dyn std::error::Error) -> Refused {
    let reason = reason.to_string();
    tracing::warn!(revision, reason, "a state is refused");
    Refused {
        revision,
        reason,
        want_snapshot: false,
    }
}

/// A delta, where there is nothing that it could change.
pub(super) fn want_snapshot(revision: u64) -> Refused {
    Refused {
        revision,
        reason: "no state is in force".to_owned(),
        want_snapshot: true,
    }
}
