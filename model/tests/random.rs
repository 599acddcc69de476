//! Random, mutated and truncated frames on the model: no panic, and each frame is counted once at most as a drop.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use common::case::{Program, changes, corpus, counters, on_model};
use common::draw::Draw;
use common::world;
use kuafu_model::runner::Verdict;
use kuafu_pipeline::Reason;

/// Frames per program.
const FRAMES: usize = 20_000;

#[test]
fn any_frame_has_one_end() {
    for program in Program::ALL {
        let corpus = corpus(program);
        let mut host = world::named("host").model();
        let mut draw = Draw(1);
        let mut before = counters(&host);
        for _ in 0..FRAMES {
            let input = draw.input(program, &corpus);
            let (verdict, done) = on_model(&mut host, &input);
            let after = counters(&host);
            let changed = changes(&before, &after);
            let dropped: u64 = changed
                .iter()
                .filter(|(word, _)| Reason::from_word(word).is_some())
                .map(|(_, times)| times)
                .sum();
            assert!(dropped <= 1, "{input:?}");
            if verdict == Verdict::Pass {
                assert_eq!(dropped, 0);
                // For a port of this host it is wrapped, and counted; all else is passed on unchanged.
                assert!(
                    done.octets == input.octets || changed.contains_key("exited"),
                    "{input:?}"
                );
            }
            before = after;
        }
    }
}
