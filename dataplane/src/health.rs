//! Health checks: whether the servers that this host sends to serve.
//!
//! [`Health`] is with the host's thread: whom to ask, and who is down. [`checker`] asks, beside it, and tells what has
//! changed; [`signs`] in the packets themselves hasten it. Who serves and who does not follows by [`kuafu_model::health`].

pub mod ask;
pub(crate) mod checker;
pub mod diagnosis;
mod judge;
mod pace;
pub(crate) mod signs;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use kuafu_model::HostState;
use kuafu_model::contents::{Contents, marks};
use kuafu_model::health::{self, Servers, Subject, Targets, subjects};
use kuafu_proto::v1;
use signs::Suspicion;
use tokio::sync::{mpsc, watch};

/// What is known of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It was not asked often enough: it counts as serving.
    Unknown,
    Up,
    Down,
}

impl Standing {
    const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How a server is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Another one where the asking begins anew.
    serial: u64,
    /// The host's own address; unspecified where it has none of that family.
    from: IpAddr,
    /// The socket's mark, where it goes behind an outer header.
    mark: Option<u32>,
    /// What is known of it when the asking begins.
    standing: Standing,
}

/// Everybody who is to be asked.
pub(crate) type Orders = BTreeMap<Subject, Order>;

/// Who is suspected, and why.
pub(crate) type Suspect = (Subject, Suspicion);

/// What a checker is told.
pub(crate) struct Told {
    orders: watch::Receiver<Orders>,
    suspects: mpsc::Receiver<Suspect>,
}

/// How a checker is told.
pub(crate) struct Line {
    orders: watch::Sender<Orders>,
    suspects: mpsc::Sender<Suspect>,
}

/// Suspects of whom the checker has not heard yet. What is beyond that is suspected at the next look as well.
const SUSPECTS: usize = 1024;

/// Both ends.
pub(crate) fn line() -> (Line, Told) {
    let (orders, to_ask) = watch::channel(Orders::new());
    let (suspects, suspected) = mpsc::channel(SUSPECTS);
    let told = Told {
        orders: to_ask,
        suspects: suspected,
    };
    (Line { orders, suspects }, told)
}

/// What has changed of a server.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// The order's.
    serial: u64,
    subject: Subject,
    standing: Standing,
    /// Why the last check failed, or could not be made; empty: neither.
    reason: String,
    /// Nothing has changed, but it is asked at once, for that reason.
    is_suspected: bool,
}

/// What the host's thread knows of servers.
pub(crate) struct Health {
    known: BTreeMap<Subject, Known>,
    line: Line,
    serials: u64,
    /// Whether a state has been followed: who comes later joins the others.
    has_begun: bool,
    /// Whether anything is known that has not been acted upon.
    has_news: bool,
    /// What the controller was told last.
    told: Vec<v1::Server>,
}

struct Known {
    order: Order,
    standing: Standing,
    since: Instant,
    /// Since when it is on the way to its whole share.
    starts: Option<Instant>,
    reason: String,
    /// How often it was asked at once.
    suspicions: u64,
}

impl Health {
    pub(crate) fn new(line: Line) -> Self {
        Self {
            known: BTreeMap::new(),
            line,
            serials: 0,
            has_begun: false,
            has_news: false,
            told: Vec::new(),
        }
    }

    /// A state is in force, in which these are left out.
    pub(crate) fn follow(&mut self, state: &HostState, contents: &Contents, down: &BTreeSet<Subject>) {
        let asked = subjects(state);
        let marks = marks(&asked, contents);
        let local6 = Ipv6Addr::from(contents.node.local6.octets()).into();
        self.known.retain(|subject, _| asked.contains(subject));
        for subject in &asked {
            let from = match subject.server {
                IpAddr::V4(_) => state.node.local.into(),
                IpAddr::V6(_) => local6,
            };
            let mark = marks.get(subject).copied();
            if let Some(known) = self.known.get_mut(subject) {
                if (known.order.from, known.order.mark) == (from, mark) {
                    continue;
                }
                // The one who asked may just be saying something: that counts no more.
                self.serials += 1;
                known.order = Order {
                    serial: self.serials,
                    from,
                    mark,
                    standing: known.standing,
                };
                continue;
            }
            self.serials += 1;
            let (standing, reason) = if down.contains(subject) {
                (Standing::Down, "it was so before")
            } else {
                (Standing::Unknown, "")
            };
            let order = Order {
                serial: self.serials,
                from,
                mark,
                standing,
            };
            let known = Known {
                order,
                standing,
                since: Instant::now(),
                starts: (self.has_begun && standing == Standing::Unknown).then(Instant::now),
                reason: reason.to_owned(),
                suspicions: 0,
            };
            self.known.insert(subject.clone(), known);
        }
        let orders = self.known.iter();
        let orders = orders
            .map(|(subject, known)| (subject.clone(), known.order))
            .collect();
        self.line.orders.send_replace(orders);
        (self.has_begun, self.has_news) = (true, true);
    }

    /// What packets tell of a server makes it worth asking at once. Of one that is down that is nothing new.
    pub(crate) fn suspect(&self, (subject, why): Suspect) {
        let known = self.known.get(&subject);
        if known.is_some_and(|known| known.standing != Standing::Down) {
            // Where there is no room, the next look says it again.
            let _ = self.line.suspects.try_send((subject, why));
        }
    }

    /// Takes what the checker found, unless that was asked otherwise, or nobody asks any more.
    pub(crate) fn heard(&mut self, verdict: Verdict) {
        let known = self.known.get_mut(&verdict.subject);
        let Some(known) = known.filter(|known| known.order.serial == verdict.serial) else {
            return;
        };
        let (service, server) = (&verdict.subject.check.service, verdict.subject.server);
        let (port, reason) = (verdict.subject.to.port(), &verdict.reason);
        if verdict.is_suspected {
            tracing::info!(service, %server, port, reason, "a server is asked at once");
            known.suspicions += 1;
            return;
        }
        match verdict.standing {
            Standing::Down => tracing::warn!(service, %server, port, reason, "a server is down"),
            standing => tracing::info!(service, %server, port, reason, "a server is {}", standing.word()),
        }
        if known.standing != verdict.standing {
            match (known.standing, verdict.standing) {
                (Standing::Down, Standing::Up) => known.starts = Some(Instant::now()),
                (_, Standing::Down) => known.starts = None,
                _ => {}
            }
            known.standing = verdict.standing;
            known.since = Instant::now();
            self.has_news = true;
        }
        known.reason = verdict.reason;
    }

    /// What is known of the servers, where anything has changed since this was asked last.
    pub(crate) fn news(&mut self) -> Option<Servers> {
        std::mem::take(&mut self.has_news).then(|| Servers {
            down: self.down(),
            starting: self.starting(),
            ..Servers::default()
        })
    }

    /// A second has passed.
    pub(crate) fn tick(&mut self) {
        for (subject, known) in &mut self.known {
            if known.starts.is_some() {
                // Its share has grown, or it is whole.
                self.has_news = true;
                known.starts = known.starts.filter(|starts| percent(subject, *starts).is_some());
            }
        }
    }

    fn starting(&self) -> BTreeMap<Subject, u32> {
        let known = self.known.iter();
        let starting =
            known.filter_map(|(subject, known)| Some((subject.clone(), percent(subject, known.starts?)?)));
        starting.collect()
    }

    /// What was to follow from the news did not: they are news once more.
    pub(crate) fn try_again(&mut self) {
        self.has_news = true;
    }

    fn down(&self) -> BTreeSet<Subject> {
        let down = self
            .known
            .iter()
            .filter(|(_, known)| known.standing == Standing::Down);
        down.map(|(subject, _)| subject.clone()).collect()
    }

    /// What the controller is to be told, where it does not know that.
    pub(crate) fn report(&mut self, state: Option<&HostState>) -> Option<v1::Health> {
        let down = state.map(|state| self.servers_down(state)).unwrap_or_default();
        if down == self.told {
            return None;
        }
        self.told.clone_from(&down);
        Some(v1::Health { down })
    }

    /// What a controller is told at first.
    pub(crate) fn greeting(&mut self, state: Option<&HostState>) -> v1::Health {
        self.report(state);
        v1::Health {
            down: self.told.clone(),
        }
    }

    /// The servers that are down, each once, by where packets for it go.
    fn servers_down(&self, state: &HostState) -> Vec<v1::Server> {
        let down = health::down(state, &self.down());
        let mut servers = BTreeSet::new();
        for (service, target) in health::targets(state) {
            let (Some(subject), true) = (
                health::subject(service, target),
                down.contains(&(service.vni, target.target)),
            ) else {
                continue;
            };
            let port = service.port_of(&target.target);
            servers.insert((subject.check.service.clone(), subject.server, port));
        }
        let server = |(service, address, port): (String, IpAddr, u16)| v1::Server {
            service,
            address: address.to_string(),
            port: port.into(),
        };
        servers.into_iter().map(server).collect()
    }

    /// Everybody who is asked, and whether packets go there, where these targets have ended.
    pub(crate) fn statuses(&self, state: Option<&HostState>, ended: &Targets) -> Vec<v1::ServerStatus> {
        let used = state.map(|state| self.used(state, ended)).unwrap_or_default();
        let status = |(subject, known): (&Subject, &Known)| v1::ServerStatus {
            service: subject.check.service.clone(),
            address: subject.server.to_string(),
            asked: subject.to.to_string(),
            standing: known.standing.word().to_owned(),
            since_ms: u64::try_from(known.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            reason: known.reason.clone(),
            used: used.contains(subject),
            suspicions: known.suspicions,
        };
        self.known.iter().map(status).collect()
    }

    /// Those to whom any listener sends.
    fn used(&self, state: &HostState, ended: &Targets) -> BTreeSet<Subject> {
        let (mut used, down) = (BTreeSet::new(), health::down(state, &self.down()));
        for service in &state.services {
            let targets = service.targets.iter().zip(health::in_use(service, &down, ended));
            let in_use = targets.filter(|(_, is_used)| *is_used);
            used.extend(in_use.filter_map(|(target, _)| health::subject(service, target)));
        }
        used
    }
}

/// How much of its share a server has that began then, in tenths of it; nothing where that is all.
fn percent(subject: &Subject, starts: Instant) -> Option<u32> {
    let whole = Duration::from_secs(subject.check.slow_start_s.into());
    let passed = starts.elapsed();
    let tenths = passed.as_millis() * 10 / whole.as_millis().max(1) + 1;
    u32::try_from(tenths * 10)
        .ok()
        .filter(|percent| *percent < 100 && passed < whole)
}

#[cfg(test)]
pub(crate) mod tests {
    use kuafu_model::kinds::PortRange;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use kuafu_model::state::{Ask, Check, Host, ServiceState, Target, TargetState};

    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    /// A host with a service of two servers.
    pub(crate) fn state() -> HostState {
        let check = Arc::new(Check {
            service: "web".into(),
            ask: Ask::Tcp,
            port: None,
            interval_ms: 1000,
            timeout_ms: 1000,
            rise: 2,
            fall: 3,
            least_percent: 0,
            slow_start_s: 0,
        });
        let server = |last| TargetState {
            check: Some(Arc::clone(&check)),
            ..TargetState::unchecked(
                1,
                Target::Server {
                    address: Ipv4Addr::new(198, 51, 100, last),
                    port: None,
                },
            )
        };
        HostState {
            services: vec![ServiceState {
                name: "web".into(),
                own: true,
                whole_address: true,
                targets: vec![server(1), server(2)],
                ..ServiceState::blank(
                    100,
                    Ipv4Addr::new(203, 0, 113, 1).into(),
                    (6, PortRange::literal(80, 80)),
                )
            }],
            ..HostState::blank(
                "test".into(),
                1,
                Host {
                    id: 1,
                    name: "osaka".into(),
                    local: OWN,
                    public: OWN,
                    overlay: Ipv4Addr::new(100, 64, 0, 1),
                    udp_port: 6081,
                    nat_ports: None,
                },
            )
        }
    }

    fn begun() -> (Health, Told) {
        let (line, told) = line();
        (Health::new(line), told)
    }

    fn followed() -> (Health, watch::Receiver<Orders>) {
        let (mut health, told) = begun();
        health.follow(&state(), &Contents::default(), &BTreeSet::new());
        (health, told.orders)
    }

    /// What the first server's asker would say.
    fn verdict(orders: &watch::Receiver<Orders>, standing: Standing) -> Verdict {
        let (subject, order) = orders
            .borrow()
            .first_key_value()
            .map(|(a, b)| (a.clone(), *b))
            .unwrap();
        Verdict {
            serial: order.serial,
            subject,
            standing,
            reason: "connection refused".into(),
            is_suspected: false,
        }
    }

    #[test]
    fn what_changes_is_news_once() {
        let (mut health, orders) = followed();
        assert_eq!(health.news(), Some(Servers::default()), "a state came");
        assert_eq!(health.news(), None);
        let down = verdict(&orders, Standing::Down);
        health.heard(down.clone());
        health.heard(down.clone());
        assert_eq!(health.news().unwrap().down, BTreeSet::from([down.subject]));
        assert_eq!(health.news(), None);
        health.try_again();
        assert!(health.news().is_some());
        let told = health.report(Some(&state())).unwrap();
        let named: Vec<_> = told
            .down
            .iter()
            .map(|server| (server.address.as_str(), server.port))
            .collect();
        assert_eq!(named, [("198.51.100.1", 80)]);
        assert_eq!(health.report(Some(&state())), None);
        assert_eq!(health.greeting(Some(&state())), told, "to whoever connects");
        let used: Vec<bool> = health
            .statuses(Some(&state()), &Targets::new())
            .iter()
            .map(|server| server.used)
            .collect();
        assert_eq!(used, [false, true]);
    }

    #[test]
    fn who_was_asked_otherwise_has_nothing_to_say() {
        let (mut health, orders) = followed();
        let late = verdict(&orders, Standing::Down);
        let mut moved = state();
        moved.node.local = Ipv4Addr::new(192, 0, 2, 9);
        health.follow(&moved, &Contents::default(), &BTreeSet::new());
        assert_ne!(orders.borrow()[&late.subject].serial, late.serial);
        health.heard(late.clone());
        assert_eq!(health.news().unwrap().down, BTreeSet::new());
        // The same after it was gone and came back.
        let late = verdict(&orders, Standing::Down);
        let mut without = moved.clone();
        without.services.clear();
        health.follow(&without, &Contents::default(), &BTreeSet::new());
        health.follow(&moved, &Contents::default(), &BTreeSet::new());
        health.heard(late);
        assert_eq!(health.news().unwrap().down, BTreeSet::new());
    }

    #[test]
    fn who_is_down_is_not_suspected() {
        let (mut health, mut told) = begun();
        health.follow(&state(), &Contents::default(), &BTreeSet::new());
        let why = Suspicion::Silent { begun: 9 };
        let down = verdict(&told.orders, Standing::Down);
        health.suspect((down.subject.clone(), why));
        assert_eq!(told.suspects.try_recv(), Ok((down.subject.clone(), why)));
        let is_suspected = Verdict {
            is_suspected: true,
            ..down.clone()
        };
        health.heard(is_suspected);
        let statuses = health.statuses(None, &Targets::new());
        assert_eq!(
            (statuses[0].standing.as_str(), statuses[0].suspicions),
            ("unknown", 1)
        );
        health.heard(down.clone());
        health.suspect((down.subject, why));
        assert!(told.suspects.try_recv().is_err());
    }

    /// The same with a slow start.
    fn slowly(mut state: HostState) -> HostState {
        for target in &mut state.services[0].targets {
            Arc::make_mut(target.check.as_mut().unwrap()).slow_start_s = 900;
        }
        state
    }

    #[test]
    fn who_joins_or_serves_again_starts_slowly() {
        let (mut health, Told { orders: asked, .. }) = begun();
        let (mut one, both) = (slowly(state()), slowly(state()));
        one.services[0].targets.truncate(1);
        health.follow(&one, &Contents::default(), &BTreeSet::new());
        assert_eq!(
            health.news().unwrap(),
            Servers::default(),
            "what was there when it began"
        );
        health.follow(&both, &Contents::default(), &BTreeSet::new());
        let second = subjects(&both).into_iter().nth(1).unwrap();
        let starting = |health: &mut Health| health.news().unwrap().starting;
        assert_eq!(
            starting(&mut health),
            BTreeMap::from([(second.clone(), 10)]),
            "who joins"
        );
        health.heard(verdict(&asked, Standing::Down));
        assert_eq!(starting(&mut health).len(), 1);
        let up = verdict(&asked, Standing::Up);
        health.heard(up.clone());
        let all = BTreeMap::from([(up.subject, 10), (second, 10)]);
        assert_eq!(starting(&mut health), all, "who serves again");
        health.tick();
        assert_eq!(starting(&mut health), all, "none is whole yet");
    }

    #[test]
    fn who_was_down_stays_so_until_asked() {
        let (mut health, Told { orders: asked, .. }) = begun();
        let down = subjects(&state()).into_iter().take(1).collect();
        health.follow(&state(), &Contents::default(), &down);
        assert_eq!(health.news().unwrap().down, down);
        let begins: Vec<Standing> = asked.borrow().values().map(|order| order.standing).collect();
        assert_eq!(begins, [Standing::Down, Standing::Unknown]);
        assert_eq!(
            health.greeting(Some(&state())).down.len(),
            1,
            "before anything was asked"
        );
    }
}
