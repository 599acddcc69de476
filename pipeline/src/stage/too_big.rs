//! What becomes of a packet that the path does not carry.

use super::{IP, L4};
use crate::checksum;
use crate::header::ipv4::{Fields, ICMP};
use crate::header::{Ethernet, Icmp, Ipv4, be32, put32};
use crate::map::JIFFY;
use crate::{Frame, Next, Outcome, Reason, Tables};

/// Octets in an answer's frame: Ethernet, IPv4, ICMP, and the IP header and eight octets that it quotes (RFC 792).
const ANSWER: usize = 70;
/// What an answer takes of a CPU's bucket, which holds a jiffy: 1,000 answers a second at 250 Hz.
const PRICE: u64 = JIFFY / 4;

/// Turns a packet with DF into "fragmentation needed" (RFC 1191) from `from`, back out of the interface on which it
/// came; drops one without DF.
///
/// # Errors
/// `NeedsFragmentation` without DF, `IcmpLimited` where too many answers were sent, `NoRoom` where the frame does not
/// let itself be cut.
#[inline(always)]
pub fn refuse<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    from: u32,
    mtu: u16,
) -> Outcome {
    let Some(head) = frame.head::<ANSWER>() else {
        return Err(Reason::BadLength);
    };
    if !Ipv4::at::<IP, ANSWER>(head).dont_fragment() {
        return Err(Reason::NeedsFragmentation);
    }
    answer(frame, tables, interface, from, mtu)
}

/// The same, with DF or without.
///
/// # Errors
/// `IcmpLimited`, `NoRoom`.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    from: u32,
    mtu: u16,
) -> Outcome {
    let Some(head) = frame.head::<ANSWER>() else {
        return Err(Reason::BadLength);
    };
    let sender = Ipv4::at::<IP, ANSWER>(head).source();
    if !tables
        .icmp_bucket()
        .is_some_and(|bucket| bucket.take(tables, tables.jiffies(), PRICE, JIFFY))
    {
        return Err(Reason::IcmpLimited);
    }
    let quote = move_quote(head);
    Icmp::at::<L4, ANSWER>(head).write_too_big(mtu, quote);
    Ipv4::at::<IP, ANSWER>(head).write(&Fields {
        tos: 0,
        total_length: (ANSWER - IP) as u16,
        ttl: 64,
        protocol: ICMP,
        source: from,
        destination: sender,
    });
    Ethernet::at::<0, ANSWER>(head).turn_round();
    if !frame.resize(ANSWER as u32) {
        return Err(Reason::NoRoom);
    }
    Ok(Next::Answer(interface, Reason::TooBig))
}

/// Moves the first 28 octets of the IP packet behind the answer's headers; returns the sum of their halves.
#[inline(always)]
fn move_quote(head: &mut [u8; ANSWER]) -> u32 {
    let words = [
        be32::<14, ANSWER>(head),
        be32::<18, ANSWER>(head),
        be32::<22, ANSWER>(head),
        be32::<26, ANSWER>(head),
        be32::<30, ANSWER>(head),
        be32::<34, ANSWER>(head),
        be32::<38, ANSWER>(head),
    ];
    put32::<42, ANSWER>(head, words[0]);
    put32::<46, ANSWER>(head, words[1]);
    put32::<50, ANSWER>(head, words[2]);
    put32::<54, ANSWER>(head, words[3]);
    put32::<58, ANSWER>(head, words[4]);
    put32::<62, ANSWER>(head, words[5]);
    put32::<66, ANSWER>(head, words[6]);
    let mut sum = 0;
    for word in words {
        sum = checksum::add32(sum, word);
    }
    sum
}
