//! What a host can be asked: its state, what it drops, its flows, what its shields do, and what becomes of a packet.

mod draining;
mod drops;
mod flows;
mod shields;
mod status;
mod tables;

use std::time::Duration;

use kuafu_model::HostState;
use kuafu_model::contents::Contents;
use kuafu_proto::v1::{self, query::Ask, query_answer::Answer};

use crate::admit::admit;
use crate::bpf::{Clock, Maps};
use crate::explain::explain;
pub(crate) use draining::scaled;
pub use drops::{DropWatch, Dropped, dropped, drops, events};
pub use flows::flows;
pub use shields::{ShieldWatch, shield};
pub(crate) use shields::{TALLIES, counts, is_up, object_of, shielded};
pub use status::status;
pub use tables::contents;
pub(crate) use tables::links;

/// What answers are made from, at one moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The host's name, where no state says it.
    pub name: &'a str,
    /// The maps.
    pub maps: &'a Maps,
    /// The programs' clock.
    pub clock: &'a Clock,
    /// The state in force.
    pub state: Option<&'a HostState>,
    /// What that made of the maps.
    pub contents: &'a Contents,
    /// What is attached.
    pub programs: &'a [v1::ProgramStatus],
    /// The host's incarnation.
    pub incarnation: u32,
    /// Whether paths are watched.
    pub liveness: bool,
    /// What probing takes.
    pub probing: v1::Probing,
    /// What is wrong.
    pub faults: &'a [String],
    /// What was measured of a path, by its number on this host.
    pub measured: &'a dyn Fn(u32) -> Option<Measured>,
    /// Servers that are checked.
    pub servers: &'a dyn Fn() -> Vec<v1::ServerStatus>,
    /// Addresses that are announced, or would be.
    pub announcements: &'a dyn Fn() -> Vec<v1::AnnouncementStatus>,
    /// When drops were seen.
    pub drops: &'a DropWatch,
    /// What shields have counted lately.
    pub shields: &'a ShieldWatch,
}

/// What probes have measured of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Probes that left.
    pub sent: u64,
    /// Probes that came home.
    pub received: u64,
    /// Round trip of the last 30 s, median.
    pub rtt_p50_us: u32,
    /// Its 90th percentile.
    pub rtt_p90_us: u32,
    /// Smoothed.
    pub rtt_ewma_us: u32,
}

impl View<'_> {
    /// The host's name.
    #[must_use]
    pub fn node(&self) -> &str {
        self.state.map_or(self.name, |state| &state.node.name)
    }
}

/// The answer to a question.
#[must_use]
pub fn answer(view: &View<'_>, query: &v1::Query) -> v1::QueryAnswer {
    let answer = match &query.ask {
        Some(Ask::Status(_)) => status(view).map(Answer::Status),
        Some(Ask::Drops(_)) => drops(view).map(Answer::Drops),
        Some(Ask::Flows(query)) => flows(view, query.limit).map(Answer::Flows),
        Some(Ask::Explain(query)) => explain(view, query).map(Answer::Explanation),
        Some(Ask::Shield(query)) => shield(view, &query.object).map(Answer::Shield),
        Some(Ask::Admit(query)) => admit(view, query).map(Answer::Admitted),
        None => Ok(Answer::Error("this agent does not know that question".to_owned())),
    };
    v1::QueryAnswer {
        id: query.id,
        answer: Some(answer.unwrap_or_else(|error| Answer::Error(error.to_string()))),
    }
}

/// What an interface of this network namespace is called; its number where it is gone, nothing for number 0.
pub(crate) fn interface_name(number: u32) -> String {
    if number == 0 {
        return String::new();
    }
    let name = nix::net::if_::if_indextoname(number).ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| format!("interface {number}"))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
