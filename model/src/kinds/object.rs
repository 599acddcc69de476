//! An object of any kind, and how it is named.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use super::common::{Invalid, Text, serde_as_text};
use super::{Accelerator, AddressPool, Metadata, Name, Node, Port, PrefixList, Service, Vpc};

/// A declared object: its metadata and its spec.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Resource<S> {
    /// Name and labels.
    pub metadata: Metadata,
    /// What is declared.
    pub spec: S,
}

macro_rules! kinds {
    ($( $(#[$meta:meta])* $kind:ident = $word:literal; )+) => {
        /// The kinds of objects, in the order in which they refer to each other.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $( $(#[$meta])* $kind, )+ }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$kind, )+];

            /// The kind as a manifest writes it: `AddressPool`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$kind => stringify!($kind), )+ }
            }

            /// The kind as the command line writes it: `addresspool`.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $( Self::$kind => $word, )+ }
            }
        }

        /// An object of any kind. Cheap to clone.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "kind")]
        pub enum Object { $( $(#[$meta])* $kind(Arc<$kind>), )+ }

        impl Object {
            /// Its kind.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self { $( Self::$kind(_) => Kind::$kind, )+ }
            }

            /// Its name and labels.
            #[must_use]
            pub fn metadata(&self) -> &Metadata {
                match self { $( Self::$kind(object) => &object.metadata, )+ }
            }
        }

        $( impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Arc::new(object))
            }
        } )+
    };
}

kinds! {
    /// A host.
    Node = "node";
    /// A private network.
    Vpc = "vpc";
    /// A VPC's attachment on a host.
    Port = "port";
    /// Public addresses.
    AddressPool = "addresspool";
    /// Addresses by their prefixes.
    PrefixList = "prefixlist";
    /// Where connections end.
    Service = "service";
    /// Listeners near the players of services far away.
    Accelerator = "accelerator";
}

impl Object {
    /// Its kind and name: its identity.
    #[must_use]
    pub fn id(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind(),
            name: self.metadata().name.clone(),
        }
    }
}

impl Text for Kind {
    const FORM: &'static str = "one of: node, vpc, port, addresspool, prefixlist, service, accelerator";
}

/// Reads the command line's word, in any case.
impl FromStr for Kind {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.word().eq_ignore_ascii_case(text));
        known.ok_or_else(|| Invalid::not::<Self>(text))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// An object's identity: `node/osaka`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Name,
}

impl ObjectRef {
    /// The object of this kind and name.
    #[must_use]
    pub fn new(kind: Kind, name: &Name) -> Self {
        Self {
            kind,
            name: name.clone(),
        }
    }
}

impl Text for ObjectRef {
    const FORM: &'static str = "a kind and a name, such as node/osaka";
}

impl FromStr for ObjectRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (kind, name) = text.split_once('/').ok_or_else(|| Invalid::not::<Self>(text))?;
        Ok(Self {
            kind: kind.parse()?,
            name: name.parse()?,
        })
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

serde_as_text!(Kind, ObjectRef);
