//! Which programs run on which devices.

use std::collections::{BTreeMap, BTreeSet};

use super::Attached;
use super::net::{Device, Net};
use crate::bpf::{Link, LinkKind, Pins, Program, XdpMode, detach};
use crate::error::{Error, Result};

/// Programs on devices, by the name under which each link is pinned.
#[derive(Debug)]
pub(super) struct Links {
    pins: Pins,
    all: BTreeMap<String, One>,
}

#[derive(Debug)]
struct One {
    link: Link,
    program: &'static str,
    interface: String,
    hook: &'static str,
}

/// Where a program belongs.
pub(super) struct Wanted<'p> {
    pub(super) program: &'p Program,
    /// What the link is for; its name is this and the device's number (a pin's name may have no dot, a device's may).
    pub(super) role: &'static str,
    pub(super) interface: u32,
    pub(super) name: String,
}

impl Wanted<'_> {
    fn pin(&self) -> String {
        format!("{}-{}", self.role, self.interface)
    }
}

impl Links {
    pub(super) fn new(pins: Pins) -> Self {
        Self {
            pins,
            all: BTreeMap::new(),
        }
    }

    /// Attaches all of these, or none more than before.
    pub(super) fn attach(&mut self, net: &Net, wanted: &[Wanted<'_>], xdp: Option<XdpMode>) -> Result<()> {
        let mut fresh = Vec::new();
        for one in wanted {
            let was_pinned = self.pins.links().join(one.pin()).exists();
            match self.attach_one(net, one, xdp) {
                Ok(()) if was_pinned => {}
                Ok(()) => fresh.push(one.pin()),
                Err(error) => {
                    for name in fresh {
                        // What cannot be taken back is still reported as attached.
                        let _ = self.detach(&name);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn attach_one(&mut self, net: &Net, wanted: &Wanted<'_>, xdp: Option<XdpMode>) -> Result<()> {
        let pin = wanted.pin();
        if let Some(one) = self.all.get(&pin)
            && one.program == wanted.program.name()
            && one.link.program()? != 0
        {
            return Ok(());
        }
        let kind = wanted.program.kind();
        let (link, mode) = match kind {
            LinkKind::Tcx => (self.link(wanted, XdpMode::Generic)?, XdpMode::Generic),
            LinkKind::Xdp => self.edge(net, wanted, xdp)?,
        };
        let one = One {
            link,
            program: wanted.program.name(),
            interface: wanted.name.clone(),
            hook: kind.hook(mode),
        };
        self.all.insert(pin, one);
        Ok(())
    }

    fn link(&self, wanted: &Wanted<'_>, mode: XdpMode) -> Result<Link> {
        let path = self.pins.links().join(wanted.pin());
        Link::attach(wanted.program, (wanted.interface, &wanted.name), mode, &path)
    }

    /// XDP as it was asked for; else by the driver where that can, but not on a veth, whose TCP would suffer. What is
    /// attached already stays as it is, unless another way was asked for.
    fn edge(&mut self, net: &Net, wanted: &Wanted<'_>, asked: Option<XdpMode>) -> Result<(Link, XdpMode)> {
        let device = net.device(wanted.interface)?;
        if let (Some(asked), Some(now)) = (asked, device.as_ref().and_then(|device| device.xdp))
            && asked != now
        {
            self.detach(&wanted.pin())?;
        }
        let is_veth = device.as_ref().is_none_or(|device| device.is_veth);
        let link = match asked {
            Some(mode) => self.link(wanted, mode)?,
            None if is_veth => self.link(wanted, XdpMode::Generic)?,
            None => match self.link(wanted, XdpMode::Native) {
                Err(Error::Io { .. }) => self.link(wanted, XdpMode::Generic)?,
                link => link?,
            },
        };
        let now: Option<Device> = net.device(wanted.interface)?;
        let mode = now.and_then(|device| device.xdp);
        Ok((link, mode.unwrap_or(XdpMode::Generic)))
    }

    fn detach(&mut self, name: &str) -> Result<()> {
        self.all.remove(name);
        detach(&self.pins.links().join(name))
    }

    /// Detaches everything else.
    pub(super) fn keep_only(&mut self, wanted: &[Wanted<'_>]) -> Result<()> {
        let keep: BTreeSet<String> = wanted.iter().map(Wanted::pin).collect();
        for name in self.pins.link_names()? {
            if !keep.contains(&name) {
                self.detach(&name)?;
            }
        }
        Ok(())
    }

    /// Whether a device has gone, with the program on it.
    pub(super) fn is_one_gone(&self) -> bool {
        self.all
            .values()
            .any(|one| one.link.program().is_ok_and(|program| program == 0))
    }

    /// What runs.
    pub(super) fn attached(&self) -> Vec<Attached> {
        let attached = |one: &One| Attached {
            name: one.program.to_owned(),
            interface: one.interface.clone(),
            hook: one.hook,
            id: one.link.program().unwrap_or(0),
        };
        let alive = self.all.values().map(attached);
        alive.filter(|attached| attached.id != 0).collect()
    }
}
