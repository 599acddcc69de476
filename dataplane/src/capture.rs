//! Packets before and after each program that runs on this host, as nobody else sees them: what XDP sends on never
//! reaches the stack.
//!
//! The programs tell it themselves, into a buffer of their CPU, while the map `capture` holds an order. The order has
//! an end that a living capture puts off: one that was killed leaves nothing behind but a word that says nothing any
//! more. Neither agent nor prober is asked, and an agent's upgrade changes nothing, since the maps stay.

mod buffers;
mod carried;
pub mod filter;
mod record;

use std::collections::BTreeMap;
use std::time::Duration;

use kuafu_pipeline::map::{CaptureOrder, CaptureState};

use crate::bpf::{Clock, Map, Maps, Pins, XdpMode};
use crate::error::{Error, Result};
use crate::host::Net;
use crate::read::interface_name;
use buffers::Buffers;
pub use carried::Carried;
use record::{Pairing, Place};
pub use record::{Passage, Side, Snapshot};

/// Octets of a packet that are copied, at most.
pub const SNAP_LENGTH: u32 = 32_768;
/// How long the programs go on telling a capture that does not call [`Capture::keep`].
const LEASE: Duration = Duration::from_secs(5);

/// What a capture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Only packets that were dropped, as they were then.
    pub drops_only: bool,
    /// Octets of each packet; [`SNAP_LENGTH`] at most.
    pub snap_length: u32,
    /// Packets a second on this host, counted before any filter; 0: all.
    pub rate: u32,
}

/// What a capture did not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Packets beyond the rate.
    pub by_rate: u64,
    /// Copies for which a buffer had no room.
    pub lost: u64,
}

/// A running capture. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    pins: Pins,
    order: CaptureOrder,
    orders: Map<u32, CaptureOrder>,
    state: Map<u32, CaptureState>,
    clock: Clock,
    net: Net,
    buffers: Buffers,
    places: BTreeMap<u32, Place>,
    pairing: Pairing,
}

impl Capture {
    /// Tells the programs of this node to tell. To be called in the host's network namespace.
    ///
    /// # Errors
    /// `NothingRuns` where no program is attached, `Captured` while another capture runs; `Io`.
    pub fn start(pins: Pins, options: Options) -> Result<Self> {
        if pins.link_names()?.is_empty() {
            return Err(Error::NothingRuns { folder: pins.links() });
        }
        let maps = Maps::open(&pins)?;
        let clock = Clock::new()?;
        let running = maps.capture.get(&0)?.unwrap_or_default();
        if running.until > clock.jiffies()? {
            return Err(Error::Captured);
        }
        maps.capture_state.set(&0, &CaptureState::default())?;
        let order = CaptureOrder {
            snap_length: options.snap_length.clamp(1, SNAP_LENGTH),
            rate: options.rate,
            drops_only: options.drops_only.into(),
            ..CaptureOrder::default()
        };
        let mut capture = Self {
            pins,
            order,
            orders: maps.capture,
            state: maps.capture_state,
            clock,
            net: Net::new()?,
            buffers: Buffers::open(&maps.captured)?,
            places: BTreeMap::new(),
            pairing: Pairing::new(order.snap_length)?,
        };
        capture.keep()?;
        Ok(capture)
    }

    /// To be called at least each second: the programs tell on. `false`: they are gone from this host.
    ///
    /// # Errors
    /// `Io`.
    pub fn keep(&mut self) -> Result<bool> {
        // Devices may have come or changed.
        self.places.clear();
        if self.pins.link_names()?.is_empty() || !self.pins.has_maps() {
            return Ok(false);
        }
        self.order.until = self.clock.jiffies()? + self.clock.ticks(LEASE);
        self.orders.set(&0, &self.order)?;
        Ok(true)
    }

    /// What has passed since the last call, at least each few milliseconds under load. Both sides of a packet come
    /// together.
    pub fn read(&mut self) -> Vec<Passage> {
        let mut passages = Vec::new();
        let (places, net, pairing) = (&mut self.places, &self.net, &mut self.pairing);
        let mut place = |interface| {
            let place = places.entry(interface).or_insert_with(|| place(net, interface));
            place.clone()
        };
        self.buffers
            .drain(|cpu, octets| passages.extend(pairing.take(cpu, octets, &mut place)));
        passages.sort_by_key(|passage| passage.after.time);
        passages
    }

    /// What was not shown so far.
    ///
    /// # Errors
    /// `Io`.
    pub fn left_out(&self) -> Result<LeftOut> {
        let state = self.state.get(&0)?.unwrap_or_default();
        Ok(LeftOut {
            by_rate: state.left_out.get(),
            lost: self.buffers.lost(),
        })
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Where the maps are gone there is nobody to tell; else the order ends by itself.
        let _ = self.orders.set(&0, &CaptureOrder::default());
    }
}

fn place(net: &Net, interface: u32) -> Place {
    let device = net.device(interface).ok().flatten();
    Place {
        name: interface_name(interface),
        xdp: device.and_then(|device| device.xdp).unwrap_or(XdpMode::Generic),
    }
}
