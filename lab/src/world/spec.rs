//! The world file.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::netns::checked;
use crate::wan::{Change, SiteId};

/// The most sites: each has a number of one byte in its addresses.
const MOST_SITES: usize = 250;
/// The most spare addresses of a site.
const MOST_SPARE: u8 = 200;

/// What a world consists of, as its file says. `lab/worlds/pair.yaml` shows every field.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorldSpec {
    /// The seed of delays and losses.
    #[serde(default)]
    pub seed: u64,
    /// The longest IP packet on every link, in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
    /// The hosts.
    pub sites: Vec<SiteSpec>,
    /// What directions are like from the start, where they are not just their delay.
    #[serde(default)]
    pub lines: Vec<LineSpec>,
    /// What happens by itself.
    #[serde(default)]
    pub events: Vec<EventSpec>,
}

/// A host and where it is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSpec {
    /// Its name, which is part of its namespace's.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its place in the latency matrix. Sites of one region are 0 ms apart.
    pub region: String,
    /// The round trip between it and its region, in ms.
    #[serde(default)]
    pub access_ms: f64,
    /// Is it behind a 1:1 NAT?
    #[serde(default)]
    pub nat: bool,
    /// How many addresses, besides its own, are routed to it.
    #[serde(default)]
    pub spare: u8,
    /// Where it is on a map.
    #[serde(default)]
    pub coordinates: Option<Coordinates>,
}

/// What a site is for. The lab treats all alike; whoever uses the world asks for them by role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A point of presence: an agent runs there.
    Node,
    /// A player.
    Client,
    /// A game server.
    Server,
    /// The controller's host.
    Controller,
}

/// Degrees on the globe.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coordinates {
    /// North of the equator.
    pub latitude: f64,
    /// East of Greenwich.
    pub longitude: f64,
}

/// What one direction is like; what is not said stays as it is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineSpec {
    /// The site where frames come from.
    pub from: String,
    /// The site where they go.
    pub to: String,
    /// The share of frames lost, 0 to 1.
    pub loss: Option<f64>,
    /// A delay on top of the law's, in ms.
    pub extra_ms: Option<f64>,
    /// A limit, in Mb/s.
    pub rate_mbps: Option<f64>,
}

/// What happens by itself: exactly one of `kill`, `heal` and `line`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventSpec {
    /// Seconds after the wire starts.
    pub at_s: f64,
    /// The site that dies.
    pub kill: Option<String>,
    /// The site that comes back.
    pub heal: Option<String>,
    /// The direction that changes.
    pub line: Option<LineSpec>,
}

fn default_mtu() -> u32 {
    1500
}

impl WorldSpec {
    /// Reads and checks a world file's text.
    ///
    /// # Errors
    /// YAML that does not fit, with line and column; a value out of range, a name used twice or unknown,
    /// with where it stands.
    pub fn parse(text: &str) -> Result<Self> {
        let spec: Self = serde_saphyr::from_str(text).map_err(|error| Error::World(error.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    /// The site with this name.
    pub fn site(&self, name: &str) -> Option<SiteId> {
        (0..)
            .zip(&self.sites)
            .find(|(_, site)| site.name == name)
            .map(|(index, _)| SiteId::new(index))
    }

    /// The events as changes of the wire, those of `lines` first, at time zero.
    pub(crate) fn changes(&self) -> Result<Vec<(Duration, Change)>> {
        let mut changes = Vec::new();
        for line in &self.lines {
            changes.extend(
                self.line_changes(line)?
                    .into_iter()
                    .map(|change| (Duration::ZERO, change)),
            );
        }
        for event in &self.events {
            let at = duration("events: at_s", event.at_s, 1.0)?;
            changes.extend(self.event_changes(event)?.into_iter().map(|change| (at, change)));
        }
        Ok(changes)
    }

    fn event_changes(&self, event: &EventSpec) -> Result<Vec<Change>> {
        match (&event.kill, &event.heal, &event.line) {
            (Some(name), None, None) => Ok(vec![Change::Kill(self.named(name)?)]),
            (None, Some(name), None) => Ok(vec![Change::Heal(self.named(name)?)]),
            (None, None, Some(line)) => self.line_changes(line),
            _ => Err(Error::World(format!(
                "the event at {} s: say one of kill, heal, line",
                event.at_s
            ))),
        }
    }

    fn line_changes(&self, line: &LineSpec) -> Result<Vec<Change>> {
        let (from, to) = (self.named(&line.from)?, self.named(&line.to)?);
        let mut changes = Vec::new();
        if let Some(share) = line.loss {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::World(format!("loss: {share} is not between 0 and 1")));
            }
            changes.push(Change::Loss { from, to, share });
        }
        if let Some(extra) = line.extra_ms {
            changes.push(Change::ExtraDelay {
                from,
                to,
                extra: duration("extra_ms", extra, 1e-3)?,
            });
        }
        if let Some(rate) = line.rate_mbps {
            changes.push(Change::Rate {
                from,
                to,
                bps: Some(bits_per_second(rate)?),
            });
        }
        Ok(changes)
    }

    fn named(&self, name: &str) -> Result<SiteId> {
        self.site(name)
            .ok_or_else(|| Error::World(format!("no site is called {name:?}")))
    }

    fn check(&self) -> Result<()> {
        let fault = |words: String| Err(Error::World(words));
        if !(576..=9_000).contains(&self.mtu) {
            return fault(format!("mtu: {} is not between 576 and 9000", self.mtu));
        }
        if !(1..=MOST_SITES).contains(&self.sites.len()) {
            return fault(format!(
                "sites: {} of them, not 1 to {MOST_SITES}",
                self.sites.len()
            ));
        }
        let mut names = BTreeSet::new();
        for site in &self.sites {
            checked(&site.name)?;
            duration(&format!("{}: access_ms", site.name), site.access_ms, 1e-3)?;
            if site.spare > MOST_SPARE {
                return fault(format!(
                    "{}: spare: {} is more than {MOST_SPARE}",
                    site.name, site.spare
                ));
            }
            if !names.insert(&site.name) {
                return fault(format!("sites: {:?} is there twice", site.name));
            }
        }
        self.changes().map(drop)
    }
}

/// A duration of up to a day from a number of `unit` seconds.
pub(super) fn duration(field: &str, value: f64, unit: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value * unit)
        .ok()
        .filter(|duration| *duration <= Duration::from_hours(24))
        .ok_or_else(|| Error::World(format!("{field}: {value} is not between 0 and a day")))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked"
)]
fn bits_per_second(mbps: f64) -> Result<u64> {
    if !(0.001..=1e6).contains(&mbps) {
        return Err(Error::World(format!(
            "rate_mbps: {mbps} is not between 0.001 and 1000000"
        )));
    }
    Ok((mbps * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITES: &str =
        "sites:\n  - {name: a, role: node, region: r}\n  - {name: b, role: client, region: r}\n";

    fn fault(text: &str) -> String {
        WorldSpec::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_worlds_that_come_along_are_right() {
        for text in [super::super::DEMO, super::super::PAIR] {
            WorldSpec::parse(text).unwrap();
        }
    }

    #[test]
    fn events_become_changes() {
        let spec = WorldSpec::parse(super::super::PAIR).unwrap();
        let changes = spec.changes().unwrap();
        let (here, there) = (SiteId::new(0), SiteId::new(1));
        assert_eq!(
            changes[2],
            (
                Duration::ZERO,
                Change::Rate {
                    from: here,
                    to: there,
                    bps: Some(1_000_000_000)
                }
            )
        );
        assert_eq!(changes[3], (Duration::from_hours(1), Change::Kill(there)));
        assert_eq!(changes.len(), 7);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(fault("sites: []").contains("0 of them"));
        assert!(fault("sites:\n  - {name: a, role: king, region: r}").contains("king"));
        assert!(fault(&format!("{SITES}colour: red")).contains("colour"));
        assert!(fault(&format!("{SITES}mtu: 100")).contains("mtu: 100"));
        assert!(fault(&SITES.replace("name: b", "name: a")).contains("\"a\" is there twice"));
        assert!(fault(&SITES.replace("name: b", "name: ../b")).contains("../b"));
        assert!(fault(&format!("{SITES}events: [{{at_s: 1, kill: z}}]")).contains("no site is called \"z\""));
        assert!(fault(&format!("{SITES}events: [{{at_s: 1}}]")).contains("one of kill, heal, line"));
        assert!(fault(&format!("{SITES}events: [{{at_s: -1, kill: a}}]")).contains("at_s: -1"));
        assert!(fault(&format!("{SITES}lines: [{{from: a, to: b, loss: 2}}]")).contains("loss: 2"));
        assert!(fault(&format!("{SITES}lines: [{{from: a, to: b, rate_mbps: 0}}]")).contains("rate_mbps: 0"));
    }
}
