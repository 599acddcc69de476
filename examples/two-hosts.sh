#!/usr/bin/env bash
# From the package to a first ping between two hosts of a VPC. The hosts are two bare network namespaces of this
# machine, and everything goes away at the end. As root:
#
#   cargo xtask package && examples/two-hosts.sh target/debian/kuafu_*.deb
set -euo pipefail
package=${1:?usage: examples/two-hosts.sh PACKAGE.deb}
here=$(dirname "$(readlink -f "$0")")/two-hosts
work=$(mktemp -d)

left() { nsenter --net=/run/netns/kuafu-left env KUAFU_ROOT="$work/left" "$@"; }
right() { nsenter --net=/run/netns/kuafu-right env KUAFU_ROOT="$work/right" "$@"; }
# Prints a line as one types it, and runs it.
type_() { printf '%s$ %s\n' "$1" "${*:2}" && "$@"; }
# The same for a process that stays.
start() { printf '%s$ %s &\n' "$1" "${*:2}" && { "$@" 2>>"$work/log" & pids+=($!); }; }

clean() {
  status=$?
  [ $status = 0 ] || cat "$work/log"
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done
  for host in left right; do "$host" kuafu uninstall --yes >>"$work/log" 2>&1 || status=1; done
  for space in left right first second; do ip netns delete "kuafu-$space" 2>/dev/null || true; done
  rm -rf "$work"
  exit $status
}
pids=()
trap clean EXIT

# Two bare hosts with a cable, a machine of the tenant on each.
dpkg-deb -x "$package" "$work/package"
export PATH="$work/package/usr/bin:$PATH"
for space in left right first second; do ip netns add "kuafu-$space"; ip -n "kuafu-$space" link set lo up; done
ip link add eth0 netns kuafu-left type veth peer name eth0 netns kuafu-right
ip link add first0 netns kuafu-left type veth peer name eth0 netns kuafu-first
ip link add second0 netns kuafu-right type veth peer name eth0 netns kuafu-second
ip -n kuafu-left addr add 192.0.2.1/24 dev eth0
ip -n kuafu-right addr add 192.0.2.2/24 dev eth0
ip -n kuafu-first addr add 10.0.0.1/24 dev eth0
ip -n kuafu-second addr add 10.0.0.2/24 dev eth0
ip -n kuafu-first link set eth0 address 52:54:00:00:00:01 mtu 1450
ip -n kuafu-second link set eth0 address 52:54:00:00:00:02 mtu 1450
for space in left right first second; do ip -n "kuafu-$space" link set eth0 up; done
ip -n kuafu-left link set first0 up
ip -n kuafu-right link set second0 up
ln -s "$here"/*.yaml "$work"
cd "$work"

# What one types.
start left kuafu controller
until left kuafu get >>"$work/log" 2>&1; do sleep 0.1; done
type_ left kuafu apply -f nodes.yaml
token=$(left kuafu node token left) && type_ left kuafu --controller 192.0.2.1:7440 node join "$token"
token=$(left kuafu node token right) && type_ right kuafu --controller 192.0.2.1:7440 node join "$token"
start left kuafu agent
start right kuafu agent
type_ left kuafu apply -f vpc.yaml --wait 30
printf 'first$ ping -c 3 10.0.0.2\n' && ip netns exec kuafu-first ping -c 3 10.0.0.2
type_ left kuafu status
