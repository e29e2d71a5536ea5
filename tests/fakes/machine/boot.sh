#!/usr/bin/env bash
# boot.sh GPUS [GIB]: what a machine with fake GPUs runs from its start on. It makes the fake world, then runs the engine,
# and starts it again when it ends, as a machine's init does. With GIB the engine has a disk of that size in /disk.
# The engine hands FAKE_NVML_DIR and FAKE_NVML_LIB of its environment on to the hook that puts GPUs into containers.
set -euo pipefail
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)

# The engine makes control groups; a container gets them read-only.
while read -r _ where kind _; do
    case $kind in sysfs | cgroup | cgroup2) mount -o remount,bind,rw "$where" ;; esac
done </proc/mounts

# Control groups, version 2: a group with processes of its own can hand no controller on to groups below it, which
# containers need. So all processes move to a leaf.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p /sys/fs/cgroup/machine
    processes=$(cat /sys/fs/cgroup/cgroup.procs)
    for process in $processes; do
        # Some end meanwhile.
        echo "$process" >/sys/fs/cgroup/machine/cgroup.procs 2>/dev/null || true
    done
    sed 's/ / +/g; s/^/+/' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
fi
if [ -n "${2:-}" ]; then
    # The devices are the host's; a container is given none of them.
    [ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
    for number in {0..63}; do
        [ -e "/dev/loop$number" ] || mknod "/dev/loop$number" b 7 "$number"
    done
    if [ ! -e /disk/image ]; then
        truncate --size "${2}G" /disk/image
        mkfs.ext4 -q -m 0 /disk/image
    fi
    mkdir -p /var/lib/docker
    mount -o loop /disk/image /var/lib/docker
fi

# Not every kernel has the newer of the two ways to filter packets, and no module can be loaded from here.
if ! iptables --list >/dev/null 2>&1; then
    update-alternatives --quiet --set iptables /usr/sbin/iptables-legacy
    update-alternatives --quiet --set ip6tables /usr/sbin/ip6tables-legacy
fi
PYTHONPATH=$tests python -c 'import os, sys
from fakes.fakegpu import FakeGpus
FakeGpus(os.environ["FAKE_NVML_DIR"], n=int(sys.argv[1]))' "$1"
trap 'kill "$!" 2>/dev/null; wait; exit 0' TERM INT
while :; do
    # What an engine that was killed left; its container runtime goes on.
    rm -f /var/run/docker.pid
    dockerd &
    wait "$!" || true
    sleep 1
done
