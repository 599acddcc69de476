//! A prober without its socket: which probes leave when, over whatever tables there are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::IN_USE;
use super::schedule::{Judgement, Schedule, Use};
use crate::error::Result;
use crate::live::{Live, Word};

/// Between two looks at which paths there are and which pairs carry packets: what is new waits for it.
const REFRESH: Duration = Duration::from_millis(250);

/// The probes of every path that begins here, in time since the prober's start. Knows no clock: `now` comes in.
#[derive(Debug, Default)]
pub struct Rounds {
    schedule: Schedule,
    refresh: Duration,
}

impl Rounds {
    /// Whether the next round looks at which paths there are.
    pub(super) fn refreshes(&self, now: Duration) -> bool {
        now >= self.refresh
    }

    /// The paths whose probes leave now. Writes by which silence each path is judged.
    ///
    /// # Errors
    /// `Io`.
    pub fn due(&mut self, now: Duration, live: &impl Live) -> Result<Vec<u32>> {
        if self.refreshes(now) {
            let judgements = self.schedule.follow(now, &uses(live)?);
            write(live, &judgements);
            self.refresh = now + REFRESH;
        }
        self.confirm(live);
        let departed = |index| live.read(index, |state| state.departed.get());
        let spared = self.schedule.spare(now, departed);
        write(live, &spared);
        let mut due = Vec::new();
        for path in self.schedule.due(now) {
            // It may have been removed since paths were looked at.
            if live.is_installed(path)? {
                due.push(path);
            }
        }
        Ok(due)
    }

    /// When there is something to do again.
    #[must_use]
    pub fn next(&self) -> Duration {
        self.schedule.next().unwrap_or(self.refresh).min(self.refresh)
    }

    /// No path is judged any more.
    pub(super) fn end(&self, live: &impl Live) {
        let all: Vec<Judgement> = self.schedule.indices().map(|index| (index, None)).collect();
        write(live, &all);
    }

    fn confirm(&mut self, live: &impl Live) {
        let mut judgements = Vec::new();
        for index in self.schedule.waiting() {
            let usage = usage(live, index, None);
            judgements.extend(self.schedule.confirm(index, &usage));
        }
        write(live, &judgements);
    }
}

/// The installed paths, and how they are used.
fn uses(live: &impl Live) -> Result<BTreeMap<u32, Use>> {
    let since = live.jiffies()?.saturating_sub(live.ticks(IN_USE));
    let carrying = live.carrying(since)?;
    let mut busy = BTreeMap::new();
    for (index, pair) in live.pairs()? {
        if carrying.contains(&index) {
            for path in [pair.primary, pair.backup] {
                busy.insert(path, pair.premium != 0);
            }
        }
    }
    let usage = |index| (index, usage(live, index, busy.get(&index).copied()));
    let uses = live.installed()?.into_iter().map(usage);
    // To the schedule a leg whose turn it is again is new.
    Ok(uses.filter(|(_, usage)| !usage.rests()).collect())
}

/// `in_use`: whether the pair that uses it is premium.
fn usage(live: &impl Live, index: u32, in_use: Option<bool>) -> Use {
    live.read(index, |state| Use {
        in_use: in_use.is_some(),
        premium: in_use == Some(true),
        down: state.down.get() != 0,
        departed: state.departed.get(),
        returns: state.returns.get(),
        last_return: state.last_return.get(),
        watch: state.watch.get(),
    })
}

/// `silent_after` first: a path is judged from when `stale_after` is there.
fn write(live: &impl Live, judgements: &[Judgement]) {
    for (index, limits) in judgements {
        let ticks = |duration| live.ticks(duration);
        let (stale, silent) = limits.map_or((0, 0), |limits| (ticks(limits.stale), ticks(limits.silent)));
        live.set(*index, Word::SilentAfter, silent);
        live.set(*index, Word::StaleAfter, stale);
    }
}
