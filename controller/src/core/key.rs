//! The keys of the store.

use kuafu_model::kinds::{Name, ObjectRef};

pub(super) const CLUSTER: &str = "cluster";
pub(super) const REVISION: &str = "revision";
pub(super) const ALLOCATIONS: &str = "allocations";
pub(super) const CHOICES: &str = "choices";
/// Servers that are down, as a host sees them.
pub(super) const DOWN: &str = "down/";
/// Who holds the addresses that one of several nodes may hold.
pub(super) const HOLDERS: &str = "holders";
/// Targets that a service's hook has named.
pub(super) const NAMED: &str = "named/";
pub(super) const KEYS_RENEWED: &str = "keys-renewed";
pub(super) const OBJECTS: &str = "object/";
pub(super) const TOKENS: &str = "token/";
pub(super) const CERTIFICATES: &str = "certificate/";
/// Certificates that members were given and have not shown yet.
pub(super) const RENEWED: &str = "renewed/";
pub(super) const ACKNOWLEDGED: &str = "acknowledged/";
/// What hosts may go back to by themselves.
pub(super) const KEPT: &str = "kept/";
pub(super) const HISTORY: &str = "history/";
/// The change that is on trial.
pub(super) const TRIAL: &str = "trial";

pub(super) fn object(object: &ObjectRef) -> String {
    format!("{OBJECTS}{object}")
}

pub(super) fn token(digest: &str) -> String {
    format!("{TOKENS}{digest}")
}

pub(super) fn certificate(node: &Name) -> String {
    format!("{CERTIFICATES}{node}")
}

pub(super) fn renewed(node: &Name) -> String {
    format!("{RENEWED}{node}")
}

pub(super) fn down(node: &Name) -> String {
    format!("{DOWN}{node}")
}

pub(super) fn named(service: &Name) -> String {
    format!("{NAMED}{service}")
}

pub(super) fn acknowledged(node: &Name) -> String {
    format!("{ACKNOWLEDGED}{node}")
}

pub(super) fn kept(node: &Name, revision: u64) -> String {
    format!("{KEPT}{node}/{revision}")
}

pub(super) fn history(revision: u64) -> String {
    format!("{HISTORY}{revision}")
}
