//! What can be wrong with manifests, in the words that users read.

use std::borrow::Cow;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::kinds::{
    Cidr, HostAddress, HostIp, HostPrefix, Invalid, Mode, Mtu, Name, ObjectRef, PortRange, Prefer, Protocol,
};

/// Something wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {}{problem}", before_problem(field))]
pub struct ManifestError {
    /// The file as it was named.
    pub file: Arc<str>,
    /// The line in it, from 1.
    pub line: u32,
    /// The field, such as `spec.listeners[0].port`; empty for the object as a whole.
    pub field: String,
    /// What is wrong there.
    pub problem: Problem,
}

fn before_problem(field: &str) -> String {
    if field.is_empty() {
        String::new()
    } else {
        format!("{field}: ")
    }
}

/// What is wrong at a place of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not YAML.
    #[error("{0}")]
    Syntax(String),
    /// A field that must be given is not.
    #[error("missing; expected {expects}")]
    Missing {
        /// What must be given.
        expects: &'static str,
    },
    /// A field that the kind does not have.
    #[error("unknown field{}; allowed here: {allowed}", did_you_mean(near.as_ref()))]
    UnknownField {
        /// A field that reads much the same.
        near: Option<String>,
        /// The fields that the mapping has.
        allowed: String,
    },
    /// A key that its mapping has already.
    #[error("given twice, first in line {first}")]
    Repeated {
        /// The line of the first.
        first: u32,
    },
    /// Text, number, list or mapping where another of them belongs.
    #[error("found {found}, expected {expects}")]
    WrongType {
        /// What belongs there.
        expects: &'static str,
        /// What is there.
        found: String,
    },
    /// A number beyond its limits.
    #[error("{value} is out of range; expected {expects}")]
    OutOfRange {
        /// The number.
        value: String,
        /// What it means, and its limits.
        expects: &'static str,
    },
    /// A value that its type refuses.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A list without items.
    #[error("is empty; expected {expects}")]
    Empty {
        /// What belongs in it.
        expects: &'static str,
    },
    /// A list that is too long.
    #[error("holds {count} items; at most {most} are allowed")]
    TooMany {
        /// How many it holds.
        count: usize,
        /// How many it may.
        most: usize,
    },
    /// An item that its list has already.
    #[error("{value} stands in {first} already; each may be given once")]
    Twice {
        /// The item.
        value: String,
        /// The field of the first.
        first: String,
    },
    /// An object that an earlier manifest declares.
    #[error("{object} is declared twice, first in {file}:{line}")]
    DeclaredTwice {
        /// The object.
        object: ObjectRef,
        /// The file of the first.
        file: String,
        /// The line of the first.
        line: u32,
    },
    /// The object does not agree with others.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// With this, an object that is declared already would no longer agree.
    #[error("this conflicts with {object}, {field}: {conflict}")]
    Elsewhere {
        /// The object.
        object: ObjectRef,
        /// Its field.
        field: Cow<'static, str>,
        /// What would be wrong there.
        conflict: Conflict,
    },
}

/// What keeps objects from agreeing with each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The services of an accelerator have more targets than a ring takes.
    #[error("the services of its groups have {count} targets together; at most {most} fit a ring")]
    TooManyTargets {
        /// How many they have.
        count: usize,
        /// How many fit.
        most: usize,
    },
    /// A service that selects, or whose hook names, more targets than one may have.
    #[error(
        "it has {count} targets with those that it selects and its hook names; at most {most} are allowed: select \
         fewer by further labels, let the hook name fewer, or make several services"
    )]
    TooManySelected {
        /// How many it has.
        count: usize,
        /// How many it may have.
        most: usize,
    },
    /// An address behind a NAT whose servers answer clients themselves.
    #[error(
        "{public} is a NAT's, which answers that come from the servers themselves (mode: {mode}) do not pass; choose \
         mode: nat, or a pool whose addresses reach their nodes as they are"
    )]
    AnswersPastNat {
        /// The service's mode.
        mode: Mode,
        /// The address.
        public: HostPrefix,
    },
    /// A node's own address at which servers would answer clients themselves.
    #[error(
        "{public} is {node}'s own, and servers that hold it too (mode: {mode}) would take nothing from there; choose \
         mode: nat, or another address"
    )]
    NodesOwnAddress {
        /// The service's mode.
        mode: Mode,
        /// The address.
        public: HostIp,
        /// Whose it is.
        node: ObjectRef,
    },
    /// A target that is no other host.
    #[error(
        "is the service's own address, or that of {node}, which sends there; name the server's own address"
    )]
    SendsToItself {
        /// The node that carries the service's address.
        node: ObjectRef,
    },
    /// IPv6 where packets would have to be rewritten, or a VPC's.
    #[error("{address} is of IPv6, which mode: {mode} does not have; choose mode: ipip or gue, or {instead}")]
    ModeWithoutV6 {
        /// The target, or an address of the service.
        address: HostIp,
        /// The service's mode.
        mode: Mode,
        /// What it may be of IPv4.
        instead: &'static str,
    },
    /// A target of another family than the service's addresses.
    #[error(
        "{address} is of {family}, and {pool} has addresses of the other family, whose packets do not reach it; name the \
         server's address of that family, or choose another pool"
    )]
    OtherFamily {
        /// The target.
        address: HostIp,
        /// Its family.
        family: &'static str,
        /// The service's pool.
        pool: ObjectRef,
    },
    /// What is there of IPv4 alone so far.
    #[error("is not supported yet with the IPv6 addresses of {pool}; leave it out, or choose a pool of IPv4")]
    NotYetV6 {
        /// The pool.
        pool: ObjectRef,
    },
    /// An accelerator at addresses of IPv6.
    #[error("{pool} has IPv6 addresses, and the backbone carries IPv4; choose a pool of IPv4")]
    AcceleratesV6 {
        /// The pool.
        pool: ObjectRef,
    },
    /// A target that is no port.
    #[error("{address} is no port of {vpc}; declare that, or name the address of one that is")]
    NoPortOf {
        /// The target's address.
        address: HostIp,
        /// The VPC.
        vpc: ObjectRef,
    },
    /// A service's address that is one of its servers' VPC.
    #[error("{public} is inside {vpc} ({cidr}), whose ports are the service's targets; choose another pool")]
    InsideVpc {
        /// The service's address.
        public: HostPrefix,
        /// The VPC.
        vpc: ObjectRef,
        /// Its addresses.
        cidr: Cidr,
    },
    /// A check without a port behind listeners of several.
    #[error("is missing: {what} of {object} leads to the targets; name the port at which they answer checks")]
    AsksWhere {
        /// Protocol and ports.
        what: String,
        /// Whose they are.
        object: ObjectRef,
    },
    /// A health check that would ask in another protocol where a listener's packets go.
    #[error(
        "asks by {asks}, and {what} of {object} is served by {serves}; name the port that answers by {asks} in \
         spec.health.port"
    )]
    AsksOtherwise {
        /// The check's.
        asks: Protocol,
        /// The listener.
        what: String,
        /// Whose it is.
        object: ObjectRef,
        /// The listener's.
        serves: Protocol,
    },
    /// What no node has by which a target could be near it.
    #[error(
        "none of the nodes that send to its targets has a site ({nodes}); give them a spec.site, or choose prefer: region"
    )]
    NoSite {
        /// The nodes.
        nodes: String,
    },
    /// Nodes that may hold the same address, and do not find the same targets near, where that would lead flows astray.
    #[error(
        "{node} and {other} may both hold {public}, and other targets are near to the one than to the other: in mode {mode} \
         a flow that moves with the address would go to another server; give the nodes of an address one {prefer}, or choose \
         prefer: none, or mode: nat"
    )]
    RanksDiffer {
        /// The address.
        public: HostPrefix,
        /// A node that may hold it.
        node: ObjectRef,
        /// Another one.
        other: ObjectRef,
        /// The service's mode.
        mode: Mode,
        /// What the service prefers.
        prefer: Prefer,
    },
    /// A service behind an accelerator whose servers answer clients themselves.
    #[error(
        "the servers of {service} answer clients themselves (mode: {mode}), and an accelerator must see the answers; \
         name a service with mode: nat"
    )]
    AnswersItself {
        /// The service.
        service: ObjectRef,
        /// Its mode.
        mode: Mode,
    },
    /// More lists on a host than its shields can tell apart.
    #[error(
        "the shields on {node} name {count} lists together; at most {most} fit a host: join lists that are named \
         together into one"
    )]
    TooManyLists {
        /// The host.
        node: ObjectRef,
        /// How many they name.
        count: usize,
        /// How many fit.
        most: usize,
    },
    /// Lists that have no room on a host.
    #[error(
        "the lists that shields on {node} name do not fit it together: a prefix of /17 to /24 takes a place for each /24 in \
         it, a longer one for each address, and there are {most}; write fewer, or shorter, prefixes"
    )]
    ListsTooLong {
        /// The host.
        node: ObjectRef,
        /// How many places there are.
        most: u32,
    },
    /// A reference to nothing.
    #[error("there is no {object}{}; declare it in the same manifests, or apply it first", did_you_mean(near.as_ref()))]
    NoSuchObject {
        /// What is referred to.
        object: ObjectRef,
        /// An object whose name reads much the same.
        near: Option<ObjectRef>,
    },
    /// Something that only one object may have.
    #[error("{what} is {holder}'s already; {rule}")]
    Taken {
        /// What both claim.
        what: String,
        /// Who has it.
        holder: ObjectRef,
        /// The rule that forbids it.
        rule: &'static str,
    },
    /// A prefix with an address that a node has already.
    #[error(
        "{prefix} has {address} in it, the own address of {node}, which would be taken from it; write prefixes and \
         addresses beside it"
    )]
    InPrefix {
        /// The prefix.
        prefix: HostPrefix,
        /// The address.
        address: HostIp,
        /// The node.
        node: ObjectRef,
    },
    /// Listeners at more addresses than fit.
    #[error(
        "the {addresses} addresses of {pool} with its prefixes take {count} places in a host's table, one for each port and \
         one more at each address; at most {most}: write fewer ports, or shorter prefixes, or make several services"
    )]
    TooManyEntries {
        /// How many addresses.
        addresses: usize,
        /// Their pool.
        pool: ObjectRef,
        /// What they take.
        count: usize,
        /// What they may.
        most: usize,
    },
    /// Listeners that lead to more targets, at all addresses together, than a state is to say.
    #[error(
        "at each of the {addresses} addresses of {pool} with its prefixes its listeners lead to {targets} targets, which is \
         {count} together; at most {most}: write fewer listeners, targets or addresses, or make several services"
    )]
    TooManyWays {
        /// How many addresses.
        addresses: usize,
        /// Their pool.
        pool: ObjectRef,
        /// Targets of all listeners.
        targets: usize,
        /// At all addresses.
        count: usize,
        /// What they may be.
        most: usize,
    },
    /// Strict rules under which no node may relay for a pair.
    #[error(
        "no node may relay from {entry} to {exit}; allow more, or leave out strict: then what has no relay goes direct"
    )]
    NoRelay {
        /// Where the pair begins.
        entry: ObjectRef,
        /// Where it ends.
        exit: ObjectRef,
    },
    /// A port's address that its VPC does not have.
    #[error("{address} is not an address for a port of {vpc} (cidr {cidr}); choose one of {first}-{last}")]
    NotInVpc {
        /// The port's address.
        address: HostAddress,
        /// The VPC.
        vpc: ObjectRef,
        /// The VPC's prefix.
        cidr: Cidr,
        /// The first address that a port may have.
        first: Ipv4Addr,
        /// The last one.
        last: Ipv4Addr,
    },
    /// A port's MTU above its VPC's.
    #[error("{mtu} exceeds the mtu of {vpc}, {limit}")]
    AboveVpcMtu {
        /// The port's.
        mtu: Mtu,
        /// The VPC.
        vpc: ObjectRef,
        /// The VPC's.
        limit: Mtu,
    },
    /// A port without interface where an agent runs.
    #[error(
        "missing; {node} runs an agent, which needs the host's side of the port's veth or tap, such as veth0"
    )]
    NoInterface {
        /// The node.
        node: ObjectRef,
    },
    /// An interface where no agent runs.
    #[error("{node} is foreign (agent: false), and a port there has no interface of ours; leave it out")]
    ForeignInterface {
        /// The node.
        node: ObjectRef,
    },
    /// A port on a foreign node without a MAC.
    #[error(
        "missing; {node} is foreign (agent: false), so the port's mac must be given, such as 52:54:00:00:00:05"
    )]
    ForeignWithoutMac {
        /// The node.
        node: ObjectRef,
    },
    /// A port on a foreign node in a VPC whose VNI the foreign side cannot know.
    #[error("{node} is foreign (agent: false) and has to know the VNI; give {vpc} a spec.vni of 2-16777215")]
    ForeignWithoutVni {
        /// The node.
        node: ObjectRef,
        /// The VPC.
        vpc: ObjectRef,
    },
    /// A pool's address on a node that runs no agent.
    #[error(
        "{node} is foreign (agent: false) and cannot carry public addresses; choose a node with an agent"
    )]
    ForeignCarrier {
        /// The node.
        node: ObjectRef,
    },
    /// An address to be answered for by ARP that a node has itself.
    #[error(
        "{address} is {node}'s own, which answers for it by itself and keeps it; choose another address, or \
         reach: routed"
    )]
    AnsweredAlready {
        /// The address.
        address: HostIp,
        /// Whose it is.
        node: ObjectRef,
    },
    /// Two pools by whose word a node would speak BGP.
    #[error(
        "{node} speaks BGP as {pool} says, with another daemon, as, peers, port or bfd; a node has one set of sessions: say the \
         same in both"
    )]
    OtherSpeaker {
        /// The node.
        node: ObjectRef,
        /// The other pool.
        pool: ObjectRef,
    },
    /// An entry without an address of the pool.
    #[error("{node} carries no address of {pool}; its nodes: {nodes}")]
    NotInPool {
        /// The entry.
        node: ObjectRef,
        /// The pool.
        pool: ObjectRef,
        /// The pool's nodes.
        nodes: String,
    },
    /// A region where no agent runs.
    #[error("no node with an agent is in region {region}; regions with one: {regions}")]
    NoExit {
        /// The region asked for.
        region: Name,
        /// Those that there are.
        regions: String,
    },
    /// A listener on a port that the host itself needs.
    #[error(
        "{what} on {address} is {node}'s own address, where that port is {holder}'s; choose another port"
    )]
    HostsOwnPort {
        /// Protocol and port.
        what: String,
        /// The address.
        address: HostIp,
        /// The node.
        node: ObjectRef,
        /// What the node uses the port for.
        holder: &'static str,
    },
    /// A listener among the ports that the host's exit NAT uses.
    #[error(
        "{what} on {address} is {node}'s own address, whose NAT uses {range}; choose a port outside it, or another \
         spec.nat_ports"
    )]
    InNatPorts {
        /// Protocol and port.
        what: String,
        /// The address.
        address: HostIp,
        /// The node.
        node: ObjectRef,
        /// The NAT's ports.
        range: PortRange,
    },
}

/// Why an object cannot be deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// There is no such object.
    #[error("there is no {object}{}", did_you_mean(near.as_ref()))]
    NoSuchObject {
        /// What should be deleted.
        object: ObjectRef,
        /// An object whose name reads much the same.
        near: Option<ObjectRef>,
    },
    /// Others refer to it.
    #[error("{object} is in use by {}; delete or change them first", join(by))]
    InUse {
        /// What should be deleted.
        object: ObjectRef,
        /// Who refers to it, and in which field.
        by: Vec<(ObjectRef, Cow<'static, str>)>,
    },
    /// What remains would no longer agree.
    #[error("without it {object} is wrong: {field}: {conflict}")]
    Needed {
        /// An object that remains.
        object: ObjectRef,
        /// Its field.
        field: Cow<'static, str>,
        /// What would be wrong there.
        conflict: Conflict,
    },
}

/// An object that cannot be written as text.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// As YAML.
    #[error("cannot write YAML: {0}")]
    Yaml(#[from] serde_saphyr::SerializeError),
    /// As JSON.
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

fn join(users: &[(ObjectRef, Cow<'static, str>)]) -> String {
    const SHOWN: usize = 5;
    let mut words: Vec<String> = users
        .iter()
        .take(SHOWN)
        .map(|(object, field)| format!("{object} ({field})"))
        .collect();
    if users.len() > SHOWN {
        words.push(format!("{} more", users.len() - SHOWN));
    }
    words.join(", ")
}

fn did_you_mean(near: Option<&impl std::fmt::Display>) -> String {
    near.map(|near| format!("; did you mean {near}?"))
        .unwrap_or_default()
}

/// The candidate that was probably meant: at most a third of its letters are mistyped.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &'a str| {
        let distance = strsim::damerau_levenshtein(&word.to_lowercase(), &candidate.to_lowercase());
        (distance, candidate)
    };
    let close = |(distance, candidate): &(usize, &str)| distance * 3 <= candidate.len().max(3);
    candidates
        .map(distance)
        .filter(close)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The object of the same kind whose name was probably meant.
pub(super) fn nearest_object<'a>(
    object: &ObjectRef,
    names: impl Iterator<Item = &'a Name>,
) -> Option<ObjectRef> {
    let near = nearest(object.name.as_str(), names.map(Name::as_str))?;
    Some(ObjectRef {
        kind: object.kind,
        name: near.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_typing_error_is_near_and_another_word_is_not() {
        let near = |word| nearest(word, ["udp_port", "agent", "site"].into_iter());
        assert_eq!(near("udpPort"), Some("udp_port"));
        assert_eq!(near("agnet"), Some("agent"));
        assert_eq!(near("size"), Some("site"));
        assert_eq!(near("flavour"), None);
        assert_eq!(near(""), None);
    }
}
