//! The listeners of a state, as connections and flows name them.

use std::collections::HashMap;

use kuafu_model::HostState;
use kuafu_model::kinds::PortRange;
use kuafu_model::state::ServiceState;
use kuafu_pipeline::map::{ConnectionKey, IpKey};

/// A listener's number, address and protocol.
type Door = (u32, IpKey, u32);

/// What is known of each listener. Of one object and one protocol none has another's ports.
#[derive(Debug)]
pub(crate) struct Listeners<T>(HashMap<Door, Vec<(PortRange, T)>>);

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Listeners<T> {
    pub(crate) fn of(state: &HostState, known: impl Fn(&ServiceState) -> T) -> Self {
        let mut all: HashMap<Door, Vec<(PortRange, T)>> = HashMap::new();
        for service in &state.services {
            let address = IpKey::from(service.local);
            let door = (service.vni, address, u32::from(service.protocol));
            all.entry(door).or_default().push((service.ports, known(service)));
        }
        for listeners in all.values_mut() {
            listeners.sort_by_key(|(ports, _)| *ports);
        }
        Self(all)
    }

    /// What is known of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values().flatten().map(|(_, known)| known)
    }

    /// That to which a client's packets are addressed.
    pub(crate) fn at(&self, key: &ConnectionKey) -> Option<&(PortRange, T)> {
        let listeners = self.0.get(&(key.vni, key.destination, key.protocol))?;
        let port = key.destination_port.get();
        let behind = listeners.partition_point(|(ports, _)| ports.first().get() <= port);
        let last = listeners[..behind].last();
        last.filter(|(ports, _)| ports.numbers().contains(&port))
    }
}

#[cfg(test)]
mod tests {
    use kuafu_pipeline::map::Be16;

    use super::*;
    use crate::health::tests::state;

    #[test]
    fn a_port_is_one_listeners() {
        let mut state = state();
        let web = state.services[0].clone();
        let with = |first, last, protocol| ServiceState {
            ports: PortRange::literal(first, last),
            protocol,
            ..web.clone()
        };
        state.services = vec![with(8000, 8009, 6), with(443, 443, 6), with(1, 65_535, 17)];
        let listeners = Listeners::of(&state, |service| service.protocol);
        let at = |vni, protocol: u8, port| {
            let local = IpKey::from(web.local);
            let key = ConnectionKey::new(
                vni,
                [IpKey::v4(1), local],
                [Be16::new(9), Be16::new(port)],
                protocol.into(),
            );
            let found = listeners.at(&key);
            found.map(|(ports, protocol)| (ports.first().get(), *protocol))
        };
        assert_eq!(at(100, 6, 443), Some((443, 6)));
        assert_eq!(at(100, 6, 8000), Some((8000, 6)));
        assert_eq!(at(100, 6, 8009), Some((8000, 6)));
        assert_eq!(at(100, 17, 65_535), Some((1, 17)));
        for (vni, port) in [(100, 1), (100, 444), (100, 8010), (101, 443)] {
            assert_eq!(at(vni, 6, port), None, "{port}");
        }
    }
}
