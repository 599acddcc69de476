//! What packets have changed, as text that two runners can compare.

use std::collections::BTreeMap;

use kuafu_model::runner::Host;
use kuafu_pipeline::map::{
    Connection, ConnectionKey, FirstFragment, FragmentKey, OwnWindow, PairState, PathState, ShieldCounts,
    Sign, SlotState, TargetSigns, Tracked, Window,
};

/// By map and key what is not as at the start.
pub type State = BTreeMap<String, String>;

/// Of a host in userland.
pub fn state(host: &Host) -> State {
    let connections = host
        .connections()
        .map(|(key, value)| (connection_key(key), connection(value)));
    let fragments = host
        .fragments()
        .map(|(key, value)| (fragment_key(key), first_fragment(value)));
    let flows = host.tracked().map(|(key, value)| (flow_key(key), tracked(value)));
    let slots = host
        .slot_states()
        .map(|(at, value)| (format!("slot {at}"), slot(value)));
    let paths = host
        .path_states()
        .map(|(at, value)| (format!("path {at}"), path(value)));
    let pairs = host
        .pair_states()
        .map(|(at, value)| (format!("pair {at}"), pair(value)));
    let windows = host
        .windows()
        .map(|(at, value)| (format!("window {at}"), window(value)));
    let own_windows = host
        .own_windows()
        .map(|(at, value)| (format!("own window {at}"), own_window(value)));
    let verified = host
        .verified()
        .map(|(source, _)| (verified_key(*source), String::new()));
    let verified_v6 = host
        .verified_v6()
        .map(|(network, _)| (verified_v6_key(*network), String::new()));
    let shields =
        (0..SHIELDS).map(|number| (format!("shield {number}"), shield(&host.shield_counts(number))));
    let of_targets = host
        .target_signs()
        .map(|(at, value)| (format!("target {at}"), signs(value)));
    let of_paths = slots
        .chain(paths)
        .chain(pairs)
        .chain(verified)
        .chain(verified_v6)
        .chain(shields)
        .chain(of_targets);
    changed(
        connections
            .chain(fragments)
            .chain(flows)
            .chain(of_paths)
            .chain(windows)
            .chain(own_windows),
    )
}

/// What of this is not as at the start.
pub fn changed(all: impl IntoIterator<Item = (String, String)>) -> State {
    let fresh = [
        slot(&SlotState::new()),
        path(&PathState::new()),
        pair(&PairState::new()),
        window(&Window::new()),
        own_window(&OwnWindow::new()),
        shield(&ShieldCounts::default()),
        signs(&TargetSigns::default()),
    ];
    let moved = |(_, value): &(String, String)| !fresh.contains(value);
    all.into_iter().filter(moved).collect()
}

/// A source that is verified.
pub fn verified_key(source: u32) -> String {
    format!("verified {source:08x}")
}

/// A network of IPv6 that is verified.
pub fn verified_v6_key(network: u64) -> String {
    format!("verified {network:016x}")
}

/// What a shield has counted.
pub fn shield(counts: &ShieldCounts) -> String {
    format!("{counts:?}")
}

/// What packets have counted of a target, on whichever CPU.
pub fn signs(signs: &TargetSigns) -> String {
    let sums = SIGNS.map(|sign| (sign, signs.sum(sign)));
    format!("{sums:?}")
}

/// All signs.
const SIGNS: [Sign; 5] = [
    Sign::Begun,
    Sign::Followed,
    Sign::Opened,
    Sign::Answered,
    Sign::Refused,
];

/// Shields of the worlds, number 0 included.
pub const SHIELDS: u32 = 6;

/// The key of one direction of a connection.
pub fn connection_key(key: &ConnectionKey) -> String {
    format!("connection {key:?}")
}

/// One direction of a connection, without its times.
pub fn connection(value: &Connection) -> String {
    untimed(&format!("{value:?}"), &["began", "last_packet"])
}

/// The key of a flow whose target is remembered.
pub fn flow_key(key: &ConnectionKey) -> String {
    format!("flow {key:?}")
}

/// The target of a flow, without its time.
pub fn tracked(value: &Tracked) -> String {
    untimed(&format!("{value:?}"), &["last_packet"])
}

/// The key of a fragment's datagram.
pub fn fragment_key(key: &FragmentKey) -> String {
    format!("fragment {key:?}")
}

/// What a first fragment said, without its time.
pub fn first_fragment(value: &FirstFragment) -> String {
    untimed(&format!("{value:?}"), &["seen"])
}

/// What packets change in a slot.
pub fn slot(value: &SlotState) -> String {
    untimed(&format!("{value:?}"), &[])
}

/// What packets change in a path, without its times.
pub fn path(value: &PathState) -> String {
    untimed(&format!("{value:?}"), &["last_echo", "last_probe"])
}

/// What packets change in a pair, without its time.
pub fn pair(value: &PairState) -> String {
    untimed(&format!("{value:?}"), &["last_packet"])
}

/// A replay window.
pub fn window(value: &Window) -> String {
    untimed(&format!("{value:?}"), &[])
}

/// The window of a single path.
pub fn own_window(value: &OwnWindow) -> String {
    untimed(&format!("{value:?}"), &[])
}

/// A value's text, in which times say only whether they are set: clocks of two runners are not the same.
fn untimed(text: &str, times: &[&str]) -> String {
    let mut text = text.replace("Shared(Cell { value: ", "(").replace(" })", ")");
    for time in times {
        let start = text.find(&format!("{time}: ")).map(|at| at + time.len() + 2);
        let Some(start) = start else { continue };
        let end = text[start..]
            .find([',', ' ', ')'])
            .map_or(text.len(), |at| start + at);
        let zero = matches!(&text[start..end], "0" | "(0");
        text.replace_range(start..end, if zero { "never" } else { "once" });
    }
    text
}
