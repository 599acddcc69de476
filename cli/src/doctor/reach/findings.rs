//! What the reflector's answers mean for a host that would be a node.

use std::net::SocketAddrV4;

use super::super::check::Check;
use super::line::By;

/// How the host looks from the reflector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// The socket that asked.
    pub(super) local: SocketAddrV4,
    /// How it looks from the first port.
    pub(super) mapped: SocketAddrV4,
    /// How it looks from the other one; `None`: that does not answer.
    pub(super) other: Option<SocketAddrV4>,
    /// How an answer from the other port came that had not been asked itself before; `None`: it did not.
    pub(super) inward: Option<By>,
}

/// Which kind of NAT stands before the host.
///
/// A node is reached by others at its declared address, at the backbone's own port: so a NAT must leave ports alone, and
/// let in what nobody inside has asked for. That it maps ports alike for all destinations is not enough.
pub(super) fn nat(seen: &Seen) -> Check {
    const NAME: &str = "nat";
    let Seen {
        local,
        mapped,
        other,
        inward,
    } = *seen;
    if other.is_some_and(|other| other != mapped) || mapped.port() != local.port() {
        let alike = match other {
            Some(other) if other != mapped => format!("and {other} for another destination"),
            Some(_) => "for two destinations alike".to_owned(),
            None => "for one destination".to_owned(),
        };
        return Check::fail(
            NAME,
            format!("it rewrites ports: {local} looks like {mapped} {alike}; such a host cannot be a node"),
            "give the host a public address of its own, or a 1:1 NAT",
        );
    }
    let (inside, outside) = (local.ip(), mapped.ip());
    if inside == outside {
        return Check::ok(
            NAME,
            format!("none: {inside} is this host's address for others too (--address {inside})"),
        );
    }
    let declare = format!("--address {inside} --public {outside}");
    match inward {
        Some(_) => Check::ok(
            NAME,
            format!("1:1: others see {outside} for {inside} ({declare})"),
        ),
        None => Check::warn(
            NAME,
            format!(
                "others see {outside} for {inside}, with the same port. That is a 1:1 NAT where only the firewall keeps \
                 others away ({declare}), or a NAT for many hosts, which no node can be behind"
            ),
            "let UDP in as below, then look again",
        ),
    }
}

/// Whether others reach the backbone's port.
pub(super) fn inward(seen: &Seen, other_port: u16) -> Check {
    const NAME: &str = "udp in";
    let port = seen.local.port();
    match (seen.inward, seen.other) {
        (Some(By::Socket), _) => Check::ok(
            NAME,
            format!("UDP {port} is open: an answer from another port arrives"),
        ),
        (Some(By::Device), _) => Check::ok(
            NAME,
            format!(
                "UDP {port} is open as far as this host, whose own packet filter drops it: Kuafu's XDP takes it before that"
            ),
        ),
        (None, Some(_)) => Check::fail(
            NAME,
            format!("UDP {port} is blocked: an answer from another port (UDP {other_port}) did not arrive"),
            format!(
                "let UDP {port} in from all nodes: in the cloud's firewall (security group), and where a router filters"
            ),
        ),
        (None, None) => Check::warn(
            NAME,
            format!("UDP {port}: not known, since the controller's UDP {other_port} does not answer"),
            format!("let UDP {other_port} in at the controller's host, and out here"),
        ),
    }
}

/// What packets the way to the controller carries, where `device` of the underlay would send such of `mtu` octets.
pub(super) fn path_mtu(device: &str, mtu: usize, carried: Option<usize>) -> Check {
    const NAME: &str = "path mtu";
    let fix = |mtu| format!("ip link set {device} mtu {mtu}: Kuafu takes the underlay's MTU from there");
    match carried {
        None => Check::fail(
            NAME,
            format!(
                "not even packets of {LEAST} octets come through; the VPC takes 50 of each, the backbone 60"
            ),
            "another uplink, or ask who runs the way",
        ),
        Some(carried) if carried >= mtu => {
            let (port, backbone) = (mtu - 50, mtu - 60);
            Check::ok(
                NAME,
                format!(
                    "packets of {mtu} come through whole, there and back: ports {port}, backbone {backbone}"
                ),
            )
        }
        Some(carried) => Check::warn(
            NAME,
            format!(
                "packets of more than {carried} octets do not come through, and {device} sends such of {mtu}: they would be lost"
            ),
            fix(carried),
        ),
    }
}

/// The smallest packet that is tried: less is no underlay.
pub(super) const LEAST: usize = 636;

/// The lengths to try next, where `good` comes through and `bad` does not; whole words after the headers of IPv4 and UDP.
pub(super) fn lengths(good: usize, bad: usize) -> Vec<usize> {
    const MOST: usize = 16;
    let (first, end) = (good + 4, bad);
    let count = end.saturating_sub(first).div_ceil(4);
    let step = 4 * count.div_ceil(MOST).max(1);
    (first..end).step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::check::State;
    use super::*;

    fn seen(mapped: &str, other: Option<&str>, inward: Option<By>) -> Seen {
        let address = |text: &str| text.parse().unwrap();
        Seen {
            local: address("10.1.0.2:6081"),
            mapped: address(mapped),
            other: other.map(address),
            inward,
        }
    }

    /// State and some words of both findings.
    #[track_caller]
    fn is(seen: &Seen, nat_is: (State, &str), inward_is: (State, &str)) {
        let (nat, inward) = (nat(seen), inward(seen, 7_441));
        assert_eq!(
            (nat.state, inward.state),
            (nat_is.0, inward_is.0),
            "{nat:?} {inward:?}"
        );
        assert!(nat.found.contains(nat_is.1), "{nat:?}");
        assert!(inward.found.contains(inward_is.1), "{inward:?}");
    }

    #[test]
    fn each_kind_of_nat_is_told_from_the_others() {
        let (same, public, another) = ("10.1.0.2:6081", "203.0.113.7:6081", "203.0.113.7:40001");
        let open = (State::Ok, "is open: ");
        let blocked = (State::Fail, "UDP 6081 is blocked");
        is(
            &seen(same, Some(same), Some(By::Socket)),
            (State::Ok, "none: 10.1.0.2"),
            open,
        );
        is(&seen(same, Some(same), None), (State::Ok, "none"), blocked);
        is(
            &seen(public, Some(public), Some(By::Device)),
            (State::Ok, "--address 10.1.0.2 --public 203.0.113.7"),
            (State::Ok, "own packet filter"),
        );
        is(
            &seen(public, Some(public), None),
            (State::Warn, "or a NAT for many"),
            blocked,
        );
        is(
            &seen(another, Some(another), None),
            (State::Fail, "two destinations alike"),
            blocked,
        );
        is(
            &seen(public, Some(another), None),
            (State::Fail, "and 203.0.113.7:40001 for another"),
            blocked,
        );
        is(
            &seen(public, None, None),
            (State::Warn, "others see"),
            (State::Warn, "not known"),
        );
    }

    #[test]
    fn the_longest_packet_is_found_in_few_rounds() {
        for (mtu, carried) in [
            (1_500, 1_448),
            (9_000, 1_500),
            (1_500, 1_496),
            (1_500, 636),
            (9_216, 8_996),
        ] {
            let (mut good, mut bad, mut rounds) = (LEAST, mtu, 0);
            loop {
                let tried = lengths(good, bad);
                let Some(last) = tried.last() else { break };
                assert!(
                    tried.len() <= 16 && *last < bad && tried.iter().all(|length| (length - 28) % 4 == 0)
                );
                good = tried
                    .iter()
                    .copied()
                    .filter(|length| *length <= carried)
                    .max()
                    .unwrap_or(good);
                bad = tried
                    .iter()
                    .copied()
                    .find(|length| *length > carried)
                    .unwrap_or(bad);
                rounds += 1;
            }
            assert_eq!(good, carried);
            assert!(rounds <= 4, "{rounds}");
        }
    }

    #[test]
    fn a_path_says_what_of_it_is_left() {
        let ok = path_mtu("eth0", 1_500, Some(1_500));
        assert_eq!(ok.state, State::Ok);
        assert!(ok.found.contains("ports 1450, backbone 1440"));
        let narrow = path_mtu("eth0", 1_500, Some(1_400));
        assert_eq!(narrow.state, State::Warn);
        assert!(narrow.fix.unwrap().starts_with("ip link set eth0 mtu 1400"));
        assert_eq!(path_mtu("eth0", 1_500, None).state, State::Fail);
    }
}
