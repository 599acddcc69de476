//! What the value types share: the error of a refused text, and how texts, words and integers are defined.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::str::FromStr;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::manifest::{Fields, Problem};

/// A value that its type refuses, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", shown(value))]
pub struct Invalid {
    /// The value as it was written.
    pub value: String,
    /// The rest of a sentence that begins with the value: what is wrong and what is allowed.
    pub why: Cow<'static, str>,
}

impl Invalid {
    pub(crate) fn new(value: &str, why: impl Into<Cow<'static, str>>) -> Self {
        Self {
            value: value.to_owned(),
            why: why.into(),
        }
    }

    /// `value` does not read as a `T` at all.
    pub(crate) fn not<T: Text>(value: &str) -> Self {
        Self::new(value, format!("is not {}", T::FORM))
    }
}

/// Refuses what a list holds twice.
pub(super) fn refuse_twice<T: Eq + Hash + ToString>(
    fields: &Fields<'_>,
    name: &str,
    list: impl Iterator<Item = T>,
) {
    let mut seen = HashMap::new();
    for (index, item) in list.enumerate() {
        let value = item.to_string();
        if let Some(first) = seen.insert(item, index) {
            let problem = Problem::Twice {
                value,
                first: fields.path_of(&format!("{name}[{first}]")),
            };
            fields.refuse(&format!("{name}[{index}]"), problem);
        }
    }
}

/// A text in a message: as it is where it cannot be misread, else quoted.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-+@%".contains(&byte);
    let misread = text.is_empty() || text.len() > LONGEST_SHOWN || !text.bytes().all(plain);
    if misread {
        Cow::Owned(quoted(text))
    } else {
        Cow::Borrowed(text)
    }
}

/// A text in a message, in quotes and cut to what fits a line.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Characters of a text that a message shows.
const LONGEST_SHOWN: usize = 80;

/// A value that manifests write as text.
pub(crate) trait Text: FromStr<Err = Invalid> {
    /// What the text must look like, as a noun phrase with an example.
    const FORM: &'static str;
}

/// A moment, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// So many seconds after the beginning of 1970 in UTC; `None` after the year 9999.
    #[must_use]
    pub fn new(unix_s: u64) -> Option<Self> {
        let seconds = i64::try_from(unix_s).ok()?;
        OffsetDateTime::from_unix_timestamp(seconds).ok()?;
        Some(Self(unix_s))
    }

    /// Seconds since the beginning of 1970 in UTC.
    #[must_use]
    pub const fn unix_s(self) -> u64 {
        self.0
    }
}

impl Text for Moment {
    const FORM: &'static str =
        "a time from 1970 to 9999 with its zone, such as 2026-12-01T06:00:00Z (RFC 3339)";
}

impl FromStr for Moment {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok();
        let unix_s = time.and_then(|time| u64::try_from(time.unix_timestamp()).ok());
        unix_s
            .and_then(Self::new)
            .ok_or_else(|| Invalid::not::<Self>(text))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).map_err(|_| fmt::Error)?;
        let time = OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| fmt::Error)?;
        f.write_str(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

/// Serialises types as the text that they display, and reads them from it.
macro_rules! serde_as_text {
    ($($type:ty),+) => { $(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+ };
}
pub(crate) use serde_as_text;

serde_as_text!(Moment);

/// Defines an enum of words. Words after `not_yet` are known, and refused as not supported yet.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident {
            $(#[$first_meta:meta])* $first:ident = $first_word:literal
            $(, $(#[$variant_meta:meta])* $variant:ident = $word:literal)*
        } not_yet [$($later:literal),*]
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $(#[$first_meta])* $first,
            $( $(#[$variant_meta])* $variant, )*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[Self::$first $(, Self::$variant)*];

            /// The word that manifests use.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { Self::$first => $first_word, $( Self::$variant => $word, )* }
            }
        }

        impl crate::kinds::common::Text for $name {
            const FORM: &'static str = concat!("one of: ", $first_word $(, ", ", $word)*);
        }

        impl std::str::FromStr for $name {
            type Err = crate::kinds::Invalid;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                const LATER: &[&str] = &[$($later),*];
                if LATER.contains(&text) {
                    let why = concat!("is not supported yet; allowed: ", $first_word $(, ", ", $word)*);
                    return Err(crate::kinds::Invalid::new(text, why));
                }
                let known = Self::ALL.iter().copied().find(|known| known.word() == text);
                known.ok_or_else(|| crate::kinds::Invalid::not::<Self>(text))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        crate::kinds::common::serde_as_text!($name);
    };
}
pub(crate) use words;

/// Defines integers with limits.
macro_rules! integers {
    ($( $(#[$meta:meta])* $name:ident($inner:ty), $what:literal, $min:literal..=$max:literal; )+) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// The least value allowed.
            pub const MIN: Self = Self($min);
            /// The largest value allowed.
            pub const MAX: Self = Self($max);

            /// The value, or nothing outside the limits.
            #[must_use]
            pub const fn new(value: $inner) -> Option<Self> {
                // Wide enough that no limit is a useless comparison.
                let wide = value as i64;
                if wide >= $min && wide <= $max { Some(Self(value)) } else { None }
            }

            /// A value known when this is compiled; one outside the limits does not compile in a const.
            #[allow(dead_code, reason = "not every integer has a default")]
            pub(crate) const fn literal(value: $inner) -> Self {
                let wide = value as i64;
                assert!(wide >= $min && wide <= $max, "outside the limits");
                Self(value)
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = <$inner as serde::Deserialize>::deserialize(deserializer)?;
                let refused = || serde::de::Error::custom(format_args!("{value} is out of range"));
                Self::new(value).ok_or_else(refused)
            }
        }

        impl crate::manifest::Field for $name {
            const EXPECTS: &'static str = concat!($what, ", ", stringify!($min), "-", stringify!($max));

            fn read(place: &crate::manifest::Place<'_>) -> Option<Self> {
                place.integer(Self::EXPECTS, |number| Self::new(<$inner>::try_from(number).ok()?))
            }
        }
    )+ };
}
pub(crate) use integers;

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_shown_text_cannot_be_misread() {
        assert_eq!(shown("10000-29999"), "10000-29999");
        assert_eq!(shown(""), r#""""#);
        assert_eq!(shown("a b\n"), r#""a b\n""#);
        assert_eq!(shown(&"é".repeat(81)), format!("\"{}\"...", "é".repeat(80)));
    }
}
