//! The wall clock: certificates are checked by it, and answers tell times by it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::check::Check;
use super::machine::Machine;

/// What is said of a clock is that it differs, from here on.
const NOTABLE_MS: u64 = 1_000;
/// Certificates are good from an hour before they are made: a host that is further behind refuses its own.
const SKEW_MS: u64 = 3_600_000;

/// Whether it is set, and kept.
pub(super) fn check(machine: &Machine) -> Check {
    const NAME: &str = "clock";
    // 2025-01-01: no host of this version lived before.
    const EARLIEST: Duration = Duration::from_secs(1_735_689_600);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if now < EARLIEST {
        return Check::fail(
            NAME,
            "it is set before 2025: certificates will not be valid",
            "timedatectl set-ntp true",
        );
    }
    let kept = machine.is_this() && kuafu_dataplane::clock_is_synchronised().unwrap_or(false);
    match keeper(machine) {
        _ if kept => Check::ok(NAME, "kept by the network, says the kernel"),
        Some(keeper) => Check::warn(
            NAME,
            format!("{keeper} runs, but the kernel does not know the clock to be right"),
            "timedatectl timesync-status, or chronyc tracking: is a time server reached? (chrony: rtcsync)",
        ),
        None => Check::warn(
            NAME,
            "set, but nothing seen that keeps it",
            "apt-get install systemd-timesyncd",
        ),
    }
}

/// The one of the usual programs that runs.
fn keeper(machine: &Machine) -> Option<String> {
    let usual = |process: String| {
        process.parse::<u32>().ok()?;
        let name = machine.text(&format!("/proc/{process}/comm"))?;
        ["chronyd", "ntpd", "openntpd", "systemd-timesyn"]
            .contains(&name.as_str())
            .then_some(name)
    };
    machine.names("/proc").into_iter().find_map(usual)
}

/// How far two clocks are apart, where the answer took `trip` there and back.
pub(super) fn offset(here_ms: u64, there_ms: u64, trip: Duration) -> Check {
    const NAME: &str = "clock offset";
    let unsure = u64::try_from(trip.as_millis()).unwrap_or(u64::MAX) / 2;
    let away = here_ms.abs_diff(there_ms);
    let side = if here_ms < there_ms { "behind" } else { "ahead of" };
    let found = format!("{away} ms {side} the controller's (± {unsure} ms)");
    let fix = "timedatectl set-ntp true, on the host whose clock is wrong";
    match away.saturating_sub(unsure) {
        SKEW_MS.. => Check::fail(NAME, format!("{found}: certificates will not be valid"), fix),
        NOTABLE_MS.. => Check::warn(NAME, found, fix),
        _ => Check::ok(NAME, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn what_the_way_explains_is_no_offset() {
        let now = 1_800_000_000_000;
        let trip = Duration::from_millis(300);
        let state = |there| offset(now, there, trip).state;
        assert_eq!(state(now + 150), State::Ok);
        assert_eq!(state(now - 1_100), State::Ok);
        assert_eq!(state(now - 1_200), State::Warn);
        assert_eq!(state(now + 3_600_200), State::Fail);
        assert!(offset(now, now + 5_000, trip).found.contains("5000 ms behind"));
    }
}
