//! What packets to an address meet beside its listeners, and which flows go together.

use serde::Serialize;

use super::common::words;
use crate::manifest::{Field, Place};

words! {
    /// Which flows of a listener lead to one target.
    #[derive(Default)]
    Affinity {
        /// Each goes by itself.
        #[default]
        Flow = "flow",
        /// All of a client's.
        Client = "client",
        /// All to a port.
        Port = "port"
    } not_yet []
}

words! {
    /// What becomes of fragments of TCP and UDP.
    #[derive(Default)]
    Fragments {
        /// They go where their first one went.
        #[default]
        Forward = "forward",
        /// Dropped (`fragment`).
        Drop = "drop",
        /// Left to the node.
        Pass = "pass"
    } not_yet []
}

words! {
    /// What becomes of packets with IPv4 options.
    #[derive(Default)]
    Options {
        /// Dropped (`ip_options`).
        #[default]
        Drop = "drop",
        /// Left to the node.
        Pass = "pass"
    } not_yet ["forward"]
}

words! {
    /// What becomes of echo requests.
    Echo {
        /// The address answers.
        Reply = "reply",
        /// Dropped (`no_listener`).
        Drop = "drop",
        /// Left to the node.
        Pass = "pass"
    } not_yet []
}

words! {
    /// Whether who sends too large a packet is told.
    #[derive(Default)]
    Oversize {
        /// By ICMP (fragmentation needed, RFC 1191).
        #[default]
        Icmp = "icmp",
        /// By nothing.
        Drop = "drop"
    } not_yet []
}

impl Affinity {
    pub(crate) const fn is_default(&self) -> bool {
        matches!(self, Self::Flow)
    }
}

/// What becomes of packets to an address that are not usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PacketPolicy {
    /// Fragments of TCP and UDP. Default: forward.
    pub fragments: Fragments,
    /// Packets with IPv4 options. Default: drop.
    pub ipv4_options: Options,
    /// Echo requests. Default: reply at services, drop at accelerators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<Echo>,
    /// Packets too large for what is put around them. Default: icmp.
    pub oversize: Oversize,
}

impl PacketPolicy {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Field for PacketPolicy {
    const EXPECTS: &'static str = "a mapping with fragments, ipv4_options, echo and oversize";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let usual = Self::default();
            let fragments = fields.or("fragments", usual.fragments);
            let ipv4_options = fields.or("ipv4_options", usual.ipv4_options);
            let echo = fields.optional("echo");
            let oversize = fields.or("oversize", usual.oversize);
            Some(Self {
                fragments: fragments?,
                ipv4_options: ipv4_options?,
                echo: echo?,
                oversize: oversize?,
            })
        })
    }
}
