//! Health checks of a host: whom it asks, and what follows from who is down.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::state::{Ask, Check, Encapsulation, HostState, ServiceState, Target, TargetState};

mod near;

pub use near::weights;

/// A server as a check sees it. Listeners that lead to it alike share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The server's own address.
    pub server: IpAddr,
    /// Where the check is addressed to: the server, or the service's own address behind an outer header.
    pub to: SocketAddr,
    /// What is put around packets for it; `None`: they are rewritten.
    pub encapsulation: Option<Encapsulation>,
    /// What is asked.
    pub check: Arc<Check>,
}

impl Subject {
    /// What is asked and of whom, however often: where that is the same, what is known of the one holds for the other.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        let Check { service, ask, .. } = self.check.as_ref();
        (self.server, self.to, self.encapsulation, service, ask)
    }
}

/// What a host knows of the servers that it sends to. Who is not named serves, with its whole share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// Who is down.
    pub down: BTreeSet<Subject>,
    /// Who is on the way to its whole share, and how much of it it has, in percent.
    pub starting: BTreeMap<Subject, u32>,
    /// Which drained targets keep their flows no longer ([`ended`]).
    pub ended: Targets,
}

impl Servers {
    /// Those of them that a state has checked, whatever else of their checks has changed. What has ended is not a matter
    /// of checks.
    #[must_use]
    pub fn of(&self, state: &HostState) -> Self {
        let down: HashSet<_> = self.down.iter().map(Subject::question).collect();
        let starting = self.starting.iter();
        let starting: HashMap<_, _> = starting
            .map(|(subject, percent)| (subject.question(), *percent))
            .collect();
        let mut servers = Self::default();
        for subject in subjects(state) {
            if down.contains(&subject.question()) {
                servers.down.insert(subject);
            } else if let Some(percent) = starting.get(&subject.question()).copied() {
                servers.starting.insert(subject, percent);
            }
        }
        servers
    }
}

/// What is asked, and of whom.
pub type Question<'s> = (IpAddr, SocketAddr, Option<Encapsulation>, &'s str, &'s Ask);

/// Targets, each with the number of whose it is. A target is one in all listeners of its accelerator or service: where it
/// does not serve one of them, it is left out of all.
pub type Targets = BTreeSet<(u32, Target)>;

/// The targets of a state that are down, where these subjects are.
#[must_use]
pub fn down(state: &HostState, subjects: &BTreeSet<Subject>) -> Targets {
    if subjects.is_empty() {
        return Targets::new();
    }
    let is_down = |(service, target): &(&ServiceState, &TargetState)| {
        subject(service, target).is_some_and(|subject| subjects.contains(&subject))
    };
    let down = targets(state).filter(is_down);
    down.map(|(service, target)| (service.vni, target.target))
        .collect()
}

/// The targets of a state that keep their flows no longer, so many seconds after the beginning of 1970: those whose time
/// is over wherever their accelerator or service has them.
#[must_use]
pub fn ended(state: &HostState, now_s: u64) -> Targets {
    let has_ended = |target: &TargetState| target.ends_s.is_some_and(|ends_s| ends_s <= now_s);
    let name = |(service, target): (&ServiceState, &TargetState)| (service.vni, target.target);
    let ended = targets(state).filter(|(_, target)| has_ended(target));
    let mut ended: Targets = ended.map(name).collect();
    if !ended.is_empty() {
        for other in targets(state).filter(|(_, target)| !has_ended(target)) {
            ended.remove(&name(other));
        }
    }
    ended
}

/// Whether one target of one listener at an address is neither down nor has ended.
#[must_use]
pub fn serves(state: &HostState, servers: &Servers, local: IpAddr) -> bool {
    let down = down(state, &servers.down);
    targets(state).any(|(service, target)| {
        let name = (service.vni, target.target);
        let is_there = !service.at_exit && service.local == local;
        is_there && !down.contains(&name) && !servers.ended.contains(&name)
    })
}

/// All targets, with their listeners.
pub fn targets(state: &HostState) -> impl Iterator<Item = (&ServiceState, &TargetState)> {
    let services = state.services.iter();
    services.flat_map(|service| service.targets.iter().map(move |target| (service, target)))
}

/// Whom a host asks of a listener's target, if it is checked.
#[must_use]
pub fn subject(service: &ServiceState, target: &TargetState) -> Option<Subject> {
    let check = Arc::clone(target.check.as_ref()?);
    let (server, encapsulation) = match target.target {
        Target::Pair(_) => return None,
        Target::Server { address, .. } => (address.into(), None),
        Target::Direct {
            address,
            encapsulation,
        } => (address, Some(encapsulation)),
    };
    let address = if encapsulation.is_some() {
        service.asked_at.unwrap_or(service.local)
    } else {
        server
    };
    let port = check.port.unwrap_or_else(|| service.port_of(&target.target));
    Some(Subject {
        to: SocketAddr::new(address, port),
        check,
        server,
        encapsulation,
    })
}

/// Everybody whom a host asks.
#[must_use]
pub fn subjects(state: &HostState) -> BTreeSet<Subject> {
    targets(state)
        .filter_map(|(service, target)| subject(service, target))
        .collect()
}

/// Whether each target of a listener is to be used, in their order, where these are down: those that serve; all of a
/// service of which too few do ([`Check::least_percent`]); and all, where nothing does; but none that has `ended`.
#[must_use]
pub fn in_use(service: &ServiceState, down: &Targets, ended: &Targets) -> Vec<bool> {
    let mut used = serving(service, down);
    for (target, used) in service.targets.iter().zip(&mut used) {
        *used &= !ended.contains(&(service.vni, target.target));
    }
    used
}

fn serving(service: &ServiceState, down: &Targets) -> Vec<bool> {
    let serves = |target: &TargetState| !down.contains(&(service.vni, target.target));
    let serve: Vec<bool> = service.targets.iter().map(serves).collect();
    let sharing = || {
        let targets = service.targets.iter().zip(&serve);
        targets.filter(|(target, _)| target.weight > 0)
    };
    if !sharing().any(|(_, serves)| *serves) {
        return vec![true; serve.len()];
    }
    let mut counts: BTreeMap<&Check, [usize; 2]> = BTreeMap::new();
    for (target, serves) in sharing() {
        if let Some(check) = &target.check {
            let [all, serving] = counts.entry(check).or_default();
            *all += 1;
            *serving += usize::from(*serves);
        }
    }
    let too_few = |check: &Arc<Check>| {
        let counted = counts.get(check.as_ref());
        counted
            .is_some_and(|[all, serving]| *serving > 0 && serving * 100 < all * check.least_percent as usize)
    };
    let targets = service.targets.iter().zip(&serve);
    targets
        .map(|(target, serves)| *serves || target.check.as_ref().is_some_and(too_few))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::kinds::PortRange;
    use crate::state::Host;

    pub(super) fn check(service: &str, least_percent: u32) -> Arc<Check> {
        Arc::new(Check {
            service: service.into(),
            ask: Ask::Tcp,
            port: None,
            interval_ms: 1000,
            timeout_ms: 1000,
            rise: 2,
            fall: 3,
            least_percent,
            slow_start_s: 0,
        })
    }

    pub(super) fn server(last: u8, weight: u32, check: Option<&Arc<Check>>) -> TargetState {
        let target = Target::Server {
            address: Ipv4Addr::new(192, 0, 2, last),
            port: None,
        };
        TargetState {
            check: check.cloned(),
            ..TargetState::unchecked(weight, target)
        }
    }

    pub(super) fn service(targets: Vec<TargetState>) -> ServiceState {
        ServiceState {
            name: "web".into(),
            at_exit: true,
            whole_address: true,
            targets,
            ..ServiceState::blank(
                7,
                Ipv4Addr::new(198, 51, 100, 1).into(),
                (6, PortRange::literal(443, 443)),
            )
        }
    }

    fn state(service: ServiceState) -> HostState {
        let own = Ipv4Addr::new(192, 0, 2, 1);
        HostState {
            services: vec![service],
            ..HostState::blank(
                "c".into(),
                1,
                Host {
                    id: 1,
                    name: "osaka".into(),
                    local: own,
                    public: own,
                    overlay: own,
                    udp_port: 6081,
                    nat_ports: None,
                },
            )
        }
    }

    /// These targets.
    pub(super) fn down(service: &ServiceState, which: &[usize]) -> Targets {
        let of = |at: &usize| (service.vni, service.targets[*at].target);
        which.iter().map(of).collect()
    }

    #[test]
    fn who_is_down_is_left_out_unless_too_few_are_left() {
        let half = check("web", 50);
        let targets = (0..4).map(|last| server(last, 1, Some(&half))).collect();
        let service = service(targets);
        let used = |which: &[usize]| in_use(&service, &down(&service, which), &Targets::new());
        assert_eq!(used(&[]), [true; 4]);
        assert_eq!(used(&[1]), [true, false, true, true]);
        assert_eq!(used(&[1, 2]), [true, false, false, true], "half serve");
        assert_eq!(used(&[0, 1, 2]), [true; 4], "fewer than half do");
        assert_eq!(used(&[0, 1, 2, 3]), [true; 4], "none does");
    }

    #[test]
    fn a_target_that_has_ended_is_not_used_whatever_becomes_of_the_others() {
        let check = check("web", 0);
        let mut service = service((0..3).map(|last| server(last, 1, Some(&check))).collect());
        (service.targets[0].weight, service.targets[0].ends_s) = (0, Some(100));
        let state = state(service.clone());
        assert_eq!(ended(&state, 99), Targets::new());
        let ended = ended(&state, 100);
        assert_eq!(ended, down(&service, &[0]));
        let used = |which: &[usize]| in_use(&service, &down(&service, which), &ended);
        assert_eq!(used(&[]), [false, true, true]);
        assert_eq!(used(&[1, 2]), [false, true, true], "none of the others serves");
        let other = ServiceState {
            ports: PortRange::literal(444, 444),
            targets: vec![server(0, 1, Some(&check))],
            ..service.clone()
        };
        let mut both = state;
        both.services.push(other);
        assert_eq!(
            super::ended(&both, 100),
            Targets::new(),
            "another listener uses it"
        );
    }

    #[test]
    fn a_service_without_any_that_serves_leaves_the_traffic_to_another() {
        let (one, other) = (check("one", 100), check("other", 0));
        let targets = vec![
            server(0, 1, Some(&one)),
            server(1, 1, Some(&one)),
            server(2, 1, Some(&other)),
            server(3, 1, None),
        ];
        let service = service(targets);
        let used = |which: &[usize]| in_use(&service, &down(&service, which), &Targets::new());
        assert_eq!(used(&[0, 1]), [false, false, true, true]);
        assert_eq!(used(&[0]), [true; 4], "one of two is fewer than all");
        assert_eq!(used(&[0, 1, 2]), [false, false, false, true]);
    }

    #[test]
    fn one_that_takes_nothing_new_does_not_count() {
        let half = check("web", 50);
        let targets = vec![
            server(0, 1, Some(&half)),
            server(1, 0, Some(&half)),
            server(2, 0, Some(&half)),
            server(3, 0, Some(&half)),
        ];
        let service = service(targets);
        let used = |which: &[usize]| in_use(&service, &down(&service, which), &Targets::new());
        assert_eq!(used(&[1, 2, 3]), [true, false, false, false]);
        assert_eq!(used(&[0]), [true; 4], "nothing new would be served");
    }

    #[test]
    fn listeners_that_lead_alike_share_a_subject() {
        let check = check("web", 0);
        let first = service(vec![server(0, 1, Some(&check))]);
        let mut second = first.clone();
        second.local = Ipv4Addr::new(198, 51, 100, 2).into();
        let of = |service: &ServiceState| subject(service, &service.targets[0]);
        assert_eq!(of(&first), of(&second));
        second.ports = PortRange::literal(80, 80);
        assert_ne!(of(&first), of(&second), "it asks where packets go");
        let direct = |local: u8| {
            let mut service = first.clone();
            service.local = Ipv4Addr::new(198, 51, 100, local).into();
            service.targets[0].target = Target::Direct {
                address: Ipv4Addr::new(192, 0, 2, 1).into(),
                encapsulation: Encapsulation::Ipip,
            };
            of(&service)
        };
        assert_ne!(direct(1), direct(2), "each has its own address at the server");
    }
}
