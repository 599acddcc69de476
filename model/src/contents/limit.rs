//! Accelerators' limits on this host.

use std::collections::BTreeMap;

use kuafu_pipeline::map::Limit;

use super::allocate::Numbers;
use super::error::{entry, in_range};
use super::{Contents, Error, HostFacts, underlay_mtu};
use crate::state::HostState;

/// What may pass at once: what the rate brings in this time,
const BURST_MS: u64 = 50;
/// and never less than so many of the underlay's largest packets: what TCP begins with (RFC 6928).
const BURST_PACKETS: u64 = 10;
/// Octets a second in 1 Mb/s.
const MEGABIT: u64 = 125_000;

/// Gives each accelerator that has a listener here a number and its limit, or none. Returns the numbers by VNI.
///
/// Also one without a limit has a number, so that a limit that comes meets the connections that are there. While a
/// change is rolled out an accelerator's listeners may say different limits: the least counts.
pub(super) fn fill(
    contents: &mut Contents,
    state: &HostState,
    host: &HostFacts,
    previous: &Contents,
) -> Result<BTreeMap<u32, u32>, Error> {
    let known = previous
        .limits
        .iter()
        .map(|(number, limit)| (*number, limit.vni))
        .collect();
    let mut numbers = Numbers::new("limits", &known, host.capacities.limits);
    let mut of_vni = BTreeMap::new();
    for (vni, mbps) in least(state)? {
        let number = numbers.of(vni)?;
        let limit = mbps.map_or_else(|| Limit::none(vni), |mbps| limit(vni, mbps, host));
        contents.limits.insert(number, limit);
        of_vni.insert(vni, number);
    }
    Ok(of_vni)
}

/// Each accelerator with the least of what its listeners say.
fn least(state: &HostState) -> Result<BTreeMap<u32, Option<u32>>, Error> {
    let mut least: BTreeMap<u32, Option<u32>> = BTreeMap::new();
    for (index, service) in state.services.iter().enumerate() {
        if let Some(mbps) = service.bandwidth_mbps {
            let field = entry("services", index, "bandwidth_mbps");
            in_range(field, mbps, 1..=100_000, "1 to 100000, or none")?;
        }
        let of_vni = least.entry(service.vni).or_default();
        *of_vni = (*of_vni).into_iter().chain(service.bandwidth_mbps).min();
    }
    Ok(least)
}

fn limit(vni: u32, mbps: u32, host: &HostFacts) -> Limit {
    let rate = u64::from(mbps) * MEGABIT;
    let burst = (rate * BURST_MS / 1000).max(u64::from(underlay_mtu(host)) * BURST_PACKETS);
    Limit::new(vni, rate, burst, host.hz)
}
