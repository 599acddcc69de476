//! `Listener`: what a service or an accelerator takes at its addresses.

use std::str::FromStr;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::common::{Invalid, Text};
use super::network::{PortNumber, PortRange, Protocol};
use crate::manifest::{Field, Fields, Place, Problem};

/// A protocol and ports, as `port: 443`, as `ports: 27000-27100` or as `ports: all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The ports.
    pub ports: PortRange,
}

/// What a list of listeners holds.
pub(super) const LISTENERS: &str = "at least one {protocol, port}";
/// Ports that the listeners of one object may have together, beside all of a protocol; and places in a host's table that
/// they may take, where its pool has prefixes.
pub(crate) const MOST_ENTRIES: usize = 10_000;

impl Listener {
    /// Whether a packet may belong to both of them, at one address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.protocol == other.protocol && self.ports.overlaps(other.ports)
    }

    /// Its places in a host's table, at one address.
    #[must_use]
    pub fn entries(self) -> usize {
        if self.ports.is_all() {
            1
        } else {
            self.ports.count().into()
        }
    }

    /// The field in which its manifest names its ports.
    #[must_use]
    pub fn field(self) -> &'static str {
        if self.ports.only().is_some() {
            "port"
        } else {
            "ports"
        }
    }
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.ports.only() {
            Some(port) => write!(f, "{} port {port}", self.protocol),
            None if self.ports.is_all() => write!(f, "{} ports (all)", self.protocol),
            None => write!(f, "{} ports {}", self.protocol, self.ports),
        }
    }
}

/// Ports as manifests write them where there are several.
struct Ports(PortRange);

const ALL: &str = "all";

impl Text for Ports {
    const FORM: &'static str = "a range of ports, such as 27000-27100, or all";
}

impl FromStr for Ports {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let range = if text == ALL {
            Some(PortRange::ALL)
        } else {
            text.parse().ok()
        };
        range.map(Self).ok_or_else(|| Invalid::not::<Self>(text))
    }
}

impl Field for Listener {
    const EXPECTS: &'static str = "a mapping with protocol and port or ports";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let protocol = fields.required("protocol");
            let port: Option<Option<PortNumber>> = fields.optional("port");
            let ports: Option<Option<Ports>> = fields.optional("ports");
            let ports = match (port?, ports?) {
                (Some(port), None) => port.into(),
                (None, Some(Ports(ports))) => ports,
                (None, None) => {
                    let expects = "a port, or ports, such as 27000-27100 or all";
                    fields.refuse("port", Problem::Missing { expects });
                    return None;
                }
                (Some(port), Some(_)) => {
                    let why = "stands beside ports; name all of them there, and leave this out";
                    fields.refuse("port", Invalid::new(&port.to_string(), why));
                    return None;
                }
            };
            Some(Self {
                protocol: protocol?,
                ports,
            })
        })
    }
}

impl Serialize for Listener {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("protocol", &self.protocol)?;
        match self.ports.only() {
            Some(port) => map.serialize_entry("port", &port)?,
            None if self.ports.is_all() => map.serialize_entry("ports", ALL)?,
            None => map.serialize_entry("ports", &self.ports)?,
        }
        map.end()
    }
}

/// Refuses listeners of an object of which one has another's ports, and too many ports.
pub(super) fn refuse_overlaps<'l>(fields: &Fields<'_>, listeners: impl Iterator<Item = &'l Listener>) {
    let listeners: Vec<&Listener> = listeners.collect();
    for (index, listener) in listeners.iter().enumerate() {
        let at = format!("listeners[{index}]");
        let Some(first) = listeners[..index]
            .iter()
            .position(|other| other.overlaps(**listener))
        else {
            continue;
        };
        let other = fields.path_of(&format!("listeners[{first}]"));
        if listeners[first] == *listener {
            let value = listener.to_string();
            fields.refuse(&at, Problem::Twice { value, first: other });
        } else {
            let why = format!("has ports of {other}; leave them out of one");
            let at = format!("{at}.{}", listener.field());
            fields.refuse(&at, Invalid::new(&listener.to_string(), why));
        }
    }
    let some = listeners.iter().filter(|listener| !listener.ports.is_all());
    let count: usize = some.map(|listener| usize::from(listener.ports.count())).sum();
    if count > MOST_ENTRIES {
        let why = format!("have {count} ports; at most {MOST_ENTRIES}, or all of a protocol");
        fields.refuse("listeners", Invalid::new("these", why));
    }
}

/// Refuses all ports where they cannot be had.
pub(super) fn refuse_all_ports<'l>(
    fields: &Fields<'_>,
    listeners: impl Iterator<Item = &'l Listener>,
    of: &str,
) {
    for (index, listener) in listeners.enumerate() {
        if listener.ports.is_all() {
            let why = format!("cannot be had of {of}; name the ports, such as 27000-27100");
            fields.refuse(&format!("listeners[{index}].ports"), Invalid::new(ALL, why));
        }
    }
}
