//! The file of `kuafu dev pin-edge`, and what it means to the edge.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::IpNetwork;
use kuafu_dataplane::balancer::GATEWAY;
use kuafu_model::contents::{BalancedService, Balancer, ring};
use kuafu_pipeline::header::ipv4::{TCP, UDP};
use kuafu_pipeline::map::{Be32, ConnectionIds, IpKey, Mac, NextHop, NodeConfig, Wrap, policy};
use serde::Deserialize;
use serde_json::Value;

/// Where no service is of IPv4: an address that is nobody's (RFC 7600, section 4.8).
const NO_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// Octets in an Ethernet header.
const ETHERNET: u32 = 14;
/// The least frame for which a limit makes sense: one of 576 octets of IP (RFC 791).
const LEAST_FRAME: u32 = 576 + ETHERNET;
/// The same of IPv6, whose packets of 1280 octets go everywhere (RFC 8200, section 5).
const LEAST_FRAME_V6: u32 = 1280 + ETHERNET;
/// Targets' weights end here, as a manifest's do.
const MOST_WEIGHT: u32 = 1_000_000;

/// The file.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(alias = "schema", alias = "schema_version")]
    version: Option<u32>,
    gateway_mac: String,
    encapsulation: Encapsulation,
    #[serde(default = "usual_frame")]
    max_frame: u32,
    #[serde(default = "usual_ring")]
    ring_size: u32,
    shield: Option<String>,
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default)]
    quic: Quic,
    #[serde(default)]
    server_id_option: Option<Value>,
    #[serde(default)]
    source_routes: Vec<Value>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

const fn usual_frame() -> u32 {
    1514
}

const fn usual_ring() -> u32 {
    65_537
}

#[derive(Debug, Deserialize)]
struct Encapsulation {
    kind: Kind,
    port: Option<u16>,
    variant: Option<u8>,
    outer_sources: Sources,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Ipip,
    Gue,
}

/// All together, or by family.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Sources {
    All(Vec<String>),
    ByFamily(BTreeMap<String, Vec<String>>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Policy {
    fragments: Treatment,
    ipv4_options: Treatment,
    echo: Echo,
    oversize: Oversize,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Treatment {
    #[default]
    Drop,
    Pass,
    Forward,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Echo {
    #[default]
    Reply,
    Pass,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Oversize {
    #[default]
    Drop,
    Icmp,
}

#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    address: String,
    protocol: Protocol,
    #[serde(default)]
    port: u16,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    select_by: SelectBy,
    #[serde(default)]
    quic: bool,
    #[serde(default)]
    server_id_option: bool,
    #[serde(default)]
    source_routes: bool,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SelectBy {
    #[default]
    Flow,
    DestinationPort,
}

#[derive(Debug, Deserialize)]
struct Target {
    address: IpAddr,
    #[serde(default = "one")]
    weight: u32,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

const fn one() -> u32 {
    1
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Quic {
    cid_layout: Option<Layout>,
    server_ids: Vec<ServerId>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Layout {
    Tagged,
    QuicLbPlain {
        config_rotation: u32,
        server_id_bytes: u32,
    },
}

#[derive(Debug, Deserialize)]
struct ServerId {
    id: Id,
    target: IpAddr,
}

/// A number, or its digits: hexadecimal after `0x`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Id {
    Number(u64),
    Text(String),
}

/// What a file means to the edge.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) balancer: Balancer,
    pub(super) gateway: Mac,
    /// The services' names, in their order.
    pub(super) names: Vec<String>,
    /// What is not wrong, and not right.
    pub(super) warnings: Vec<String>,
}

impl Service {
    fn address(&self) -> Result<IpNetwork> {
        let parsed = self.address.parse();
        parsed.with_context(|| format!("address is {}, which is no address", self.address))
    }
}

impl Config {
    pub(super) fn read(text: &str) -> Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    /// What it means.
    ///
    /// # Errors
    /// The key, its value and the fix.
    pub(super) fn edge(&self) -> Result<Edge> {
        if let Some(version) = self.version.filter(|version| *version != 1) {
            bail!("version is {version}; this is schema version 1");
        }
        if let Some(shield) = self.shield.as_ref().filter(|shield| *shield != "off") {
            bail!("shield is {shield}; allowed: off");
        }
        ensure!(
            self.server_id_option.is_none(),
            "server_id_option: server ids in TCP options are not supported; leave it out"
        );
        ensure!(
            self.source_routes.is_empty(),
            "source_routes: routes by client address are not supported; leave them out"
        );
        ensure!(
            self.max_frame >= LEAST_FRAME,
            "max_frame is {}; allowed: {LEAST_FRAME} or more",
            self.max_frame
        );
        let servers: Result<_> = self
            .quic
            .server_ids
            .iter()
            .enumerate()
            .map(|entry| self.server(entry))
            .collect();
        let balancer = Balancer {
            node: self.node()?,
            services: self.services()?,
            policy: self.policy()?,
            quic_servers: servers?,
        };
        Ok(Edge {
            balancer,
            gateway: mac(&self.gateway_mac)?,
            names: self.services.iter().map(|service| service.name.clone()).collect(),
            warnings: self.warnings(),
        })
    }

    /// The host, with the addresses from which outer headers come: of each family the first.
    fn node(&self) -> Result<NodeConfig> {
        let sources = self.outer_sources()?;
        let v4 = sources.iter().find_map(|source| match source {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let v6 = sources.iter().find_map(|source| match source {
            IpAddr::V6(_) => Some(IpKey::from(*source)),
            IpAddr::V4(_) => None,
        });
        for (index, service) in self.services.iter().enumerate() {
            let (family, is_missing) = match service.address()?.ip() {
                IpAddr::V4(_) => ("IPv4", v4.is_none()),
                IpAddr::V6(_) => ("IPv6", v6.is_none()),
            };
            ensure!(
                !is_missing,
                "encapsulation.outer_sources has no {family} address; add one, since services[{index}] ({}) is {family}",
                service.name
            );
        }
        Ok(NodeConfig {
            local: Be32::new(u32::from(v4.unwrap_or(NO_V4))),
            local6: v6.unwrap_or_default(),
            mtu: u16::MAX,
            ..NodeConfig::default()
        })
    }

    /// What outer headers may come from. A prefix stands for its first address that a host may have.
    fn outer_sources(&self) -> Result<Vec<IpAddr>> {
        let all: Vec<&String> = match &self.encapsulation.outer_sources {
            Sources::All(all) => all.iter().collect(),
            Sources::ByFamily(families) => families.values().flatten().collect(),
        };
        let address = |source: &&String| {
            let network: IpNetwork = source
                .parse()
                .with_context(|| format!("encapsulation.outer_sources: {source} is no address or prefix"))?;
            let first = match network {
                IpNetwork::V4(v4) if v4.prefix() < 31 => v4.nth(1).map(IpAddr::from),
                IpNetwork::V6(v6) if v6.prefix() < 127 => v6.iter().nth(1).map(IpAddr::from),
                _ => None,
            };
            let names_itself = network.ip() == network.network();
            Ok(first.filter(|_| names_itself).unwrap_or(network.ip()))
        };
        all.iter().map(address).collect()
    }

    fn services(&self) -> Result<Vec<BalancedService>> {
        let mut seen = HashSet::new();
        let mut services = Vec::with_capacity(self.services.len());
        for (index, service) in self.services.iter().enumerate() {
            let place = format!("services[{index}] ({})", service.name);
            ensure!(
                self.services[..index]
                    .iter()
                    .all(|other| other.name != service.name),
                "{place}.name is there twice; rename one"
            );
            let balanced = self.service(service).with_context(|| place.clone())?;
            ensure!(
                seen.insert(balanced.key()),
                "{place}: another service has its address, protocol and port; remove one of the two"
            );
            services.push(balanced);
        }
        Ok(services)
    }

    fn service(&self, service: &Service) -> Result<BalancedService> {
        ensure!(
            !service.server_id_option,
            "server_id_option is not supported; leave it out"
        );
        ensure!(
            !service.source_routes,
            "source_routes are not supported; leave them out"
        );
        let network = service.address()?;
        let address = network.ip();
        ensure!(
            network.prefix() == if address.is_ipv4() { 32 } else { 128 },
            "address is {}; prefixes are not supported: give each address a service",
            service.address
        );
        ensure!(
            address.is_ipv4() || self.max_frame >= LEAST_FRAME_V6,
            "address is {}, and max_frame {}; services of IPv6 need {LEAST_FRAME_V6} or more",
            service.address,
            self.max_frame
        );
        let targets: Vec<(NextHop, u32)> = service
            .targets
            .iter()
            .enumerate()
            .map(|(index, target)| {
                let place = || format!("targets[{index}]");
                ensure!(
                    target.weight <= MOST_WEIGHT,
                    "{}.weight is {}; allowed: 0 to {MOST_WEIGHT}",
                    place(),
                    target.weight
                );
                ensure!(
                    target.address.is_ipv4() == address.is_ipv4(),
                    "{}: {} is of another family than the service's address",
                    place(),
                    target.address
                );
                Ok((self.hop(target.address).with_context(place)?, target.weight))
            })
            .collect::<Result<_>>()?;
        let size = self.ring_size;
        ensure!(
            ring::is_size(size) && size as usize >= targets.len(),
            "ring_size is {size} for {} targets; allowed: a prime that is not smaller than their number, such as 65537",
            targets.len()
        );
        let protocol = match service.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        };
        ensure!(
            !service.quic || protocol == UDP,
            "quic is true, and protocol tcp; QUIC needs udp"
        );
        ensure!(
            !service.quic || self.quic.cid_layout.is_some(),
            "quic is true, and there is no quic.cid_layout; add one"
        );
        let by_port = matches!(service.select_by, SelectBy::DestinationPort);
        let bits = [
            (service.quic, policy::quic(self.connection_ids()?)),
            (by_port, policy::BY_PORT),
            (matches!(self.policy.oversize, Oversize::Drop), policy::SILENT),
        ];
        Ok(BalancedService {
            address: address.into(),
            protocol,
            port: service.port,
            policy: all_of(bits),
            largest: self.max_frame - ETHERNET,
            targets,
            ring: size,
        })
    }

    /// Bits of whole addresses.
    fn policy(&self) -> Result<u32> {
        let Policy {
            fragments,
            ipv4_options,
            echo,
            ..
        } = &self.policy;
        ensure!(
            !matches!(ipv4_options, Treatment::Forward),
            "policy.ipv4_options is forward, which is not supported; allowed: drop, pass"
        );
        Ok(all_of([
            (matches!(fragments, Treatment::Drop), policy::DROP_FRAGMENTS),
            (matches!(fragments, Treatment::Pass), policy::PASS_FRAGMENTS),
            (matches!(ipv4_options, Treatment::Pass), policy::PASS_OPTIONS),
            (matches!(echo, Echo::Reply), policy::ANSWER_ECHO),
            (matches!(echo, Echo::Pass), policy::PASS_ECHO),
        ]))
    }

    /// A target behind the encapsulation.
    fn hop(&self, target: IpAddr) -> Result<NextHop> {
        let encapsulation = &self.encapsulation;
        let (wrap, port) = match (encapsulation.kind, encapsulation.variant) {
            (Kind::Ipip, _) => (Wrap::Ipip, 0),
            (Kind::Gue, Some(0)) => (Wrap::Gue0, self.gue_port()?),
            (Kind::Gue, None | Some(1)) => (Wrap::Gue1, self.gue_port()?),
            (Kind::Gue, Some(other)) => bail!("encapsulation.variant is {other}; allowed: 0, 1"),
        };
        Ok(NextHop::direct(wrap, target.into(), port, GATEWAY))
    }

    fn gue_port(&self) -> Result<u16> {
        let port = self.encapsulation.port.filter(|port| *port != 0);
        port.context("encapsulation.port is missing or 0; GUE needs one, such as 6080")
    }

    fn connection_ids(&self) -> Result<ConnectionIds> {
        match self.quic.cid_layout {
            None => Ok(ConnectionIds::default()),
            Some(Layout::Tagged) => Ok(ConnectionIds::tagged()),
            Some(Layout::QuicLbPlain {
                config_rotation,
                server_id_bytes,
            }) => {
                ensure!(
                    config_rotation <= 6,
                    "quic.cid_layout.config_rotation is {config_rotation}; allowed: 0 to 6"
                );
                ensure!(
                    (1..=8).contains(&server_id_bytes),
                    "quic.cid_layout.server_id_bytes is {server_id_bytes}; allowed: 1 to 8, longer ones are not supported"
                );
                Ok(ConnectionIds::quic_lb(config_rotation, server_id_bytes))
            }
        }
    }

    fn server(&self, (index, server): (usize, &ServerId)) -> Result<(u64, NextHop)> {
        let place = format!("quic.server_ids[{index}]");
        let id = match &server.id {
            Id::Number(id) => *id,
            Id::Text(text) => {
                let parsed = match text.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16),
                    None => text.parse(),
                };
                parsed.with_context(|| format!("{place}.id is {text}; allowed: a number below 2^64"))?
            }
        };
        let bits = match self.quic.cid_layout {
            Some(Layout::QuicLbPlain { server_id_bytes, .. }) => 8 * server_id_bytes.min(8),
            _ => 32,
        };
        ensure!(
            bits == 64 || id >> bits == 0,
            "{place}.id is {id}, which does not fit the {bits} bits that quic.cid_layout has for it"
        );
        Ok((id, self.hop(server.target).with_context(|| place)?))
    }

    /// Keys that nobody reads.
    fn warnings(&self) -> Vec<String> {
        let of_services = self.services.iter().enumerate().flat_map(|(index, service)| {
            let of_targets = service.targets.iter().enumerate().map(move |(number, target)| {
                (format!("services[{index}].targets[{number}]."), &target.unknown)
            });
            of_targets.chain([(format!("services[{index}]."), &service.unknown)])
        });
        let all = [
            (String::new(), &self.unknown),
            ("encapsulation.".into(), &self.encapsulation.unknown),
            ("policy.".into(), &self.policy.unknown),
            ("quic.".into(), &self.quic.unknown),
        ];
        let all = all.into_iter().chain(of_services);
        let warn = |(place, keys): (String, &BTreeMap<String, Value>)| {
            let keys = keys.keys();
            keys.map(|key| format!("{place}{key} is no key of schema version 1, and is ignored"))
                .collect::<Vec<_>>()
        };
        all.flat_map(warn).collect()
    }
}

/// The bits whose conditions hold.
fn all_of<const N: usize>(bits: [(bool, u32); N]) -> u32 {
    bits.iter().filter(|(holds, _)| *holds).map(|(_, bit)| bit).sum()
}

fn mac(text: &str) -> Result<Mac> {
    let wrong = || format!("gateway_mac is {text}; allowed: six octets such as 02:00:00:00:00:01");
    let octets: Vec<u8> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect::<std::result::Result<_, _>>()
        .with_context(wrong)?;
    let octets: [u8; 6] = octets.try_into().ok().with_context(wrong)?;
    ensure!(octets != [0; 6] && octets[0] & 1 == 0, "{}, of one host", wrong());
    Ok(Mac::from_octets(octets))
}
