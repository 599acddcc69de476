//! From how a program ended to what the kernel does.

use kuafu_pipeline::{Next, Outcome};

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// XDP.
    Xdp,
    /// tcx.
    Tcx,
}

/// What the kernel does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Left to the next program or the host's stack.
    Pass,
    /// Dropped, or taken in.
    Drop,
    /// Sent back out of the interface on which it came, without a redirect (XDP alone).
    Transmit,
    /// Sent out of this interface.
    Redirect(u32),
    /// Taken in as if it had arrived on this interface (tcx alone).
    RedirectIngress(u32),
    /// Handed to the peer of this interface, as if it had arrived there (tcx alone).
    RedirectPeer(u32),
}

impl Verdict {
    /// Of an outcome at a hook on `interface`.
    #[must_use]
    pub const fn of(outcome: Outcome, hook: Hook, interface: u32) -> Self {
        match (outcome, hook) {
            (Ok(Next::Pass | Next::Host), _) => Self::Pass,
            (Ok(Next::Transmit(to) | Next::Answer(to, _)), Hook::Xdp) if to == interface => Self::Transmit,
            (Ok(Next::Transmit(to) | Next::Answer(to, _)), _) => Self::Redirect(to),
            (Ok(Next::Deliver(to)), Hook::Tcx) => Self::RedirectPeer(to),
            (Ok(Next::Arrive(at)), Hook::Tcx) => Self::RedirectIngress(at),
            // Ports are reached, and heard, by tcx alone: the edge's stages deliver to none.
            (Ok(Next::Deliver(_) | Next::Arrive(_)), Hook::Xdp) | (Ok(Next::Consumed) | Err(_), _) => {
                Self::Drop
            }
        }
    }

    /// What the program returns in the kernel: `enum xdp_action`, or a `TC_ACT_` number with -1 for the next program.
    #[must_use]
    pub const fn code(self, hook: Hook) -> i32 {
        match (hook, self) {
            (Hook::Xdp, Self::Drop) => 1,
            (Hook::Xdp, Self::Pass) => 2,
            (Hook::Xdp, Self::Transmit) => 3,
            (Hook::Xdp, Self::Redirect(_) | Self::RedirectIngress(_) | Self::RedirectPeer(_)) => 4,
            (Hook::Tcx, Self::Pass) => -1,
            (Hook::Tcx, Self::Drop) => 2,
            (
                Hook::Tcx,
                Self::Transmit | Self::Redirect(_) | Self::RedirectIngress(_) | Self::RedirectPeer(_),
            ) => 7,
        }
    }
}
