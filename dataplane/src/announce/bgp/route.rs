//! What a daemon of BGP announces: a prefix, of an address alone one of 32 bits.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const WHOLE: u8 = 32;

/// A prefix, by its first address. As a text an address alone is without a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(in crate::announce) struct Route {
    first: Ipv4Addr,
    length: u8,
}

impl Route {
    pub(in crate::announce) const fn of(first: Ipv4Addr, length: u8) -> Self {
        Self { first, length }
    }

    pub(in crate::announce) const fn first(self) -> Ipv4Addr {
        self.first
    }

    /// As routers write it, with its length.
    pub(super) fn prefix(self) -> String {
        format!("{}/{}", self.first, self.length)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == WHOLE {
            self.first.fmt(f)
        } else {
            f.write_str(&self.prefix())
        }
    }
}

impl From<Route> for String {
    fn from(route: Route) -> Self {
        route.to_string()
    }
}

impl FromStr for Route {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.split_once('/') {
            None => text.parse().map(|first| Self::of(first, WHOLE)).ok(),
            Some((first, length)) => first
                .parse()
                .ok()
                .zip(length.parse().ok())
                .map(|(first, length)| Self::of(first, length)),
        };
        parsed
            .filter(|route| route.length <= WHOLE)
            .ok_or_else(|| format!("{text:?} is no IPv4 prefix"))
    }
}

impl TryFrom<String> for Route {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_alone_reads_as_it_did_and_as_routers_write_it() {
        let first = Ipv4Addr::new(203, 0, 113, 7);
        let address = Route::of(first, 32);
        assert_eq!(
            (address.to_string(), address.prefix()),
            (first.to_string(), format!("{first}/32"))
        );
        for text in [address.to_string(), address.prefix()] {
            assert_eq!(text.parse(), Ok(address));
        }
        let prefix = Route::of(Ipv4Addr::new(203, 0, 113, 0), 24);
        assert_eq!(
            (prefix.to_string(), prefix.prefix()),
            ("203.0.113.0/24".into(), prefix.to_string())
        );
        assert_eq!(prefix.to_string().parse(), Ok(prefix));
        for text in [
            "203.0.113.0/33",
            "203.0.113.0/",
            "203.0.113/24",
            "2001:db8::/32",
            "",
        ] {
            assert!(text.parse::<Route>().is_err(), "{text}");
        }
    }
}
