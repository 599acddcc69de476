//! The way back: a host as it was before its agent.

use std::collections::HashSet;
use std::path::Path;

use kuafu_pipeline::map::{Mac, MacPair};

use crate::announce;
use crate::bpf::{Maps, Pins};
use crate::error::Result;
use crate::host::{Net, Sysctls, remove_overlay, stop_checks};

/// Detaches the programs, removes pins, `kuafu0` and what led there, and makes the settings recorded in `data` what they were. Returns
/// what was done, one line each: nothing, where nothing was there. What an agent keeps in `data` beside that
/// (identity, state, incarnation) stays. The BGP daemon that it has started, with its files in `run`, ends first.
///
/// # Errors
/// What could not be removed. What was done before stays done; a second run does the rest.
pub fn uninstall(pins: &Pins, data: &Path, run: &Path) -> Result<Vec<String>> {
    let net = Net::new()?;
    let mut done = Vec::new();
    let stopped = announce::stop(run).into_iter();
    done.extend(stopped.map(|name| format!("{name} is stopped")));
    let neighbours = let_go(&net, pins)?;
    if neighbours != 0 {
        done.push(format!("{neighbours} neighbours are no longer kept fresh"));
    }
    let links = pins.link_names()?.len();
    let was_there = pins.folder().exists();
    pins.remove_all()?;
    if links != 0 {
        done.push(format!("{links} programs are detached"));
    }
    if was_there {
        done.push(format!("{} is removed", pins.folder().display()));
    }
    if stop_checks(&net)? {
        done.push("health checks are no longer led to kuafu0".to_owned());
    }
    if remove_overlay(&net)? {
        done.push("the interface kuafu0 is removed".to_owned());
    }
    done.extend(Sysctls::recorded(data)?.restore()?);
    Ok(done)
}

/// Leaves the neighbours of the map to the kernel's usual care. Returns how many there were.
fn let_go(net: &Net, pins: &Pins) -> Result<usize> {
    let Ok(maps) = Maps::open(pins) else {
        return Ok(0);
    };
    let mut ours = HashSet::new();
    maps.neighbours.for_each(|_, neighbour| {
        if !neighbour.macs.is_unknown() {
            let [high, middle, _] = neighbour.macs.words();
            ours.insert((neighbour.interface, high, middle >> 16));
        }
    })?;
    let mut count = 0;
    for entry in net.neighbours()?.into_iter().filter(|entry| entry.is_managed) {
        let Some(mac) = entry.mac else { continue };
        let [high, middle, _] = MacPair::new(Mac::from_octets(mac), Mac::default()).words();
        if ours.contains(&(entry.step.interface, high, middle >> 16)) {
            net.unmanage(entry.step)?;
            count += 1;
        }
    }
    Ok(count)
}
