//! A host that packets arrive at: in userland, and beside it in the kernel where that can be.

use std::collections::BTreeMap;

use kuafu_model::runner::{Host as Model, VecFrame, Verdict};
use kuafu_pipeline::Reason;

use crate::common::case::{Input, Program, changes, counters};
use crate::common::decode::decode;
use crate::common::world::{UNDERLAY, World};
use crate::kernel::{Kernel, TOUCHED};

/// By map and key, to the last number, all that packets may change; and what is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    state: BTreeMap<String, String>,
    counters: BTreeMap<String, (u64, u64)>,
}

/// What became of a frame.
pub struct End {
    /// Why it was dropped, where it was.
    pub reason: Option<Reason>,
    /// What both runners do with it.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub octets: Vec<u8>,
}

/// A host, by one runner or by both.
pub struct Host {
    world: World,
    model: Model,
    kernel: Option<Kernel>,
}

impl Host {
    /// On which nothing has arrived.
    pub fn new(world: World, in_kernel: bool) -> Self {
        let kernel = in_kernel.then(|| Kernel::new(&world, false));
        Self {
            model: world.model(),
            world,
            kernel,
        }
    }

    /// Takes back all that packets have changed.
    pub fn begin_anew(&mut self) {
        self.model = self.world.model();
        if let Some(kernel) = &self.kernel {
            kernel.begin_anew(&self.world);
        }
        self.take_samples();
    }

    /// Runs the edge over a frame.
    pub fn run(&mut self, octets: &[u8]) -> End {
        let mut frame = VecFrame::new(octets);
        let walk = self.model.edge(&mut frame, UNDERLAY);
        let mut end = End {
            reason: walk.reason(),
            verdict: walk.verdict,
            octets: frame.into_octets(),
        };
        if let Some(kernel) = &self.kernel {
            let input = Input {
                program: Program::Edge,
                interface: UNDERLAY,
                mark: 0,
                segment: 0,
                octets: octets.to_vec(),
            };
            let done = kernel.run(&input);
            let due = walk.verdict.code(Program::Edge.hook());
            assert_eq!(done.code, due, "the kernel's verdict: {}", decode(octets));
            end.octets = done.octets;
        }
        end
    }

    /// How many measurements have come home by each runner since this was asked last.
    pub fn take_samples(&mut self) -> Vec<usize> {
        let of_model = self.model.take_samples().len();
        let of_kernel = self.kernel.as_ref().map(|kernel| kernel.samples().len());
        std::iter::once(of_model).chain(of_kernel).collect()
    }

    /// What each runner holds.
    pub fn look(&self) -> Vec<Look> {
        let of_model = Look {
            state: of_model(&self.model),
            counters: counters(&self.model),
        };
        let of_kernel = self.kernel.as_ref().map(|kernel| Look {
            state: of_kernel(kernel),
            counters: kernel.counters(),
        });
        std::iter::once(of_model).chain(of_kernel).collect()
    }

    /// Whether the kernel's arrays are as new wherever no number of this world leads.
    pub fn is_untouched_beyond(&self) -> bool {
        self.kernel
            .as_ref()
            .is_none_or(|kernel| kernel.is_untouched_beyond())
    }
}

impl Look {
    /// What is wrong, where this came after `before` and nothing but these counters may differ.
    pub fn differs(&self, before: &Self, due: &BTreeMap<String, u64>) -> Option<String> {
        let counts = changes(&before.counters, &self.counters);
        if counts != *due {
            return Some(format!("counted {counts:?} instead of {due:?}"));
        }
        let keys = before.state.keys().chain(self.state.keys());
        let mut moved = keys.filter(|key| before.state.get(*key) != self.state.get(*key));
        moved.next().map(|key| format!("{key} moved"))
    }
}

fn of_model(host: &Model) -> BTreeMap<String, String> {
    let slots = host
        .slot_states()
        .map(|(at, value)| (format!("slot {at}"), format!("{value:?}")));
    let paths = host
        .path_states()
        .map(|(at, value)| (format!("path {at}"), format!("{value:?}")));
    let pairs = host
        .pair_states()
        .map(|(at, value)| (format!("pair {at}"), format!("{value:?}")));
    let windows = host
        .windows()
        .map(|(at, value)| (format!("window {at}"), format!("{value:?}")));
    let connections = host
        .connections()
        .map(|(key, value)| (format!("{key:?}"), format!("{value:?}")));
    slots
        .chain(paths)
        .chain(pairs)
        .chain(windows)
        .chain(connections)
        .collect()
}

fn of_kernel(kernel: &Kernel) -> BTreeMap<String, String> {
    let (maps, mut all) = (kernel.maps(), BTreeMap::new());
    for at in 0..TOUCHED {
        all.insert(
            format!("slot {at}"),
            format!("{:?}", maps.slot_states.get(&at).expect("a slot")),
        );
        all.insert(
            format!("path {at}"),
            format!("{:?}", maps.path_states.get(&at).expect("a path")),
        );
        all.insert(
            format!("pair {at}"),
            format!("{:?}", maps.pair_states.get(&at).expect("a pair")),
        );
        all.insert(
            format!("window {at}"),
            format!("{:?}", maps.windows.get(&at).expect("a window")),
        );
    }
    let connections = maps.connections.for_each(|key, value| {
        all.insert(format!("{key:?}"), format!("{value:?}"));
    });
    connections.expect("connections");
    all.insert(
        "buckets".into(),
        format!("{:?}", maps.icmp_buckets.get(0).expect("buckets")),
    );
    all
}
