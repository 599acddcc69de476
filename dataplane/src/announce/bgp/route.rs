//! What a daemon of BGP announces: a prefix, of an address alone one of all its bits.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use kuafu_model::state::Announcement;
use serde::{Deserialize, Serialize};

use crate::family::Family;

/// A prefix, by its first address. As a text an address alone is without a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(in crate::announce) struct Route {
    first: IpAddr,
    length: u8,
}

impl Route {
    pub(in crate::announce) const fn of(first: IpAddr, length: u8) -> Self {
        Self { first, length }
    }

    pub(in crate::announce) const fn first(self) -> IpAddr {
        self.first
    }

    pub(super) const fn family(self) -> Family {
        Family::of(self.first)
    }

    /// As routers write it, with its length.
    pub(super) fn prefix(self) -> String {
        format!("{}/{}", self.first, self.length)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == Announcement::width(self.first) {
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
            None => text
                .parse()
                .map(|first| Self::of(first, Announcement::width(first)))
                .ok(),
            Some((first, length)) => first
                .parse()
                .ok()
                .zip(length.parse().ok())
                .map(|(first, length)| Self::of(first, length)),
        };
        parsed
            .filter(|route| route.length <= Announcement::width(route.first))
            .ok_or_else(|| format!("{text:?} is no prefix"))
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
        for (first, length) in [("203.0.113.7", 32), ("2001:db8::80", 128)] {
            let address = Route::of(first.parse().unwrap(), length);
            assert_eq!(
                (address.to_string(), address.prefix()),
                (first.to_owned(), format!("{first}/{length}"))
            );
            for text in [address.to_string(), address.prefix()] {
                assert_eq!(text.parse(), Ok(address));
            }
        }
        for (first, length, family) in [("203.0.113.0", 24, Family::V4), ("2001:db8:5::", 120, Family::V6)] {
            let prefix = Route::of(first.parse().unwrap(), length);
            assert_eq!(
                (prefix.to_string(), prefix.prefix(), prefix.family()),
                (format!("{first}/{length}"), prefix.to_string(), family)
            );
            assert_eq!(prefix.to_string().parse(), Ok(prefix));
        }
        for text in [
            "203.0.113.0/33",
            "203.0.113.0/",
            "203.0.113/24",
            "2001:db8::/129",
            "2001:db8/32",
            "",
        ] {
            assert!(text.parse::<Route>().is_err(), "{text}");
        }
    }
}
