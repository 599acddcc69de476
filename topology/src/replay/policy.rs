//! A policy file.

use std::fmt;

use serde::Deserialize;
use serde_saphyr::{RenderOptions, SnippetMode, Spanned, UserMessageFormatter};
use thiserror::Error;

use crate::cost::Cost;
use crate::estimate::STEP;
use crate::steering::{Config, Margin};

/// Longest round trip that is read or configured, in ms: below an unusable [`Cost`].
pub(super) const LONGEST_MS: f64 = 500_000.0;
/// What is allowed for ms.
const MS: (f64, f64) = (0.0, LONGEST_MS);

/// How a leg's round trip is estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Estimator {
    /// Each tick moves the estimate by this share towards its own.
    Ewma {
        /// Of 0 to 1.
        alpha: f64,
    },
    /// The mean of what came home in the last ticks.
    Mean {
        /// So many ticks.
        window: usize,
    },
}

/// What is decided by. The default is what the controller does.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How a leg's round trip is estimated.
    pub estimator: Estimator,
    /// Whether it counts as at least halfway to its 90th percentile of the last 30 s.
    pub guard: bool,
    /// ms of cost per ms of jitter; `None`: as the pair's class weighs it.
    pub jitter_weight: Option<f64>,
    /// What a relay must gain over direct.
    pub gate: Margin,
    /// What another path must gain over the one in use.
    pub hysteresis: Margin,
    /// On how many ticks in a row.
    pub confirmations: u32,
    /// Ticks that a pair stays on a path at least.
    pub dwell_ticks: u32,
    /// Whether a pair that moves too often is held.
    pub flap_damping: bool,
    /// What passing through a relay costs, in µs; `None`: as recorded, 1000 for measurements.
    pub relay_us: Option<u32>,
    /// How many relays a path has at most.
    pub max_relays: usize,
    /// What a lost measurement counts as, in µs.
    pub clip_us: u32,
    /// Ticks at the beginning that decide and are not counted.
    pub warmup_ticks: u64,
    /// Where the estimator is given.
    pub(super) estimator_line: u64,
}

impl Default for Policy {
    fn default() -> Self {
        let config = Config::default();
        Self {
            estimator: Estimator::Ewma { alpha: STEP },
            guard: true,
            jitter_weight: None,
            gate: config.gate,
            hysteresis: config.hysteresis,
            confirmations: config.confirmations,
            dwell_ticks: u32::try_from(config.dwell_ms / config.tick_ms).unwrap_or(u32::MAX),
            flap_damping: true,
            relay_us: None,
            max_relays: config.max_relays,
            clip_us: 1_000_000,
            warmup_ticks: 0,
            estimator_line: 0,
        }
    }
}

/// What is no policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// No YAML, an unknown key, or a value of another type.
    #[error("line {line}: {message}")]
    Yaml {
        /// The line.
        line: u64,
        /// What is wrong.
        message: String,
    },
    /// A value that is not allowed.
    #[error("line {line}: {key}: {found} is not allowed; expected {expected}")]
    Value {
        /// The line.
        line: u64,
        /// The key.
        key: &'static str,
        /// The value.
        found: String,
        /// What is allowed.
        expected: String,
    },
}

/// The file as it is written; values are checked by their keys.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    estimator: Option<Spanned<EstimatorFile>>,
    guard: Given,
    jitter_weight: Given,
    gate_ms: Given,
    gate_share: Given,
    hysteresis_ms: Given,
    hysteresis_share: Given,
    confirmations: Given,
    dwell_ticks: Given,
    flap_damping: Given,
    relay_ms: Given,
    max_relays: Given,
    clip_ms: Given,
    warmup_ticks: Given,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EstimatorFile {
    kind: Spanned<Scalar>,
    #[serde(default)]
    alpha: Given,
    #[serde(default)]
    window: Given,
}

type Given = Option<Spanned<Scalar>>;

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Flag(bool),
    Whole(i64),
    Number(f64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(value) => value.fmt(f),
            Self::Whole(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
        }
    }
}

impl Scalar {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            _ => "",
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "what is allowed is far below 2^53")]
    fn number(&self) -> f64 {
        match self {
            Self::Whole(whole) => *whole as f64,
            Self::Number(number) => *number,
            _ => f64::NAN,
        }
    }
}

impl Policy {
    /// Reads YAML; each key is optional, and what is not given is as in force.
    ///
    /// # Errors
    /// The line, and what is allowed there.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        // A file of comments alone is no mapping, and changes nothing.
        let file: Option<File> = serde_saphyr::from_str(text).map_err(|error| yaml(&error))?;
        let (file, mut policy) = (file.unwrap_or_default(), Self::default());
        if let Some(estimator) = &file.estimator {
            policy.estimator_line = estimator.referenced.line();
            policy.estimator = estimator_of(&estimator.value)?;
        }
        if let Some(guard) = &file.guard {
            policy.guard = match guard.value.text() {
                "p90" => true,
                "none" => false,
                _ => return Err(not_allowed("guard", guard, "p90 or none")),
            };
        }
        policy.set_margins(&file)?;
        policy.jitter_weight = number("jitter_weight", &file.jitter_weight, (0.0, 1000.0))?;
        let most = 1_000_000;
        set(
            &mut policy.confirmations,
            whole("confirmations", &file.confirmations, 1, most)?,
        );
        set(
            &mut policy.dwell_ticks,
            whole("dwell_ticks", &file.dwell_ticks, 0, most)?,
        );
        set(
            &mut policy.flap_damping,
            flag("flap_damping", &file.flap_damping)?,
        );
        policy.relay_us = number("relay_ms", &file.relay_ms, MS)?.map(thousands);
        let max_relays = whole("max_relays", &file.max_relays, 1, 3_u8)?;
        set(&mut policy.max_relays, max_relays.map(usize::from));
        set(
            &mut policy.clip_us,
            number("clip_ms", &file.clip_ms, MS)?.map(thousands),
        );
        let warmup_ticks = whole("warmup_ticks", &file.warmup_ticks, 0, most)?;
        set(&mut policy.warmup_ticks, warmup_ticks.map(u64::from));
        Ok(policy)
    }

    fn set_margins(&mut self, file: &File) -> Result<(), PolicyError> {
        let share = (0.0, 1.0);
        let (gate, hysteresis) = (&mut self.gate, &mut self.hysteresis);
        set(&mut gate.us, number("gate_ms", &file.gate_ms, MS)?.map(thousands));
        set(
            &mut gate.ppm,
            number("gate_share", &file.gate_share, share)?.map(millions),
        );
        let absolute = number("hysteresis_ms", &file.hysteresis_ms, MS)?;
        set(&mut hysteresis.us, absolute.map(thousands));
        let relative = number("hysteresis_share", &file.hysteresis_share, share)?;
        set(&mut hysteresis.ppm, relative.map(millions));
        Ok(())
    }

    /// The policy in force, judged by what this one says of the world: transit, what is lost, what counts.
    #[must_use]
    pub fn in_force_beside(&self) -> Self {
        Self {
            relay_us: self.relay_us,
            clip_us: self.clip_us,
            warmup_ticks: self.warmup_ticks,
            ..Self::default()
        }
    }

    /// What steering is told of it.
    pub(super) fn config(&self) -> Config {
        let mut config = Config {
            gate: self.gate,
            hysteresis: self.hysteresis,
            confirmations: self.confirmations,
            max_relays: self.max_relays,
            ..Config::default()
        };
        config.dwell_ms = u64::from(self.dwell_ticks) * config.tick_ms;
        if !self.flap_damping {
            config.damping_move = 0;
        }
        if let Some(jitter) = self.jitter_weight {
            for weights in [&mut config.game, &mut config.voice, &mut config.bulk] {
                weights.jitter = jitter;
            }
        }
        config
    }
}

fn estimator_of(file: &EstimatorFile) -> Result<Estimator, PolicyError> {
    match file.kind.value.text() {
        "ewma" => {
            if let Some(window) = &file.window {
                return Err(not_allowed(
                    "estimator.window",
                    window,
                    "no window beside kind ewma",
                ));
            }
            let alpha = number("estimator.alpha", &file.alpha, (1e-6, 1.0))?.unwrap_or(STEP);
            Ok(Estimator::Ewma { alpha })
        }
        "mean" => {
            if let Some(alpha) = &file.alpha {
                return Err(not_allowed("estimator.alpha", alpha, "no alpha beside kind mean"));
            }
            let window = whole("estimator.window", &file.window, 1, 1_000_000_u32)?;
            let expected = "a window of ticks beside it, such as window: 9";
            let window = window.ok_or_else(|| not_allowed("estimator.kind", &file.kind, expected))?;
            Ok(Estimator::Mean {
                window: window as usize,
            })
        }
        _ => Err(not_allowed("estimator.kind", &file.kind, "ewma or mean")),
    }
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

fn flag(key: &'static str, given: &Given) -> Result<Option<bool>, PolicyError> {
    let value = |given: &Spanned<Scalar>| match given.value {
        Scalar::Flag(value) => Ok(value),
        _ => Err(not_allowed(key, given, "true or false")),
    };
    given.as_ref().map(value).transpose()
}

fn number(key: &'static str, given: &Given, (least, most): (f64, f64)) -> Result<Option<f64>, PolicyError> {
    let value = |given: &Spanned<Scalar>| {
        let value = given.value.number();
        let expected = || format!("a number from {least} to {most}");
        let allowed = (least..=most).contains(&value).then_some(value);
        allowed.ok_or_else(|| not_allowed(key, given, &expected()))
    };
    given.as_ref().map(value).transpose()
}

fn whole<T: TryFrom<i64> + Into<u64> + Copy>(
    key: &'static str,
    given: &Given,
    least: u8,
    most: T,
) -> Result<Option<T>, PolicyError> {
    let range = u64::from(least)..=most.into();
    let expected = format!("a whole number from {least} to {}", range.end());
    let value = |given: &Spanned<Scalar>| {
        let whole = match given.value {
            Scalar::Whole(whole) => T::try_from(whole).ok(),
            _ => None,
        };
        let allowed = whole.filter(|&whole| range.contains(&whole.into()));
        allowed.ok_or_else(|| not_allowed(key, given, &expected))
    };
    given.as_ref().map(value).transpose()
}

fn not_allowed(key: &'static str, given: &Spanned<Scalar>, expected: &str) -> PolicyError {
    PolicyError::Value {
        line: given.referenced.line(),
        key,
        found: given.value.to_string(),
        expected: expected.to_owned(),
    }
}

/// The parser's message on one line, without the location that it ends with.
fn yaml(error: &serde_saphyr::Error) -> PolicyError {
    let mut options = RenderOptions::new(&UserMessageFormatter);
    options.snippets = SnippetMode::Off;
    let text = error.render_with_options(options);
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    PolicyError::Yaml {
        line: error.location().map_or(1, |location| location.line()),
        message: text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

fn thousands(ms: f64) -> u32 {
    Cost::from_us_f64(ms * 1e3).us()
}

fn millions(share: f64) -> u32 {
    Cost::from_us_f64(share * 1e6).us()
}
