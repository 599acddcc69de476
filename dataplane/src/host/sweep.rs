//! The end of idle connections, of flows whose targets are remembered, and of clients' admission.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kuafu_model::HostState;
use kuafu_model::health::{self, Servers};
use kuafu_model::state::{ServiceState, Target};
use kuafu_pipeline::header::ipv4;
use kuafu_pipeline::map::{Be16, Connection, ConnectionKey, IpKey, Phase, Tracked};

use crate::bpf::{Clock, Map, Maps};
use crate::error::Result;
use crate::listeners::Listeners;
use crate::sys::Octets;

/// For a connection whose listener is gone.
const ORPHAN: Duration = Duration::from_secs(60);
/// For a TCP connection that both ends have closed, or one has reset.
const CLOSED: Duration = Duration::from_secs(10);
/// For a tracked flow that its client has closed, since its server may still be sending; for a flow whose beginning
/// nothing follows, and for a rewritten TCP connection that its server has not answered.
const NOT_OPEN: Duration = Duration::from_secs(60);

/// Removes the connections and tracked flows that were idle for their listener's time-out, and the clients whose
/// admission is over. Returns how many.
pub(super) fn sweep(maps: &Maps, clock: &Clock, state: Option<&HostState>) -> Result<usize> {
    let timeouts = Timeouts::of(state);
    let idle = connections(maps, clock, &timeouts)? + tracked(maps, clock, &timeouts)?;
    Ok(idle + admitted(maps, clock)?)
}

/// Removes clients that are admitted no longer. Who admits them is this thread.
fn admitted(maps: &Maps, clock: &Clock) -> Result<usize> {
    let now = clock.jiffies()?;
    Ok(over(&maps.admitted, now)? + over(&maps.admitted_v6, now)?)
}

/// Removes what ends by now.
fn over<K: Octets>(ends: &Map<K, u64>, now: u64) -> Result<usize> {
    let mut over = Vec::new();
    ends.for_each(|key, until| {
        if until <= now {
            over.push(key);
        }
    })?;
    over.iter().try_for_each(|key| ends.delete(key))?;
    Ok(over.len())
}

/// Removes idle flows.
fn tracked(maps: &Maps, clock: &Clock, timeouts: &Timeouts) -> Result<usize> {
    let now = clock.jiffies()?;
    let is_idle = |key: &ConnectionKey, flow: &Tracked| {
        // Its last packet may have come so much later than the one that was noted.
        let silent = now.saturating_sub(flow.last_packet() + Tracked::GRAIN);
        clock.duration(silent) >= timeouts.of_flow(key, flow.phase())
    };
    let mut idle = Vec::new();
    maps.tracked.for_each(|key, flow| {
        if is_idle(&key, &flow) {
            idle.push(key);
        }
    })?;
    let mut removed = 0;
    for key in &idle {
        // One that was heard meanwhile stays.
        if maps.tracked.get(key)?.is_some_and(|flow| is_idle(key, &flow)) {
            maps.forget(key)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes idle connections, both directions together.
fn connections(maps: &Maps, clock: &Clock, timeouts: &Timeouts) -> Result<usize> {
    let mut all = HashMap::new();
    maps.connections.for_each(|key, value| {
        all.insert(key, value);
    })?;
    let now = clock.jiffies()?;
    let idle = |last: u64| clock.duration(now.saturating_sub(last));
    let is_idle = |key: &ConnectionKey, there: &Connection, back: Option<&Connection>| {
        let last = last(there).max(back.map_or(0, last));
        idle(last) >= timeouts.of_connection(key, there, back)
    };
    let (mut removed, mut paired) = (0, HashSet::new());
    for (key, there) in all.iter().filter(|(key, _)| key.vni != 0) {
        let back_key = leaves(key, there).turned_round(0);
        let back = all.get(&back_key);
        paired.insert(back_key);
        // Meanwhile it may have been heard, or its client's port may have been used anew.
        if is_idle(key, there, back)
            && let Some(there) = still(maps, key, there)?
            && is_idle(key, &there, maps.connections.get(&back_key)?.as_ref())
        {
            remove(maps, key, &back_key)?;
            removed += 1;
        }
    }
    for (key, back) in all
        .iter()
        .filter(|(key, _)| key.vni == 0 && !paired.contains(key))
    {
        if idle(last(back)) >= ORPHAN
            && still(maps, key, back)?.is_some_and(|back| idle(last(&back)) >= ORPHAN)
        {
            maps.connections.delete(key)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// A direction as it is now; `None` where its connection is gone, or another one goes by its name.
fn still(maps: &Maps, key: &ConnectionKey, seen: &Connection) -> Result<Option<Connection>> {
    let now = maps.connections.get(key)?;
    Ok(now.filter(|now| {
        now.began == seen.began && (now.destination, now.source_port) == (seen.destination, seen.source_port)
    }))
}

/// Removes both directions.
fn remove(maps: &Maps, key: &ConnectionKey, back_key: &ConnectionKey) -> Result<()> {
    maps.connections.delete(key)?;
    maps.connections.delete(back_key)?;
    Ok(())
}

/// The key under which a direction's packets leave.
fn leaves(key: &ConnectionKey, connection: &Connection) -> ConnectionKey {
    ConnectionKey::new(
        0,
        [connection.source, connection.destination],
        [connection.source_port, connection.destination_port],
        key.protocol,
    )
}

fn last(connection: &Connection) -> u64 {
    connection.last_packet.get()
}

/// Listeners' servers that get no packets, since they are down or keep their flows no longer: address, and port where
/// it is not the client's.
#[derive(Debug, Default)]
pub(super) struct Down(Listeners<HashSet<(IpKey, Option<Be16>)>>);

impl Down {
    /// Those of a state, where this is known.
    pub(super) fn of(state: &HostState, servers: &Servers) -> Self {
        let down = health::down(state, &servers.down);
        let unused = |service: &ServiceState| {
            let used = health::in_use(service, &down, &servers.ended);
            let targets = service.targets.iter().zip(used);
            let unused = targets.filter(|(_, is_used)| !is_used);
            let servers = unused.filter_map(|(target, _)| match target.target {
                Target::Server { address, port } => {
                    Some((IpKey::v4(u32::from(address)), port.map(Be16::new)))
                }
                Target::Pair(_) | Target::Direct { .. } => None,
            });
            servers.collect()
        };
        Self(Listeners::of(state, unused))
    }

    fn has(&self, key: &ConnectionKey, there: &Connection) -> bool {
        let kept = (there.destination_port == key.destination_port).then_some(None);
        let ports = [Some(there.destination_port)].into_iter().chain(kept);
        self.0.at(key).is_some_and(|(_, servers)| {
            let mut names = ports.map(|port| (there.destination, port));
            names.any(|name| servers.contains(&name))
        })
    }
}

/// Ends the connections with servers that get no packets: what their clients send next is led to another one.
pub(super) fn cut(maps: &Maps, down: &Down) -> Result<()> {
    if !down.0.iter().any(|servers| !servers.is_empty()) {
        return Ok(());
    }
    let mut lost = Vec::new();
    maps.connections.for_each(|key, there| {
        if down.has(&key, &there) {
            lost.push((key, there));
        }
    })?;
    for (key, there) in &lost {
        if still(maps, key, there)?.is_some() {
            remove(maps, key, &leaves(key, there).turned_round(0))?;
        }
    }
    Ok(())
}

/// How long each listener's connections may be idle.
struct Timeouts(Listeners<Duration>);

impl Timeouts {
    fn of(state: Option<&HostState>) -> Self {
        let idle = |service: &ServiceState| Duration::from_secs(service.idle_timeout_s.into());
        Self(state.map(|state| Listeners::of(state, idle)).unwrap_or_default())
    }

    fn of_listener(&self, key: &ConnectionKey) -> Duration {
        self.0.at(key).map_or(ORPHAN, |(_, idle)| *idle)
    }

    fn of_flow(&self, key: &ConnectionKey, phase: Phase) -> Duration {
        let timeout = self.of_listener(key);
        match phase {
            Phase::Open => timeout,
            Phase::HalfOpen | Phase::Closed => timeout.min(NOT_OPEN),
        }
    }

    fn of_connection(&self, key: &ConnectionKey, there: &Connection, back: Option<&Connection>) -> Duration {
        let timeout = self.of_listener(key);
        let was_answered = back.is_some_and(|back| back.packets.get() != 0);
        if there.is_over(back) {
            timeout.min(CLOSED)
        } else if key.protocol == u32::from(ipv4::TCP) && !was_answered {
            timeout.min(NOT_OPEN)
        } else {
            timeout
        }
    }
}
