//! Addresses, prefixes, ports and numbers of the network, as manifests write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnetwork::Ipv4Network;

use super::common::{Invalid, Text, integers, serde_as_text, words};

/// The IPv4 address of a host: not 0.0.0.0/8, loopback, link-local, multicast or reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress(Ipv4Addr);

impl HostAddress {
    /// The address itself.
    #[must_use]
    pub const fn get(self) -> Ipv4Addr {
        self.0
    }
}

/// What an address that no host can have is, if it is one.
pub(super) fn not_for_hosts(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("this-network"),
        [127, ..] => Some("loopback"),
        [169, 254, ..] => Some("link-local"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("reserved"),
        _ => None,
    }
}

impl Text for HostAddress {
    const FORM: &'static str = "the IPv4 address of a host, such as 192.0.2.7";
}

impl FromStr for HostAddress {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let address: Ipv4Addr = text.parse().map_err(|_| Invalid::not::<Self>(text))?;
        match not_for_hosts(address) {
            Some(kind) => Err(Invalid::new(
                text,
                format!("is a {kind} address; expected {}", Self::FORM),
            )),
            None => Ok(Self(address)),
        }
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address of either family that a host can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostIp(pub(super) IpAddr);

impl HostIp {
    /// The address in a text, or part of one, that is to be of a form.
    pub(super) fn of_form<T: Text>(text: &str, address: &str) -> Result<Self, Invalid> {
        let address: IpAddr = address.parse().map_err(|_| Invalid::not::<T>(text))?;
        let what = match address {
            IpAddr::V4(address) => not_for_hosts(address),
            IpAddr::V6(address) => not_for_hosts_v6(address),
        };
        match what {
            Some(kind) => {
                let why = format!("is a {kind} address; expected {}", T::FORM);
                Err(Invalid::new(text, why))
            }
            None => Ok(Self(address)),
        }
    }

    /// The address itself.
    #[must_use]
    pub const fn get(self) -> IpAddr {
        self.0
    }

    /// The same, where it is of IPv4.
    #[must_use]
    pub const fn v4(self) -> Option<HostAddress> {
        match self.0 {
            IpAddr::V4(address) => Some(HostAddress(address)),
            IpAddr::V6(_) => None,
        }
    }

    /// Whether it is of IPv6.
    #[must_use]
    pub const fn is_v6(self) -> bool {
        self.0.is_ipv6()
    }

    /// The name of its family.
    #[must_use]
    pub const fn family(self) -> &'static str {
        if self.is_v6() { "IPv6" } else { "IPv4" }
    }
}

impl From<HostAddress> for HostIp {
    fn from(address: HostAddress) -> Self {
        Self(address.0.into())
    }
}

impl PartialEq<HostAddress> for HostIp {
    fn eq(&self, other: &HostAddress) -> bool {
        *self == Self::from(*other)
    }
}

/// The same of IPv6 as [`not_for_hosts`].
fn not_for_hosts_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.to_ipv4_mapped().is_some() {
        return Some("mapped IPv4");
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        _ => None,
    }
}

impl Text for HostIp {
    const FORM: &'static str = "the IPv4 or IPv6 address of a host, such as 192.0.2.7 or 2001:db8::7";
}

impl FromStr for HostIp {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::of_form::<Self>(text, text)
    }
}

impl fmt::Display for HostIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An IPv4 prefix whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr(Ipv4Network);

impl Cidr {
    /// The prefix itself.
    #[must_use]
    pub const fn get(self) -> Ipv4Network {
        self.0
    }

    /// Does the prefix cover this address?
    #[must_use]
    pub fn contains(self, address: HostAddress) -> bool {
        self.0.contains(address.get())
    }
}

impl Text for Cidr {
    const FORM: &'static str = "an IPv4 prefix, such as 10.0.0.0/16";
}

impl FromStr for Cidr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed = || Invalid::not::<Self>(text);
        // Without a length the parser would take a lone address for a /32.
        let (address, length) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length = if digits {
            length.parse().map_err(|_| malformed())?
        } else {
            return Err(malformed());
        };
        let prefix = Ipv4Network::new(address, length).map_err(|_| malformed())?;
        if prefix.network() == address {
            return Ok(Self(prefix));
        }
        let why = format!(
            "has bits set outside its prefix; did you mean {}/{length}?",
            prefix.network()
        );
        Err(Invalid::new(text, why))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A unicast Ethernet address, six octets in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The octets, or nothing when they are all zero or those of a group address.
    #[must_use]
    pub fn new(octets: [u8; 6]) -> Option<Self> {
        (octets != [0; 6] && octets[0] & 1 == 0).then_some(Self(octets))
    }

    /// The locally administered address that follows from an IPv4 address: `02:00` and its four octets. Where
    /// the IP addresses differ these do too.
    #[must_use]
    pub const fn derived_from(address: HostAddress) -> Self {
        let [a, b, c, d] = address.get().octets();
        Self([0x02, 0, a, b, c, d])
    }

    /// The six octets.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl Text for Mac {
    const FORM: &'static str = "a unicast Ethernet address, such as 02:00:0a:00:00:05";
}

impl FromStr for Mac {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let octet = |part: &str| {
            let hex = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            if hex {
                u8::from_str_radix(part, 16).ok()
            } else {
                None
            }
        };
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        let octets = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok());
        match octets {
            Some(octets) if octets[0] & 1 == 1 => Err(Invalid::new(
                text,
                format!("is a group address; expected {}", Self::FORM),
            )),
            octets => octets
                .and_then(Self::new)
                .ok_or_else(|| Invalid::not::<Self>(text)),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The name of a network interface: 1-15 octets (`IFNAMSIZ` less its terminator), no `/`, `:` or white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for InterfaceName {
    const FORM: &'static str =
        "an interface's name of 1-15 characters without \"/\", \":\" or space, such as veth0";
}

impl FromStr for InterfaceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
        let valid =
            (1..=15).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != "..";
        match text {
            "lo" => Err(Invalid::new(
                text,
                "is the loopback device; choose the host side of a veth or tap",
            )),
            "kuafu0" => Err(Invalid::new(
                text,
                "is the node's own overlay port; choose another interface",
            )),
            _ if valid => Ok(Self(text.to_owned())),
            _ => Err(Invalid::not::<Self>(text)),
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Transport ports, `first` to `last`, both included; never empty, never port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: PortNumber,
    last: PortNumber,
}

impl PortRange {
    /// The range, or nothing when it would be empty.
    #[must_use]
    pub fn new(first: PortNumber, last: PortNumber) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The ports of these numbers, or nothing when there are none, or 0 is one.
    #[must_use]
    pub fn of(numbers: RangeInclusive<u16>) -> Option<Self> {
        let (first, last) = numbers.into_inner();
        Self::new(PortNumber::new(first)?, PortNumber::new(last)?)
    }

    /// Every port.
    pub const ALL: Self = Self::literal(1, u16::MAX);

    /// A range known when this is compiled.
    ///
    /// # Panics
    /// Where it is empty or has port 0; in a const it does not compile.
    #[must_use]
    pub const fn literal(first: u16, last: u16) -> Self {
        assert!(first <= last, "ports in order");
        Self {
            first: PortNumber::literal(first),
            last: PortNumber::literal(last),
        }
    }

    /// The first port.
    #[must_use]
    pub const fn first(self) -> PortNumber {
        self.first
    }

    /// The last port.
    #[must_use]
    pub const fn last(self) -> PortNumber {
        self.last
    }

    /// How many ports, 1-65535.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.last.get() - self.first.get() + 1
    }

    /// Is this port one of them?
    #[must_use]
    pub fn contains(self, port: PortNumber) -> bool {
        self.first <= port && port <= self.last
    }

    /// Are all of these among them?
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.contains(other.first) && self.contains(other.last)
    }

    /// Is one of these among them?
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The only port, where there is but one.
    #[must_use]
    pub fn only(self) -> Option<PortNumber> {
        (self.first == self.last).then_some(self.first)
    }

    /// Are these all ports that there are?
    #[must_use]
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// The numbers of the ports.
    #[must_use]
    pub const fn numbers(self) -> RangeInclusive<u16> {
        self.first.get()..=self.last.get()
    }
}

impl From<PortNumber> for PortRange {
    fn from(port: PortNumber) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl Text for PortRange {
    const FORM: &'static str = "a range of ports, such as 10000-29999";
}

impl FromStr for PortRange {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let port = |part: &str| part.parse().ok().and_then(PortNumber::new);
        let range = text
            .split_once('-')
            .and_then(|(first, last)| Self::new(port(first)?, port(last)?));
        range.ok_or_else(|| Invalid::not::<Self>(text))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

serde_as_text!(HostAddress, HostIp, Cidr, Mac, InterfaceName, PortRange);

integers! {
    /// A TCP or UDP port.
    PortNumber(u16), "a port", 1..=65535;
    /// A VXLAN network identifier that a VPC may have (RFC 7348, section 5): 24 bits, without 0 (none) and 1 (the
    /// system's own VPC).
    Vni(u32), "a VNI", 2..=16777215;
    /// Octets in an IP packet of a port: from what IPv4 hosts must take (RFC 791, section 3.1) to what a 9000-octet
    /// underlay leaves after 50 octets of VXLAN.
    Mtu(u16), "an MTU in octets", 576..=8950;
}

words! {
    /// A transport protocol.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp"
    } not_yet []
}

impl Protocol {
    /// Its number in an IP header.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}
