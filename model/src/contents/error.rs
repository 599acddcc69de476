//! Why a state cannot become the contents of this host's maps.

use std::ops::RangeInclusive;

use thiserror::Error;

/// What of a state this host cannot satisfy. Fields are named as in `HostState`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// A value that is not allowed.
    #[error("{field} is {value}; allowed: {allowed}")]
    Value {
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two entries with the same name where there can be one.
    #[error("{field}: {value} is there twice; remove one of the two")]
    Repeated {
        /// The field.
        field: String,
        /// What both have.
        value: String,
    },
    /// A reference to what is not in the state.
    #[error(
        "{field} names {value}, which is not among the {missing} of this host; add it or change the reference"
    )]
    Dangling {
        /// The field.
        field: String,
        /// What it names.
        value: u32,
        /// Where that should be.
        missing: &'static str,
    },
    /// A map too small.
    #[error("the map {map} holds {capacity} entries and would need {needed}; give this host less")]
    Full {
        /// The map.
        map: &'static str,
        /// What it holds.
        capacity: u32,
        /// What it would have to hold.
        needed: u64,
    },
    /// Lists of more prefixes than fit.
    #[error(
        "prefix_lists: with list {list} their prefixes need more than the {capacity} entries that the map listed holds; \
         each longer than a /16 takes one for each /24, or for each address of what is longer than that: give this host \
         fewer, or shorter ones"
    )]
    ListsTooLong {
        /// The list with which they do.
        list: String,
        /// What the map holds.
        capacity: u32,
    },
    /// An underlay too narrow.
    #[error("the underlay's MTU is {mtu}; at least {least} octets are needed: raise it on the interface")]
    Underlay {
        /// The interface's.
        mtu: u32,
        /// What is needed.
        least: u32,
    },
}

/// Refuses a value outside a range.
pub(super) fn in_range(
    field: impl Into<String>,
    value: u32,
    range: RangeInclusive<u32>,
    allowed: &str,
) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::Value {
        field: field.into(),
        value: value.to_string(),
        allowed: allowed.into(),
    })
}

/// Refuses more entries than a map holds.
pub(super) fn fits(map: &'static str, needed: usize, capacity: u32) -> Result<(), Error> {
    let needed = needed as u64;
    if needed <= u64::from(capacity) {
        return Ok(());
    }
    Err(Error::Full {
        map,
        capacity,
        needed,
    })
}

/// The field of one entry of a list.
pub(super) fn entry(list: &str, index: usize, field: &str) -> String {
    format!("{list}[{index}].{field}")
}
