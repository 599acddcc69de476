//! Asks servers, each on its own, for as long as somebody wants to know.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use kuafu_model::health::Subject;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::ask::{Failure, Way, ask};
use super::judge::Judge;
use super::{Order, Orders, Standing, Verdict, diagnosis};
use crate::noise::noise;

/// The longest pause before a server is asked for the first time: not all at once.
const FIRST: Duration = Duration::from_secs(1);
/// How often it is found out what a server that is down lacks.
const DIAGNOSE: Duration = Duration::from_secs(30);
/// By how much a check may come late, of its interval and at most: those of many hosts do not meet.
const JITTER: (f64, Duration) = (0.1, Duration::from_millis(100));

/// Follows the orders until nobody gives any, and says what has changed.
pub(crate) async fn run(
    mut orders: watch::Receiver<Orders>,
    tell: impl Fn(Verdict) + Clone + Send + Sync + 'static,
) {
    let mut asking = JoinSet::new();
    let mut asked: BTreeMap<Subject, (u64, AbortHandle)> = BTreeMap::new();
    while orders.changed().await.is_ok() {
        let wanted = orders.borrow_and_update().clone();
        asked.retain(|subject, (serial, task)| {
            let stays = wanted.get(subject).is_some_and(|order| order.serial == *serial);
            if !stays {
                task.abort();
            }
            stays
        });
        for (subject, order) in wanted {
            if let Entry::Vacant(free) = asked.entry(subject) {
                let task = look_after(free.key().clone(), order, tell.clone());
                free.insert((order.serial, asking.spawn(task)));
            }
        }
        while asking.try_join_next().is_some() {}
    }
}

/// Asks a server for ever.
async fn look_after(subject: Subject, order: Order, tell: impl Fn(Verdict) + Send + Sync) {
    let check = &subject.check;
    let way = Way {
        from: order.from,
        to: subject.to,
        mark: order.mark,
    };
    let say = |standing, reason| {
        tell(Verdict {
            serial: order.serial,
            subject: subject.clone(),
            standing,
            reason,
        });
    };
    let interval = Duration::from_millis(check.interval_ms.into());
    let (part, most) = JITTER;
    let mut judge = Judge::new(order.standing);
    let (mut said, mut diagnosed) = (String::new(), None::<Instant>);
    let mut next = Instant::now() + interval.min(FIRST).mul_f64(noise());
    loop {
        sleep_until(next).await;
        next = Instant::now() + interval + interval.mul_f64(part).min(most).mul_f64(noise());
        let outcome = ask(check, &way).await;
        let failure = match &outcome {
            Err(Failure::Host(why)) => {
                // It says nothing of the server.
                if *why != said {
                    said.clone_from(why);
                    say(judge.standing(), format!("it cannot be asked: {why}"));
                }
                continue;
            }
            Err(failure) => failure.to_string(),
            Ok(()) => String::new(),
        };
        if let Some(standing) = judge.heard(check, outcome.is_ok()) {
            say(standing, failure.clone());
        } else if !said.is_empty() {
            say(judge.standing(), failure.clone());
        }
        said.clear();
        // Once it is out of the way there is time to find out what it lacks, and again when that may be another thing.
        let is_due = diagnosed.is_none_or(|diagnosed| diagnosed.elapsed() >= DIAGNOSE);
        match (judge.standing(), outcome) {
            (Standing::Down, Err(_)) if is_due => {
                diagnosed = Some(Instant::now());
                let found = diagnosis::of(&subject, &way).await;
                say(
                    Standing::Down,
                    found.map_or(failure.clone(), |found| format!("{failure}: {found}")),
                );
            }
            (Standing::Down, _) => {}
            _ => diagnosed = None,
        }
    }
}
