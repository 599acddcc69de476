//! What probes measure, as far as an agent needs it.

use kuafu_model::HostState;
use kuafu_proto::v1;

use crate::bpf::{Clock, Maps};
use crate::error::Result;
use crate::read::{self, Measured};

/// What probes measure.
pub trait Measure {
    /// Another state is in force: its paths are those to be measured.
    fn follow(&mut self, state: &HostState);
    /// Takes in what came home since. Returns what is to be said at once.
    ///
    /// # Errors
    /// What failed.
    fn drain(&mut self, maps: &Maps, clock: &Clock) -> Result<Vec<v1::Alarm>>;
    /// The figures of the last second.
    ///
    /// # Errors
    /// What failed.
    fn reports(&mut self, maps: &Maps, clock: &Clock) -> Result<v1::LegReports>;
    /// Whether paths are watched.
    fn liveness(&self) -> bool;
    /// What was measured of a path, by its number on this host.
    fn measured(&self, path: u32) -> Option<Measured>;
}

/// Watches only whether probes are sent; measures nothing.
#[derive(Debug, Default)]
pub struct LivenessOnly {
    state: Option<HostState>,
    liveness: bool,
}

impl Measure for LivenessOnly {
    fn follow(&mut self, state: &HostState) {
        self.state = Some(state.clone());
    }

    fn drain(&mut self, _: &Maps, _: &Clock) -> Result<Vec<v1::Alarm>> {
        Ok(Vec::new())
    }

    fn reports(&mut self, maps: &Maps, clock: &Clock) -> Result<v1::LegReports> {
        self.liveness = match &self.state {
            Some(state) => read::liveness(maps, state, clock.jiffies()?)?,
            None => false,
        };
        Ok(v1::LegReports::default())
    }

    fn liveness(&self) -> bool {
        self.liveness
    }

    fn measured(&self, _: u32) -> Option<Measured> {
        None
    }
}
