//! The slow path's cutter against an independent reassembly, etherparse's: whatever is cut, once or several times, is
//! the original again.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use etherparse::defrag::IpDefragPool;
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4HeaderSlice, SlicedPacket};
use kuafu_pipeline::cut::cut;
use proptest::prelude::*;

/// A packet with this payload.
fn packet(payload: &[u8], change: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a packet");
    let mut header =
        Ipv4Header::new(length, 61, IpNumber::UDP, [203, 0, 113, 7], [198, 51, 100, 1]).expect("a header");
    header.identification = 7;
    header.dscp = 46.try_into().expect("six bits");
    header.dont_fragment = false;
    change(&mut header);
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// The pieces of a packet; checks what each must be.
fn pieces(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let original = Ipv4HeaderSlice::from_slice(packet).expect("a header").to_header();
    let cut = cut(packet, mtu).expect("a packet that can be cut");
    let pieces: Vec<_> = cut
        .map(|piece| [&piece.header[..], piece.payload].concat())
        .collect();
    for piece in &pieces {
        let header = Ipv4HeaderSlice::from_slice(piece).expect("a header").to_header();
        assert!(piece.len() <= usize::from(mtu) && usize::from(header.total_len) == piece.len());
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let like_the_original = Ipv4Header {
            total_len: original.total_len,
            more_fragments: original.more_fragments,
            fragment_offset: original.fragment_offset,
            header_checksum: original.header_checksum,
            ..header
        };
        assert_eq!(like_the_original, original);
    }
    pieces
}

/// The datagram's payload, from fragments in any order.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut pool = IpDefragPool::<(), ()>::new();
    let mut whole = None;
    for fragment in fragments {
        let sliced = SlicedPacket::from_ip(fragment).expect("a packet");
        let done = pool.process_sliced_packet(&sliced, (), ());
        if let Some(payload) = done.expect("fragments of one datagram") {
            assert!(whole.replace(payload.payload).is_none(), "complete twice");
        }
    }
    whole.expect("a datagram that is complete")
}

proptest! {
    #[test]
    fn what_is_cut_is_whole_again(
        payload in proptest::collection::vec(any::<u8>(), 1..4_000),
        (first, second) in (28_u16..1_600, 28_u16..1_600),
        turn in any::<prop::sample::Index>(),
    ) {
        let packet = packet(&payload, |_| {});
        let once = pieces(&packet, first);
        if once.len() == 1 {
            prop_assert!(once[0] == packet, "one that fits is not changed");
            return Ok(());
        }
        let mut twice: Vec<_> = once.iter().flat_map(|piece| pieces(piece, second)).collect();
        let at = turn.index(twice.len());
        twice.rotate_left(at);
        prop_assert_eq!(&reassembled(&once), &payload);
        prop_assert_eq!(&reassembled(&twice), &payload);
    }

    #[test]
    fn anything_else_is_refused_or_cut_within_bounds(
        octets in proptest::collection::vec(any::<u8>(), 0..200),
        mtu in any::<u16>(),
    ) {
        let total: usize = cut(&octets, mtu).into_iter().flatten().map(|piece| piece.payload.len()).sum();
        prop_assert!(total == 0 || total + 20 == octets.len());
    }
}

#[test]
fn what_must_not_be_cut_is_not() {
    let large = vec![0; 1_413];
    let refused = |packet: &[u8], mtu| cut(packet, mtu).is_none();
    assert!(!refused(&packet(&large, |_| {}), 1_432));
    assert!(!refused(&packet(&large, |ip| ip.dont_fragment = true), 1_433));
    assert!(refused(&packet(&large, |ip| ip.dont_fragment = true), 1_432));
    assert!(
        refused(&packet(&large, |ip| ip.more_fragments = true), 1_432),
        "no multiple of eight"
    );
    assert!(refused(&packet(&large, |_| {}), 27), "no room");
    let beyond = IpFragOffset::try_new(8_100).expect("13 bits");
    assert!(refused(&packet(&large, |ip| ip.fragment_offset = beyond), 1_000));
    assert!(refused(&packet(&large, |ip| ip.total_len -= 1), 1_000));
    assert!(
        refused(&packet(&large, |ip| ip.options = [1; 4].into()), 1_000),
        "options"
    );
}
