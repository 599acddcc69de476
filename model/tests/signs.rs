//! What packets count of targets: sequences of packets, and the signs that they leave.
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::case::{Input, Program, on_model};
use common::encode::encode;
use common::world;
use kuafu_pipeline::map::Sign::{self, Answered, Begun, Followed, Opened, Refused};

/// What all is addressed to, by the listener's port: a server that answers itself,
const DIRECT: &str = "eth mfe > m01 | ipv4 203.0.113.7 > 198.51.100.1 df | tcp 4000 > 7020 flags ";
/// one that is rewritten to,
const REWRITTEN: &str = "eth mfe > m01 | ipv4 203.0.113.7 > 198.51.100.1 | tcp 4000 > 7004 flags ";
/// and the same by UDP.
const DATAGRAM: &str = "eth mfe > m01 | ipv4 203.0.113.7 > 198.51.100.1 | udp 4000 > 7004 | data 20";
/// What the rewritten one says,
const ANSWER: &str = "eth m50 > m01 | ipv4 192.0.2.80 > 192.0.2.1 | tcp 9000 > 12101 flags ";
/// and by UDP;
const REPLY: &str = "eth m50 > m01 | ipv4 192.0.2.80 > 192.0.2.1 | udp 9000 > 15755 | data 30";
/// and what is said about packets to it.
const ABOUT: &str = "eth mfe > m01 | ipv4 192.0.2.254 > 192.0.2.1 | icmp ";
const SYN: &str = " | ipv4 192.0.2.1 > 192.0.2.80 len 60 | tcp 12101 > 9000 flags S";
const SENT: &str = " | ipv4 192.0.2.1 > 192.0.2.80 len 48 | udp 15755 > 9000 sum none";

/// The signs that these packets leave together, of all targets.
fn signs(packets: &[String]) -> Vec<(Sign, u64)> {
    let mut host = world::named("host").model();
    for packet in packets {
        let input = Input {
            program: Program::Edge,
            interface: world::UNDERLAY,
            mark: 0,
            segment: 0,
            octets: encode(packet),
        };
        let (verdict, _) = on_model(&mut host, &input);
        assert_eq!(format!("{verdict:?}"), "Transmit", "{packet}");
    }
    let sum = |sign| host.target_signs().map(|(_, signs)| signs.sum(sign)).sum();
    let all = [Begun, Followed, Opened, Answered, Refused];
    let counted = all.map(|sign| (sign, sum(sign)));
    counted.into_iter().filter(|(_, count)| *count != 0).collect()
}

#[test]
fn a_server_that_answers_itself_is_heard_by_its_client() {
    let tcp =
        |flags: &[&str]| -> Vec<String> { flags.iter().map(|flags| format!("{DIRECT}{flags}")).collect() };
    assert_eq!(signs(&tcp(&["S"])), [(Begun, 1)]);
    assert_eq!(signs(&tcp(&["S", "S", "S"])), [(Begun, 3)], "each is sent again");
    assert_eq!(
        signs(&tcp(&["S", "A", "A", "A", "FA", "A"])),
        [(Begun, 1), (Followed, 1)]
    );
    assert_eq!(
        signs(&tcp(&["S", "R"])),
        [(Begun, 1)],
        "its client's reset says nothing"
    );
    // The port is used anew, once after an end and once without one: of that nobody could tell the answer.
    let anew = tcp(&["S", "A", "FA", "S", "S", "A", "S", "A"]);
    assert_eq!(signs(&anew), [(Begun, 3), (Followed, 2)]);
    let udp = DIRECT.replace("tcp 4000 > 7020 flags ", "udp 4000 > 7020 | data 9");
    assert_eq!(signs(&[udp.clone(), udp.clone(), udp]), [], "nobody can tell");
}

#[test]
fn the_first_word_of_a_rewritten_server_counts() {
    let to = |flags: &str| format!("{REWRITTEN}{flags}");
    let from = |flags: &str| format!("{ANSWER}{flags}");
    let opened = [(Begun, 1), (Opened, 1)];
    assert_eq!(signs(&[to("S")]), opened);
    let answered = [(Begun, 1), (Followed, 1), (Opened, 1), (Answered, 1)];
    let talk = [to("S"), from("SA"), to("A"), from("A"), to("A"), from("RA")];
    assert_eq!(signs(&talk), answered, "a reset later is none");
    let refused = [(Begun, 1), (Opened, 1), (Refused, 1)];
    assert_eq!(signs(&[to("S"), from("RA"), from("RA")]), refused);
    let midst = [to("A"), from("R")];
    assert_eq!(
        signs(&midst),
        [(Followed, 1)],
        "of a connection that it does not know"
    );
    let udp = |more: &[&str]| -> Vec<String> {
        [DATAGRAM]
            .iter()
            .chain(more)
            .map(|packet| (*packet).to_owned())
            .collect()
    };
    assert_eq!(signs(&udp(&[])), [(Opened, 1)]);
    assert_eq!(
        signs(&udp(&[REPLY, DATAGRAM, REPLY])),
        [(Opened, 1), (Answered, 1)]
    );
}

#[test]
fn icmp_says_that_nobody_is_there() {
    let (to, from) = (format!("{REWRITTEN}S"), format!("{ANSWER}SA"));
    let error = |code: &str| format!("{ABOUT}{code}{SYN}");
    let refused = [(Begun, 1), (Opened, 1), (Refused, 1)];
    assert_eq!(signs(&[to.clone(), error("3 1"), error("3 1")]), refused, "once");
    assert_eq!(
        signs(&[to.clone(), error("3 1"), from.clone()]),
        refused,
        "whatever follows"
    );
    let opened = [(Begun, 1), (Opened, 1)];
    assert_eq!(signs(&[to.clone(), error("11 0")]), opened);
    assert_eq!(signs(&[to.clone(), error("3 4")]), opened, "it is too large");
    let answered = [(Begun, 1), (Opened, 1), (Answered, 1)];
    assert_eq!(signs(&[to, from, error("3 1")]), answered, "anybody can say so");
    let datagram = [DATAGRAM.to_owned(), format!("{ABOUT}3 3{SENT}")];
    assert_eq!(signs(&datagram), [(Opened, 1), (Refused, 1)]);
}
