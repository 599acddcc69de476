//! Commands that bring addresses here.

use std::collections::BTreeMap;
use std::net::IpAddr;
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
pub(super) struct Hooks(BTreeMap<IpAddr, Hook>);

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
        wrong: &mut BTreeMap<IpAddr, String>,
    ) {
        let due: BTreeMap<IpAddr, (&Announcement, &str, Duration)> =
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
fn hooked(announcement: &Announcement) -> Option<(IpAddr, (&Announcement, &str, Duration))> {
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
        (address, lease): (IpAddr, &mut Lease),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 82));

    fn orders(command: &str, term: u64) -> Orders {
        let announcement = Announcement {
            local: ADDRESS,
            public: ADDRESS,
            length: 32,
            here: true,
            term,
            way: Way::Hook {
                command: command.to_owned(),
                timeout_s: 1,
            },
        };
        Orders {
            node: "left".to_owned(),
            all: vec![(announcement, None)],
            ..Orders::default()
        }
    }

    /// Steps from `now` on until what is wrong is said otherwise. Returns that.
    fn until_changed(hooks: &mut Hooks, lease: &mut Lease, orders: &Orders, now: Instant) -> Option<String> {
        let step = |hooks: &mut Hooks, lease: &mut Lease| {
            let mut wrong = BTreeMap::new();
            hooks.step(now, orders, lease, &mut wrong);
            wrong.remove(&orders.all[0].0.local)
        };
        let first = step(hooks, lease);
        for _ in 0..500 {
            std::thread::sleep(Duration::from_millis(10));
            let now = step(hooks, lease);
            if now != first {
                return now;
            }
        }
        panic!("still {first:?}");
    }

    #[test]
    fn a_command_brings_an_address_once_a_term() {
        let (mut hooks, mut lease, now) = (Hooks::default(), Lease::default(), Instant::now());
        assert_eq!(
            until_changed(&mut hooks, &mut lease, &orders("/bin/true", 3), now),
            None
        );
        assert_eq!(lease.hooks[&ADDRESS], 3);
        let mut wrong = BTreeMap::new();
        hooks.step(now, &orders("/bin/false", 3), &mut lease, &mut wrong);
        assert_eq!(wrong, BTreeMap::new(), "it is here already");
        let failed = until_changed(&mut hooks, &mut lease, &orders("/bin/false", 4), now).unwrap();
        assert!(
            failed.starts_with("/bin/false failed: exit status: 1"),
            "{failed}"
        );
        assert_eq!(lease.hooks[&ADDRESS], 3, "another term is not here yet");
        hooks.step(now, &Orders::default(), &mut lease, &mut wrong);
        assert!(lease.hooks.is_empty());
    }

    #[test]
    fn a_command_is_told_addresses_of_either_family() {
        let folder = tempfile::tempdir().unwrap();
        let (script, told) = (folder.path().join("hook"), folder.path().join("told"));
        let text = format!("#!/bin/sh\necho $* >> {}\n", told.display());
        std::fs::write(&script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let mut orders = orders(script.to_str().unwrap(), 5);
        let (mut hooks, mut lease) = (Hooks::default(), Lease::default());
        let six: IpAddr = "2001:db8::82".parse().unwrap();
        for address in [ADDRESS, six] {
            (orders.all[0].0.local, orders.all[0].0.public) = (address, address);
            until_changed(&mut hooks, &mut lease, &orders, Instant::now());
            assert_eq!(lease.hooks, [(address, 5)].into());
        }
        let told = std::fs::read_to_string(told).unwrap();
        assert_eq!(told, format!("{ADDRESS} left\n{six} left\n"));
    }

    #[test]
    fn what_fails_is_run_again_after_a_pause() {
        let (mut hooks, mut lease, now) = (Hooks::default(), Lease::default(), Instant::now());
        let missing = orders("/no/such/program", 0);
        let mut wrong = BTreeMap::new();
        hooks.step(now, &missing, &mut lease, &mut wrong);
        assert!(
            wrong[&ADDRESS].starts_with("/no/such/program cannot be run"),
            "{wrong:?}"
        );
        // The address's command is another one by now, but not run before the pause is over.
        let present = orders("/bin/true", 0);
        for (later, is_here) in [(Duration::from_secs(4), false), (PAUSE, true)] {
            for _ in 0..20 {
                hooks.step(now + later, &present, &mut lease, &mut wrong);
                std::thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(lease.hooks.contains_key(&ADDRESS), is_here, "{later:?}");
        }
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let (script, pid) = (folder.path().join("hook"), folder.path().join("pid"));
        let text = format!("#!/bin/sh\nsleep 1000 & echo $! > {}; wait\n", pid.display());
        std::fs::write(&script, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let (mut hooks, mut lease, now) = (Hooks::default(), Lease::default(), Instant::now());
        let (orders, mut wrong) = (orders(script.to_str().unwrap(), 0), BTreeMap::new());
        hooks.step(now, &orders, &mut lease, &mut wrong);
        assert_eq!(wrong[&ADDRESS], RUNS);
        let child = loop {
            let text = std::fs::read_to_string(&pid).unwrap_or_default();
            if let Ok(child) = text.trim().parse::<u32>() {
                break child;
            }
        };
        hooks.step(now + Duration::from_secs(1), &orders, &mut lease, &mut wrong);
        assert!(wrong[&ADDRESS].contains("did not end within 1 s"), "{wrong:?}");
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        for _ in 0..500 {
            if is_gone() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{child} runs on");
    }
}
