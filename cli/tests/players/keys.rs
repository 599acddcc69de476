//! Keys of legs are renewed under a stream.

use super::GAME;
use super::common::{Stage, soon};
use super::play::Servers;
use super::restarts::{Loss, under_a_stream};

/// Two renewals cannot follow one another sooner than all hosts have the first.
const LIFETIME: &str = "2s";

/// The keys that the game's entry sends under are renewed so often, all others too, and no packet is lost by it.
pub(super) fn keys_are_renewed(stage: &mut Stage, servers: &Servers, id: u32, times: u32) -> Loss {
    let path = stage.until_relayed(GAME).path;
    stage.kill_controller();
    let loss = under_a_stream(stage, servers, GAME, id, |stage| {
        stage.start_controller(&["--key-lifetime", LIFETIME]);
        let leg = &path[..2];
        let mut epoch = sends_under(stage, leg);
        for _ in 0..times {
            epoch = soon("another epoch", || {
                let newer = sends_under(stage, leg);
                (newer != epoch).then_some(newer)
            });
        }
        stage.kill_controller();
        stage.start_controller(&[]);
    });
    stage.until_connected(GAME.entry);
    loss
}

/// The epoch under which the first node of a leg sends to the second.
fn sends_under(stage: &Stage, leg: &[String]) -> u8 {
    let state = stage.state(&leg[0]);
    let path = state.paths.iter().find(|path| path.nodes == leg).unwrap();
    path.leg.keys.last().unwrap().epoch
}
