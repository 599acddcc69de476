//! ARP and neighbour discovery of an address beside the answers that the maps give: claims, ours and others'.

mod neighbour;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use kuafu_model::state::Way;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use super::Orders;
use super::lease::Lease;
use crate::sys;
use neighbour::Neighbours;

/// After an address came here, it is claimed so often, once a step: what is lost is said again.
const TIMES: u32 = 6;
/// How long another host's claim counts: longer than it takes to notice that the controller does not answer.
const COUNTS: Duration = Duration::from_secs(15);
/// Between two looks, this long means that the agent stood still: what it believes of its addresses is old.
const STALL: Duration = Duration::from_millis(600);
/// Ethertype of ARP.
const ARP: u16 = 0x0806;
/// Octets of a frame with ARP.
const FRAME: usize = 42;

/// Whose addresses are claimed.
#[derive(Default)]
pub(super) struct Claims {
    /// How often each address is still to be claimed.
    left: BTreeMap<IpAddr, u32>,
    /// When another host has claimed an address last.
    claimed: BTreeMap<IpAddr, Instant>,
    /// When it was looked last.
    looked: Option<Instant>,
    /// What hears and tells by ARP, on a device; and by neighbour discovery.
    socket: Option<(u32, OwnedFd)>,
    neighbours: Option<Neighbours>,
}

impl Claims {
    /// Claims addresses that came here, and hears who else claims what is held. Returns what others have claimed lately,
    /// where the controller cannot be heard (RFC 5227, section 2.4): who cannot know whether an address is still its own
    /// lets go.
    pub(super) fn step(
        &mut self,
        now: Instant,
        orders: &Orders,
        lease: &mut Lease,
        wrong: &mut BTreeMap<IpAddr, String>,
    ) -> BTreeSet<IpAddr> {
        let held = orders.due().filter(|one| one.way == Way::Arp);
        let held: BTreeMap<IpAddr, u64> = held.map(|one| (one.local, one.term)).collect();
        for (address, term) in &held {
            if lease.arp.get(address) != Some(term) {
                tracing::info!(%address, "this host answers for an address");
                self.left.insert(*address, TIMES);
                self.claimed.remove(address);
            }
        }
        self.left
            .retain(|address, left| held.contains_key(address) && *left > 0);
        lease.arp.clone_from(&held);
        if held.is_empty() {
            *self = Self::default();
            return BTreeSet::new();
        }
        let (of_v4, of_v6): (Vec<IpAddr>, Vec<IpAddr>) = held.keys().partition(|address| address.is_ipv4());
        for (addresses, opened) in [
            (&of_v4, self.open(orders.underlay.0, &of_v4)),
            (&of_v6, self.open_v6(orders.underlay.0, &of_v6)),
        ] {
            if let Err(error) = opened {
                let fault = format!("it cannot be claimed: {error}");
                wrong.extend(addresses.iter().map(|address| (*address, fault.clone())));
            }
        }
        let looked = self.looked.replace(now);
        let stood_still = looked.is_some_and(|looked| now.saturating_duration_since(looked) > STALL);
        self.claim(orders.underlay.1);
        for address in self.heard(orders.underlay.1) {
            if orders.connected && !stood_still && held.contains_key(&address) {
                // By the controller's word it is this host's; that of before a stall may be another one by now.
                self.left.entry(address).or_insert(1);
            }
            self.claimed.insert(address, now);
        }
        self.claimed
            .retain(|address, at| held.contains_key(address) && now.saturating_duration_since(*at) < COUNTS);
        let contested = self.claimed.keys().filter(|_| !orders.connected);
        contested.copied().collect()
    }

    fn open(&mut self, interface: u32, held: &[IpAddr]) -> std::io::Result<()> {
        if held.is_empty() {
            self.socket = None;
        } else if self.socket.as_ref().is_none_or(|(of, _)| *of != interface) {
            self.socket = Some((interface, sys::packet_socket(interface, ARP)?));
        }
        Ok(())
    }

    /// The same of IPv6. Where it fails, it begins anew.
    fn open_v6(&mut self, interface: u32, held: &[IpAddr]) -> std::io::Result<()> {
        let of_another = |neighbours: &Neighbours| !neighbours.is_of(interface);
        if held.is_empty() || self.neighbours.as_ref().is_some_and(of_another) {
            self.neighbours = None;
        }
        if held.is_empty() {
            return Ok(());
        }
        let mut neighbours = match self.neighbours.take() {
            Some(neighbours) => neighbours,
            None => Neighbours::open(interface)?,
        };
        neighbours.follow(held.iter().filter_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(*address),
        }))?;
        self.neighbours = Some(neighbours);
        Ok(())
    }

    fn claim(&mut self, mac: [u8; 6]) {
        for (address, left) in &mut self.left {
            match (address, &self.socket, &self.neighbours) {
                (IpAddr::V4(address), Some((_, socket)), _) => {
                    // A device that is down loses it.
                    let _ = send(socket.as_raw_fd(), &claim(*address, mac), MsgFlags::MSG_DONTWAIT);
                }
                (IpAddr::V6(address), _, Some(neighbours)) => neighbours.claim(*address, mac),
                _ => continue,
            }
            *left -= 1;
        }
    }

    /// The addresses that others have claimed since.
    fn heard(&mut self, own: [u8; 6]) -> BTreeSet<IpAddr> {
        let (mut addresses, mut frame) = (BTreeSet::new(), [0; FRAME]);
        while let Some((_, socket)) = &self.socket {
            match recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(FRAME) => addresses.extend(claimed(&frame, own).map(IpAddr::V4)),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(_) => self.socket = None,
            }
        }
        match self.neighbours.as_ref().map(|neighbours| neighbours.heard(own)) {
            Some(Ok(heard)) => addresses.extend(heard),
            Some(Err(_)) => self.neighbours = None,
            None => {}
        }
        addresses
    }
}

/// A gratuitous request: who has the address asks for it as its own (RFC 5227, section 3).
fn claim(address: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
    let address = address.octets();
    [
        &[0xff; 6][..],
        &mac,
        &ARP.to_be_bytes(),
        // Ethernet, IPv4, their lengths, a request.
        &[0, 1, 8, 0, 6, 4, 0, 1],
        &mac,
        &address,
        &[0; 6],
        &address,
    ]
    .concat()
}

/// The address that an ARP message claims for somebody else, as [`claim`] does. A server that holds a service's address
/// too and has not been told to keep quiet names it when it asks for others: that is no claim.
fn claimed(frame: &[u8; FRAME], own: [u8; 6]) -> Option<Ipv4Addr> {
    let (mac, address) = frame.get(22..32)?.split_first_chunk::<6>()?;
    let is_claim = frame.get(38..) == Some(address) && *mac != own;
    let address: [u8; 4] = address.try_into().ok()?;
    is_claim.then(|| Ipv4Addr::from(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_names_its_sender_to_others_alone() {
        let (address, mac) = (Ipv4Addr::new(192, 0, 2, 80), [2, 0, 0, 0, 0, 7]);
        let frame: [u8; FRAME] = claim(address, mac).try_into().unwrap();
        assert_eq!(claimed(&frame, [2, 0, 0, 0, 0, 8]), Some(address));
        assert_eq!(claimed(&frame, mac), None, "its own");
        let mut asks = frame;
        asks[41] = 254;
        assert_eq!(claimed(&asks, [2, 0, 0, 0, 0, 8]), None);
    }
}
