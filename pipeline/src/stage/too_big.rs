//! What becomes of a packet that the path does not carry.

use super::{IP, L4, L4_V6, TTL};
use crate::checksum;
use crate::header::ipv4::{Fields, ICMP};
use crate::header::{Ethernet, Icmp, Ipv4, Ipv6, be32, ipv6, le64, put_le64, put32};
use crate::map::{Bucket, IpKey, JIFFY};
use crate::{Frame, Next, Outcome, Reason, Tables};

/// Octets in an answer's frame: Ethernet, IPv4, ICMP, and the IP header and eight octets that it quotes (RFC 792).
const ANSWER: usize = 70;
/// The same of IPv6: Ethernet, IPv6, ICMPv6, and the header and eight octets that it quotes. RFC 4443 (§2.4) wants as much
/// as fits; so much tells its sender the flow.
const ANSWER_V6: usize = 110;
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
    admit(tables)?;
    let quote = move_quote(head);
    Icmp::at::<L4, ANSWER>(head).write_too_big(mtu, quote);
    Ipv4::at::<IP, ANSWER>(head).write(&Fields {
        tos: 0,
        total_length: (ANSWER - IP) as u16,
        ttl: TTL,
        protocol: ICMP,
        source: from,
        destination: sender,
    });
    send_back::<F, ANSWER>(frame, interface)
}

/// Turns an IPv6 packet into "packet too big" from `from`, back out of the interface on which it came.
///
/// # Errors
/// `IcmpLimited`, `NoRoom`.
#[inline(always)]
pub fn answer_v6<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    interface: u32,
    from: IpKey,
    mtu: u32,
) -> Outcome {
    let Some(head) = frame.head::<ANSWER_V6>() else {
        return Err(Reason::BadLength);
    };
    let sender = Ipv6::at::<IP, ANSWER_V6>(head).source();
    admit(tables)?;
    let octets = (ANSWER_V6 - L4_V6) as u16;
    let covered = move_quote_v6(head) + Ipv6::pseudo_header(from, sender, octets, ipv6::ICMP);
    Icmp::at::<L4_V6, ANSWER_V6>(head).write_too_big_v6(mtu, covered);
    Ipv6::at::<IP, ANSWER_V6>(head).write(&ipv6::Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_length: octets,
        next_header: ipv6::ICMP,
        hop_limit: TTL,
        source: from,
        destination: sender,
    });
    send_back::<F, ANSWER_V6>(frame, interface)
}

/// Cuts the frame behind an answer of `N` octets, for whoever sent what was there.
#[inline(always)]
fn send_back<F: Frame, const N: usize>(frame: &mut F, interface: u32) -> Outcome {
    let Some(head) = frame.head::<N>() else {
        return Err(Reason::NoRoom);
    };
    Ethernet::at::<0, N>(head).turn_round();
    if !frame.resize(N as u32) {
        return Err(Reason::NoRoom);
    }
    Ok(Next::Answer(interface, Reason::TooBig))
}

/// Takes an answer from the CPU's bucket.
#[inline(always)]
fn admit<T: Tables>(tables: &T) -> Result<(), Reason> {
    let take = |bucket: &Bucket| bucket.take(tables, tables.jiffies(), PRICE, JIFFY);
    if tables.icmp_bucket().is_some_and(take) {
        Ok(())
    } else {
        Err(Reason::IcmpLimited)
    }
}

/// Moves the first 48 octets of the IPv6 packet behind the answer's headers; returns their sum.
#[inline(always)]
fn move_quote_v6(head: &mut [u8; ANSWER_V6]) -> u64 {
    let words = [
        le64::<14, ANSWER_V6>(head),
        le64::<22, ANSWER_V6>(head),
        le64::<30, ANSWER_V6>(head),
        le64::<38, ANSWER_V6>(head),
        le64::<46, ANSWER_V6>(head),
        le64::<54, ANSWER_V6>(head),
    ];
    put_le64::<62, ANSWER_V6>(head, words[0]);
    put_le64::<70, ANSWER_V6>(head, words[1]);
    put_le64::<78, ANSWER_V6>(head, words[2]);
    put_le64::<86, ANSWER_V6>(head, words[3]);
    put_le64::<94, ANSWER_V6>(head, words[4]);
    put_le64::<102, ANSWER_V6>(head, words[5]);
    checksum::words(words)
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
