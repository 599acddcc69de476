//! `health`: how it is found out whether a service's targets serve.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::common::{Invalid, Text, integers, serde_as_text, words};
use super::network::{PortNumber, Protocol};
use crate::manifest::{Field, Fields, Place, Problem};

/// Octets of what a check sends or expects.
const LONGEST_PAYLOAD: usize = 512;
/// ioquake3 answers an address's `getstatus` ten times at once, and then once in so many ms.
const QUAKE3_LIMIT_MS: u32 = 1000;
/// Characters of a path or a name.
const LONGEST_TEXT: usize = 255;

/// ```yaml
/// health: {type: http, path: /ready, interval_ms: 500}
/// ---
/// health: {type: udp, send: "hex:ffffffff", expect: "hex:ff", port: 2342}
/// ```
/// The hosts that send to a target check it, by the way that clients' packets take: rewritten from the host's own
/// address, or whole behind the same outer header. What has not been checked yet counts as serving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: CheckKind,
    /// The port. Default: where the listener's packets go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortNumber>,
    /// From one check's beginning to the next one's. Default: 1000.
    pub interval_ms: Interval,
    /// When a check that has not ended has failed; not above the interval. Default: the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<Timeout>,
    /// How many successes in a row make a target that was down serve again. Default: 2.
    pub rise: Streak,
    /// How many failures in a row bring a target down. Default: 3.
    pub fall: Streak,
    /// Where fewer of the service's targets serve, in percent, all are used. Where none does, all are used as well, unless
    /// an accelerator has other services that serve. Default: 0.
    #[serde(skip_serializing_if = "Percent::is_none")]
    pub min_healthy_percent: Percent,
    /// How long a target that joins, or serves again, takes to get its whole share, in tenths. Default: 0.
    #[serde(skip_serializing_if = "SlowStart::is_none")]
    pub slow_start_s: SlowStart,
    /// Of http and https: the path. Default: /.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<UrlPath>,
    /// Of http, https and quic: the host's name. Default: the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Word>,
    /// Of http and https: the answers of a target that serves. Default: 200-299.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Statuses>,
    /// Of udp: what is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<Payload>,
    /// Of udp: how an answer begins. Default: any answer counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<Payload>,
    /// Of quic: the application's protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Word>,
    /// Of grpc: what the server is asked about. Default: the server as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<Word>,
}

impl Health {
    /// The protocol in which is asked.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match self.kind {
            CheckKind::Udp | CheckKind::A2s | CheckKind::Quake3 | CheckKind::Quic => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }

    /// When a check has failed, in ms.
    #[must_use]
    pub fn timeout_ms(&self) -> u32 {
        self.timeout_ms.map_or(self.interval_ms.get(), Timeout::get)
    }

    /// Fields that say nothing of this type, or are missing.
    fn refuse_what_cannot_be(&self, fields: &Fields<'_>) {
        use CheckKind::{Grpc, Http, Https, Quic, Udp};
        let given: [(&str, bool, &[CheckKind]); 7] = [
            ("path", self.path.is_some(), &[Http, Https]),
            ("host", self.host.is_some(), &[Http, Https, Quic]),
            ("status", self.status.is_some(), &[Http, Https]),
            ("send", self.send.is_some(), &[Udp]),
            ("expect", self.expect.is_some(), &[Udp]),
            ("alpn", self.alpn.is_some(), &[Quic]),
            ("service", self.service.is_some(), &[Grpc]),
        ];
        for (name, is_given, of) in given {
            if is_given && !of.contains(&self.kind) {
                let of: Vec<&str> = of.iter().map(|kind| kind.word()).collect();
                let why = format!(
                    "is for type: {} alone; choose that, or leave it out",
                    of.join(" or ")
                );
                fields.refuse(name, Invalid::new("this", why));
            }
        }
        if let Some(host) = self.host.as_ref().filter(|host| host.as_str().contains('/')) {
            let why = "is no host's name; expected one such as game.example";
            fields.refuse("host", Invalid::new(host.as_str(), why));
        }
        if self.kind == Udp && self.send.is_none() {
            let expects = Payload::FORM;
            fields.refuse("send", Problem::Missing { expects });
        }
        if self.kind == Quic && self.alpn.is_none() {
            let expects = "the application's protocol, such as h3";
            fields.refuse("alpn", Problem::Missing { expects });
        }
        if self.kind == CheckKind::Quake3 && self.interval_ms.get() < QUAKE3_LIMIT_MS {
            let why = format!(
                "is too often for quake3, whose servers answer an address once in {QUAKE3_LIMIT_MS} ms: say so or more"
            );
            fields.refuse("interval_ms", Invalid::new(&self.interval_ms.to_string(), why));
        }
        if self.timeout_ms() > self.interval_ms.get() {
            let why = format!(
                "is above interval_ms, {}: a check would not have ended when the next one begins",
                self.interval_ms
            );
            fields.refuse("timeout_ms", Invalid::new(&self.timeout_ms().to_string(), why));
        }
    }
}

impl Field for Health {
    const EXPECTS: &'static str = "a mapping with type";

    fn read(place: &Place<'_>) -> Option<Self> {
        place.fields(|fields| {
            let kind = fields.required("type");
            let port = fields.optional("port");
            let interval_ms = fields.or("interval_ms", Interval::literal(1000));
            let timeout_ms = fields.optional("timeout_ms");
            let rise = fields.or("rise", Streak::literal(2));
            let fall = fields.or("fall", Streak::literal(3));
            let min_healthy_percent = fields.or("min_healthy_percent", Percent::MIN);
            let slow_start_s = fields.or("slow_start_s", SlowStart::MIN);
            let path = fields.optional("path");
            let host = fields.optional("host");
            let status = fields.optional("status");
            let send = fields.optional("send");
            let expect = fields.optional("expect");
            let alpn = fields.optional("alpn");
            let service = fields.optional("service");
            let health = Self {
                kind: kind?,
                port: port?,
                interval_ms: interval_ms?,
                timeout_ms: timeout_ms?,
                rise: rise?,
                fall: fall?,
                min_healthy_percent: min_healthy_percent?,
                slow_start_s: slow_start_s?,
                path: path?,
                host: host?,
                status: status?,
                send: send?,
                expect: expect?,
                alpn: alpn?,
                service: service?,
            };
            health.refuse_what_cannot_be(fields);
            Some(health)
        })
    }
}

words! {
    /// What a health check asks.
    CheckKind {
        /// A TCP connection.
        Tcp = "tcp",
        /// HTTP/1.1's `GET`.
        Http = "http",
        /// The same over TLS, of whatever certificate.
        Https = "https",
        /// A datagram, and an answer.
        Udp = "udp",
        /// Valve's `A2S_INFO`.
        A2s = "a2s",
        /// Quake III Arena's `getstatus`.
        Quake3 = "quake3",
        /// Minecraft Java Edition's status.
        Minecraft = "minecraft",
        /// QUIC's handshake.
        Quic = "quic",
        /// gRPC's health check, without TLS.
        Grpc = "grpc"
    } not_yet []
}

integers! {
    /// From one check to the next.
    Interval(u32), "milliseconds", 100..=300000;
    /// Until a check has failed.
    Timeout(u32), "milliseconds", 20..=300000;
    /// So many in a row.
    Streak(u8), "a number of checks", 1..=20;
    /// Until a target has its whole share.
    SlowStart(u16), "seconds", 0..=900;
    /// A part of the targets.
    Percent(u8), "a part in percent", 0..=100;
}

impl SlowStart {
    fn is_none(&self) -> bool {
        *self == Self::MIN
    }
}

impl Percent {
    fn is_none(&self) -> bool {
        *self == Self::MIN
    }
}

/// A path in a request, with its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPath(String);

impl UrlPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for UrlPath {
    const FORM: &'static str = "a path that begins with \"/\", of at most 255 characters, such as /ready";
}

impl FromStr for UrlPath {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let may_stand = |byte: u8| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte);
        if text.starts_with('/') && text.len() <= LONGEST_TEXT && text.bytes().all(may_stand) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::not::<Self>(text))
        }
    }
}

impl fmt::Display for UrlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name in a protocol: of a host, of a protocol, of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(String);

impl Word {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text for Word {
    const FORM: &'static str = "a name of 1-255 letters, digits, \".\", \"_\", \"-\" and \"/\"";
}

impl FromStr for Word {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        if (1..=LONGEST_TEXT).contains(&text.len()) && text.bytes().all(may_stand) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::not::<Self>(text))
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The status of an answer, from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    /// 200-299: what RFC 9110 calls successful.
    pub const SUCCESSFUL: Self = Self {
        first: 200,
        last: 299,
    };

    /// The first and the last one.
    #[must_use]
    pub const fn bounds(self) -> (u16, u16) {
        (self.first, self.last)
    }
}

impl Text for Statuses {
    const FORM: &'static str = "statuses of HTTP, such as 200-399";
}

impl FromStr for Statuses {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let status = |part: &str| part.parse().ok().filter(|status| (100..=599).contains(status));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(Invalid::not::<Self>(text)),
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Octets: a text, or behind `hex:` pairs of hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(String);

impl Payload {
    /// The octets.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        octets(&self.0).unwrap_or_default()
    }
}

/// The octets that a text stands for; nothing where it is none.
fn octets(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix("hex:") else {
        return Some(text.as_bytes().to_vec());
    };
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            let is_hex = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
            u8::from_str_radix(pair, 16).ok().filter(|_| is_hex)
        })
        .collect()
}

impl Text for Payload {
    const FORM: &'static str = "1-512 octets, as a text or as digits such as hex:ffffffff54";
}

impl FromStr for Payload {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let length = octets(text).map(|octets| octets.len());
        match length {
            Some(1..=LONGEST_PAYLOAD) => Ok(Self(text.to_owned())),
            Some(length) => {
                let why = format!("is {length} octets; expected {}", Self::FORM);
                Err(Invalid::new(text, why))
            }
            None => Err(Invalid::not::<Self>(text)),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(UrlPath, Word, Statuses, Payload);
