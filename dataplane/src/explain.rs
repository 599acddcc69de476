//! What becomes of a packet, and why: the model, walked over this host's tables as they are.
//!
//! The tables are read back from the maps, not computed from the state, and routes are asked of the kernel, so that
//! a difference between what should be and what is shows. Nothing is changed: the model counts on copies.

mod fib;
mod walk;

use std::io;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::time::Duration;

use kuafu_model::contents::Contents;
use kuafu_model::runner::{Host, VecFrame};
use kuafu_pipeline::header::ethernet;
use kuafu_pipeline::map::{AdmittedKey, AdmittedKeyV6, IpKey, SlotKind};
use kuafu_proto::v1::{ExplainQuery, Explanation};
use nix::time::{ClockId, clock_gettime};

use crate::bpf::Maps;
use crate::error::{Error, Result};
use crate::read::{View, contents, interface_name, links};
use fib::Fib;
pub use walk::{at_underlay, told};

/// Where a frame has its ethertype,
const ETHERTYPE: Range<usize> = 12..14;
/// the source of an IPv4 packet,
const SOURCE: Range<usize> = 26..30;
/// and that of an IPv6 packet.
const SOURCE_V6: Range<usize> = 22..38;
/// Samples that find room in the ring of a host whose agent reads it.
const SAMPLES: usize = 1024;

/// Walks a packet through the programs of the interface where it arrives.
///
/// # Errors
/// `Io`, also where none of Kuafu's programs runs on that interface.
pub fn explain(view: &View<'_>, query: &ExplainQuery) -> Result<Explanation> {
    let tables = contents(view.maps)?;
    let interface = nix::net::if_::if_nametoindex(query.interface.as_str())
        .map_err(|errno| Error::io(format!("find the interface {}", query.interface))(errno.into()))?;
    let at_port = tables.ports.contains_key(&interface);
    if !at_port && interface != tables.node.underlay {
        let source = io::Error::new(io::ErrorKind::NotFound, "none of Kuafu's programs runs there");
        return Err(Error::io(format!(
            "explain a packet that arrives on {}",
            query.interface
        ))(source));
    }
    let mut host = host(view, &tables, !at_port)?;
    if !at_port {
        fill_client(&mut host, view, &tables, &query.frame)?;
    }
    let fib = Fib::new()?;
    // What a port sends is routed as if it had come by the underlay, too.
    let underlay = tables.node.underlay;
    host.set_router(move |from, to| fib.route(underlay, from, to));
    let mut frame = VecFrame::new(query.frame.clone());
    let (program, walk) = if at_port {
        ("port", host.port(&mut frame, interface, query.mark))
    } else {
        at_underlay(&mut host, &mut frame, interface)
    };
    Ok(told(view.node(), program, &walk, frame, interface_name))
}

/// The model's host, filled from the maps.
fn host(view: &View<'_>, tables: &Contents, with_connections: bool) -> Result<Host> {
    let maps = view.maps;
    let mut host = Host::new(&maps.capacities());
    host.set_tracing(true);
    host.program(tables);
    for (address, link) in links(maps, tables)? {
        host.set_neighbour(address, link);
    }
    fill_states(&mut host, maps, tables)?;
    if with_connections {
        maps.connections
            .for_each(|key, value| host.set_connection(key, value))?;
        maps.tracked.for_each(|key, value| host.set_tracked(key, value))?;
        maps.fragments
            .for_each(|key, value| host.set_fragment(key, value))?;
        host.set_fragmenter(maps.fragmenter.get(&0)?.unwrap_or_default());
    }
    let room = usize::try_from(maps.connections.capacity()).unwrap_or(usize::MAX);
    host.set_room(room, SAMPLES);
    host.set_tracked_room(usize::try_from(maps.tracked.capacity()).unwrap_or(usize::MAX));
    host.set_clock(view.clock.jiffies()?, since_boot()?);
    Ok(host)
}

/// What packets have changed, of all that the tables name.
fn fill_states(host: &mut Host, maps: &Maps, tables: &Contents) -> Result<()> {
    for (label, slot) in &tables.slots {
        if slot.kind() != SlotKind::Free
            && let Some(state) = maps.slot_states.get(label)?
        {
            host.set_slot_state(*label, state);
        }
    }
    for index in tables.paths.keys() {
        if let Some(state) = maps.path_states.get(index)? {
            host.set_path_state(*index, state);
        }
    }
    for index in tables.pairs.keys() {
        if let Some(state) = maps.pair_states.get(index)? {
            host.set_pair_state(*index, state);
        }
    }
    for number in tables.limits.keys() {
        if let Some(state) = maps.limit_states.get(number)? {
            host.set_limit_state(*number, state);
        }
    }
    for number in tables.shields.keys() {
        if let Some(state) = maps.shield_states.get(number)? {
            host.set_shield_state(*number, state);
        }
    }
    for index in &tables.windows {
        if let Some(state) = maps.windows.get(index)? {
            host.set_window(*index, state);
        }
    }
    for index in tables.own_windows.keys() {
        if let Some(state) = maps.own_windows.get(index)? {
            host.set_own_window(*index, state);
        }
    }
    Ok(())
}

/// What shields know of a packet's source.
fn fill_client(host: &mut Host, view: &View<'_>, tables: &Contents, frame: &[u8]) -> Result<()> {
    if tables.shields.is_empty() {
        return Ok(());
    }
    let maps = view.maps;
    if octets(frame, ETHERTYPE) == Some(ethernet::IPV6.to_be_bytes()) {
        let Some(source) = octets(frame, SOURCE_V6) else {
            return Ok(());
        };
        fill_client_v6(host, view, tables, Ipv6Addr::from_octets(source))?;
    } else {
        let Some(source) = octets(frame, SOURCE) else {
            return Ok(());
        };
        let client = u32::from_be_bytes(source);
        if let Some(until) = maps.verified.get(&client)? {
            host.set_verified(client, until);
        }
        for shield in tables.shields.values() {
            let vni = shield.vni;
            let key = AdmittedKey { vni, client };
            if let Some(until) = maps.admitted.get(&key)? {
                host.set_admitted(key, until);
            }
        }
    }
    let now = view.clock.jiffies()?;
    maps.source_buckets.for_each(|place, bucket| {
        if bucket.missing(now) != 0 {
            host.set_source_bucket(place, bucket);
        }
    })
}

/// The same, of IPv6's own tables.
fn fill_client_v6(host: &mut Host, view: &View<'_>, tables: &Contents, source: Ipv6Addr) -> Result<()> {
    let (maps, client) = (view.maps, IpKey::v6(source.octets()));
    let [network, _] = client.halves();
    if let Some(until) = maps.verified_v6.get(&network)? {
        host.set_verified_v6(network, until);
    }
    for shield in tables.shields.values() {
        let key = AdmittedKeyV6::new(shield.vni, client);
        if let Some(until) = maps.admitted_v6.get(&key)? {
            host.set_admitted_v6(key, until);
        }
    }
    Ok(())
}

/// Some octets of a frame, if it has them.
fn octets<const N: usize>(frame: &[u8], at: Range<usize>) -> Option<[u8; N]> {
    frame.get(at)?.try_into().ok()
}

/// Nanoseconds of the clock that stamps are taken by.
fn since_boot() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_err(|errno| Error::io("read the boot clock")(errno.into()))?;
    Ok(u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX))
}
