//! The shield: what may begin at a service, while more wants to than is good for it.
//!
//! A flow that has a target passes, whatever comes beside it; once its service has changed, it is looked for on the
//! lists. Of the others a client of TCP is asked to show that it can be reached: its SYN is answered by a SYN-ACK that
//! acknowledges what was never sent, a cookie; a client resets that with the cookie as its sequence number (RFC 9293,
//! 3.10.7.3), which verifies its address for ten minutes, and sends its SYN again. Nothing is remembered until then, and
//! neither the server's sequence numbers nor its options need to be known: it works wherever answers go. UDP has no such
//! question; there buckets and admission count.

use super::client::Client;
use super::flow::{Flow, Part};
use super::track::{Age, Subject};
use crate::header::ipv4::TCP;
use crate::header::tcp;
use crate::map::{Question, SOURCE_BUCKETS, Service, Shield, Tally, asked, guard};
use crate::siphash::Key;
use crate::{Event, Frame, Next, Outcome, Reason, Tables};

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
pub fn pass<F: Frame, T: Tables, A: Client>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    (service, flow): (&Service, &Flow<A>),
    (tcp_flags, subject, is_known): (u32, &Subject, bool),
) -> Result<bool, Outcome> {
    let mut what = if is_known { asked::KNOWN } else { 0 };
    let mut sequence = 0;
    if flow.protocol == TCP {
        what |= asked::TCP;
        if let (Part::Whole | Part::First, Some(number)) = (flow.part, A::sequence(frame)) {
            sequence = number;
            if subject.age == Age::Begins {
                what |= asked::SYN;
            } else if tcp_flags as u8 & tcp::RST != 0 {
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
    A::shielded(tables, frame, interface, &question)
}

/// Lets an ICMP error about a flow pass: while the shield is up, of known flows alone, since a quote is easily made up.
///
/// # Errors
/// Dropped as `Blocked` or `OverBudget`.
#[inline(always)]
pub fn pass_error<F: Frame, T: Tables, A: Client + Default>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    (service, quoted): (&Service, &Flow<A>),
    is_known: bool,
) -> Result<bool, Outcome> {
    let question = Question {
        number: service.shield,
        what: asked::QUOTED | if is_known { asked::KNOWN } else { 0 },
        source: quoted.destination,
        ..Question::default()
    };
    A::shielded(tables, frame, interface, &question)
}

/// What a shield does with a packet, beside or in place of the packet's own stages. `true`: its flow may be remembered.
///
/// # Errors
/// As [`pass`].
#[inline(always)]
pub fn decide<F: Frame, T: Tables, A: Client>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    question: &Question<A>,
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
            question
                .source
                .verify(tables, tables.jiffies() + shield.verified_for);
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
fn look<T: Tables, A: Client>(tables: &T, shield: &Shield, question: &Question<A>) -> Result<bool, Tally> {
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
    question.source.notice(tables, question.number);
    if shield.has(guard::ADMISSION) {
        let until = question.source.admitted(tables, shield.vni).unwrap_or(0);
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
        is_verified = tables.jiffies() < question.source.verified(tables).unwrap_or(0);
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
fn by_lists<T: Tables, A: Client>(tables: &T, shield: &Shield, source: A) -> Standing {
    if shield.blocked | shield.allowed == 0 {
        return Standing::Unlisted;
    }
    let lists = source.lists(tables);
    if lists & shield.allowed != 0 {
        Standing::Allowed
    } else if lists & shield.blocked != 0 {
        Standing::Blocked
    } else {
        Standing::Unlisted
    }
}

/// Where the bucket of a source or its prefix is. Those of verified sources are apart from the others, so that nobody's
/// made-up addresses fill them; where, only the host knows.
#[inline(always)]
fn bucket<A: Client>(shield: &Shield, question: &Question<A>, is_prefix: bool, is_verified: bool) -> u32 {
    const HALF: u32 = SOURCE_BUCKETS / 2;
    let hash = question.source.hash(question.number, is_prefix, shield);
    hash % HALF + if is_verified { HALF } else { 0 }
}

/// Whether a shield is up. What begins counts, so that it goes up by itself, and stays while too much begins.
#[inline(always)]
fn is_up<T: Tables, A>(tables: &T, shield: &Shield, question: &Question<A>) -> bool {
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
fn within<T: Tables, A: Client>(
    tables: &T,
    shield: &Shield,
    question: &Question<A>,
    is_verified: bool,
) -> Result<(), Tally> {
    let now = tables.jiffies();
    let mut used = 0;
    if let Some(bucket) = tables.source_bucket(bucket(shield, question, false, is_verified)) {
        if !shield.source.take(bucket, tables, now) {
            return Err(Tally::SourceLimited);
        }
        used = shield.source.used(bucket, now);
    }
    if let Some(bucket) = tables.source_bucket(bucket(shield, question, true, is_verified))
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
fn ask<F: Frame, T: Tables, A: Client>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    (shield, question): (&Shield, &Question<A>),
) -> Outcome {
    let octets = frame.len();
    A::answer(frame, question, own_cookie(shield, question))?;
    tables.count(Event::SynChallenged, octets);
    Ok(Next::Transmit(interface))
}

/// The cookie for a SYN, one that its client cannot take for an acknowledgement of its own.
#[inline(always)]
fn own_cookie<A: Client>(shield: &Shield, question: &Question<A>) -> u32 {
    let cookie = cookie(shield, question);
    let is_own = cookie.wrapping_sub(question.sequence) <= OWN;
    if is_own { cookie ^ ASIDE } else { cookie }
}

/// Whether a reset returns a cookie of this flow's.
#[inline(always)]
fn is_cookie<A: Client>(shield: &Shield, question: &Question<A>) -> bool {
    (question.sequence ^ cookie(shield, question)) & !ASIDE == 0
}

/// A flow's cookie.
#[inline(always)]
fn cookie<A: Client>(shield: &Shield, question: &Question<A>) -> u32 {
    let key = Key {
        k0: shield.key[0],
        k1: shield.key[1],
    };
    A::cookie(key, question)
}
