//! Asks servers, each on its own, for as long as somebody wants to know.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::pending;
use std::time::Duration;

use kuafu_model::health::Subject;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::ask::{Failure, Way, ask};
use super::judge::Judge;
use super::pace::{Came, Pace};
use super::signs::Suspicion;
use super::{Order, Orders, Standing, Told, Verdict, diagnosis};
use crate::noise::noise;

/// The longest pause before a server is asked for the first time: not all at once.
const FIRST: Duration = Duration::from_secs(1);
/// How often it is found out what a server that is down lacks.
const DIAGNOSE: Duration = Duration::from_secs(30);
/// By how much a check may come late, of its interval and at most: those of many hosts do not meet.
const JITTER: (f64, Duration) = (0.1, Duration::from_millis(100));

/// Follows the orders until nobody gives any, and says what has changed.
pub(crate) async fn run(mut told: Told, tell: impl Fn(Verdict) + Clone + Send + Sync + 'static) {
    let (mut asking, mut asked) = (JoinSet::new(), Asked::new());
    loop {
        tokio::select! {
            changed = told.orders.changed() => {
                if changed.is_err() {
                    return;
                }
                let wanted = told.orders.borrow_and_update().clone();
                follow(&mut asked, &mut asking, wanted, &tell);
            }
            Some((subject, why)) = told.suspects.recv() => {
                if let Some(task) = asked.get(&subject) {
                    // Whoever has not taken the one before has it still.
                    let _ = task.suspicions.try_send(why);
                }
            }
        }
    }
}

/// Who asks whom.
type Asked = BTreeMap<Subject, Task>;

/// Asks one server.
struct Task {
    serial: u64,
    suspicions: mpsc::Sender<Suspicion>,
    handle: AbortHandle,
}

/// Lets those be asked who are wanted, and nobody else.
fn follow(
    asked: &mut Asked,
    asking: &mut JoinSet<()>,
    wanted: Orders,
    tell: &(impl Fn(Verdict) + Clone + Send + Sync + 'static),
) {
    asked.retain(|subject, task| {
        let stays = wanted
            .get(subject)
            .is_some_and(|order| order.serial == task.serial);
        if !stays {
            task.handle.abort();
        }
        stays
    });
    for (subject, order) in wanted {
        if let Entry::Vacant(free) = asked.entry(subject) {
            let (suspicions, suspected) = mpsc::channel(1);
            let task = look_after(free.key().clone(), order, suspected, tell.clone());
            free.insert(Task {
                serial: order.serial,
                suspicions,
                handle: asking.spawn(task),
            });
        }
    }
    while asking.try_join_next().is_some() {}
}

/// Asks a server for ever.
async fn look_after(
    subject: Subject,
    order: Order,
    mut suspected: mpsc::Receiver<Suspicion>,
    tell: impl Fn(Verdict) + Send + Sync,
) {
    let check = &subject.check;
    let way = Way {
        from: order.from,
        to: subject.to,
        mark: order.mark,
    };
    let verdict = |standing, reason| Verdict {
        serial: order.serial,
        subject: subject.clone(),
        standing,
        reason,
        is_suspected: false,
    };
    let say = |standing, reason| tell(verdict(standing, reason));
    let interval = Duration::from_millis(check.interval_ms.into());
    let (part, most) = JITTER;
    let mut judge = Judge::new(order.standing);
    let (mut said, mut diagnosed) = (String::new(), None::<Instant>);
    let first = Instant::now() + interval.min(FIRST).mul_f64(noise());
    let mut pace = Pace::new(interval, first);
    loop {
        while let Some(why) = suspicion(&mut suspected, pace.next()).await {
            if pace.suspected(why, judge.standing(), Instant::now()) {
                tell(Verdict {
                    is_suspected: true,
                    ..verdict(judge.standing(), why.to_string())
                });
            }
        }
        let then = Instant::now();
        let more = interval.mul_f64(part).min(most).mul_f64(noise());
        let outcome = ask(check, &way).await;
        let failure = match &outcome {
            Err(Failure::Host(why)) => {
                // It says nothing of the server.
                pace.asked(then, more, (Came::ToNothing, judge.standing()));
                if *why != said {
                    said.clone_from(why);
                    say(judge.standing(), format!("it cannot be asked: {why}"));
                }
                continue;
            }
            Err(failure) => failure.to_string(),
            Ok(()) => String::new(),
        };
        let changed = judge.heard(check, outcome.is_ok());
        let came = if outcome.is_ok() {
            Came::Serves
        } else {
            Came::Fails
        };
        pace.asked(then, more, (came, judge.standing()));
        let with_why = |failure: String| match pace.because() {
            Some(why) => format!("{failure}; asked at once because {why}"),
            None => failure,
        };
        if let Some(standing) = changed {
            say(standing, with_why(failure.clone()));
        } else if !said.is_empty() {
            say(judge.standing(), failure.clone());
        }
        said.clear();
        // Once it is out of the way there is time to find out what it lacks, and again when that may be another thing. Who
        // refuses lacks nothing but the program.
        let is_due = diagnosed.is_none_or(|diagnosed| diagnosed.elapsed() >= DIAGNOSE);
        match (judge.standing(), outcome) {
            (Standing::Down, Err(why)) if is_due && !why.is_refusal() => {
                diagnosed = Some(Instant::now());
                let found = diagnosis::of(&subject, &way).await;
                let found = found.map_or(failure.clone(), |found| format!("{failure}: {found}"));
                say(Standing::Down, with_why(found));
            }
            (Standing::Down, _) => {}
            _ => diagnosed = None,
        }
    }
}

/// The next suspicion, unless it is time to ask before.
async fn suspicion(suspected: &mut mpsc::Receiver<Suspicion>, until: Instant) -> Option<Suspicion> {
    let next = async {
        match suspected.recv().await {
            Some(why) => why,
            // Nobody suspects any more.
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = sleep_until(until) => None,
        why = next => Some(why),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kuafu_model::state::{Ask, Check};
    use tokio::time::timeout;

    use super::super::line;
    use super::*;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const WHY: Suspicion = Suspicion::Refused {
        refused: 12,
        begun: 12,
    };
    /// Shorter than the interval.
    const SOON: Duration = Duration::from_secs(40);

    fn subject(port: u16) -> Subject {
        Subject {
            server: OWN,
            to: SocketAddr::new(OWN, port),
            encapsulation: None,
            check: Arc::new(Check {
                service: "web".into(),
                ask: Ask::Tcp,
                port: None,
                interval_ms: 60_000,
                timeout_ms: 1000,
                rise: 2,
                fall: 3,
                least_percent: 0,
                slow_start_s: 0,
            }),
        }
    }

    fn orders(subject: &Subject) -> Orders {
        let order = Order {
            serial: 1,
            from: OWN,
            mark: None,
            standing: Standing::Up,
        };
        Orders::from([(subject.clone(), order)])
    }

    /// What a checker says of a server of which packets say all the while that it does not serve.
    fn suspected(subject: &Subject) -> (mpsc::UnboundedReceiver<Verdict>, JoinSet<()>) {
        let (line, told) = line();
        let (say, said) = mpsc::unbounded_channel();
        line.orders.send_replace(orders(subject));
        let mut tasks = JoinSet::new();
        tasks.spawn(run(told, move |verdict| {
            let _ = say.send(verdict);
        }));
        let subject = subject.clone();
        tasks.spawn(async move {
            // Whole: without orders a checker ends.
            let line = line;
            loop {
                let _ = line.suspects.try_send((subject.clone(), WHY));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        (said, tasks)
    }

    #[tokio::test]
    async fn who_is_suspected_is_down_after_as_many_failures_as_ever() {
        // Nobody listens there any more.
        let port = TcpListener::bind((OWN, 0)).unwrap().local_addr().unwrap().port();
        let subject = subject(port);
        let (mut said, _tasks) = suspected(&subject);
        let first = timeout(SOON, said.recv()).await.unwrap().unwrap();
        assert_eq!((first.is_suspected, first.standing), (true, Standing::Up));
        let down = timeout(SOON, said.recv()).await.unwrap().unwrap();
        assert_eq!((down.is_suspected, down.standing), (false, Standing::Down));
        let why = "; asked at once because 12 of 12 new flows were refused";
        assert!(down.reason.ends_with(why), "{}", down.reason);
    }

    #[tokio::test]
    async fn who_serves_is_hardly_asked_more() {
        let listener = tokio::net::TcpListener::bind((OWN, 0)).await.unwrap();
        let subject = subject(listener.local_addr().unwrap().port());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (mut said, mut tasks) = suspected(&subject);
        let first = timeout(SOON, said.recv()).await.unwrap().unwrap();
        assert!(first.is_suspected);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(said.try_recv().is_err(), "suspected once, and never down");
        tasks.shutdown().await;
        assert!((1..=2).contains(&asked.load(Ordering::Relaxed)));
    }
}
