//! `PrefixList`: addresses by their prefixes.

use std::sync::Arc;

use serde::Serialize;

use super::Resource;
use super::common::refuse_twice;
use super::network::Cidr;
use crate::manifest::{Field, Place, Problem};

/// Prefixes of a list.
const MOST_PREFIXES: usize = 200_000;

/// Sources that a [`Shield`](super::Shield) names together.
pub type PrefixList = Resource<PrefixListSpec>;

/// ```yaml
/// kind: PrefixList
/// metadata: {name: bots}
/// spec:
///   prefixes: [198.51.100.0/24, 203.0.113.7/32]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PrefixListSpec {
    /// The prefixes, at least one and at most 200,000, none twice. One may lie within another.
    pub prefixes: Arc<[Cidr]>,
}

impl Field for PrefixListSpec {
    const EXPECTS: &'static str = "a mapping with prefixes";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let prefixes: Option<Vec<Cidr>> = fields.list("prefixes", "at least one IPv4 prefix");
            refuse_twice(fields, "prefixes", prefixes.iter().flatten().copied());
            let count = prefixes.iter().flatten().count();
            if count > MOST_PREFIXES {
                let most = MOST_PREFIXES;
                fields.refuse("prefixes", Problem::TooMany { count, most });
            }
            Some(Self {
                prefixes: prefixes?.into(),
            })
        })
    }
}
