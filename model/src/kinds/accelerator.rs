//! `Accelerator`: listeners near the players of services that are far away.

use serde::Serialize;

use super::common::{integers, refuse_twice, words};
use super::listener::LISTENERS;
use super::{Country, Listener, Name, NodeSpec, Resource, Shield, listener};
use crate::manifest::{Field, Place};

/// Public addresses at entries, and the services behind them.
pub type Accelerator = Resource<AcceleratorSpec>;

/// ```yaml
/// kind: Accelerator
/// metadata: {name: arena}
/// spec:
///   pool: asia
///   listeners: [{protocol: udp, port: 2342}]
///   groups: [{service: game, region: af-south-1}]
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcceleratorSpec {
    /// The pool whose addresses it uses.
    pub pool: Name,
    /// The nodes where packets enter: each address that the pool has there listens, at all nodes that may carry it.
    /// Default: all of the pool's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<Name>>,
    /// What it listens on, at least one, none twice.
    pub listeners: Vec<Listener>,
    /// The services behind it, at least one, none twice in a region. A group's share is its dial, times the weights of its
    /// service's targets that serve.
    pub groups: Vec<Group>,
    /// What the traffic needs. Default: game.
    pub class: Class,
    /// How soon a dead path is left. Default: standard.
    pub liveness: Liveness,
    /// When packets are sent over both paths of their pair. Default: of game on loss, of all else never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplication: Option<Duplication>,
    /// When a silent flow is forgotten.
    pub idle_timeout: IdleTimeout,
    /// What each node where its packets get onto the backbone lets pass, in Mb/s of IP packets, each way: what clients
    /// send, where it enters, and what answers them, at the exit. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_mbps: Option<Bandwidth>,
    /// Which nodes may relay. Default: all.
    #[serde(skip_serializing_if = "RelayRules::is_none")]
    pub relays: RelayRules,
    /// What may begin at its entries. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shield: Option<Shield>,
}

impl AcceleratorSpec {
    /// Do packets enter at this node, provided that the pool has an address there?
    #[must_use]
    pub fn enters_at(&self, node: &Name) -> bool {
        self.entries.as_ref().is_none_or(|entries| entries.contains(node))
    }

    /// When are packets sent over both paths of their pair?
    #[must_use]
    pub fn duplicates(&self) -> Duplication {
        let of_class = match self.class {
            Class::Game => Duplication::OnLoss,
            Class::Voice | Class::Bulk => Duplication::Never,
        };
        self.duplication.unwrap_or(of_class)
    }
}

impl Field for AcceleratorSpec {
    const EXPECTS: &'static str = "a mapping with pool, listeners and groups";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let pool = fields.required("pool");
            let entries = fields.optional_list("entries", "at least one node, or no entries at all");
            let listeners = fields.list("listeners", LISTENERS);
            let groups = fields.list("groups", "at least one {service, region}");
            let class = fields.or("class", Class::Game);
            let liveness = fields.or("liveness", Liveness::Standard);
            let duplication = fields.optional("duplication");
            let idle_timeout = fields.or("idle_timeout", IdleTimeout::default());
            let bandwidth_mbps = fields.optional("bandwidth_mbps");
            let relays = fields.or("relays", RelayRules::default());
            let shield = fields.optional("shield");
            refuse_twice(fields, "entries", entries.iter().flatten().flatten());
            listener::refuse_overlaps(fields, listeners.iter().flatten());
            listener::refuse_all_ports(fields, listeners.iter().flatten(), "an accelerator");
            let ends = groups.iter().flatten().map(Group::end);
            refuse_twice(fields, "groups", ends);
            Some(Self {
                pool: pool?,
                entries: entries?,
                listeners: listeners?,
                groups: groups?,
                class: class?,
                liveness: liveness?,
                duplication: duplication?,
                idle_timeout: idle_timeout?,
                bandwidth_mbps: bandwidth_mbps?,
                relays: relays?,
                shield: shield?,
            })
        })
    }
}

/// A service behind an accelerator, reached through the nodes of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The service.
    pub service: Name,
    /// The region whose nodes are the exits.
    pub region: Name,
    /// The part of its share of the traffic that it takes, in percent; the others take the rest. Default: 100.
    pub dial: Dial,
}

impl Group {
    /// What no other group of its accelerator may be too.
    fn end(&self) -> String {
        format!("{} in {}", self.service, self.region)
    }
}

impl Field for Group {
    const EXPECTS: &'static str = "a mapping with service and region";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let service = fields.required("service");
            let region = fields.required("region");
            let dial = fields.or("dial", Dial::MAX);
            Some(Self {
                service: service?,
                region: region?,
                dial: dial?,
            })
        })
    }
}

/// Which nodes may relay an accelerator's packets. A node that does not say its country or provider passes no rule about
/// it. Entries and exits are where the accelerator says, whatever the rules.
///
/// ```yaml
/// relays:
///   never: {countries: [AQ], providers: [cheap]}
///   only: {countries: [JP, TW, US]}
///   strict: true
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RelayRules {
    /// No node of these.
    pub never: Places,
    /// Of each list that is given, only nodes of these.
    pub only: Places,
    /// Refuse what leaves a pair no relay at all, where it would otherwise go direct. Default: false.
    pub strict: bool,
}

impl RelayRules {
    /// Is there no rule?
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// May this node relay?
    #[must_use]
    pub fn allow(&self, node: &NodeSpec) -> bool {
        passes(&self.never.countries, &self.only.countries, node.country.as_ref())
            && passes(
                &self.never.providers,
                &self.only.providers,
                node.provider.as_ref(),
            )
    }
}

fn passes<T: PartialEq>(never: &[T], only: &[T], own: Option<&T>) -> bool {
    let ruled = !never.is_empty() || !only.is_empty();
    let passed = |own: &T| !never.contains(own) && (only.is_empty() || only.contains(own));
    !ruled || own.is_some_and(passed)
}

impl Field for RelayRules {
    const EXPECTS: &'static str = "a mapping with never, only and strict";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let never = fields.or("never", Places::default());
            let only = fields.or("only", Places::default());
            let strict = fields.or("strict", false);
            Some(Self {
                never: never?,
                only: only?,
                strict: strict?,
            })
        })
    }
}

/// Where nodes stand, and who runs them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Places {
    /// ISO 3166 codes of two letters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<Country>,
    /// As nodes name them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<Name>,
}

impl Field for Places {
    const EXPECTS: &'static str = "a mapping with countries and providers";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let countries = fields.optional_list("countries", "at least one country, or no countries at all");
            let providers =
                fields.optional_list("providers", "at least one provider, or no providers at all");
            Some(Self {
                countries: countries?.unwrap_or_default(),
                providers: providers?.unwrap_or_default(),
            })
        })
    }
}

/// When a flow that sends nothing is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IdleTimeout {
    /// UDP, in seconds. Default: 60.
    pub udp_s: UdpIdle,
    /// Established TCP, in seconds. Default: 3600.
    pub tcp_s: TcpIdle,
}

impl Default for IdleTimeout {
    fn default() -> Self {
        Self {
            udp_s: UdpIdle::DEFAULT,
            tcp_s: TcpIdle::DEFAULT,
        }
    }
}

impl Field for IdleTimeout {
    const EXPECTS: &'static str = "a mapping with udp_s and tcp_s";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let udp_s = fields.or("udp_s", UdpIdle::DEFAULT);
            let tcp_s = fields.or("tcp_s", TcpIdle::DEFAULT);
            Some(Self {
                udp_s: udp_s?,
                tcp_s: tcp_s?,
            })
        })
    }
}

impl UdpIdle {
    const DEFAULT: Self = Self::literal(60);
}

impl TcpIdle {
    const DEFAULT: Self = Self::literal(3600);
}

integers! {
    /// How much may pass, in Mb/s.
    Bandwidth(u32), "Mb/s as a whole number", 1..=100000;
    /// A share in percent.
    Dial(u8), "a share in percent", 0..=100;
    /// Seconds until a silent UDP flow is forgotten.
    UdpIdle(u32), "seconds", 5..=3600;
    /// Seconds until a silent TCP flow is forgotten.
    TcpIdle(u32), "seconds", 60..=86400;
}

words! {
    /// How closely the paths of an accelerator are probed while they carry packets.
    Liveness {
        /// Each 50 ms: a dead path is left after 250 ms.
        Standard = "standard",
        /// Each 20 ms: after 100 ms.
        Premium = "premium"
    } not_yet []
}

words! {
    /// When packets of an accelerator are sent over both paths of their pair; the first copy goes on. In the order of how
    /// often.
    Duplication {
        /// Never.
        Never = "never",
        /// While the path in use loses more than 0.5 % and the backup's round trip is within 20 ms of its.
        OnLoss = "on_loss",
        /// Wherever there is a backup.
        Always = "always"
    } not_yet []
}

words! {
    /// What an accelerator's traffic needs; weighs latency, jitter, loss and price.
    Class {
        /// Latency and jitter above all.
        Game = "game",
        /// As game, but loss hurts more.
        Voice = "voice",
        /// Throughput; latency matters little.
        Bulk = "bulk"
    } not_yet []
}
