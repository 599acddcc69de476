//! What the programs tell, CPU by CPU.

use std::fmt;

use aya::maps::perf::{PerfEvent, PerfEventArrayBuffer};
use aya::maps::{Map, MapData, PerfEventArray};

use crate::bpf::Outlet;
use crate::error::{Error, Result};

/// Pages of each CPU's buffer: one MiB of 4 KiB pages.
const PAGES: usize = 256;

/// The buffers of all CPUs; with them, what the programs find to tell into goes away.
pub(super) struct Buffers {
    of_cpus: Vec<(u32, PerfEventArrayBuffer<MapData>)>,
    lost: u64,
}

impl fmt::Debug for Buffers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Buffers")
            .field("cpus", &self.of_cpus.len())
            .finish_non_exhaustive()
    }
}

impl Buffers {
    /// Opens one for each CPU that is on.
    pub(super) fn open(outlet: &Outlet) -> Result<Self> {
        let failed = |source: &dyn fmt::Display| {
            Error::io("open the capture's buffers")(std::io::Error::other(source.to_string()))
        };
        let fd = outlet.try_clone().map_err(|error| failed(&error))?;
        let map = MapData::from_fd(fd)
            .and_then(Map::from_map_data)
            .map_err(|error| failed(&error))?;
        let mut array = PerfEventArray::try_from(map).map_err(|error| failed(&error))?;
        let cpus = aya::util::online_cpus().map_err(|(what, error)| failed(&format!("{what}: {error}")))?;
        let mut of_cpus = Vec::new();
        for cpu in cpus {
            let buffer = array.open(cpu, Some(PAGES)).map_err(|error| failed(&error))?;
            of_cpus.push((cpu, buffer));
        }
        Ok(Self { of_cpus, lost: 0 })
    }

    /// Hands everything that is there to `take`, in order for each CPU.
    pub(super) fn drain(&mut self, mut take: impl FnMut(u32, &[u8])) {
        let (lost, mut joined) = (&mut self.lost, Vec::new());
        for (cpu, buffer) in &mut self.of_cpus {
            buffer.for_each(|event| match event {
                PerfEvent::Lost { count } => *lost = lost.saturating_add(count),
                PerfEvent::Sample { head, tail: [] } => take(*cpu, head),
                PerfEvent::Sample { head, tail } => {
                    joined.clear();
                    joined.extend_from_slice(head);
                    joined.extend_from_slice(tail);
                    take(*cpu, &joined);
                }
            });
        }
    }

    /// Copies that found no room.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}
