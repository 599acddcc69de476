//! Lists of prefixes, as tables in which the most specific entry says all that there is to say of an address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnetwork::Ipv4Network;
use kuafu_pipeline::map::{MOST_LISTED, listed_key};

use super::error::entry;
use super::{Contents, Error, HostFacts};
use crate::kinds::Cidr;
use crate::state::{HostState, PrefixListState, Shield};

/// Lists that the shields of a host can tell apart: each has a bit of a word.
pub const MOST_LISTS: usize = u32::BITS as usize;
/// Networks of 65,536 addresses.
const AREAS: usize = 1 << 16;

/// A list that has a bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The bit, alone in its word.
    pub bit: u32,
    /// The list's prefixes.
    pub prefixes: Arc<[Cidr]>,
}

/// Gives each list that a shield here names a bit, and fills the tables in which sources are looked up.
///
/// A list keeps its bit. What a list leaves free is given to another one by a later update, if there are enough: a bit
/// means no two lists then while tables and shields are written. After a restart lists have theirs by the order of their
/// names.
pub(super) fn fill(
    contents: &mut Contents,
    state: &HostState,
    host: &HostFacts,
    previous: &Contents,
) -> Result<(), Error> {
    let named = named(state);
    contents.lists = with_bits(&named, previous, 0)?;
    if contents.lists == previous.lists {
        contents.list_areas.clone_from(&previous.list_areas);
        contents.listed.clone_from(&previous.listed);
        contents.list_marks.clone_from(&previous.list_marks);
        return Ok(());
    }
    enter_all(contents, host)?;
    let is_as_before = contents.listed == previous.listed && contents.list_areas == previous.list_areas;
    if previous.lists.is_empty() && !is_as_before {
        // After a restart nobody knows whose the bits in force are.
        let shields = previous.shields.values();
        let used = shields.fold(0, |bits, shield| bits | shield.blocked | shield.allowed);
        contents.lists = with_bits(&named, previous, used)?;
        enter_all(contents, host)?;
    }
    Ok(())
}

/// Whether the tables have room for lists: for each /24 that a prefix up to that covers, unless it covers a /16, and for
/// each address of a longer one.
#[must_use]
pub fn fit<'a>(lists: impl Iterator<Item = &'a [Cidr]> + Clone) -> bool {
    let most = MOST_LISTED as usize;
    let prefixes = || lists.clone().flatten().map(|prefix| prefix.get());
    let places = |prefix: Ipv4Network| match prefix.prefix() {
        0..=16 => 0,
        length @ 17..=24 => 1 << (24 - length),
        length => 1 << (32 - length),
    };
    // Only where that is too much it counts what several have in common.
    if prefixes().map(places).sum::<usize>() <= most {
        return true;
    }
    let mut tables = Tables::default();
    prefixes().all(|prefix| {
        tables.add(prefix, 1);
        tables.len() <= most
    })
}

/// Fills the tables by the lists.
fn enter_all(contents: &mut Contents, host: &HostFacts) -> Result<(), Error> {
    let mut tables = Tables::default();
    for (name, list) in &contents.lists {
        for prefix in &*list.prefixes {
            tables.add(prefix.get(), list.bit);
            if tables.len() > host.capacities.listed as usize {
                return Err(Error::ListsTooLong {
                    list: name.clone(),
                    capacity: host.capacities.listed,
                });
            }
        }
    }
    tables.inherit();
    contents.list_marks = tables.marks();
    contents.listed = tables.listed();
    contents.list_areas = (0..).zip(tables.areas).filter(|(_, lists)| *lists != 0).collect();
    Ok(())
}

/// The bits of the lists that a shield names.
pub(super) fn bits(contents: &Contents, index: usize, field: &str, names: &[String]) -> Result<u32, Error> {
    names
        .iter()
        .try_fold(0, |bits, name| match contents.lists.get(name) {
            Some(list) => Ok(bits | list.bit),
            None => Err(Error::Value {
                field: entry("services", index, &format!("shield.{field}")),
                value: name.clone(),
                allowed: "names of this host's prefix_lists".into(),
            }),
        })
}

/// The lists that shields at entries name.
fn named(state: &HostState) -> Vec<&PrefixListState> {
    let entries = state.services.iter().filter(|service| !service.at_exit);
    let shields = entries.filter_map(|service| service.shield.as_ref());
    let names: BTreeSet<&str> = shields.flat_map(Shield::lists).collect();
    let lists = state.prefix_lists.iter();
    lists.filter(|list| names.contains(list.name.as_str())).collect()
}

/// `used`: bits of nobody that rest too.
fn with_bits(
    named: &[&PrefixListState],
    previous: &Contents,
    used: u32,
) -> Result<BTreeMap<String, List>, Error> {
    let known = |name: &str| previous.lists.get(name).map(|list| list.bit);
    let kept: u32 = named.iter().filter_map(|list| known(&list.name)).sum();
    let resting = previous.lists.values().fold(used, |bits, list| bits | list.bit);
    let all = (0..u32::BITS).map(|at| 1 << at).filter(|bit| kept & bit == 0);
    let (rested, rest): (Vec<u32>, Vec<u32>) = all.partition(|bit| resting & bit == 0);
    let mut free = rested.into_iter().chain(rest);
    let mut lists = BTreeMap::new();
    for list in named {
        let bit = known(&list.name).or_else(|| free.next()).ok_or(Error::Full {
            map: "lists",
            capacity: u32::BITS,
            needed: named.len() as u64,
        })?;
        let prefixes = Arc::clone(&list.prefixes);
        lists.insert(list.name.clone(), List { bit, prefixes });
    }
    Ok(lists)
}

/// The lists of areas, of networks of 256 addresses, and of single addresses, by their bits.
struct Tables {
    areas: Vec<u32>,
    networks: HashMap<u32, u32>,
    addresses: HashMap<u32, u32>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            areas: vec![0; AREAS],
            networks: HashMap::new(),
            addresses: HashMap::new(),
        }
    }
}

impl Tables {
    /// Entries of the table of longer prefixes.
    fn len(&self) -> usize {
        self.networks.len() + self.addresses.len()
    }

    /// Enters a prefix of a list.
    fn add(&mut self, prefix: Ipv4Network, bit: u32) {
        match prefix.prefix() {
            0..=16 => parts(prefix, 16).for_each(|area| self.areas[area as usize] |= bit),
            17..=24 => enter(&mut self.networks, parts(prefix, 24), bit),
            _ => enter(&mut self.addresses, parts(prefix, 32), bit),
        }
    }

    /// Lets each entry say what shorter prefixes say of it.
    fn inherit(&mut self) {
        let areas = &self.areas;
        for (network, lists) in &mut self.networks {
            *lists |= areas[(network >> 8) as usize];
        }
        for (address, lists) in &mut self.addresses {
            let network = self.networks.get(&(address >> 8));
            *lists |= network.unwrap_or(&areas[(address >> 16) as usize]);
        }
    }

    /// A bit for each network of which there is an entry, 64 in a word.
    fn marks(&self) -> BTreeMap<u32, u64> {
        let mut marks = BTreeMap::new();
        let of_addresses = self.addresses.keys().map(|address| address >> 8);
        for network in self.networks.keys().copied().chain(of_addresses) {
            *marks.entry(network >> 6).or_default() |= 1 << (network & 63);
        }
        marks
    }

    /// The table of longer prefixes.
    fn listed(&self) -> HashMap<u64, u32> {
        let networks = self.networks.iter();
        let networks = networks.map(|(network, lists)| (listed_key(network << 8, 24), *lists));
        let addresses = self.addresses.iter();
        networks
            .chain(addresses.map(|(address, lists)| (listed_key(*address, 32), *lists)))
            .collect()
    }
}

/// The parts of a prefix that have so many bits.
fn parts(prefix: Ipv4Network, bits: u8) -> RangeInclusive<u32> {
    let first = u32::from(prefix.network()) >> (32 - bits);
    first..=first + ((1 << (bits - prefix.prefix())) - 1)
}

fn enter(table: &mut HashMap<u32, u32>, keys: RangeInclusive<u32>, bit: u32) {
    for key in keys {
        *table.entry(key).or_default() |= bit;
    }
}
