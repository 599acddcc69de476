//! Probes: STAMP over a path, stamped where they cross the link.
//!
//! A probe leaves by the port program of `kuafu0` ([`depart`]), is relayed like data, and is sent back by the node
//! where its path ends over that path's *twin*, the same nodes reversed. Where it comes home it is stamped once more
//! and becomes a [`Sample`].

use super::backbone::Outer;
use super::send;
use super::{GENEVE, INNER, IP, L4, SYSTEM_VNI, TTL, relay};
use crate::header::geneve::{Covered, Header, Word};
use crate::header::stamp::{PORT, Time};
use crate::header::{Ethernet, Geneve, Ipv4, Stamp, Udp, ethernet, ipv4, words};
use crate::map::{Leg, NodeConfig, Path, PathState, Sample, Slot, SlotState};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Octets of a probe behind its link layer: IPv4, UDP and STAMP.
const LENGTH: usize = 88;
/// Octets of a probe as it leaves the prober.
const BARE: usize = IP + LENGTH;
/// Octets of a probe on the backbone.
const WHOLE: usize = INNER + LENGTH;
/// Offset of the inner UDP header on the backbone.
const INNER_L4: usize = INNER + 20;
/// Offset of STAMP on the backbone.
const STAMP: usize = INNER + 28;

/// Stamps a probe that the prober handed over for path `index`, and sends it on its way.
///
/// # Errors
/// `NotAProbe` where it is anything else, or not from this host's own address; `NoPath`; those of [`send`].
#[inline(always)]
pub fn depart<F: Frame, T: Tables>(frame: &mut F, tables: &T, node: &NodeConfig, index: u32) -> Outcome {
    let octets = frame.len();
    is_probe(frame, node)?;
    let (Some(path), Some(state)) = (tables.path(index), tables.path_state(index)) else {
        return Err(Reason::NoPath);
    };
    let neighbour = send::usable(tables, &path.leg)?;
    let Some(head) = frame.head::<BARE>() else {
        return Err(Reason::NotAProbe);
    };
    let number = low(tables.add(&state.next_probe, 1));
    // Reflections take numbers of the path too: what the prober counts is its own.
    let own = low(tables.add(&state.departed, 1));
    let sent = low(state.sent.get());
    Stamp::at::<42, BARE>(head).depart(own, Time::from_nanoseconds(tables.nanoseconds()), sent);
    state.last_probe.set(tables.jiffies());
    let header = header(node, &path.leg, number);
    send::over_leg(frame, node, &path.leg, neighbour, &header)?;
    tables.count(Event::ProbeSent, octets);
    Ok(Next::Transmit(neighbour.interface))
}

/// The backbone's header of a probe.
#[inline(always)]
const fn header(node: &NodeConfig, leg: &Leg, number: u32) -> Header {
    let word = Word::new(leg.label, 0, node.incarnation, leg.epoch, false);
    Header::new(true, SYSTEM_VNI, word, number, 0)
}

#[inline(always)]
fn is_probe<F: Frame>(frame: &mut F, node: &NodeConfig) -> Result<(), Reason> {
    let octets = frame.len();
    let Some(head) = frame.head::<BARE>() else {
        return Err(Reason::NotAProbe);
    };
    let ip = Ipv4::at::<IP, BARE>(head);
    let ip_fits = ip.version_and_length() == 0x45
        && ip.protocol() == ipv4::UDP
        && ip.total_length() as usize == LENGTH
        && ip.source() == node.overlay.get();
    let udp = Udp::at::<L4, BARE>(head);
    let udp_fits = udp.destination() == PORT && !udp.has_checksum() && udp.length() as usize == LENGTH - 20;
    let is_ip = Ethernet::at::<0, BARE>(head).ethertype() == ethernet::IPV4;
    if octets as usize == BARE && ip_fits && udp_fits && is_ip {
        Ok(())
    } else {
        Err(Reason::NotAProbe)
    }
}

/// Takes in an authentic probe at the end of a path: a sender's is sent back, a reflector's has come home.
///
/// # Errors
/// `BadProbe` where it breaks its format or its path has no twin; `Duplicate`, `Late`, `OldIncarnation`; those of [`send::usable`].
#[inline(always)]
pub fn arrive<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    node: &NodeConfig,
    slot: &Slot,
    outer: &Outer,
) -> Outcome {
    let octets = frame.len();
    let Some(head) = frame.head::<WHOLE>() else {
        return Err(Reason::BadProbe);
    };
    let going_home = direction(head, octets, outer.header.vni())?;
    let (Some(path), Some(state)) = (tables.path(slot.twin), tables.path_state(slot.twin)) else {
        return Err(Reason::BadProbe);
    };
    let Some(arrivals) = tables.slot_state(outer.header.word().label()) else {
        return Err(Reason::BadProbe);
    };
    arrivals.admit_probe(tables, outer.header.word().incarnation(), outer.header.sequence())?;
    if going_home {
        let home = Home {
            path: slot.twin,
            state,
            arrivals,
        };
        return Ok(come_home(head, tables, &home, octets));
    }
    reflect(
        head,
        tables,
        node,
        &Reflector {
            path,
            state,
            arrivals,
        },
        outer,
        octets,
    )
}

/// `true` for a reflector's packet.
#[inline(always)]
fn direction(head: &mut [u8; WHOLE], octets: u32, vni: u32) -> Result<bool, Reason> {
    let ip = Ipv4::at::<INNER, WHOLE>(head);
    let ip_fits = ip.version_and_length() == 0x45
        && ip.protocol() == ipv4::UDP
        && ip.total_length() as usize == LENGTH
        && octets as usize == WHOLE;
    let udp = Udp::at::<INNER_L4, WHOLE>(head);
    let (source, destination, has_checksum) = (udp.source(), udp.destination(), udp.has_checksum());
    let stamp_fits = Stamp::at::<STAMP, WHOLE>(head).has_counters();
    if !ip_fits
        || has_checksum
        || !stamp_fits
        || vni != SYSTEM_VNI
        || (source == PORT) == (destination == PORT)
    {
        return Err(Reason::BadProbe);
    }
    Ok(source == PORT)
}

/// What a reflector knows of the way back and of what arrived.
struct Reflector<'t> {
    path: &'t Path,
    state: &'t PathState,
    arrivals: &'t SlotState,
}

/// Sends a probe back over the twin of its path.
#[inline(always)]
fn reflect<T: Tables>(
    head: &mut [u8; WHOLE],
    tables: &T,
    node: &NodeConfig,
    back: &Reflector<'_>,
    outer: &Outer,
    octets: u32,
) -> Outcome {
    let leg = &back.path.leg;
    let neighbour = send::usable(tables, leg)?;
    let now = Time::from_nanoseconds(tables.nanoseconds());
    let counters = [low(back.arrivals.received.get()), low(back.state.sent.get())];
    Stamp::at::<STAMP, WHOLE>(head).reflect(now, now, outer.ttl, counters);
    Ipv4::at::<INNER, WHOLE>(head).swap_addresses();
    let mut udp = Udp::at::<INNER_L4, WHOLE>(head);
    let (from, to) = (udp.destination(), udp.source());
    udp.set_ports(from, to);
    relay::readdress(head, node, leg, neighbour, &Outer { ttl: TTL, ..*outer });
    let header = header(node, leg, low(tables.add(&back.state.next_probe, 1)));
    let covered = Covered::new(&header, words::<INNER, WHOLE>(head));
    Geneve::at::<GENEVE, WHOLE>(head).write(&header, covered.tag(leg.key(header.word().epoch())));
    tables.count(Event::ProbeReflected, octets);
    Ok(Next::Transmit(neighbour.interface))
}

/// What the home of a probe knows of its path.
struct Home<'t> {
    path: u32,
    state: &'t PathState,
    arrivals: &'t SlotState,
}

/// Notes that the path is alive and hands the measurement over.
#[inline(always)]
fn come_home<T: Tables>(head: &mut [u8; WHOLE], tables: &T, home: &Home<'_>, octets: u32) -> Next {
    let received = tables.nanoseconds();
    let stamp = Stamp::at::<STAMP, WHOLE>(head);
    let [data_sent, data_received, reverse_sent] = stamp.counters();
    let sample = Sample {
        path: home.path,
        sequence: stamp.sequence(),
        sent: stamp.first_sent().nanoseconds_since_boot(),
        reflector_received: stamp.received().nanoseconds_since_boot(),
        reflector_sent: stamp.sent().nanoseconds_since_boot(),
        received,
        data_sent,
        data_received,
        reverse_sent,
        reverse_received: low(home.arrivals.received.get()),
    };
    home.state.came_home(sample.sequence, tables.jiffies());
    tables.count(Event::ProbeReturned, octets);
    if !tables.sample(&sample) {
        tables.count(Event::SampleLost, octets);
    }
    Next::Consumed
}

/// The low 32 bits of a counter.
#[inline(always)]
const fn low(counter: u64) -> u32 {
    counter as u32
}
