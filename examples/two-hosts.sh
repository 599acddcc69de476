#!/usr/bin/env bash
# From the package to a first ping between two hosts of a VPC. The hosts are two bare network namespaces of this
# machine, and everything goes away at the end. As root:
#
#   cargo xtask package && examples/two-hosts.sh target/debian/kuafu_*.deb
set -euo pipefail
package=${1:?usage: examples/two-hosts.sh PACKAGE.deb}
[ "$(id -u)" = 0 ] || { echo "two-hosts.sh: network namespaces and BPF need root" >&2; exit 1; }
for program in dpkg-deb ip nsenter ping; do
  command -v $program >/dev/null || { echo "two-hosts.sh: there is no $program here" >&2; exit 1; }
done
here=$(dirname "$(readlink -f "$0")")/two-hosts
work=$(mktemp -d)
touch "$work/log"

on() { nsenter --net="/run/netns/kuafu-$1" env KUAFU_ROOT="$work/$1" "${@:2}"; }
# Prints a line as one types it on a host, and runs it.
type_() { printf '%s$ %s\n' "$1" "${*:2}" && on "$@"; }
# The same for processes that stay: `kuafu` with each of these words.
start() {
  printf '%s$%s\n' "$1" "$(printf ' kuafu %s &' "${@:2}")"
  for words in "${@:2}"; do
    nsenter --net="/run/netns/kuafu-$1" env KUAFU_ROOT="$work/$1" kuafu $words >>"$work/log" 2>&1 &
    pids+=($!)
  done
}
# What a person would see before going on.
await() { for _ in {1..300}; do "$@" >>"$work/log" 2>&1 && return; sleep 0.1; done; return 1; }
are_connected() { [ "$(on left kuafu status -o json | grep -c '"connected": true')" = 2 ]; }
is_well() { on left kuafu status | grep 'No faults'; }

clean() {
  status=$?
  trap '' INT TERM HUP
  [ $status = 0 ] || cat "$work/log" >&2
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" || true; done
  for host in left right; do
    [ ! -e "$work/$host" ] || on "$host" kuafu uninstall --yes >>"$work/log" 2>&1 || status=1
  done
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
start left controller
await on left kuafu get
type_ left kuafu apply -f nodes.yaml
printf 'left$ kuafu --controller 192.0.2.1:7440 node join $(kuafu node token left)\n'
on left kuafu --controller 192.0.2.1:7440 node join "$(on left kuafu node token left)"
printf 'left$ kuafu node token right\n' && token=$(on left kuafu node token right) && echo "$token"
type_ right kuafu --controller 192.0.2.1:7440 node join "$token"
# By default XDP is generic on a veth, which sees no packet that the other end redirected: probes. A wire hides that.
start left 'agent --xdp native' probe
start right 'agent --xdp native' probe
await are_connected
type_ left kuafu apply -f vpc.yaml --wait 30
printf 'first$ ping -c 3 10.0.0.2\n' && ip netns exec kuafu-first ping -c 3 10.0.0.2
await is_well
type_ left kuafu status
