//! The keys of the store.

use kuafu_model::kinds::{Name, ObjectRef};

pub(super) const CLUSTER: &str = "cluster";
pub(super) const REVISION: &str = "revision";
pub(super) const ALLOCATIONS: &str = "allocations";
pub(super) const CHOICES: &str = "choices";
pub(super) const RENEWED: &str = "keys-renewed";
pub(super) const OBJECTS: &str = "object/";
pub(super) const TOKENS: &str = "token/";
pub(super) const CERTIFICATES: &str = "certificate/";
pub(super) const ACKNOWLEDGED: &str = "acknowledged/";

pub(super) fn object(object: &ObjectRef) -> String {
    format!("{OBJECTS}{object}")
}

pub(super) fn token(digest: &str) -> String {
    format!("{TOKENS}{digest}")
}

pub(super) fn certificate(node: &Name) -> String {
    format!("{CERTIFICATES}{node}")
}

pub(super) fn acknowledged(node: &Name) -> String {
    format!("{ACKNOWLEDGED}{node}")
}
