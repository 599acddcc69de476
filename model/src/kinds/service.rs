//! `Service`: where connections end.

use serde::Serialize;

use super::Resource;
use super::common::{integers, refuse_twice, words};
use super::network::{HostAddress, PortNumber};
use crate::manifest::{Field, Place, Problem};

/// Targets of a service.
const MOST_TARGETS: usize = 1000;

/// Servers that do one thing.
pub type Service = Resource<ServiceSpec>;

/// ```yaml
/// kind: Service
/// metadata: {name: game}
/// spec:
///   targets: [{address: 198.51.100.7, port: 2342}, {address: 198.51.100.8, port: 2342, weight: 3}]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceSpec {
    /// The servers, at least one and at most 1000, none twice.
    pub targets: Vec<Target>,
    /// What a server sees as its client. Default: nat.
    pub mode: Mode,
}

impl Field for ServiceSpec {
    const EXPECTS: &'static str = "a mapping with targets";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let targets = fields.list("targets", "at least one {address, port}");
            let mode = fields.or("mode", Mode::Nat);
            let targets: Option<Vec<Target>> = targets;
            let ends = targets.iter().flatten().map(Target::end);
            refuse_twice(fields, "targets", ends);
            let count = targets.iter().flatten().count();
            if count > MOST_TARGETS {
                let most = MOST_TARGETS;
                fields.refuse("targets", Problem::TooMany { count, most });
            }
            Some(Self {
                targets: targets?,
                mode: mode?,
            })
        })
    }
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its address.
    pub address: HostAddress,
    /// Its port. Default: the listener's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortNumber>,
    /// Its share of new connections, beside the other targets'; 0: none. Default: 1.
    #[serde(skip_serializing_if = "Weight::is_default")]
    pub weight: Weight,
}

impl Target {
    /// What no other target of its service may have too.
    fn end(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.address),
            None => self.address.to_string(),
        }
    }
}

impl Field for Target {
    const EXPECTS: &'static str = "a mapping with an address and, unless it is the listener's, a port";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let address = fields.required("address");
            let port = fields.optional("port");
            let weight = fields.or("weight", Weight::DEFAULT);
            Some(Self {
                address: address?,
                port: port?,
                weight: weight?,
            })
        })
    }
}

integers! {
    /// A share of new connections.
    Weight(u16), "a weight", 0..=1000;
}

impl Weight {
    const DEFAULT: Self = Self::literal(1);

    fn is_default(&self) -> bool {
        *self == Self::DEFAULT
    }
}

words! {
    /// What a server sees as its client.
    Mode {
        /// An address and port of the exit; the server needs nothing.
        Nat = "nat"
    } not_yet ["keep"]
}
