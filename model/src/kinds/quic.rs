//! `quic` of a `Service`: connections that keep their server when their client's address changes.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::common::{Invalid, integers, words};
use crate::manifest::{Field, Place, Problem};

/// How the servers lay out the connection ids that they choose (RFC 9000, section 5.1).
///
/// ```yaml
/// quic: {layout: quic-lb, config: 2, server_id_octets: 3}
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionIds {
    /// Two bits that say where the server's id is: 1: in the 16 bits behind them; 2: in octets 1 to 3; 3: in 1 to 4.
    Tagged,
    /// QUIC-LB in plaintext (draft-ietf-quic-load-balancers-21, section 5.2).
    QuicLb {
        /// The configuration's number.
        config: ConfigNumber,
        /// Octets in a server's id.
        octets: IdOctets,
    },
}

words! {
    /// A layout's name.
    IdLayout {
        /// A tag and the server's id.
        Tagged = "tagged",
        /// QUIC-LB in plaintext.
        QuicLb = "quic-lb"
    } not_yet []
}

integers! {
    /// The number of a QUIC-LB configuration.
    ConfigNumber(u8), "a number of a configuration", 0..=6;
    /// Octets in a server's id.
    IdOctets(u8), "octets of a server's id", 1..=8;
}

impl ConnectionIds {
    /// The largest id that a server may have.
    #[must_use]
    pub const fn largest_id(self) -> u64 {
        match self {
            Self::Tagged => u32::MAX as u64,
            Self::QuicLb { octets, .. } => u64::MAX >> (64 - 8 * octets.get() as u32),
        }
    }
}

const CONFIG: &str = "config";
const OCTETS: &str = "server_id_octets";

impl Field for ConnectionIds {
    const EXPECTS: &'static str =
        "a mapping with layout, such as {layout: quic-lb, config: 0, server_id_octets: 4}";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let layout = fields.required("layout");
            let config: Option<Option<ConfigNumber>> = fields.optional(CONFIG);
            let octets: Option<Option<IdOctets>> = fields.optional(OCTETS);
            let (layout, config, octets) = (layout?, config?, octets?);
            let given = [
                (
                    CONFIG,
                    config.map(|config| config.to_string()),
                    "the configuration's number, 0-6",
                ),
                (
                    OCTETS,
                    octets.map(|octets| octets.to_string()),
                    "octets of a server's id, 1-8",
                ),
            ];
            for (name, value, expects) in given {
                match (layout, value) {
                    (IdLayout::Tagged, Some(value)) => {
                        let why = "is for layout: quic-lb alone; choose that, or leave it out";
                        fields.refuse(name, Invalid::new(&value, why));
                    }
                    (IdLayout::QuicLb, None) => fields.refuse(name, Problem::Missing { expects }),
                    _ => {}
                }
            }
            match layout {
                IdLayout::Tagged => Some(Self::Tagged),
                IdLayout::QuicLb => Some(Self::QuicLb {
                    config: config?,
                    octets: octets?,
                }),
            }
        })
    }
}

impl Serialize for ConnectionIds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Tagged => map.serialize_entry("layout", &IdLayout::Tagged)?,
            Self::QuicLb { config, octets } => {
                map.serialize_entry("layout", &IdLayout::QuicLb)?;
                map.serialize_entry(CONFIG, config)?;
                map.serialize_entry(OCTETS, octets)?;
            }
        }
        map.end()
    }
}
