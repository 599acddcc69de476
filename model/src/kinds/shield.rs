//! `shield`: what may begin at a service, while more wants to than is good for it.

use serde::Serialize;

use super::common::{Invalid, integers, refuse_twice, words};
use super::{Kind, Name, ObjectRef};
use crate::manifest::{Field, Fields, Place};

/// ```yaml
/// shield: {}
/// ---
/// shield:
///   mode: on
///   source_new_per_s: 20
///   new_per_s: 20000
///   block: [bots]
///   allow: [partners]
/// ```
/// What a host where clients' packets enter lets begin: rates count there. A flow that has a server passes, but for the
/// lists. While the shield is up, a client of TCP must have shown that it can be reached, and what begins is bounded by
/// its source, its prefix and the service's budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shield {
    /// When it is up, and whether it does what it decides. Default: automatic.
    pub mode: ShieldMode,
    /// Whether a SYN is answered with a cookie, unless its source has returned one. Default: true.
    pub syn_cookies: bool,
    /// Whether nothing comes from UDP ports whose answers are larger than their questions. Default: true.
    pub drop_amplifiers: bool,
    /// How many flows a source may begin a second, and 2 s of that at once, at least ten. Default: 100. Of IPv6 a source
    /// is a /64, since a host has all of one.
    pub source_new_per_s: NewFlows,
    /// The same of a /24 altogether, of IPv6 a /48, and 1 s of that at once. Default: 2000.
    pub prefix_new_per_s: NewFlows,
    /// How many may begin a second altogether: the service's budget, of whose burst the latter half is left to sources
    /// that have returned a cookie. Default: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_per_s: Option<NewFlows>,
    /// Of mode automatic: with more than that a second, and half of it at once, it goes up. Default: 5000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarm_new_per_s: Option<NewFlows>,
    /// Of mode automatic: for how long it stays up after the last flow too many. Default: 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_s: Option<Hold>,
    /// Lists of sources from which nothing passes, up or not. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub block: Vec<Name>,
    /// Lists of sources that may do all: they count before the others. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Name>,
    /// Who may begin a flow, up or not. Default: open.
    pub admission: Admission,
}

impl Shield {
    /// Beyond how many new flows a second it goes up; `None`: it does not depend on that.
    #[must_use]
    pub fn alarm_new_per_s(&self) -> Option<NewFlows> {
        let alarm = self.alarm_new_per_s.unwrap_or(NewFlows::literal(5000));
        (self.mode == ShieldMode::Automatic).then_some(alarm)
    }

    /// For how long it stays up.
    #[must_use]
    pub fn hold_s(&self) -> Hold {
        self.hold_s.unwrap_or(Hold::literal(60))
    }

    /// The lists that it names, each with its field.
    pub fn lists(&self) -> impl Iterator<Item = (String, &Name)> {
        let both = [("block", &self.block), ("allow", &self.allow)];
        both.into_iter().flat_map(|(field, lists)| {
            let lists = lists.iter().enumerate();
            lists.map(move |(index, list)| (format!("{field}[{index}]"), list))
        })
    }

    /// Fields that say nothing, or two things, beside others.
    fn refuse_what_cannot_be(&self, fields: &Fields<'_>) {
        let of_automatic = [
            ("alarm_new_per_s", self.alarm_new_per_s.is_some()),
            ("hold_s", self.hold_s.is_some()),
        ];
        for (name, is_given) in of_automatic {
            if is_given && self.mode != ShieldMode::Automatic {
                let why = "is for mode: automatic alone; choose that, or leave it out";
                fields.refuse(name, Invalid::new("this", why));
            }
        }
        for (index, list) in self.block.iter().enumerate() {
            if self.allow.contains(list) {
                let list = ObjectRef::new(Kind::PrefixList, list).to_string();
                let why = "stands in allow too, which counts before block; name it in one of the two";
                fields.refuse(&format!("block[{index}]"), Invalid::new(&list, why));
            }
        }
    }
}

impl Field for Shield {
    const EXPECTS: &'static str = "a mapping, such as {mode: automatic}";

    fn read(place: &Place<'_>) -> Option<Self> {
        const LISTS: &str = "at least one PrefixList, or none of this at all";
        place.fields(|fields| {
            let mode = fields.or("mode", ShieldMode::Automatic);
            let syn_cookies = fields.or("syn_cookies", true);
            let drop_amplifiers = fields.or("drop_amplifiers", true);
            let source_new_per_s = fields.or("source_new_per_s", NewFlows::literal(100));
            let prefix_new_per_s = fields.or("prefix_new_per_s", NewFlows::literal(2000));
            let new_per_s = fields.optional("new_per_s");
            let alarm_new_per_s = fields.optional("alarm_new_per_s");
            let hold_s = fields.optional("hold_s");
            let block: Option<Option<Vec<Name>>> = fields.optional_list("block", LISTS);
            let allow: Option<Option<Vec<Name>>> = fields.optional_list("allow", LISTS);
            let admission = fields.or("admission", Admission::Open);
            refuse_twice(fields, "block", block.iter().flatten().flatten());
            refuse_twice(fields, "allow", allow.iter().flatten().flatten());
            let shield = Self {
                mode: mode?,
                syn_cookies: syn_cookies?,
                drop_amplifiers: drop_amplifiers?,
                source_new_per_s: source_new_per_s?,
                prefix_new_per_s: prefix_new_per_s?,
                new_per_s: new_per_s?,
                alarm_new_per_s: alarm_new_per_s?,
                hold_s: hold_s?,
                block: block?.unwrap_or_default(),
                allow: allow?.unwrap_or_default(),
                admission: admission?,
            };
            shield.refuse_what_cannot_be(fields);
            Some(shield)
        })
    }
}

words! {
    /// When a shield is up, and whether it does what it decides.
    ShieldMode {
        /// Never: it is as if it were not there.
        Off = "off",
        /// It counts what it would do as if it were up, and does nothing.
        Observe = "observe",
        /// Always.
        On = "on",
        /// While more begins than `alarm_new_per_s`, and for `hold_s` after.
        Automatic = "automatic"
    } not_yet []
}

words! {
    /// Who may begin a flow.
    Admission {
        /// Whoever is within the rates.
        Open = "open",
        /// Clients that were admitted (`kuafu admit`), and those on an allowed list.
        Required = "required"
    } not_yet []
}

integers! {
    /// Flows that begin.
    NewFlows(u32), "new flows a second", 1..=100000000;
    /// How long a shield stays up.
    Hold(u16), "seconds", 1..=3600;
}
