//! The target of a flow: once it has sent two packets it keeps it, whatever becomes of the ring.
//!
//! Nothing is remembered at a flow's first packet, so a flood of them costs no memory. What a SYN says is a beginning;
//! any other TCP packet without an entry is at least the second one of its flow, and of UDP each flow leaves a mark.
//! A flow that may have begun before the ring changed belongs to the ring before, so that another host, which has no
//! entry of it, leads it to the same target. While that counts, a flow that begins in a slot that changed is entered at
//! once: its second packet would be taken for one of before.

use super::flow::{Address, Flow};
use super::ring::{self, NOBODY};
use super::sign;
use crate::header::{ipv4, tcp};
use crate::map::{ConnectionKey, KEEPS, MemberKey, Phase, Service, Sign, TAKES, Tracked, policy};
use crate::{Event, Insertion, Tables};

/// A flow on its way to a target.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its own name.
    pub key: ConnectionKey,
    /// A number that spreads flows evenly.
    pub hash: u32,
    /// Where in a ring it belongs; by the service's affinity that may be one place for many flows.
    pub place: u32,
    /// What is known of it without having seen it.
    pub age: Age,
}

/// How far a flow is, as its packet alone tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It begins.
    Begins,
    /// It has begun.
    HasBegun,
    /// Its client closes it.
    Ends,
    /// Either.
    Unknown,
    /// It is only spoken of, by an ICMP error.
    Quoted,
}

impl Subject {
    /// The flow of a client's packet with these flags of TCP.
    #[inline(always)]
    #[must_use]
    pub fn of<A: Address>(service: &Service, flow: &Flow<A>, tcp_flags: u32) -> Self {
        let hash = flow.hash();
        let (begins, ends) = (
            tcp::begins(tcp_flags as u8),
            tcp_flags as u8 & (tcp::FIN | tcp::RST) != 0,
        );
        Self {
            key: flow.connection(service.vni),
            hash,
            place: if service.has(policy::BY_CLIENT) {
                flow.hash_of_client()
            } else if service.has(policy::BY_PORT) {
                flow.hash_of_port()
            } else {
                hash
            },
            age: match flow.protocol {
                ipv4::TCP if begins => Age::Begins,
                ipv4::TCP if ends => Age::Ends,
                ipv4::TCP => Age::HasBegun,
                _ => Age::Unknown,
            },
        }
    }

    /// The flow whose answer an ICMP error quotes.
    #[inline(always)]
    #[must_use]
    pub fn quoted<A: Address>(service: &Service, answer: &Flow<A>) -> Self {
        Self {
            age: Age::Quoted,
            ..Self::of(service, &answer.turned_round(), 0)
        }
    }
}

/// The number of a flow's target, by its entry if it is `known`. `None` where the service has none. A flow that is not
/// to be `remembered` goes by the rings alone.
#[inline(always)]
pub fn target<T: Tables>(
    tables: &T,
    service: &Service,
    subject: &Subject,
    known: Option<&Tracked>,
    remembered: bool,
) -> Option<u32> {
    let now = tables.jiffies();
    if let Some(known) = known {
        note(tables, known, subject.age, now);
        let choice = known.choice();
        let (number, generation) = choice;
        let is_current = generation == service.generation;
        if is_current && subject.age != Age::Begins {
            return Some(number);
        }
        let number = match member(tables, service, number) {
            TAKES => number,
            KEEPS if subject.age != Age::Begins => number,
            _ => {
                // Of a connection of TCP no other target knows; its client may not get to say that it ends.
                if subject.age == Age::HasBegun {
                    known.end(tables, now);
                }
                ring::number(tables, (service.first, service.size), subject.place)?
            }
        };
        if subject.age == Age::Begins && known.phase() == Phase::HalfOpen {
            sign::count(tables, number, Sign::Begun);
        }
        known.choose(tables, choice, (number, service.generation));
        return Some(number);
    }
    let current = ring::number(tables, (service.first, service.size), subject.place).unwrap_or(NOBODY);
    let again = match subject.age {
        Age::Begins | Age::Ends | Age::Quoted => false,
        Age::HasBegun => true,
        Age::Unknown => was_here(tables, subject, now),
    };
    let other = before(tables, service, subject, now).filter(|before| *before != current);
    let (number, at_once) = match other {
        Some(before) if belongs_to(tables, service, before, (subject.age, again), now) => (before, true),
        Some(_) => (current, true),
        None => (current, false),
    };
    if number == NOBODY {
        return None;
    }
    if subject.age == Age::Begins {
        sign::count(tables, number, Sign::Begun);
    }
    // Of a flow that ends nothing is to be known.
    if remembered && (again || at_once) && !matches!(subject.age, Age::Quoted | Age::Ends) {
        enter(tables, service, subject, (number, !again), now);
    }
    Some(number)
}

/// Notes that a flow's target is this one, by what its packets themselves say, with its second packet if it is not
/// `known`.
#[inline(always)]
pub fn follow<T: Tables>(
    tables: &T,
    service: &Service,
    subject: &Subject,
    known: Option<&Tracked>,
    number: u32,
) {
    let now = tables.jiffies();
    if let Some(known) = known {
        note(tables, known, subject.age, now);
        known.choose(tables, known.choice(), (number, service.generation));
        return;
    }
    if was_here(tables, subject, now) {
        enter(tables, service, subject, (number, false), now);
    }
}

/// Whether a flow has left its mark already; it leaves one now.
#[inline(always)]
fn was_here<T: Tables>(tables: &T, subject: &Subject, now: u64) -> bool {
    let place = tables.seen(subject.hash);
    place.is_some_and(|place| place.again(subject.hash, now))
}

/// Notes a packet of a flow, unless the flow is only spoken of.
#[inline(always)]
fn note<T: Tables>(tables: &T, known: &Tracked, age: Age, now: u64) {
    if age == Age::Quoted {
        return;
    }
    let follows = known.note(tables, age == Age::Begins, age == Age::Ends, now);
    if follows && age == Age::HasBegun {
        sign::count(tables, known.choice().0, Sign::Followed);
    }
}

/// What a target is to the service: [`TAKES`], [`KEEPS`], or nothing.
#[inline(always)]
fn member<T: Tables>(tables: &T, service: &Service, target: u32) -> u32 {
    let key = MemberKey {
        vni: service.vni,
        target,
    };
    tables.member(&key).unwrap_or(0)
}

/// The target by the ring before, while that counts.
#[inline(always)]
fn before<T: Tables>(tables: &T, service: &Service, subject: &Subject, now: u64) -> Option<u32> {
    if service.previous_size == 0 || now >= service.previous_until {
        return None;
    }
    ring::number(
        tables,
        (service.previous_first, service.previous_size),
        subject.place,
    )
}

/// Whether a flow without an entry belongs to the target that the ring before names.
#[inline(always)]
fn belongs_to<T: Tables>(
    tables: &T,
    service: &Service,
    before: u32,
    (age, again): (Age, bool),
    now: u64,
) -> bool {
    let has_begun = match age {
        Age::Begins => return false,
        Age::HasBegun | Age::Ends | Age::Quoted => true,
        Age::Unknown => again,
    };
    match member(tables, service, before) {
        TAKES => has_begun || now < service.previous_until_udp,
        KEEPS => has_begun,
        _ => false,
    }
}

/// Where the table is full the flow goes on by the ring alone.
#[inline(always)]
fn enter<T: Tables>(
    tables: &T,
    service: &Service,
    subject: &Subject,
    (number, begins): (u32, bool),
    now: u64,
) {
    let flow = Tracked::new(number, service.generation, begins, now);
    let event = match tables.track(&subject.key, flow) {
        Ok(()) => Event::Tracked,
        Err(Insertion::Full) => Event::NotTracked,
        // Another CPU was first.
        Err(Insertion::Exists) => return,
    };
    if subject.age == Age::HasBegun {
        sign::count(tables, number, Sign::Followed);
    }
    tables.count(event, 0);
}
