//! `scaling`: how many targets a service has, by what its hook makes of its flows.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::common::{Invalid, Text, integers, serde_as_text};
use crate::manifest::{Field, Place};

/// ```yaml
/// kind: Service
/// metadata: {name: web}
/// spec:
///   pool: europe
///   listeners: [{protocol: tcp, port: 443}]
///   scaling: {min: 2, max: 20, flows_per_target: 500, hook: {url: "https://scaler.example/web"}}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scaling {
    /// The fewest targets that are wanted.
    pub min: TargetCount,
    /// The most, and the most that the hook may name.
    pub max: TargetCount,
    /// Open flows that a target is to have.
    pub flows_per_target: FlowsPerTarget,
    /// From one call's beginning to the next one's. Default: 10.
    #[serde(skip_serializing_if = "CallInterval::is_default")]
    pub interval_s: CallInterval,
    /// How long fewer targets were enough before fewer are wanted. Default: 60.
    #[serde(skip_serializing_if = "Cooldown::is_default")]
    pub cooldown_s: Cooldown,
    /// How long a target that the hook names no more keeps the flows that it has. Default: 300.
    #[serde(skip_serializing_if = "DrainTime::is_default")]
    pub drain_s: DrainTime,
    /// Who is told, and says which targets there are.
    pub hook: ScalingHook,
}

impl Field for Scaling {
    const EXPECTS: &'static str = "a mapping with min, max, flows_per_target and hook";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let min: Option<TargetCount> = fields.required("min");
            let max: Option<TargetCount> = fields.required("max");
            let flows_per_target = fields.required("flows_per_target");
            let interval_s = fields.or("interval_s", CallInterval::DEFAULT);
            let cooldown_s = fields.or("cooldown_s", Cooldown::DEFAULT);
            let drain_s = fields.or("drain_s", DrainTime::DEFAULT);
            let hook = fields.required("hook");
            if let (Some(min), Some(max)) = (min, max)
                && min > max
            {
                let why = format!("is below min, {min}; choose one of {min}-1000");
                fields.refuse("max", Invalid::new(&max.to_string(), why));
            }
            Some(Self {
                min: min?,
                max: max?,
                flows_per_target: flows_per_target?,
                interval_s: interval_s?,
                cooldown_s: cooldown_s?,
                drain_s: drain_s?,
                hook: hook?,
            })
        })
    }
}

/// What is called by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScalingHook {
    /// Where.
    pub url: HookUrl,
    /// When a call that has not ended has failed. Default: 5.
    #[serde(skip_serializing_if = "CallTimeout::is_default")]
    pub timeout_s: CallTimeout,
}

impl Field for ScalingHook {
    const EXPECTS: &'static str = "a mapping with url";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let url = fields.required("url");
            let timeout_s = fields.or("timeout_s", CallTimeout::DEFAULT);
            Some(Self {
                url: url?,
                timeout_s: timeout_s?,
            })
        })
    }
}

integers! {
    /// Targets of a service.
    TargetCount(u16), "a number of targets", 1..=1000;
    /// Open flows of a target.
    FlowsPerTarget(u32), "open flows", 1..=100_000_000;
    /// Seconds between two calls.
    CallInterval(u16), "seconds", 1..=3600;
    /// Seconds.
    Cooldown(u32), "seconds", 0..=86400;
    /// Seconds.
    DrainTime(u32), "seconds", 1..=86400;
    /// Seconds that a call may take.
    CallTimeout(u8), "seconds", 1..=60;
}

/// Numbers with a default that is not written.
macro_rules! defaults {
    ($($name:ident = $default:literal),+) => { $(
        impl $name {
            const DEFAULT: Self = Self::literal($default);

            fn is_default(&self) -> bool {
                *self == Self::DEFAULT
            }
        }
    )+ };
}

defaults!(CallInterval = 10, Cooldown = 60, DrainTime = 300, CallTimeout = 5);

/// A URL of HTTP or HTTPS, without user or fragment (RFC 3986).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookUrl(String);

impl HookUrl {
    /// Octets of the longest.
    const LONGEST: usize = 2000;

    /// The URL as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for HookUrl {
    const FORM: &'static str =
        "a URL of http or https in lower case, without user and fragment, such as https://scaler.example/web";
}

impl FromStr for HookUrl {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let rest = ["http://", "https://"]
            .into_iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let is_one = rest.is_some_and(|rest| {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            is_authority(authority) && path.bytes().all(may_stand)
        });
        if is_one && text.len() <= Self::LONGEST {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::not::<Self>(text))
        }
    }
}

/// A host's name or IPv4 address, and a port where one is given.
fn is_authority(text: &str) -> bool {
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    !host.is_empty() && host.bytes().all(may_stand) && port.is_none_or(is_port)
}

/// In a path or a query.
fn may_stand(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(&byte)
}

impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(HookUrl);

#[cfg(test)]
mod tests {
    use super::HookUrl;

    #[test]
    fn a_url_is_of_http_and_names_a_host() {
        let good = [
            "http://192.0.2.7:8080/scale?of=web&x=1",
            "https://scaler.example",
            "http://localhost?x",
        ];
        for url in good {
            assert_eq!(url.parse::<HookUrl>().unwrap().as_str(), url);
        }
        let wrong = [
            "",
            "scaler.example/web",
            "ftp://scaler.example",
            "http://",
            "http:///web",
            "http://user@host/",
            "http://host:0/",
            "http://host:70000/",
            "http://host:/",
            "http://host:+1/",
            "http://host/a b",
            "http://host/#part",
            "http://höst/",
        ];
        for url in wrong {
            assert!(url.parse::<HookUrl>().is_err(), "{url}");
        }
    }
}
