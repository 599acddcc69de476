//! ARP of an address beside the answers that the maps give: claims, ours and others'.

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
    socket: Option<(u32, OwnedFd)>,
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
        if let Err(error) = self.open(orders.underlay.0) {
            let fault = format!("it cannot be claimed: {error}");
            wrong.extend(held.into_keys().map(|address| (address, fault.clone())));
            return BTreeSet::new();
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

    fn open(&mut self, interface: u32) -> std::io::Result<()> {
        if self.socket.as_ref().is_none_or(|(of, _)| *of != interface) {
            self.socket = Some((interface, sys::packet_socket(interface, ARP)?));
        }
        Ok(())
    }

    fn claim(&mut self, mac: [u8; 6]) {
        let Some((_, socket)) = &self.socket else {
            return;
        };
        for (address, left) in &mut self.left {
            // ARP is IPv4's.
            if let IpAddr::V4(address) = address {
                // A device that is down loses it.
                let _ = send(socket.as_raw_fd(), &claim(*address, mac), MsgFlags::MSG_DONTWAIT);
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
