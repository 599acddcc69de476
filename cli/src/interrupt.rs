//! Ctrl-C, SIGTERM and a closed terminal, as an event.

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// From when this exists the signals end nothing by themselves.
pub(crate) struct Interrupt([Signal; 3]);

impl Interrupt {
    /// Takes the signals over; must be called inside a runtime.
    pub(crate) fn catch() -> Result<Self> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    /// Waits for the first of them.
    pub(crate) async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
