//! `Service`: where connections end.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::common::{Invalid, Moment, integers, refuse_twice, words};
use super::listener::LISTENERS;
use super::network::{HostIp, PortNumber, Protocol};
use super::{Affinity, ConnectionIds, Health, Labels, Listener, Name, Resource, Scaling, Shield, listener};
use crate::manifest::{Field, Fields, Place, Problem};

/// Targets of a service.
pub(crate) const MOST_TARGETS: usize = 1000;

/// Servers that do one thing.
pub type Service = Resource<ServiceSpec>;

/// ```yaml
/// kind: Service
/// metadata: {name: game}
/// spec:
///   targets: [{address: 198.51.100.7, port: 2342}, {address: 198.51.100.8, port: 2342, weight: 3}]
/// ---
/// kind: Service
/// metadata: {name: web}
/// spec:
///   pool: europe
///   listeners: [{protocol: tcp, port: 443}]
///   mode: gue
///   targets: [{address: 192.0.2.7}, {address: 192.0.2.8}]
/// ---
/// kind: Service
/// metadata: {name: shop}
/// spec:
///   pool: europe
///   listeners: [{protocol: tcp, port: 80}]
///   mode: vxlan
///   vpc: red
///   targets: [{address: 10.0.0.5}, {address: 10.0.0.6}]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceSpec {
    /// The pool at whose addresses clients reach it directly. Default: none, only accelerators lead to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
    /// What it listens on there, none twice; with a pool at least one, else none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
    /// The servers, at most 1000 together with those that are selected, none twice; at least one, unless `select` or `scaling` is given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// Nodes that are servers too, by their labels. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub select: Option<Select>,
    /// How further targets come and go, by a hook. Default: none do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<Scaling>,
    /// Whether targets near the node where packets leave to them get its new flows, as long as one of them serves.
    /// Default: none.
    #[serde(skip_serializing_if = "Prefer::is_none")]
    pub prefer: Prefer,
    /// With a pool: which flows lead to one target. Default: flow, each by itself.
    #[serde(skip_serializing_if = "Affinity::is_default")]
    pub affinity: Affinity,
    /// Of QUIC, with a pool: how connection ids name a target, which their connections keep. Default: they name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic: Option<ConnectionIds>,
    /// How packets reach a server, and what it sees as its client. Default: nat.
    pub mode: Mode,
    /// Of mode vxlan: the VPC whose ports the targets are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpc: Option<Name>,
    /// Of mode gue: the encapsulation.
    #[serde(skip_serializing_if = "Gue::is_default")]
    pub gue: Gue,
    /// How it is found out whether a target serves. Default: all do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// With a pool: what may begin there. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shield: Option<Shield>,
}

impl Field for ServiceSpec {
    const EXPECTS: &'static str = "a mapping with targets";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let pool: Option<Option<Name>> = fields.optional("pool");
            let listeners = fields.optional_list("listeners", LISTENERS);
            let targets = fields.optional_list("targets", TARGETS);
            let select = fields.optional("select");
            let scaling = fields.optional("scaling");
            let prefer = fields.or("prefer", Prefer::None);
            let affinity = fields.or("affinity", Affinity::default());
            let quic = fields.optional("quic");
            let mode = fields.or("mode", Mode::Nat);
            let vpc = fields.optional("vpc");
            let gue = fields.optional("gue");
            let health = fields.optional("health");
            let shield = fields.optional("shield");
            let listeners: Option<Vec<Listener>> = listeners.map(Option::unwrap_or_default);
            let has_targets = !matches!(
                (&targets, &select, &scaling),
                (Some(None), Some(None), Some(None))
            );
            if !has_targets {
                fields.refuse("targets", Problem::Missing { expects: TARGETS });
            }
            let targets: Option<Vec<Target>> = targets.map(Option::unwrap_or_default);
            listener::refuse_overlaps(fields, listeners.iter().flatten());
            refuse_twice(fields, "targets", targets.iter().flatten().map(Target::end));
            let count = targets.iter().flatten().count();
            if count > MOST_TARGETS {
                let most = MOST_TARGETS;
                fields.refuse("targets", Problem::TooMany { count, most });
            }
            let spec = Self {
                pool: pool?,
                listeners: listeners?,
                targets: targets?,
                select: select?,
                scaling: scaling?,
                prefer: prefer?,
                affinity: affinity?,
                quic: quic?,
                mode: mode?,
                vpc: vpc?,
                gue: gue?.unwrap_or_default(),
                health: health?,
                shield: shield?,
            };
            spec.refuse_what_cannot_be(fields, gue?.is_some());
            Some(spec)
        })
    }
}

impl ServiceSpec {
    /// Fields that say nothing, or cannot be had, beside others.
    fn refuse_what_cannot_be(&self, fields: &Fields<'_>, has_gue: bool) {
        if self.pool.is_some() && self.listeners.is_empty() {
            fields.refuse("listeners", Problem::Missing { expects: LISTENERS });
        }
        if self.pool.is_none() && !self.listeners.is_empty() {
            let expects = "the pool at whose addresses it listens";
            fields.refuse("pool", Problem::Missing { expects });
        }
        if self.pool.is_none() && self.shield.is_some() {
            let why =
                "needs a pool: behind an accelerator its own shield counts; declare it there, or a pool here";
            fields.refuse("shield", Invalid::new("this", why));
        }
        if self.pool.is_none() && !self.affinity.is_default() {
            let why = "needs a pool: an accelerator leads each flow by itself; leave it out";
            fields.refuse("affinity", Invalid::new(self.affinity.word(), why));
        }
        self.refuse_wrong_ids(fields);
        if has_gue && self.mode != Mode::Gue {
            let why = "is for mode: gue alone; choose that, or leave it out";
            fields.refuse("gue", Invalid::new("this", why));
        }
        if self.vpc.is_some() && self.mode != Mode::Vxlan {
            let why = "is for mode: vxlan alone; choose that, or leave it out";
            fields.refuse("vpc", Invalid::new("this", why));
        }
        if self.vpc.is_none() && self.mode == Mode::Vxlan {
            let expects = "the VPC whose ports the targets are";
            fields.refuse("vpc", Problem::Missing { expects });
        }
        if self.mode == Mode::Vxlan {
            listener::refuse_all_ports(fields, self.listeners.iter(), "ports of a VPC");
        }
        if self.mode == Mode::Nat {
            return;
        }
        if self.pool.is_none() {
            let why = "needs a pool: an accelerator's packets are rewritten (mode: nat)";
            fields.refuse("mode", Invalid::new(self.mode.word(), why));
        }
        let declared = self.targets.iter().enumerate();
        let declared = declared.map(|(index, target)| (format!("targets[{index}].port"), target.port));
        let selected = self.select.iter();
        let selected = selected.map(|select| ("select.port".to_owned(), select.port));
        for (at, port) in declared.chain(selected) {
            if let Some(port) = port {
                let why = format!(
                    "cannot be had with mode: {}, which leaves packets as they are; leave it out",
                    self.mode
                );
                fields.refuse(&at, Invalid::new(&port.to_string(), why));
            }
        }
    }
}

impl ServiceSpec {
    /// QUIC without what it needs, and ids of servers that connection ids cannot have.
    fn refuse_wrong_ids(&self, fields: &Fields<'_>) {
        if self.quic.is_some() && !self.listeners.iter().any(|one| one.protocol == Protocol::Udp) {
            let why = "needs a pool and a listener of udp, where QUIC's clients come";
            fields.refuse("quic", Invalid::new("this", why));
        }
        let mut named = HashMap::new();
        for (index, target) in self.targets.iter().enumerate() {
            let Some(id) = target.server_id.map(ServerId::get) else {
                continue;
            };
            let at = format!("targets[{index}].server_id");
            match self.quic.map(ConnectionIds::largest_id) {
                None => {
                    let why = "is for a service with quic; declare that, or leave it out";
                    fields.refuse(&at, Invalid::new(&id.to_string(), why));
                }
                Some(most) if id > most => {
                    let why = format!("is more than this service's connection ids hold, {most}");
                    fields.refuse(&at, Invalid::new(&id.to_string(), why));
                }
                Some(_) => {}
            }
            if let Some(first) = named.insert(id, index) {
                let value = id.to_string();
                let first = fields.path_of(&format!("targets[{first}].server_id"));
                fields.refuse(&at, Problem::Twice { value, first });
            }
        }
    }
}

const TARGETS: &str =
    "at least one {address}, with a port where it is not the listener's, or select or scaling";

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its address; with mode vxlan that of a port, inside the VPC.
    pub address: HostIp,
    /// Its port. Default: the listener's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortNumber>,
    /// Of QUIC: its id in the connection ids that it chooses. Default: they name no target, and their flows lead to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_id: Option<ServerId>,
    /// Its share of new connections, beside the other targets'; 0: none, and it keeps those that it has. Default: 1.
    #[serde(skip_serializing_if = "Weight::is_default")]
    pub weight: Weight,
    /// Whether it gets no new connections, whatever its weight: it keeps those that it has. `kuafu drain` sets it.
    /// Default: false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    /// With drain: when the flows that are left are led to others. Default: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_until: Option<Moment>,
    /// Its region. Default: that of the node whose address this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Name>,
    /// Its site. Default: that of the node whose address this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<Name>,
}

impl Target {
    /// Its share of new connections.
    #[must_use]
    pub const fn share(&self) -> u16 {
        if self.drain { 0 } else { self.weight.get() }
    }

    /// What no other target of its service may have too.
    #[must_use]
    pub fn end(&self) -> String {
        match self.port {
            Some(port) => SocketAddr::new(self.address.get(), port.get()).to_string(),
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
            let server_id = fields.optional("server_id");
            let weight = fields.or("weight", Weight::DEFAULT);
            let drain = fields.or("drain", false);
            let drain_until: Option<Option<Moment>> = fields.optional("drain_until");
            if let (Some(false), Some(Some(until))) = (drain, drain_until) {
                let why = "is for a target that drains; set drain: true beside it, or leave it out";
                fields.refuse("drain_until", Invalid::new(&until.to_string(), why));
            }
            let region = fields.optional("region");
            let site = fields.optional("site");
            Some(Self {
                address: address?,
                port: port?,
                server_id: server_id?,
                weight: weight?,
                drain: drain?,
                drain_until: drain_until?,
                region: region?,
                site: site?,
            })
        })
    }
}

/// Which nodes are servers: each that has all of these labels, by its local address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Select {
    /// The labels, at least one.
    pub labels: Labels,
    /// Their port. Default: the listener's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortNumber>,
    /// The weight of each. Default: 1.
    #[serde(skip_serializing_if = "Weight::is_default")]
    pub weight: Weight,
}

impl Select {
    /// Whether an object of these labels is selected.
    #[must_use]
    pub fn takes(&self, labels: &Labels) -> bool {
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Field for Select {
    const EXPECTS: &'static str = "a mapping with labels, such as {labels: {role: web}}";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let labels: Option<Labels> = fields.required("labels");
            let port = fields.optional("port");
            let weight = fields.or("weight", Weight::DEFAULT);
            if labels.as_ref().is_some_and(Labels::is_empty) {
                let expects = "at least one label, such as {role: web}";
                fields.refuse("labels", Problem::Empty { expects });
            }
            Some(Self {
                labels: labels?,
                port: port?,
                weight: weight?,
            })
        })
    }
}

integers! {
    /// A share of new connections.
    Weight(u16), "a weight", 0..=1000;
    /// A server's id in QUIC's connection ids.
    ServerId(u64), "a server's id", 0..=4611686018427387903;
    /// A variant of GUE.
    Variant(u8), "a variant of GUE", 0..=1;
}

impl Weight {
    const DEFAULT: Self = Self::literal(1);

    fn is_default(&self) -> bool {
        *self == Self::DEFAULT
    }
}

words! {
    /// Which targets get the new flows of a node where packets leave to them: the nearest of which one serves.
    Prefer {
        /// Near and far ones alike.
        None = "none",
        /// Those of the node's region, then all others.
        Region = "region",
        /// Those of the node's site, then those of its region, then all others.
        Site = "site"
    } not_yet []
}

impl Prefer {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

words! {
    /// How packets reach a server, and what it sees as its client.
    Mode {
        /// Rewritten: an address and port of the host where they leave; the server needs nothing.
        Nat = "nat",
        /// Whole, in IPv4 (RFC 2003): the client itself, which the server answers directly.
        Ipip = "ipip",
        /// Whole, in UDP: the same, where the network would rather see UDP.
        Gue = "gue",
        /// Whole, in VXLAN (RFC 7348), to a port of a VPC: the same.
        Vxlan = "vxlan"
    } not_yet ["keep"]
}

/// Generic UDP Encapsulation (draft-ietf-intarea-gue).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gue {
    /// The servers' UDP port. Default: 6080.
    pub port: PortNumber,
    /// 0: with a header of its own; 1: without. Default: 1.
    pub variant: Variant,
}

impl Default for Gue {
    fn default() -> Self {
        Self {
            port: PortNumber::literal(6080),
            variant: Variant::literal(1),
        }
    }
}

impl Gue {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Field for Gue {
    const EXPECTS: &'static str = "a mapping with port and variant";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let port = fields.or("port", Self::default().port);
            let variant = fields.or("variant", Self::default().variant);
            Some(Self {
                port: port?,
                variant: variant?,
            })
        })
    }
}
