//! Ctrl-C: a world is taken down before the process ends.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use crate::error::{Error, Result};
use crate::sweep::sweep;

/// The prefixes of the worlds that this process holds.
static WORLDS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// From now on an interruption (SIGINT, SIGTERM, SIGHUP) runs `also`, removes the worlds that this process
/// holds, and ends the process with status 128 + the signal's number. To be called before any other thread
/// starts: the signals are blocked in the calling thread, and threads inherit that; the lab's programs do not.
///
/// # Errors
/// The signals cannot be blocked, or no thread can be started.
pub fn clean_on_interrupt(also: impl FnOnce() + Send + 'static) -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals
        .thread_block()
        .map_err(Error::errno("block the signals that interrupt"))?;
    let wait = move || {
        let Ok(signal) = signals.wait() else { return };
        also();
        take_down();
        std::process::exit(128 + signal as i32);
    };
    let thread = thread::Builder::new().name("interrupt".into()).spawn(wait);
    thread
        .map(drop)
        .map_err(Error::io("start the thread that waits for signals"))
}

fn take_down() {
    // Held until the process ends, so that no world is built meanwhile.
    let worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
    for prefix in worlds.iter() {
        if let Err(error) = sweep(prefix) {
            tracing::error!(prefix, %error, "what the interrupted run built stays");
        }
    }
    std::mem::forget(worlds);
}

/// Says that there is something to remove when the process is interrupted, as long as it lives.
#[derive(Debug)]
pub(crate) struct Interruptible(String);

impl Interruptible {
    pub(crate) fn new(prefix: &str) -> Self {
        let mut worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
        worlds.insert(prefix.to_owned());
        Self(prefix.to_owned())
    }
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        let mut worlds = WORLDS.lock().unwrap_or_else(PoisonError::into_inner);
        worlds.remove(&self.0);
    }
}
