//! How packets find an address of a pool: `reach`, with what it needs.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::common::{Invalid, Text, integers, refuse_twice, serde_as_text, words};
use super::network::{HostAddress, PortNumber};
use crate::manifest::{Field, Place};

words! {
    /// How packets for a pool's addresses find their node.
    Reach {
        /// Somebody routes them there: the provider, or a 1:1 NAT.
        Routed = "routed",
        /// One of the nodes holds the address, and answers for it in the network that all of them are in.
        Arp = "arp",
        /// Each of the nodes announces the address to its routers.
        Bgp = "bgp",
        /// One of the nodes holds the address, and runs a command that brings it there.
        Hook = "hook"
    } not_yet []
}

impl Reach {
    /// Whether one of the nodes holds an address, and another one may.
    #[must_use]
    pub const fn has_holder(self) -> bool {
        matches!(self, Self::Arp | Self::Hook)
    }
}

words! {
    /// What speaks BGP for a node.
    BgpDaemon {
        /// Debian's `gobgpd`.
        Gobgp = "gobgp",
        /// Debian's `frr`.
        Frr = "frr"
    } not_yet []
}

fn is_usual_daemon(daemon: &BgpDaemon) -> bool {
    *daemon == BgpDaemon::Gobgp
}

/// ```yaml
/// bgp: {as: 65001, peers: [{address: 192.0.2.254, as: 65000}], communities: ["65000:100"], med: 50}
/// ```
/// The sessions of a node with its routers: the node dials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bgp {
    /// What speaks. Default: gobgp.
    #[serde(skip_serializing_if = "is_usual_daemon")]
    pub daemon: BgpDaemon,
    /// The nodes' autonomous system.
    #[serde(rename = "as")]
    pub number: AsNumber,
    /// Their routers, at least one.
    pub peers: Vec<BgpPeer>,
    /// What the announcements carry. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<Community>,
    /// The metric that they carry. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub med: Option<Med>,
    /// The routers' TCP port. Default: 179.
    #[serde(skip_serializing_if = "is_usual_port")]
    pub port: PortNumber,
    /// How soon node and routers notice that they do not hear each other; of daemon frr alone. Default: after BGP's hold
    /// time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,
}

/// The TCP port of BGP (RFC 4271).
const PORT: PortNumber = PortNumber::literal(179);

fn is_usual_port(port: &PortNumber) -> bool {
    *port == PORT
}

impl Bgp {
    /// Whether both speak with the same routers in the same way: what they announce may still differ.
    #[must_use]
    pub fn is_one_speaker(&self, other: &Self) -> bool {
        let how = |bgp: &Self| (bgp.daemon, bgp.number, bgp.port, bgp.bfd);
        how(self) == how(other) && self.peers == other.peers
    }
}

impl Field for Bgp {
    const EXPECTS: &'static str = "a mapping with as and peers";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let daemon = fields.or("daemon", BgpDaemon::Gobgp);
            let number = fields.required("as");
            let peers = fields.list("peers", "at least one {address, as}");
            let communities = fields.optional_list("communities", "at least one community, or none at all");
            let med = fields.optional("med");
            let port = fields.or("port", PORT);
            let bfd: Option<Option<Bfd>> = fields.or("bfd", None);
            let communities: Option<Vec<Community>> = communities.map(Option::unwrap_or_default);
            let addresses = peers.iter().flatten().map(|peer: &BgpPeer| peer.address);
            refuse_twice(fields, "peers", addresses);
            refuse_twice(fields, "communities", communities.iter().flatten().copied());
            if daemon == Some(BgpDaemon::Gobgp) && matches!(bfd, Some(Some(_))) {
                let why = "cannot be with daemon: gobgp, which has none; choose daemon: frr, or leave it out";
                fields.refuse("bfd", Invalid::new("BFD", why));
            }
            let own = |peer: &&BgpPeer| peer.multihop.is_some() && Some(peer.number) == number;
            if let Some(peer) = peers.iter().flatten().find(own) {
                let why = format!(
                    "of {} is for routers of another autonomous system than {}; leave it out",
                    peer.address, peer.number
                );
                fields.refuse("peers", Invalid::new("multihop", why));
            }
            Some(Self {
                daemon: daemon?,
                number: number?,
                peers: peers?,
                communities: communities?,
                med: med?,
                port: port?,
                bfd: bfd?,
            })
        })
    }
}

/// ```yaml
/// bfd: true
/// bfd: {interval_ms: 300, multiplier: 3}
/// ```
/// Bidirectional Forwarding Detection (RFC 5880) beside the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bfd {
    /// Between two packets. Default: 300.
    pub interval_ms: BfdInterval,
    /// So many that do not come mean that nobody is there. Default: 3.
    pub multiplier: BfdMultiplier,
}

impl Bfd {
    const USUAL: Self = Self {
        interval_ms: BfdInterval::literal(300),
        multiplier: BfdMultiplier::literal(3),
    };
}

impl Field for Bfd {
    const EXPECTS: &'static str = "true, false, or a mapping with interval_ms and multiplier";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let interval_ms = fields.or("interval_ms", Self::USUAL.interval_ms);
            let multiplier = fields.or("multiplier", Self::USUAL.multiplier);
            Some(Self {
                interval_ms: interval_ms?,
                multiplier: multiplier?,
            })
        })
    }
}

impl Field for Option<Bfd> {
    const EXPECTS: &'static str = Bfd::EXPECTS;

    fn read(place: &Place<'_>) -> Option<Self> {
        if place.is_boolean() {
            let is_on: bool = place.read()?;
            return Some(is_on.then_some(Bfd::USUAL));
        }
        place.read().map(Some)
    }
}

/// A router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BgpPeer {
    /// Its address.
    pub address: HostAddress,
    /// Its autonomous system.
    #[serde(rename = "as")]
    pub number: AsNumber,
    /// How many hops it may be away, where its autonomous system is another one. Default: it is on the node's link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multihop: Option<Multihop>,
    /// A file on the node with the password of the session (RFC 2385); the password itself goes nowhere. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<FilePath>,
}

impl Field for BgpPeer {
    const EXPECTS: &'static str = "a mapping with address and as";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let address = fields.required("address");
            let number = fields.required("as");
            let multihop = fields.optional("multihop");
            let password_file = fields.optional("password_file");
            Some(Self {
                address: address?,
                number: number?,
                multihop: multihop?,
                password_file: password_file?,
            })
        })
    }
}

/// A community (RFC 1997): two numbers of 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(u16, u16);

impl Text for Community {
    const FORM: &'static str = "a community of two numbers up to 65535, such as \"65000:100\"";
}

impl FromStr for Community {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number = |part: &str| {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits)
        };
        let halves = text.split_once(':');
        let community = halves.and_then(|(high, low)| Some(Self(number(high)?, number(low)?)));
        community.ok_or_else(|| Invalid::not::<Self>(text))
    }
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

/// ```yaml
/// hook: {command: /usr/local/sbin/take-address, timeout_s: 30}
/// ```
/// `command ADDRESS NODE`, without a shell, is run on the node that is to hold the address; that it succeeds says
/// that packets come there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// The program.
    pub command: CommandPath,
    /// When it has failed unless it has ended. Default: 30.
    pub timeout_s: HookTimeout,
}

impl Field for Hook {
    const EXPECTS: &'static str = "a mapping with command";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let command = fields.required("command");
            let timeout_s = fields.or("timeout_s", HookTimeout::literal(30));
            Some(Self {
                command: command?,
                timeout_s: timeout_s?,
            })
        })
    }
}

/// Octets of the longest path that Linux takes, without the zero behind it.
const LONGEST_PATH: usize = 4095;

/// Whole paths, in printable octets without spaces.
macro_rules! paths {
    ($( $(#[$meta:meta])* $name:ident = $form:literal; )+) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The path as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Text for $name {
            const FORM: &'static str = $form;
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let is_one = text.starts_with('/') && !text.ends_with('/') && text.len() <= LONGEST_PATH;
                if is_one && text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Invalid::not::<Self>(text))
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+ };
}

paths! {
    /// A program's file.
    CommandPath = "the whole path of a program, without arguments, such as /usr/local/sbin/take-address";
    /// A file.
    FilePath = "the whole path of a file, such as /etc/kuafu/bgp-password";
}

integers! {
    /// An autonomous system (RFC 6793).
    AsNumber(u32), "the number of an autonomous system", 1..=4294967294;
    /// What a router compares between announcements of one autonomous system: the least is the best.
    Med(u32), "a metric", 0..=4294967295;
    /// Hops to a router.
    Multihop(u8), "a number of hops", 1..=255;
    /// Between two packets of BFD.
    BfdInterval(u16), "milliseconds", 50..=60000;
    /// Packets of BFD until nobody is there.
    BfdMultiplier(u8), "a number of packets", 2..=255;
    /// Until a command has failed.
    HookTimeout(u16), "seconds", 1..=600;
}

serde_as_text!(Community, CommandPath, FilePath);
