//! What the host's network is asked and told, by netlink.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::{Stream, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressScope};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType};
use rtnetlink::packet_route::rule::RuleMessage;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::bpf::XdpMode;
use crate::error::{Error, Result};

/// The way to the kernel's network of the thread that made it.
pub(crate) struct Net {
    runtime: Runtime,
    handle: Handle,
    connection: JoinHandle<()>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Octets of the largest IP packet.
    pub mtu: u32,
    /// Zeros where it has no Ethernet address.
    pub mac: [u8; 6],
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// How XDP runs on it now.
    pub xdp: Option<XdpMode>,
}

/// The first step to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Step {
    /// The device to send out of.
    pub(crate) interface: u32,
    /// The gateway, or the host itself.
    pub(crate) address: IpAddr,
}

/// Where packets leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The device to send out of.
    pub(super) interface: u32,
    /// Octets of the largest IP packet, where the route itself says so.
    pub(super) mtu: Option<u32>,
}

/// An entry of the kernel's table of neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) step: Step,
    /// `None` while nobody answers.
    pub(crate) mac: Option<[u8; 6]>,
    /// Somebody wrote it by hand: it is not to be touched.
    pub(crate) is_static: bool,
    /// The kernel keeps it fresh.
    pub(crate) is_managed: bool,
}

impl Net {
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(Error::io("start the netlink runtime"))?;
        let (connection, handle) = {
            let _inside = runtime.enter();
            let (connection, handle, _) =
                rtnetlink::new_connection().map_err(Error::io("open a netlink socket"))?;
            (connection, handle)
        };
        Ok(Self {
            connection: runtime.spawn(connection),
            runtime,
            handle,
        })
    }

    /// Does a request; `action` is what an error says was tried.
    fn wait<T>(
        &self,
        action: &str,
        request: impl Future<Output = std::result::Result<T, rtnetlink::Error>>,
    ) -> Result<T> {
        self.runtime.block_on(request).map_err(Error::netlink(action))
    }

    fn list<T>(
        &self,
        action: &str,
        answers: impl Stream<Item = std::result::Result<T, rtnetlink::Error>>,
    ) -> Result<Vec<T>> {
        self.wait(action, answers.try_collect())
    }

    /// The device of that number.
    pub(crate) fn device(&self, index: u32) -> Result<Option<Device>> {
        let found = self.list(
            "read an interface",
            self.handle.link().get().match_index(index).execute(),
        );
        Ok(absent_is_none(found)?.and_then(|found| found.first().map(device)))
    }

    /// The device of that name.
    pub(crate) fn named(&self, name: &str) -> Result<Option<Device>> {
        let request = self.handle.link().get().match_name(name);
        let found = self.list(
            "read an interface",
            request
                .set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats])
                .execute(),
        );
        Ok(absent_is_none(found)?.and_then(|found| found.first().map(device)))
    }

    /// The device that has an address, loopback excepted.
    pub(crate) fn with_address(&self, address: Ipv4Addr) -> Result<Option<Device>> {
        let addresses = self.list("read addresses", self.handle.address().get().execute())?;
        let has = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Local(local) | AddressAttribute::Address(local) => {
                *local == IpAddr::V4(address)
            }
            _ => false,
        };
        let holder = addresses
            .iter()
            .find(|message| message.attributes.iter().any(has));
        match holder {
            Some(message) => self.device(message.header.index),
            None => Ok(None),
        }
    }

    /// The addresses of IPv6 of a device that others beyond its link can send to, and that stay, the least first.
    pub(crate) fn global_of(&self, index: u32) -> Result<BTreeSet<Ipv6Addr>> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let passing = AddressHeaderFlags::Secondary
            | AddressHeaderFlags::Deprecated
            | AddressHeaderFlags::Tentative
            | AddressHeaderFlags::Dadfailed;
        let addresses = self.list("read addresses", request.execute())?;
        let stay = addresses.iter().filter(|message| {
            message.header.scope == AddressScope::Universe && !message.header.flags.intersects(passing)
        });
        let address = |attribute: &AddressAttribute| match attribute {
            AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
            _ => None,
        };
        Ok(stay
            .filter_map(|message| message.attributes.iter().find_map(address))
            .collect())
    }

    /// The first step of the host's own route; `None` where there is no route, or it ends here.
    pub(crate) fn step_to(&self, to: IpAddr) -> Result<Option<Step>> {
        Ok(self.route_to(to, 0)?.and_then(|route| step(&route, to)))
    }

    /// The address from which the host itself would send to one of IPv6; `None` where there is no route, or from its link's
    /// own address alone, which no router passes on.
    pub(crate) fn source_to(&self, to: Ipv6Addr) -> Result<Option<Ipv6Addr>> {
        let route = self.route_to(to.into(), 0)?;
        let source = |attribute: &RouteAttribute| match attribute {
            RouteAttribute::PrefSource(RouteAddress::Inet6(source)) => Some(*source),
            _ => None,
        };
        let source = route.and_then(|route| route.attributes.iter().find_map(source));
        Ok(source.filter(|source| !source.is_unicast_link_local()))
    }

    /// Where a packet with this mark leaves; `None` where there is no route, or it ends here.
    pub(super) fn way_of(&self, to: IpAddr, mark: u32) -> Result<Option<Way>> {
        Ok(self.route_to(to, mark)?.and_then(|route| way(&route)))
    }

    fn route_to(&self, to: IpAddr, mark: u32) -> Result<Option<RouteMessage>> {
        let query = match to {
            IpAddr::V4(to) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to, 32)
                .mark(mark)
                .build(),
            IpAddr::V6(to) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to, 128)
                .mark(mark)
                .build(),
        };
        let found = self.list("look up a route", self.handle.route().get(query).execute());
        let mut routes = match found {
            Err(Error::Netlink { source, .. }) if is_no_route(&source) => return Ok(None),
            found => found?,
        };
        Ok((!routes.is_empty()).then(|| routes.swap_remove(0)))
    }

    /// Adds a route, or puts it in the place of the one to the same destination.
    pub(super) fn set_route(&self, action: &str, route: RouteMessage) -> Result<()> {
        self.wait(action, self.handle.route().add(route).replace().execute())
    }

    /// Removes the first route that is as said; whether there was one.
    pub(super) fn remove_route(&self, action: &str, route: RouteMessage) -> Result<bool> {
        was_there(self.wait(action, self.handle.route().del(route).execute()))
    }

    /// Adds a rule, of the family that it says; that it is there already is no error.
    pub(super) fn add_rule(&self, action: &str, rule: RuleMessage) -> Result<()> {
        // What family this is for is in the message.
        let mut request = self.handle.rule().add().v4();
        *request.message_mut() = rule;
        match self.wait(action, request.execute()) {
            Err(error) if code(&error) == Some(libc::EEXIST) => Ok(()),
            added => added,
        }
    }

    /// Removes the first rule that is as said; whether there was one.
    pub(super) fn remove_rule(&self, action: &str, rule: RuleMessage) -> Result<bool> {
        was_there(self.wait(action, self.handle.rule().del(rule).execute()))
    }

    /// The kernel's table of neighbours.
    pub(crate) fn neighbours(&self) -> Result<Vec<Entry>> {
        let request = self.handle.neighbours().get();
        let found = self.list("read neighbours", request.execute())?;
        Ok(found.iter().filter_map(entry).collect())
    }

    /// Lets the kernel find a neighbour and keep it fresh.
    pub(crate) fn manage(&self, step: Step) -> Result<()> {
        let mut request = self
            .handle
            .neighbours()
            .add(step.interface, step.address)
            .state(NeighbourState::None)
            .replace();
        let flags = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        request.message_mut().attributes.push(flags);
        self.wait(&format!("keep the neighbour {}", step.address), request.execute())
    }

    /// Leaves a neighbour to the kernel's usual care.
    pub(crate) fn unmanage(&self, step: Step) -> Result<()> {
        let request = self
            .handle
            .neighbours()
            .add(step.interface, step.address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        self.wait(
            &format!("let go the neighbour {}", step.address),
            request.execute(),
        )
    }

    /// Makes a veth pair, both ends down, without ARP and multicast.
    pub(crate) fn add_pair(&self, name: &str, peer: &str) -> Result<()> {
        let message = LinkVeth::new(name, peer).build();
        self.wait(
            &format!("make the interface {name}"),
            self.handle.link().add(message).execute(),
        )
    }

    /// Brings a device up, without ARP and multicast. Where GRO is on, no packets are so small that it joins them.
    pub(crate) fn quiet_up(&self, index: u32, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index)
            .arp(false)
            .multicast(false)
            .mtu(mtu)
            .append_extra_attribute(LinkAttribute::GroMaxSize(1))
            .up()
            .build();
        self.wait("bring up kuafu0", self.handle.link().set(message).execute())
    }

    /// Gives a device an address with its network.
    pub(crate) fn add_address(&self, index: u32, address: Ipv4Addr, length: u8) -> Result<()> {
        let request = self.handle.address().add(index, address.into(), length).replace();
        self.wait(&format!("give kuafu0 the address {address}"), request.execute())
    }

    /// Takes a device's other IPv4 addresses away; whether it has this one.
    pub(crate) fn only_address(&self, index: u32, address: Ipv4Addr) -> Result<bool> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let mut there = false;
        for message in self.list("read addresses", request.execute())? {
            let is_it = |attribute: &AddressAttribute| *attribute == AddressAttribute::Local(address.into());
            if message.attributes.iter().any(is_it) {
                there = true;
            } else if message.header.family == AddressFamily::Inet {
                self.wait(
                    "take an address from kuafu0",
                    self.handle.address().del(message).execute(),
                )?;
            }
        }
        Ok(there)
    }

    /// Removes a device; that it is not there is no error.
    pub(crate) fn remove_device(&self, name: &str) -> Result<bool> {
        let Some(device) = self.named(name)? else {
            return Ok(false);
        };
        self.wait(
            &format!("remove the interface {name}"),
            self.handle.link().del(device.index).execute(),
        )?;
        Ok(true)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn absent_is_none<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(Error::Netlink {
            source: rtnetlink::Error::NetlinkError(message),
            ..
        }) if message.to_io().kind() == io::ErrorKind::NotFound
            || message.to_io().raw_os_error() == Some(libc::ENODEV) =>
        {
            Ok(None)
        }
        found => found.map(Some),
    }
}

/// Whether what was to be removed was there. A kernel without rules has none.
fn was_there(removed: Result<()>) -> Result<bool> {
    let absent = [libc::ENOENT, libc::ESRCH, libc::EAFNOSUPPORT, libc::EOPNOTSUPP];
    match removed {
        Err(error) if code(&error).is_some_and(|code| absent.contains(&code)) => Ok(false),
        removed => removed.map(|()| true),
    }
}

/// What the kernel refused a request with.
fn code(error: &Error) -> Option<i32> {
    match error {
        Error::Netlink {
            source: rtnetlink::Error::NetlinkError(message),
            ..
        } => message.to_io().raw_os_error(),
        _ => None,
    }
}

/// What a look-up says of a destination that nothing leads to.
fn is_no_route(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return false;
    };
    let nowhere = [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EACCES, libc::EINVAL];
    message
        .to_io()
        .raw_os_error()
        .is_some_and(|code| nowhere.contains(&code))
}

fn device(message: &LinkMessage) -> Device {
    let mut device = Device {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        mac: [0; 6],
        is_veth: false,
        xdp: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Address(mac) => device.mac = octets(mac).unwrap_or_default(),
            LinkAttribute::LinkInfo(info) => {
                device.is_veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            LinkAttribute::Xdp(xdp) => device.xdp = xdp.iter().find_map(mode),
            _ => {}
        }
    }
    device
}

fn mode(attribute: &LinkXdp) -> Option<XdpMode> {
    match attribute {
        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        _ => None,
    }
}

fn octets(mac: &[u8]) -> Option<[u8; 6]> {
    mac.try_into().ok()
}

fn step(route: &RouteMessage, to: IpAddr) -> Option<Step> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let mut interface = None;
    let mut address = to;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => address = (*gateway).into(),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => address = (*gateway).into(),
            _ => {}
        }
    }
    interface.map(|interface| Step { interface, address })
}

fn way(route: &RouteMessage) -> Option<Way> {
    if route.header.kind != RouteType::Unicast {
        return None;
    }
    let (mut interface, mut mtu) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    interface.map(|interface| Way { interface, mtu })
}

fn entry(message: &NeighbourMessage) -> Option<Entry> {
    let (mut address, mut mac, mut is_managed) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::LinkLayerAddress(found) => mac = octets(found),
            NeighbourAttribute::ExtFlags(flags) => is_managed = flags.contains(NeighbourExtFlags::Managed),
            _ => {}
        }
    }
    let state = message.header.state;
    let unknown = [
        NeighbourState::Incomplete,
        NeighbourState::Failed,
        NeighbourState::None,
    ];
    Some(Entry {
        step: Step {
            interface: message.header.ifindex,
            address: address?,
        },
        mac: mac.filter(|_| !unknown.contains(&state)),
        is_static: matches!(state, NeighbourState::Permanent | NeighbourState::Noarp),
        is_managed,
    })
}
