//! Commands that bring addresses here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kuafu_model::state::{Announcement, Way};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Orders;
use super::lease::Lease;

/// Why an address is not here, where nothing is wrong.
pub(super) const RUNS: &str = "its command runs";
/// After a failure.
const PAUSE: Duration = Duration::from_secs(5);

/// The commands that run, or ran in vain.
#[derive(Default)]
pub(super) struct Hooks(BTreeMap<Ipv4Addr, Hook>);

/// One address's command.
enum Hook {
    Runs {
        child: Child,
        term: u64,
        since: Instant,
        /// Why it failed the last time.
        before: Option<String>,
    },
    Failed {
        why: String,
        at: Instant,
    },
}

impl Hooks {
    /// Runs what is to be run, looks after what runs, and says what is wrong.
    pub(super) fn step(
        &mut self,
        now: Instant,
        orders: &Orders,
        lease: &mut Lease,
        wrong: &mut BTreeMap<Ipv4Addr, String>,
    ) {
        let due: BTreeMap<Ipv4Addr, (&Announcement, &str, Duration)> =
            orders.due().filter_map(hooked).collect();
        lease.hooks.retain(|address, _| due.contains_key(address));
        for (address, hook) in std::mem::take(&mut self.0) {
            let order = due.get(&address);
            if let Some(hook) = hook.went(now, order, (address, lease)) {
                self.0.insert(address, hook);
            }
        }
        for (address, (announcement, command, _)) in due {
            if lease.hooks.get(&address) != Some(&announcement.term) {
                let hook = self.0.remove(&address);
                let hook = hook.unwrap_or(Hook::Failed {
                    why: String::new(),
                    at: now - PAUSE,
                });
                let hook = hook.begin(now, announcement, (command, &orders.node));
                wrong.insert(address, hook.said());
                self.0.insert(address, hook);
            }
        }
    }
}

/// What an announcement by command takes.
fn hooked(announcement: &Announcement) -> Option<(Ipv4Addr, (&Announcement, &str, Duration))> {
    let Way::Hook { command, timeout_s } = &announcement.way else {
        return None;
    };
    let limit = Duration::from_secs((*timeout_s).into());
    Some((announcement.local, (announcement, command, limit)))
}

impl Hook {
    /// What became of it. One that has succeeded is in the lease; one that nobody wants any more is ended.
    fn went(
        self,
        now: Instant,
        order: Option<&(&Announcement, &str, Duration)>,
        (address, lease): (Ipv4Addr, &mut Lease),
    ) -> Option<Self> {
        let Self::Runs {
            mut child,
            term,
            since,
            before,
        } = self
        else {
            return order.is_some().then_some(self);
        };
        let wanted = order.filter(|(announcement, ..)| announcement.term == term);
        let Some((_, command, limit)) = wanted else {
            end(&mut child);
            return None;
        };
        let failed = |why: String| Some(Self::Failed { why, at: now });
        match child.try_wait() {
            Ok(Some(status)) if status.success() => {
                tracing::info!(%address, command, "an address is brought here");
                lease.hooks.insert(address, term);
                None
            }
            Ok(Some(status)) => failed(format!("{command} failed: {status}; it is run again each 5 s")),
            Ok(None) if now - since >= *limit => {
                end(&mut child);
                let limit = limit.as_secs();
                failed(format!(
                    "{command} did not end within {limit} s; it is run again each 5 s"
                ))
            }
            Ok(None) => Some(Self::Runs {
                child,
                term,
                since,
                before,
            }),
            Err(error) => failed(format!("{command} cannot be waited for: {error}")),
        }
    }

    /// Runs it, where that is due.
    fn begin(self, now: Instant, announcement: &Announcement, (command, node): (&str, &str)) -> Self {
        let Self::Failed { why, at } = self else {
            return self;
        };
        if now.saturating_duration_since(at) < PAUSE {
            return Self::Failed { why, at };
        }
        let mut run = Command::new(command);
        run.arg(announcement.public.to_string()).arg(node);
        run.stdin(Stdio::null()).stdout(Stdio::null());
        // What it starts ends with it.
        run.process_group(0);
        match run.spawn() {
            Ok(child) => Self::Runs {
                child,
                term: announcement.term,
                since: now,
                before: Some(why).filter(|why| !why.is_empty()),
            },
            Err(error) => Self::Failed {
                why: format!("{command} cannot be run: {error}; it is tried again each 5 s"),
                at: now,
            },
        }
    }

    /// Why the address is not here yet.
    fn said(&self) -> String {
        match self {
            Self::Failed { why, .. }
            | Self::Runs {
                before: Some(why), ..
            } => why.clone(),
            Self::Runs { .. } => RUNS.to_owned(),
        }
    }
}

/// Kills a command with all that it has started, and takes leave of it.
fn end(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    let _ = child.wait();
}

impl Drop for Hooks {
    /// Whatever runs would report to nobody.
    fn drop(&mut self) {
        for hook in self.0.values_mut() {
            if let Hook::Runs { child, .. } = hook {
                end(child);
            }
        }
    }
}
