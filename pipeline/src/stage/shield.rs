//! The shield: what may begin at a service, while more wants to than is good for it.
//!
//! A flow that has a target passes, whatever comes beside it; once its service has changed, it is looked for on the
//! lists. Of the others a client of TCP is asked to show that it can be reached: its SYN is answered by a SYN-ACK that
//! acknowledges what was never sent, a cookie; a client resets that with the cookie as its sequence number (RFC 9293,
//! 3.10.7.3), which verifies its address for ten minutes, and sends its SYN again. Nothing is remembered until then, and
//! neither the server's sequence numbers nor its options need to be known: it works wherever answers go. UDP has no such
//! question; there buckets and admission count.

use super::flow::{Flow, Part, mix};
use super::sanity::{self, Sane};
use super::track::{Age, Subject};
use super::{IP, L4, TTL};
use crate::header::ipv4::{Fields, TCP};
use crate::header::{Ethernet, Ipv4, Tcp, tcp};
use crate::map::{AdmittedKey, Question, SOURCE_BUCKETS, Service, Shield, Tally, asked, guard, listed_key};
use crate::siphash::{self, Key};
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

/// Octets up to the end of TCP's header.
const HEADERS: usize = 54;
/// Octets in an IP packet with a TCP header alone.
const LENGTH: u32 = 40;
/// So far ahead of a SYN's number a client may take an acknowledgement for one of its own (data in the SYN, RFC 7413).
const OWN: u32 = 1 << 16;
/// This bit tells a cookie that would lie there.
const ASIDE: u32 = 1 << 31;
/// The time until when it is up is written again after so many jiffies.
const GRAIN: u64 = 16;
/// All of a bucket, as [`Rate::used`](crate::map::Rate::used) counts.
const WHOLE: u64 = 256;

/// Lets a client's packet pass, or says how else it ends. `true`: its flow may be remembered. `is_known`: it has a
/// target.
///
/// # Errors
/// How the packet ends: answered, taken in, or dropped as `Blocked`, `NotAdmitted`, `SourceLimited`, `OverBudget` or
/// `Amplifier`.
#[inline(always)]
pub fn pass<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    (service, flow): (&Service, &Flow),
    (sane, subject, is_known): (&Sane, &Subject, bool),
) -> Result<bool, Outcome> {
    let mut what = if is_known { asked::KNOWN } else { 0 };
    let mut sequence = 0;
    if flow.protocol == TCP {
        what |= asked::TCP;
        if let (Part::Whole | Part::First, Some(head)) = (flow.part, frame.head::<HEADERS>()) {
            sequence = Tcp::at::<L4, HEADERS>(head).sequence();
            if subject.age == Age::Begins {
                what |= asked::SYN;
            } else if sane.tcp_flags as u8 & tcp::RST != 0 {
                what |= asked::RESET;
            }
        }
    }
    let question = Question {
        number: service.shield,
        what,
        source: flow.source,
        destination: flow.destination,
        ports: (flow.source_port as u32) << 16 | flow.destination_port as u32,
        sequence,
    };
    tables.shielded(frame, interface, &question)
}

/// Lets an ICMP error about a flow pass: while the shield is up, of known flows alone, since a quote is easily made up.
///
/// # Errors
/// Dropped as `Blocked` or `OverBudget`.
#[inline(always)]
pub fn pass_error<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    (service, quoted): (&Service, &Flow),
    is_known: bool,
) -> Result<bool, Outcome> {
    let question = Question {
        number: service.shield,
        what: asked::QUOTED | if is_known { asked::KNOWN } else { 0 },
        source: quoted.destination,
        ..Question::default()
    };
    tables.shielded(frame, interface, &question)
}

/// What a shield does with a packet, beside or in place of the packet's own stages. `true`: its flow may be remembered.
///
/// # Errors
/// As [`pass`].
#[inline(always)]
pub fn decide<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    question: &Question,
) -> Result<bool, Outcome> {
    let Some(shield) = tables.shield(question.number) else {
        return Ok(true);
    };
    let (is_on, octets) = (shield.has(guard::ENFORCES), frame.len());
    let what = match look(tables, shield, question) {
        Ok(is_remembered) => return Ok(is_remembered || !is_on),
        Err(what) => what,
    };
    tables.tally(question.number, what);
    if !is_on {
        tables.count(Event::Observed, octets);
        return Ok(true);
    }
    Err(match what {
        Tally::New | Tally::Challenged => ask(frame, tables, interface, (shield, question)),
        Tally::Verified => {
            tables.verify(question.source, tables.jiffies() + shield.verified_for);
            tables.count(Event::SourceVerified, octets);
            Ok(Next::Consumed)
        }
        Tally::Blocked => Err(Reason::Blocked),
        Tally::NotAdmitted => Err(Reason::NotAdmitted),
        Tally::SourceLimited => Err(Reason::SourceLimited),
        Tally::OverBudget => Err(Reason::OverBudget),
        Tally::Amplifier => Err(Reason::Amplifier),
    })
}

/// What is to be done with a packet, if it does not pass. `true`: its flow may be remembered.
#[inline(always)]
fn look<T: Tables>(tables: &T, shield: &Shield, question: &Question) -> Result<bool, Tally> {
    match by_lists(tables, shield, question.source) {
        Standing::Allowed => return Ok(true),
        Standing::Blocked => return Err(Tally::Blocked),
        Standing::Unlisted => {}
    }
    // A client may use the port of a flow that is known, and comes from no verified source.
    if question.is(asked::RESET) && shield.has(guard::COOKIES) && is_cookie(shield, question) {
        return Err(Tally::Verified);
    }
    if question.is(asked::KNOWN) {
        return Ok(true);
    }
    if question.is(asked::QUOTED) {
        return if is_up(tables, shield, question) {
            Err(Tally::OverBudget)
        } else {
            Ok(true)
        };
    }
    tables.tally(question.number, Tally::New);
    notice(tables, question);
    if shield.has(guard::ADMISSION) {
        let key = AdmittedKey {
            vni: shield.vni,
            client: question.source,
        };
        let until = tables.admitted(&key).unwrap_or(0);
        if tables.jiffies() >= until {
            return Err(Tally::NotAdmitted);
        }
    }
    if !is_up(tables, shield, question) {
        return Ok(true);
    }
    let (mut is_remembered, mut is_verified) = (true, false);
    if !question.is(asked::TCP) {
        if shield.has(guard::NO_AMPLIFIERS) && amplifies((question.ports >> 16) as u16) {
            return Err(Tally::Amplifier);
        }
    } else if shield.has(guard::COOKIES) {
        is_verified = tables.jiffies() < tables.verified(question.source).unwrap_or(0);
        if !is_verified {
            if question.is(asked::SYN) {
                return Err(Tally::Challenged);
            }
            // It may have begun elsewhere, and is remembered once more follows; a flood of them costs no memory.
            is_remembered = false;
        }
    }
    within(tables, shield, question, is_verified)?;
    Ok(is_remembered)
}

/// What lists say of a source.
enum Standing {
    Allowed,
    Blocked,
    Unlisted,
}

#[inline(always)]
fn by_lists<T: Tables>(tables: &T, shield: &Shield, source: u32) -> Standing {
    if shield.blocked | shield.allowed == 0 {
        return Standing::Unlisted;
    }
    let lists = lists(tables, source);
    if lists & shield.allowed != 0 {
        Standing::Allowed
    } else if lists & shield.blocked != 0 {
        Standing::Blocked
    } else {
        Standing::Unlisted
    }
}

/// The lists that a source is on, by their bits. What a shorter prefix says, a longer one within it says too.
#[inline(always)]
fn lists<T: Tables>(tables: &T, source: u32) -> u32 {
    let network = source >> 8;
    let marks = tables.list_marks(network >> 6).unwrap_or(0);
    if marks >> (network & 63) & 1 != 0 {
        if let Some(lists) = tables.listed(listed_key(source, 32)) {
            return lists;
        }
        if let Some(lists) = tables.listed(listed_key(source, 24)) {
            return lists;
        }
    }
    tables.list_area(source >> 16).unwrap_or(0)
}

/// Notices a packet of a source and its prefix.
#[inline(always)]
fn notice<T: Tables>(tables: &T, question: &Question) {
    for is_prefix in [false, true] {
        let who = who(question, is_prefix);
        if let Some(hitter) = tables.hitter(spread(who), is_prefix) {
            hitter.count(tables, who);
        }
    }
}

/// A source, or the /24 that it is in, beside the shield's number.
#[inline(always)]
const fn who(question: &Question, is_prefix: bool) -> u64 {
    let source = if is_prefix {
        question.source >> 8
    } else {
        question.source
    };
    (question.number as u64) << 32 | source as u64
}

/// A number that spreads these evenly.
#[inline(always)]
const fn spread(who: u64) -> u32 {
    mix((who >> 32) as u32, who as u32, 0)
}

/// Where somebody's bucket is. Those of verified sources are apart from the others, so that nobody's made-up addresses
/// fill them; where, only the host knows.
#[inline(always)]
const fn bucket(shield: &Shield, who: u64, is_verified: bool) -> u32 {
    const HALF: u32 = SOURCE_BUCKETS / 2;
    let hash = mix((who >> 32) as u32, who as u32, shield.key[0] as u32);
    hash % HALF + if is_verified { HALF } else { 0 }
}

/// Whether a shield is up. What begins counts, so that it goes up by itself, and stays while too much begins.
#[inline(always)]
fn is_up<T: Tables>(tables: &T, shield: &Shield, question: &Question) -> bool {
    if shield.has(guard::ALWAYS) {
        return true;
    }
    let Some(state) = tables.shield_state(question.number) else {
        return false;
    };
    let (now, until) = (tables.jiffies(), state.up_until.get());
    // Not for longer than it holds now, whatever it held before.
    let is_held = now < until && until - now <= shield.hold;
    if shield.alarm.take(&state.alarm, tables, now) {
        return is_held;
    }
    if !is_held {
        state.up_since.set(now);
    }
    if !is_held || now + shield.hold >= until + GRAIN {
        state.up_until.set(now + shield.hold);
    }
    true
}

/// Whether what begins is within the rates of its source, its prefix and the service. The latter half of the service's is
/// left to verified sources, which so come before all others. While more than half of what is theirs is used up, who has
/// used more of their own is refused first: of their own they may use twice the part that is left.
#[inline(always)]
fn within<T: Tables>(
    tables: &T,
    shield: &Shield,
    question: &Question,
    is_verified: bool,
) -> Result<(), Tally> {
    let now = tables.jiffies();
    let mut used = 0;
    if let Some(bucket) = tables.source_bucket(bucket(shield, who(question, false), is_verified)) {
        if !shield.source.take(bucket, tables, now) {
            return Err(Tally::SourceLimited);
        }
        used = shield.source.used(bucket, now);
    }
    if let Some(bucket) = tables.source_bucket(bucket(shield, !who(question, true), is_verified))
        && !shield.prefix.take(bucket, tables, now)
    {
        return Err(Tally::SourceLimited);
    }
    let Some(state) = tables.shield_state(question.number) else {
        return Ok(());
    };
    let of_service = shield.budget.used(&state.budget, now) * if is_verified { 1 } else { 2 };
    // Who begins for the first time has used one.
    let has_more = used > shield.source.used_by_one();
    if of_service > WHOLE || has_more && used + 2 * of_service > 2 * WHOLE {
        return Err(Tally::OverBudget);
    }
    if shield.budget.take(&state.budget, tables, now) {
        Ok(())
    } else {
        Err(Tally::OverBudget)
    }
}

/// Ports whose answers are larger than their questions (CISA, TA14-017A).
#[inline(always)]
const fn amplifies(port: u16) -> bool {
    matches!(
        port,
        17 | 19 | 53 | 69 | 111 | 123 | 137 | 161 | 389 | 520 | 1900 | 3283 | 3702 | 5353 | 11211
    )
}

/// Answers a SYN with a cookie, out of the interface on which it came. The answer is no larger than the question.
#[inline(always)]
fn ask<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    (shield, question): (&Shield, &Question),
) -> Outcome {
    let (octets, cookie) = (frame.len(), own_cookie(shield, question));
    let (client, service) = (question.source, question.destination);
    let Some(head) = frame.head::<HEADERS>() else {
        return Err(Reason::Truncated);
    };
    let answer = tcp::SynAck {
        ports: question.ports.rotate_left(16),
        acknowledges: cookie,
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
    Tcp::at::<L4, HEADERS>(head).write_syn_ack(&answer, [service, client]);
    sanity::exact(frame, LENGTH)?;
    tables.count(Event::SynChallenged, octets);
    Ok(Next::Transmit(interface))
}

/// The cookie for a SYN, one that its client cannot take for an acknowledgement of its own.
#[inline(always)]
fn own_cookie(shield: &Shield, question: &Question) -> u32 {
    let cookie = cookie(shield, question);
    let is_own = cookie.wrapping_sub(question.sequence) <= OWN;
    if is_own { cookie ^ ASIDE } else { cookie }
}

/// Whether a reset returns a cookie of this flow's.
#[inline(always)]
fn is_cookie(shield: &Shield, question: &Question) -> bool {
    (question.sequence ^ cookie(shield, question)) & !ASIDE == 0
}

/// A flow's cookie.
#[inline(always)]
fn cookie(shield: &Shield, question: &Question) -> u32 {
    let key = Key {
        k0: shield.key[0],
        k1: shield.key[1],
    };
    let last = 12 << 56 | question.ports as u64;
    let addresses = (question.source as u64) << 32 | question.destination as u64;
    siphash::hash(key, &[addresses, last]) as u32
}
