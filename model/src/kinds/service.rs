//! `Service`: where connections end.

use serde::Serialize;

use super::Resource;
use super::common::words;
use super::network::{HostAddress, PortNumber};
use crate::manifest::{Field, Place};

/// Servers that do one thing.
pub type Service = Resource<ServiceSpec>;

/// ```yaml
/// kind: Service
/// metadata: {name: game}
/// spec:
///   targets: [{address: 198.51.100.7, port: 2342}]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceSpec {
    /// The servers; exactly one for now.
    pub targets: Vec<Target>,
    /// What a server sees as its client. Default: nat.
    pub mode: Mode,
}

impl Field for ServiceSpec {
    const EXPECTS: &'static str = "a mapping with targets";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let targets = fields.single("targets", "one {address, port}");
            let mode = fields.or("mode", Mode::Nat);
            Some(Self {
                targets: vec![targets?],
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
}

impl Field for Target {
    const EXPECTS: &'static str = "a mapping with an address and, unless it is the listener's, a port";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let address = fields.required("address");
            let port = fields.optional("port");
            Some(Self {
                address: address?,
                port: port?,
            })
        })
    }
}

words! {
    /// What a server sees as its client.
    Mode {
        /// An address and port of the exit; the server needs nothing.
        Nat = "nat"
    } not_yet ["keep"]
}
