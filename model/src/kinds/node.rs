//! `Node`: a host that carries packets, or a foreign VTEP.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::common::{Invalid, Text, serde_as_text};
use super::network::{HostAddress, PortNumber, PortRange};
use super::{Name, Resource};
use crate::manifest::{Field, Fields, Place};

/// A host. Its name is the node's name in the cluster.
pub type Node = Resource<NodeSpec>;

/// ```yaml
/// kind: Node
/// metadata: {name: osaka}
/// spec:
///   region: ap-northeast-3
///   address: {local: 10.1.0.2, public: 203.0.113.7}
///   coordinates: {latitude: 34.69, longitude: 135.50}
///   price: 0.08
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeSpec {
    /// The region, such as `ap-northeast-3`. An accelerator's group names its exits by it.
    pub region: Name,
    /// What fails together: two paths that share a site are no backup of each other. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<Name>,
    /// Who runs the host or its uplink. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<Name>,
    /// Where the host stands, for rules about countries. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<Country>,
    /// Where the host stands, for maps. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinates: Option<Coordinates>,
    /// Its addresses on the underlay.
    pub address: NodeAddress,
    /// The UDP port of the backbone (Geneve). Default: 6081 (RFC 8926, section 3.3).
    pub udp_port: PortNumber,
    /// Does Kuafu's agent run there? `false`: a foreign VTEP. Default: true.
    pub agent: bool,
    /// Is the node being emptied? Then it relays nothing, and announces no address that others may. Default: false.
    pub drain: bool,
    /// What a GB that the node emits costs, in US dollars: it counts for traffic of class bulk. Default: 0.
    #[serde(skip_serializing_if = "Price::is_zero")]
    pub price: Price,
    /// The ports of this node that its exit NAT may use. Default: 10000-29999.
    pub nat_ports: NatPorts,
}

impl NodeSpec {
    /// The backbone's port unless the spec names another.
    pub const UDP_PORT: PortNumber = PortNumber::literal(6081);
    /// The port of VXLAN (RFC 7348, section 5).
    pub const VXLAN_PORT: PortNumber = PortNumber::literal(4789);

    /// What the node itself receives on one of these UDP ports, if it does.
    #[must_use]
    pub fn own_port(&self, ports: PortRange) -> Option<&'static str> {
        if ports.contains(Self::VXLAN_PORT) {
            Some("VXLAN")
        } else if ports.contains(self.udp_port) {
            Some("the backbone")
        } else {
            None
        }
    }
}

impl Field for NodeSpec {
    const EXPECTS: &'static str = "a mapping with region and address";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let region = fields.required("region");
            let site = fields.optional("site");
            let provider = fields.optional("provider");
            let country = fields.optional("country");
            let coordinates = fields.optional("coordinates");
            let address = fields.required("address");
            let udp_port = fields.or("udp_port", Self::UDP_PORT);
            let agent = fields.or("agent", true);
            let drain = fields.or("drain", false);
            let price = fields.or("price", Price::default());
            let nat_ports = fields.or("nat_ports", NatPorts::default());
            let spec = Self {
                region: region?,
                site: site?,
                provider: provider?,
                country: country?,
                coordinates: coordinates?,
                address: address?,
                udp_port: udp_port?,
                agent: agent?,
                drain: drain?,
                price: price?,
                nat_ports: nat_ports?,
            };
            spec.refuse_shared_ports(fields);
            Some(spec)
        })
    }
}

impl NodeSpec {
    /// Backbone, VXLAN and NAT each need ports of their own.
    fn refuse_shared_ports(&self, fields: &Fields<'_>) {
        if self.udp_port == Self::VXLAN_PORT {
            let why = "is VXLAN's port; choose another, for example 6081";
            fields.refuse("udp_port", Invalid::new(&self.udp_port.to_string(), why));
        }
        for port in [Self::VXLAN_PORT, self.udp_port] {
            if let Some(what) = self
                .own_port(port.into())
                .filter(|_| self.nat_ports.get().contains(port))
            {
                let why = format!(
                    "covers {port}, {what}'s port; choose a range without it, for example 10000-29999"
                );
                fields.refuse("nat_ports", Invalid::new(&self.nat_ports.to_string(), why));
            }
        }
    }
}

/// A node's addresses on the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NodeAddress {
    /// The address on the node's own interface.
    pub local: HostAddress,
    /// The address that others reach it by; differs behind a 1:1 NAT. Default: `local`.
    pub public: HostAddress,
}

impl Field for NodeAddress {
    const EXPECTS: &'static str = "a mapping with local and, behind a NAT, public";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let local = fields.required("local");
            let public = fields.optional("public");
            let local = local?;
            Some(Self {
                local,
                public: public?.unwrap_or(local),
            })
        })
    }
}

/// US dollars a GB, 0 to 1000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Price(f64);

impl Price {
    /// The dollars.
    #[must_use]
    pub const fn usd_per_gb(self) -> f64 {
        self.0
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_zero(&self) -> bool {
        self.0 == 0.0
    }
}

impl Field for Price {
    const EXPECTS: &'static str = "US dollars a GB, 0 to 1000, such as 0.08";

    fn read(place: &Place<'_>) -> Option<Self> {
        place
            .number(Self::EXPECTS, |usd| (0.0..=1000.0).contains(&usd))
            .map(Self)
    }
}

/// A place on the globe, in degrees (WGS 84).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coordinates {
    latitude: f64,
    longitude: f64,
}

impl Coordinates {
    /// Degrees north and east, or nothing when they are not on the globe.
    #[must_use]
    pub fn new(latitude: f64, longitude: f64) -> Option<Self> {
        let valid = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
        valid.then_some(Self { latitude, longitude })
    }

    /// Degrees north, -90 to 90.
    #[must_use]
    pub const fn latitude(self) -> f64 {
        self.latitude
    }

    /// Degrees east, -180 to 180.
    #[must_use]
    pub const fn longitude(self) -> f64 {
        self.longitude
    }
}

impl Field for Coordinates {
    const EXPECTS: &'static str = "a mapping with latitude and longitude";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let latitude = fields.degrees("latitude", "degrees north, -90 to 90", 90.0);
            let longitude = fields.degrees("longitude", "degrees east, -180 to 180", 180.0);
            Self::new(latitude?, longitude?)
        })
    }
}

/// A country by its two letters (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Text for Country {
    const FORM: &'static str = "a country's two capital letters (ISO 3166-1), such as JP";
}

impl FromStr for Country {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.as_bytes() {
            [a @ b'A'..=b'Z', b @ b'A'..=b'Z'] => Ok(Self([*a, *b])),
            _ => Err(Invalid::not::<Self>(text)),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.0.map(char::from);
        write!(f, "{a}{b}")
    }
}

/// Ports for a node's exit NAT: at least 1024, none below 1024, none of those that the host's own connections take
/// (Linux: `ip_local_port_range`, 32768-60999).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPorts(PortRange);

impl NatPorts {
    /// Where Linux takes the ports of its own connections from.
    const EPHEMERAL: (u16, u16) = (32768, 60999);
    const LEAST: u16 = 1024;
    const DEFAULT: Self = Self(PortRange::literal(10000, 29999));

    /// The range.
    #[must_use]
    pub const fn get(self) -> PortRange {
        self.0
    }
}

impl Default for NatPorts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Text for NatPorts {
    const FORM: &'static str = PortRange::FORM;
}

impl FromStr for NatPorts {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let range: PortRange = text.parse()?;
        let (first, last) = (range.first().get(), range.last().get());
        let (low, high) = Self::EPHEMERAL;
        let refuse = |why: String| {
            Err(Invalid::new(
                text,
                format!("{why}, for example {}", Self::DEFAULT),
            ))
        };
        if first <= high && low <= last {
            return refuse(format!(
                "overlaps the ephemeral range {low}-{high}; choose a range outside it"
            ));
        }
        if first < 1024 {
            return refuse("overlaps the system ports 1-1023; choose a range above them".to_owned());
        }
        if range.count() < Self::LEAST {
            return refuse(format!(
                "holds {} ports; choose at least {}",
                range.count(),
                Self::LEAST
            ));
        }
        Ok(Self(range))
    }
}

impl fmt::Display for NatPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serde_as_text!(Country, NatPorts);
