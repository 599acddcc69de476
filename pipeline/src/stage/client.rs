//! A client's address, as shields tell clients apart: of IPv4 each address is a source, and the /24 around it its prefix;
//! of IPv6 each /64, since a host has all of one (RFC 4291, §2.5.1), and the /48, which a site has (RFC 6177).

use super::flow::{Address, mix};
use super::{IP, L4, L4_V6, TTL, sanity};
use crate::header::ipv4::{Fields, TCP};
use crate::header::{Ethernet, Ipv4, Ipv6, Tcp, ipv6, tcp};
use crate::map::{AdmittedKey, AdmittedKeyV6, IpKey, Question, Shield, listed_key};
use crate::siphash::{self, Key};
use crate::{Frame, Outcome, Reason, Tables, checksum};

/// Octets up to the end of TCP's header.
const HEADERS: usize = 54;
/// The same of IPv6.
const HEADERS_V6: usize = 74;
/// Octets in an IP packet with a TCP header alone.
const LENGTH: u32 = 40;
/// The same of IPv6.
const LENGTH_V6: u32 = 60;

/// An address of a client.
pub trait Client: Address + PartialEq {
    /// Asks a shield: see [`Tables::shielded`].
    ///
    /// # Errors
    /// As there.
    fn shielded<F: Frame, T: Tables>(
        tables: &T,
        frame: &mut F,
        interface: u32,
        question: &Question<Self>,
    ) -> Result<bool, Outcome>;

    /// The sequence number of a packet of TCP, if it is there.
    fn sequence<F: Frame>(frame: &mut F) -> Option<u32>;

    /// The lists that a source is on, by their bits. What a shorter prefix says, a longer one within it says too.
    fn lists<T: Tables>(self, tables: &T) -> u32;

    /// Notices a packet of a source and its prefix to a shield.
    fn notice<T: Tables>(self, tables: &T, number: u32);

    /// A number of a source, or of its prefix, and a shield, which only the host can tell.
    fn hash(self, number: u32, is_prefix: bool, shield: &Shield) -> u32;

    /// Until when, in jiffies, it counts as one that answers.
    fn verified<T: Tables>(self, tables: &T) -> Option<u64>;

    /// Enters that.
    fn verify<T: Tables>(self, tables: &T, until: u64);

    /// Until when, in jiffies, it is admitted.
    fn admitted<T: Tables>(self, tables: &T, vni: u32) -> Option<u64>;

    /// The cookie of a flow.
    fn cookie(key: Key, question: &Question<Self>) -> u32;

    /// Makes a SYN a SYN-ACK from the service, with this cookie.
    ///
    /// # Errors
    /// `Truncated`, `NoRoom`.
    fn answer<F: Frame>(frame: &mut F, question: &Question<Self>, cookie: u32) -> Result<(), Reason>;
}

impl Client for u32 {
    #[inline(always)]
    fn shielded<F: Frame, T: Tables>(
        tables: &T,
        frame: &mut F,
        interface: u32,
        question: &Question,
    ) -> Result<bool, Outcome> {
        tables.shielded(frame, interface, question)
    }

    #[inline(always)]
    fn sequence<F: Frame>(frame: &mut F) -> Option<u32> {
        let head = frame.head::<HEADERS>()?;
        Some(Tcp::at::<L4, HEADERS>(head).sequence())
    }

    #[inline(always)]
    fn lists<T: Tables>(self, tables: &T) -> u32 {
        let network = self >> 8;
        let marks = tables.list_marks(network >> 6).unwrap_or(0);
        if marks >> (network & 63) & 1 != 0 {
            if let Some(lists) = tables.listed(listed_key(self, 32)) {
                return lists;
            }
            if let Some(lists) = tables.listed(listed_key(self, 24)) {
                return lists;
            }
        }
        tables.list_area(self >> 16).unwrap_or(0)
    }

    #[inline(always)]
    fn notice<T: Tables>(self, tables: &T, number: u32) {
        for is_prefix in [false, true] {
            let source = source(self, is_prefix);
            if let Some(hitter) = tables.hitter(mix(number, source, 0), is_prefix) {
                hitter.count(tables, (number as u64) << 32 | source as u64);
            }
        }
    }

    #[inline(always)]
    fn hash(self, number: u32, is_prefix: bool, shield: &Shield) -> u32 {
        let source = source(self, is_prefix);
        let key = shield.key[0] as u32;
        if is_prefix {
            mix(!number, !source, key)
        } else {
            mix(number, source, key)
        }
    }

    #[inline(always)]
    fn verified<T: Tables>(self, tables: &T) -> Option<u64> {
        tables.verified(self)
    }

    #[inline(always)]
    fn verify<T: Tables>(self, tables: &T, until: u64) {
        tables.verify(self, until);
    }

    #[inline(always)]
    fn admitted<T: Tables>(self, tables: &T, vni: u32) -> Option<u64> {
        tables.admitted(&AdmittedKey { vni, client: self })
    }

    #[inline(always)]
    fn cookie(key: Key, question: &Question) -> u32 {
        let last = 12 << 56 | question.ports as u64;
        let addresses = (question.source as u64) << 32 | question.destination as u64;
        siphash::hash(key, &[addresses, last]) as u32
    }

    #[inline(always)]
    fn answer<F: Frame>(frame: &mut F, question: &Question, cookie: u32) -> Result<(), Reason> {
        let (client, service) = (question.source, question.destination);
        let Some(head) = frame.head::<HEADERS>() else {
            return Err(Reason::Truncated);
        };
        let fields = Fields {
            tos: 0,
            total_length: LENGTH as u16,
            ttl: TTL,
            protocol: TCP,
            source: service,
            destination: client,
        };
        Ethernet::at::<0, HEADERS>(head).turn_round();
        Ipv4::at::<IP, HEADERS>(head).write(&fields);
        let pseudo = [service, client]
            .into_iter()
            .fold(TCP as u32 + 20, checksum::add32);
        Tcp::at::<L4, HEADERS>(head).write_syn_ack(&syn_ack(question, cookie), pseudo);
        sanity::exact(frame, LENGTH)
    }
}

/// A source, or the /24 that it is in.
#[inline(always)]
const fn source(address: u32, is_prefix: bool) -> u32 {
    if is_prefix { address >> 8 } else { address }
}

impl Client for IpKey {
    #[inline(always)]
    fn shielded<F: Frame, T: Tables>(
        tables: &T,
        frame: &mut F,
        interface: u32,
        question: &Question<Self>,
    ) -> Result<bool, Outcome> {
        tables.shielded_v6(frame, interface, question)
    }

    #[inline(always)]
    fn sequence<F: Frame>(frame: &mut F) -> Option<u32> {
        let head = frame.head::<HEADERS_V6>()?;
        Some(Tcp::at::<L4_V6, HEADERS_V6>(head).sequence())
    }

    #[inline(always)]
    fn lists<T: Tables>(self, _: &T) -> u32 {
        0
    }

    #[inline(always)]
    fn notice<T: Tables>(self, tables: &T, number: u32) {
        for is_prefix in [false, true] {
            let network = network(self, is_prefix);
            let hash = mix(number, network as u32, (network >> 32) as u32);
            if let Some(hitter) = tables.hitter_v6(hash, is_prefix) {
                hitter.count(tables, number, network);
            }
        }
    }

    #[inline(always)]
    fn hash(self, number: u32, is_prefix: bool, shield: &Shield) -> u32 {
        let network = network(self, is_prefix);
        let (network, key) = (if is_prefix { !network } else { network }, shield.key[0]);
        let keyed = mix(network as u32, (network >> 32) as u32, key as u32);
        mix(number, keyed, (key >> 32) as u32)
    }

    #[inline(always)]
    fn verified<T: Tables>(self, tables: &T) -> Option<u64> {
        tables.verified_v6(network(self, false))
    }

    #[inline(always)]
    fn verify<T: Tables>(self, tables: &T, until: u64) {
        tables.verify_v6(network(self, false), until);
    }

    #[inline(always)]
    fn admitted<T: Tables>(self, tables: &T, vni: u32) -> Option<u64> {
        tables.admitted_v6(&AdmittedKeyV6::new(vni, self))
    }

    #[inline(always)]
    fn cookie(key: Key, question: &Question<Self>) -> u32 {
        let last = 36 << 56 | question.ports as u64;
        let ([a, b], [c, d]) = (question.source.words(), question.destination.words());
        siphash::hash(key, &[a, b, c, d, last]) as u32
    }

    #[inline(always)]
    fn answer<F: Frame>(frame: &mut F, question: &Question<Self>, cookie: u32) -> Result<(), Reason> {
        let (client, service) = (question.source, question.destination);
        let Some(head) = frame.head::<HEADERS_V6>() else {
            return Err(Reason::Truncated);
        };
        let fields = ipv6::Fields {
            traffic_class: 0,
            flow_label: 0,
            payload_length: 20,
            next_header: TCP,
            hop_limit: TTL,
            source: service,
            destination: client,
        };
        Ethernet::at::<0, HEADERS_V6>(head).turn_round();
        Ipv6::at::<IP, HEADERS_V6>(head).write(&fields);
        let pseudo = checksum::fold_words(Ipv6::pseudo_header(service, client, 20, TCP));
        Tcp::at::<L4_V6, HEADERS_V6>(head)
            .write_syn_ack(&syn_ack(question, cookie), pseudo.swap_bytes() as u32);
        sanity::exact(frame, LENGTH_V6)
    }
}

/// The /64 that a source is, or its /48, as the first bits of an address.
#[inline(always)]
const fn network(address: IpKey, is_prefix: bool) -> u64 {
    let [network, _] = address.halves();
    if is_prefix { network >> 16 } else { network }
}

/// The answer to a SYN.
#[inline(always)]
const fn syn_ack<A>(question: &Question<A>, cookie: u32) -> tcp::SynAck {
    tcp::SynAck {
        ports: question.ports.rotate_left(16),
        acknowledges: cookie,
    }
}
