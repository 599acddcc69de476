//! A point of presence: the pipeline over the model's tables, and the agent's and the prober's own cores over those.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use kuafu_controller::core::Command;
use kuafu_dataplane::Error;
use kuafu_dataplane::host::{OVERLAY_DEVICE, with_port};
use kuafu_dataplane::probe::{PAYLOAD, Rounds, pieces};
use kuafu_dataplane::quality::Quality;
use kuafu_lab::virtual_time;
use kuafu_lab::world::Site;
use kuafu_model::HostState;
use kuafu_model::contents::{ArpFacts, Capacities, HostFacts, contents};
use kuafu_model::health::Servers;
use kuafu_model::runner::{Host, VecFrame, Verdict, Walk};
use kuafu_pipeline::Route;
use kuafu_pipeline::map::{Fragmenter, Mac, MacPair, Neighbour};
use kuafu_pipeline::stage::slow_path::MARK;
use kuafu_proto::v1;
use kuafu_proto::v1::agent_message::Message;
use kuafu_topology::Millis;

/// The numbers of its interfaces.
const UNDERLAY: u32 = 2;
const OVERLAY: u32 = 3;
const HAND_OVER: u32 = 4;
/// How often what probes brought home is read, and how often it is reported, as an agent does.
const DRAIN: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
/// Between the starts of two hosts' clocks, so that they do not work in step.
const APART: Duration = Duration::from_millis(7);
/// Octets of Ethernet, IPv4 and UDP, and where UDP's checksum is.
const HEADERS: usize = 42;
const CHECKSUM: std::ops::Range<usize> = 40..42;
/// STAMP's port (RFC 8762), and the one that a prober's socket sends from.
const STAMP: u16 = 862;
const SENDER: u16 = 40_000;

/// A host of the model with all that its agent and its prober decide.
#[derive(Debug)]
pub(super) struct Pop {
    host: Host,
    facts: HostFacts,
    state: Option<HostState>,
    quality: Quality,
    rounds: Rounds,
    /// To the gateway, by which everything is reached.
    link: Neighbour,
    drain: Duration,
    report: Duration,
    liveness: bool,
    /// What it says to the controller.
    said: Vec<Message>,
    /// What went wrong in it, which nothing should.
    fault: Option<Error>,
}

impl Pop {
    /// One on which nothing is installed.
    pub(super) fn new(site: &Site, mtu: u32) -> Self {
        let capacities = Capacities::default();
        let mut host = Host::new(&capacities);
        let macs = [site.gateway_hardware(), site.hardware()].map(|mac| Mac::from_octets(mac.0));
        let macs = MacPair::new(macs[0], macs[1]);
        host.set_router(move |_, _| {
            Ok(Route {
                interface: UNDERLAY,
                macs,
            })
        });
        host.set_fragmenter(fragmenter());
        let number = u32::try_from(site.id().index()).unwrap_or(0);
        Self {
            host,
            facts: HostFacts {
                underlay: UNDERLAY,
                underlay_mtu: mtu,
                incarnation: 1,
                hz: kuafu_dataplane::live::MODEL_HZ,
                interfaces: BTreeMap::from([(OVERLAY_DEVICE.to_owned(), OVERLAY)]),
                hand_over: HAND_OVER,
                local6: None,
                capacities,
                now: 0,
                servers: Servers::default(),
                cookie_key: [0; 2],
                arp: ArpFacts::default(),
            },
            state: None,
            quality: Quality::default(),
            rounds: Rounds::default(),
            link: Neighbour {
                macs,
                interface: UNDERLAY,
            },
            drain: APART * number,
            report: APART * number,
            liveness: false,
            said: Vec::new(),
            fault: None,
        }
    }

    /// Takes what the controller sent; the answer is said.
    ///
    /// # Errors
    /// What the host cannot satisfy.
    pub(super) fn change(&mut self, command: &Command) -> Result<()> {
        let state = match command {
            Command::Snapshot(_, state) => state.clone(),
            Command::Delta(_, delta) => {
                delta.apply(self.state.as_ref().ok_or_else(|| anyhow!("no snapshot yet"))?)?
            }
            _ => return Ok(()),
        };
        (self.facts.now, _) = self.host.clock();
        let contents = contents(&with_port(&state), &self.facts, Some(self.host.contents()))?;
        self.host.program(&contents);
        for address in contents.neighbours.values() {
            self.host.set_neighbour(*address, self.link);
        }
        self.quality.follow(&state);
        let revision = state.revision;
        self.said.push(Message::Ack(v1::Ack { revision }));
        self.state = Some(state);
        Ok(())
    }

    /// What it has said since.
    ///
    /// # Errors
    /// What went wrong in it.
    pub(super) fn listen(&mut self) -> Result<Vec<Message>> {
        match self.fault.take() {
            Some(fault) => Err(fault.into()),
            None => Ok(std::mem::take(&mut self.said)),
        }
    }

    /// Whether a pair's path in use passes a node.
    #[cfg(test)]
    pub(super) fn sends_over(&self, node: &str) -> bool {
        let state = self.state.iter();
        let used = state.flat_map(|state| state.pairs.iter().filter_map(|pair| pair.primary));
        let used: Vec<u32> = used.collect();
        let mut paths = self.state.iter().flat_map(|state| &state.paths);
        paths.any(|path| used.contains(&path.index) && path.nodes.iter().any(|passed| passed == node))
    }

    /// The host of the model.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Sends what a program made of a frame; what the edge hands over comes to the port program.
    fn send(&mut self, walk: &Walk, frame: VecFrame, out: &mut Vec<Vec<u8>>) {
        if walk.verdict == Verdict::Redirect(HAND_OVER) {
            let mut frame = frame.copied();
            let walk = self.host.port(&mut frame, OVERLAY, 0);
            out.extend(frame.take_copies().into_iter().map(|(_, copy)| copy));
            return self.send(&walk, frame, out);
        }
        if matches!(walk.verdict, Verdict::Transmit | Verdict::Redirect(UNDERLAY)) {
            out.push(frame.into_octets());
        }
    }

    /// The clocks of a host that has been up for a while.
    fn set_clock(&mut self, now: Duration) {
        let up = now + Duration::from_secs(1_000);
        let jiffies = up.as_nanos() * u128::from(kuafu_dataplane::live::MODEL_HZ) / 1_000_000_000;
        let number = |time: u128| u64::try_from(time).unwrap_or(u64::MAX);
        self.host.set_clock(number(jiffies), number(up.as_nanos()));
    }

    fn try_work(&mut self, now: Duration, out: &mut Vec<Vec<u8>>) -> Result<(), Error> {
        for path in self.rounds.due(now, &self.host)? {
            let mut frame = self.probe();
            let walk = self.host.port(&mut frame, OVERLAY, path);
            self.send(&walk, frame, out);
        }
        let ms = Millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        if now >= self.drain {
            let news = self.quality.drain(ms, &mut self.host)?;
            self.said.extend(news.first.map(Message::Reports));
            self.said.extend(news.alarms.into_iter().map(Message::Alarm));
            self.drain += DRAIN;
        }
        if now >= self.report {
            let reports = self.quality.reports(ms, &self.host)?;
            self.said.push(Message::Reports(reports));
            let on = self.quality.liveness();
            if std::mem::replace(&mut self.liveness, on) != on {
                self.said.push(Message::Liveness(v1::Liveness { on }));
            }
            self.report += SECOND;
        }
        Ok(())
    }

    /// What the prober sends on `kuafu0`; the port program fills it in.
    fn probe(&self) -> VecFrame {
        let overlay = self
            .state
            .as_ref()
            .map_or(0, |state| u32::from(state.node.overlay));
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [2; 6])
            .ipv4(overlay.to_be_bytes(), (overlay ^ 2).to_be_bytes(), 64)
            .udp(SENDER, STAMP);
        let mut octets = Vec::with_capacity(HEADERS + PAYLOAD.len());
        // A vector takes all.
        let _ = builder.write(&mut octets, &PAYLOAD);
        octets[CHECKSUM].fill(0);
        VecFrame::new(octets)
    }
}

/// The prober's slow path, which is always there.
fn fragmenter() -> Fragmenter {
    let fragmenter = Fragmenter::default();
    fragmenter.until.set(u64::MAX);
    fragmenter.per_jiffy.set(u64::MAX);
    fragmenter.interface.set(u64::from(OVERLAY));
    fragmenter
}

impl virtual_time::Host for Pop {
    fn receive(&mut self, now: Duration, frame: Vec<u8>, out: &mut Vec<Vec<u8>>) {
        self.set_clock(now);
        let mut frame = VecFrame::new(frame);
        let walk = self.host.edge(&mut frame, UNDERLAY);
        if walk.verdict != Verdict::Redirect(OVERLAY) {
            return self.send(&walk, frame, out);
        }
        for piece in pieces(frame.octets()) {
            let mut piece = VecFrame::new(piece);
            let walk = self.host.port(&mut piece, OVERLAY, MARK);
            self.send(&walk, piece, out);
        }
    }

    fn work(&mut self, now: Duration, out: &mut Vec<Vec<u8>>) {
        self.set_clock(now);
        if let Err(error) = self.try_work(now, out) {
            self.fault = Some(error);
        }
    }

    fn next(&mut self) -> Option<Duration> {
        Some(self.rounds.next().min(self.drain).min(self.report))
    }
}
