//! Ctrl-C, SIGTERM and a closed terminal, as an event.

use std::sync::mpsc::{Receiver, channel};
use std::thread;

use anyhow::{Context as _, Result};
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

/// The first of them as a message, for a verb that waits without a runtime.
pub(crate) fn receiver() -> Result<Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (send, events) = channel();
    thread::spawn(move || {
        runtime.block_on(async {
            if let Ok(mut interrupt) = Interrupt::catch()
                && send.send(()).is_ok()
            {
                interrupt.wait().await;
                let _ = send.send(());
            }
        });
    });
    events.recv().context("cannot catch signals")?;
    Ok(events)
}
