//! The end of idle connections, and of flows whose targets are remembered.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use kuafu_model::HostState;
use kuafu_model::health::{self, Subject};
use kuafu_model::state::{ServiceState, Target};
use kuafu_pipeline::map::{Be16, Connection, ConnectionKey, IpKey, Tracked};

use crate::bpf::{Clock, Maps};
use crate::error::Result;

/// For a connection whose listener is gone.
const ORPHAN: Duration = Duration::from_secs(60);
/// For a TCP connection that both ends have closed, or one has reset.
const CLOSED: Duration = Duration::from_secs(10);
/// For a tracked flow that its client has closed: its server may still be sending.
const CLOSED_BY_CLIENT: Duration = Duration::from_secs(60);

/// Removes the connections and tracked flows that were idle for their listener's time-out. Returns how many.
pub(super) fn sweep(maps: &Maps, clock: &Clock, state: Option<&HostState>) -> Result<usize> {
    let timeouts = Timeouts::of(state);
    Ok(connections(maps, clock, &timeouts)? + tracked(maps, clock, &timeouts)?)
}

/// Removes idle flows.
fn tracked(maps: &Maps, clock: &Clock, timeouts: &Timeouts) -> Result<usize> {
    let (mut idle, now) = (Vec::new(), clock.jiffies()?);
    maps.tracked.for_each(|key, flow| {
        let (last, is_closed) = flow.last_packet();
        let timeout = timeouts.of_flow(&key, is_closed);
        if clock.duration(now.saturating_sub(last)) >= timeout {
            idle.push(key);
        }
    })?;
    // One that was heard meanwhile stays.
    let is_still_idle = |key: &ConnectionKey, flow: Option<Tracked>| {
        flow.is_some_and(|flow| {
            let (last, is_closed) = flow.last_packet();
            clock.duration(now.saturating_sub(last)) >= timeouts.of_flow(key, is_closed)
        })
    };
    let mut removed = 0;
    for key in &idle {
        if is_still_idle(key, maps.tracked.get(key)?) {
            maps.tracked.delete(key)?;
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
    let (mut removed, mut paired) = (0, HashSet::new());
    for (key, there) in all.iter().filter(|(key, _)| key.vni != 0) {
        let back_key = leaves(key, there).turned_round(0);
        let back = all.get(&back_key);
        paired.insert(back_key);
        let idle = clock.duration(now.saturating_sub(last(there).max(back.map_or(0, last))));
        if idle >= timeouts.of_connection(key, there, back) {
            maps.connections.delete(key)?;
            maps.connections.delete(&back_key)?;
            removed += 1;
        }
    }
    for (key, back) in all
        .iter()
        .filter(|(key, _)| key.vni == 0 && !paired.contains(key))
    {
        if clock.duration(now.saturating_sub(last(back))) >= ORPHAN {
            maps.connections.delete(key)?;
            removed += 1;
        }
    }
    Ok(removed)
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

/// A listener, as connections name it.
type Listener = (u32, IpKey, u32, Be16);

/// Listeners' servers that get no packets, since they are down.
#[derive(Debug, Default)]
pub(super) struct Down(HashSet<(Listener, IpKey, Be16)>);

impl Down {
    /// Those of a state, where these are down.
    pub(super) fn of(state: &HostState, down: &BTreeSet<Subject>) -> Self {
        let (mut all, down) = (HashSet::new(), health::down(state, down));
        for service in &state.services {
            let targets = service.targets.iter().zip(health::in_use(service, &down));
            for (target, _) in targets.filter(|(_, is_used)| !is_used) {
                if let Target::Server { address, port } = target.target {
                    let port = Be16::new(port.unwrap_or(service.port));
                    all.insert((listener(service), IpKey::v4(u32::from(address)), port));
                }
            }
        }
        Self(all)
    }
}

/// Ends the connections with servers that are down: what their clients send next is led to another one.
pub(super) fn cut(maps: &Maps, down: &Down) -> Result<()> {
    if down.0.is_empty() {
        return Ok(());
    }
    let mut lost = Vec::new();
    maps.connections.for_each(|key, there| {
        let listener = (key.vni, key.destination, key.protocol, key.destination_port);
        if down
            .0
            .contains(&(listener, there.destination, there.destination_port))
        {
            lost.push((key, leaves(&key, &there).turned_round(0)));
        }
    })?;
    for (key, back_key) in &lost {
        maps.connections.delete(key)?;
        maps.connections.delete(back_key)?;
    }
    Ok(())
}

/// A listener's name.
fn listener(service: &ServiceState) -> Listener {
    let address = IpKey::v4(u32::from(service.local));
    (
        service.vni,
        address,
        u32::from(service.protocol),
        Be16::new(service.port),
    )
}

/// How long each listener's connections may be idle.
struct Timeouts(HashMap<Listener, Duration>);

impl Timeouts {
    fn of(state: Option<&HostState>) -> Self {
        let services = state.into_iter().flat_map(|state| &state.services);
        let entry = |service: &ServiceState| {
            let idle = Duration::from_secs(service.idle_timeout_s.into());
            (listener(service), idle)
        };
        Self(services.map(entry).collect())
    }

    fn of_listener(&self, key: &ConnectionKey) -> Duration {
        let listener = (key.vni, key.destination, key.protocol, key.destination_port);
        self.0.get(&listener).copied().unwrap_or(ORPHAN)
    }

    fn of_flow(&self, key: &ConnectionKey, is_closed: bool) -> Duration {
        let timeout = self.of_listener(key);
        if is_closed {
            timeout.min(CLOSED_BY_CLIENT)
        } else {
            timeout
        }
    }

    fn of_connection(&self, key: &ConnectionKey, there: &Connection, back: Option<&Connection>) -> Duration {
        let timeout = self.of_listener(key);
        if there.is_over(back) {
            timeout.min(CLOSED)
        } else {
            timeout
        }
    }
}
