//! Addresses of hosts, one or as many as a prefix has.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;

use super::common::{Invalid, Text, serde_as_text};
use super::network::HostIp;

/// An address that a host can have, or a prefix of 2 to 256 of them whose host bits are zero. All of a prefix count, the
/// first and the last too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostPrefix(IpNetwork);

/// Bits of a prefix's addresses that may differ.
const MOST_HOST_BITS: u8 = 8;

impl HostPrefix {
    /// Addresses of the largest one.
    pub const MOST: usize = 1 << MOST_HOST_BITS;

    /// The address, where it is but one.
    #[must_use]
    pub fn only(self) -> Option<HostIp> {
        (self.count() == 1).then(|| self.first())
    }

    /// The first of the addresses.
    #[must_use]
    pub fn first(self) -> HostIp {
        HostIp(self.0.ip())
    }

    /// Bits of its addresses that are the same: 24 to 32, or 120 to 128.
    #[must_use]
    pub fn length(self) -> u8 {
        self.0.prefix()
    }

    /// How many addresses it has, 1 to 256.
    #[must_use]
    pub fn count(self) -> usize {
        1 << (width(self.0.ip()) - self.0.prefix())
    }

    /// The addresses, in their order.
    pub fn addresses(self) -> impl Iterator<Item = HostIp> {
        self.0.iter().map(HostIp)
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(self, address: HostIp) -> bool {
        self.0.contains(address.get())
    }
}

/// Bits of an address.
const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl From<HostIp> for HostPrefix {
    fn from(address: HostIp) -> Self {
        Self(address.get().into())
    }
}

impl Text for HostPrefix {
    const FORM: &'static str = "the IPv4 or IPv6 address of a host, such as 192.0.2.7 or 2001:db8::7, or a prefix of them, \
                                such as 203.0.113.0/24";
}

impl FromStr for HostPrefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let malformed = || Invalid::not::<Self>(text);
        let Some((address, length)) = text.split_once('/') else {
            return Ok(HostIp::of_form::<Self>(text, text)?.into());
        };
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length: u8 = length.parse().ok().filter(|_| digits).ok_or_else(malformed)?;
        let parsed: IpAddr = address.parse().map_err(|_| malformed())?;
        let prefix = IpNetwork::new(parsed, length).map_err(|_| malformed())?;
        let (first, width) = (prefix.network(), width(parsed));
        let least = width - MOST_HOST_BITS;
        let why = if length == width {
            format!("is one address; write {first}")
        } else if length < least {
            let most = Self::MOST;
            format!(
                "has more than {most} addresses, the most of a prefix; name parts of it, of /{least} or longer"
            )
        } else if first != parsed {
            format!("has bits set outside its prefix; did you mean {first}/{length}?")
        } else {
            // What no host can have comes in blocks that are larger, or begin with the first.
            HostIp::of_form::<Self>(text, address)?;
            return Ok(Self(prefix));
        };
        Err(Invalid::new(text, why))
    }
}

impl fmt::Display for HostPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only() {
            Some(address) => address.fmt(f),
            None => self.0.fmt(f),
        }
    }
}

serde_as_text!(HostPrefix);

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> HostPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_has_all_its_addresses() {
        let whole = prefix("203.0.113.0/24");
        let addresses: Vec<String> = whole.addresses().map(|one| one.to_string()).collect();
        assert_eq!((whole.count(), addresses.len()), (256, 256));
        assert_eq!(
            (&*addresses[0], &*addresses[255]),
            ("203.0.113.0", "203.0.113.255")
        );
        assert!(addresses.iter().all(|one| whole.contains(one.parse().unwrap())));
        assert!(!whole.contains("203.0.112.255".parse().unwrap()));
        let two: Vec<String> = prefix("2001:db8::8/127")
            .addresses()
            .map(|one| one.to_string())
            .collect();
        assert_eq!(two, ["2001:db8::8", "2001:db8::9"]);
    }

    #[test]
    fn an_address_is_written_as_one() {
        for text in ["203.0.113.7", "2001:db8::7"] {
            let address = prefix(text);
            assert_eq!((address.to_string().as_str(), address.count()), (text, 1));
            assert_eq!(address.only(), Some(text.parse().unwrap()));
        }
        assert_eq!(prefix("203.0.113.6/31").to_string(), "203.0.113.6/31");
        assert_eq!(prefix("2001:db8::/120").count(), HostPrefix::MOST);
    }

    #[test]
    fn what_is_no_prefix_of_hosts_is_refused() {
        let why = |text: &str| text.parse::<HostPrefix>().unwrap_err().to_string();
        for (text, because) in [
            ("203.0.113.7/32", "is one address; write 203.0.113.7"),
            ("2001:db8::7/128", "is one address; write 2001:db8::7"),
            ("203.0.112.0/23", "more than 256 addresses"),
            ("2001:db8::/64", "of /120 or longer"),
            ("203.0.113.9/24", "did you mean 203.0.113.0/24?"),
            ("127.0.0.0/24", "is a loopback address"),
            ("255.255.255.0/24", "is a reserved address"),
            ("::/120", "is a unspecified address"),
            ("203.0.113.0/33", "is not the IPv4 or IPv6"),
            ("203.0.113.0/", "is not the IPv4 or IPv6"),
            ("203.0.113.0/+24", "is not the IPv4 or IPv6"),
            ("here/24", "is not the IPv4 or IPv6"),
        ] {
            assert!(why(text).contains(because), "{}", why(text));
        }
    }
}
