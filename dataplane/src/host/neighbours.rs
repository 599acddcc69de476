//! Gateways and next hops: found by the host's own routes, kept fresh by the kernel, written for the programs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use kuafu_pipeline::map::{Mac, MacPair, Neighbour};

use super::net::{Entry, Net, Step};
use crate::bpf::Maps;
use crate::error::Result;

/// The neighbours' numbers, and what the map says of each.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    known: BTreeMap<u32, Known>,
    /// What the kernel was told to keep fresh.
    managed: BTreeSet<Step>,
}

/// One number.
#[derive(Debug)]
struct Known {
    host: IpAddr,
    step: Option<Step>,
    written: Neighbour,
    /// Whether somebody answers there.
    answers: bool,
}

impl Neighbours {
    /// Takes up what an agent before this one has written.
    pub(super) fn adopt(&mut self, maps: &Maps, of: &BTreeMap<u32, IpAddr>) -> Result<()> {
        for (number, host) in of {
            let written = maps.neighbours.get(number)?.unwrap_or_default();
            self.known.insert(*number, Known::new(*host, written));
        }
        Ok(())
    }

    /// From now on these numbers lead to these hosts.
    pub(super) fn keep(&mut self, maps: &Maps, hosts: &[(u32, IpAddr)]) -> Result<()> {
        for (number, host) in hosts {
            if self.known.get(number).is_none_or(|known| known.host != *host) {
                maps.neighbours.set(number, &Neighbour::default())?;
                self.known
                    .insert(*number, Known::new(*host, Neighbour::default()));
            }
        }
        Ok(())
    }

    /// These numbers lead nowhere any more.
    pub(super) fn forget(&mut self, maps: &Maps, numbers: &[u32]) -> Result<()> {
        for number in numbers {
            self.known.remove(number);
            maps.neighbours.set(number, &Neighbour::default())?;
        }
        Ok(())
    }

    /// Whether a way is known to all of these.
    pub(super) fn are_known(&self, hosts: &[(u32, IpAddr)]) -> bool {
        let known = |(number, _): &(u32, IpAddr)| self.known.get(number);
        let is_known = |known: &Known| !known.written.macs.is_unknown();
        hosts.iter().all(|host| known(host).is_none_or(is_known))
    }

    /// Looks up all routes again, and writes what has changed. What was known stays while nobody answers.
    pub(super) fn refresh(&mut self, net: &Net, maps: &Maps) -> Result<()> {
        if self.known.is_empty() && self.managed.is_empty() {
            return Ok(());
        }
        for known in self.known.values_mut() {
            known.step = net.step_to(known.host)?;
        }
        self.settle(net, maps)
    }

    /// Looks up the routes to these alone, and writes what has changed.
    pub(super) fn look_for(&mut self, net: &Net, maps: &Maps, hosts: &[(u32, IpAddr)]) -> Result<()> {
        for (number, host) in hosts {
            if let Some(known) = self.known.get_mut(number) {
                known.step = net.step_to(*host)?;
            }
        }
        self.settle(net, maps)
    }

    /// Has the kernel look after the first steps as they are known now, and writes what it knows of them.
    fn settle(&mut self, net: &Net, maps: &Maps) -> Result<()> {
        let table: HashMap<Step, Entry> = net
            .neighbours()?
            .into_iter()
            .map(|entry| (entry.step, entry))
            .collect();
        self.manage(net, &table)?;
        self.write(net, maps, &table)
    }

    /// Has the kernel keep what is used, and no longer what is not.
    fn manage(&mut self, net: &Net, table: &HashMap<Step, Entry>) -> Result<()> {
        let used: BTreeSet<Step> = self.known.values().filter_map(|known| known.step).collect();
        for step in &used {
            match table.get(step) {
                Some(entry) if entry.is_static => continue,
                Some(entry) if entry.is_managed => {}
                _ => net.manage(*step)?,
            }
            self.managed.insert(*step);
        }
        for step in self.managed.difference(&used) {
            if table.get(step).is_some_and(|entry| entry.is_managed) {
                net.unmanage(*step)?;
            }
        }
        self.managed.retain(|step| used.contains(step));
        Ok(())
    }

    fn write(&mut self, net: &Net, maps: &Maps, table: &HashMap<Step, Entry>) -> Result<()> {
        let mut own = HashMap::new();
        for (number, known) in &mut self.known {
            let Some(step) = known.step else {
                known.answers = false;
                continue;
            };
            let mac = table.get(&step).and_then(|entry| entry.mac);
            known.answers = mac.is_some();
            let source = match own.get(&step.interface) {
                Some(source) => *source,
                None => {
                    let device = net.device(step.interface)?;
                    *own.entry(step.interface)
                        .or_insert(device.map(|device| device.mac))
                }
            };
            let (Some(mac), Some(source)) = (mac, source) else {
                continue;
            };
            let found = Neighbour {
                macs: MacPair::new(Mac::from_octets(mac), Mac::from_octets(source)),
                interface: step.interface,
            };
            if found != known.written {
                maps.neighbours.set(number, &found)?;
                known.written = found;
            }
        }
        Ok(())
    }

    /// What is wrong, one line a host.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.known.values().filter_map(Known::fault).collect();
        faults.sort();
        faults.dedup();
        faults
    }
}

impl Known {
    fn new(host: IpAddr, written: Neighbour) -> Self {
        Self {
            host,
            step: None,
            written,
            answers: false,
        }
    }

    fn fault(&self) -> Option<String> {
        match self.step {
            None => Some(format!("no route leads to {}", self.host)),
            Some(_) if self.answers => None,
            Some(step) => Some(format!(
                "{} does not answer {}, so that {} cannot be reached",
                step.address,
                if step.address.is_ipv4() {
                    "ARP"
                } else {
                    "neighbour solicitations"
                },
                self.host
            )),
        }
    }
}
