"""A malicious trainer: tries to get out of its container, tells in one line what it managed, then does its work.

It waits for /tmp/go first, so that a test can look at the container meanwhile. The one line is `INTRUDER` and JSON.
What it tries does no harm where it succeeds: it opens connections and closes them, makes empty files and processes
that sleep.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
KERNEL_FILES = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/dev/kmsg")
SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock")
# This container's own.
ADDRESS = ipaddress.ip_address(
    socket.gethostbyname(socket.gethostname()) if len(socket.if_nameindex()) > 1 else "127.0.0.1"
)
# More than any limit in use here; each sleeps and is killed.
FORKS = 2000


def outcome(attempt: Callable[[], Any]) -> str:
    """Name the error an attempt ends with, or "done"."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "done"


def call(name: str, *arguments: Any) -> None:
    if getattr(LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    wanted = ("Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    return {key: " ".join(found[key].split()) for key in wanted}


def climbs() -> dict[str, str]:
    """Ways to more rights than this process has."""
    root_id = subprocess.run(["/opt/intruder/root-id", "-u"], capture_output=True, text=True, check=False)
    return {
        "become root": outcome(lambda: os.setuid(0)),
        "new user namespace": outcome(lambda: call("unshare", CLONE_NEWUSER)),
        "new mount namespace": outcome(lambda: call("unshare", CLONE_NEWNS)),
        "new network namespace": outcome(lambda: call("unshare", CLONE_NEWNET)),
        "mount": outcome(lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None)),
        "change root": outcome(lambda: os.chroot("/session")),
        "make a block device": outcome(lambda: os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))),
        "raw socket": outcome(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()),
        "host name": outcome(lambda: socket.sethostname("intruder")),
        "higher priority": outcome(lambda: os.setpriority(os.PRIO_PROCESS, 0, -10)),
        "setuid program": root_id.stdout.strip(),
        **{f"write {path}": outcome(lambda path=path: _write(path)) for path in KERNEL_FILES},
    }


def _write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


def writable() -> list[str]:
    """The topmost folders, everywhere, that a file can be made in, and files elsewhere that can be written to."""
    found = []
    for folder, folders, files in os.walk("/"):
        if folder == "/":
            folders[:] = [name for name in folders if name not in ("proc", "sys")]
        probe = os.path.join(folder, ".intruder")
        if outcome(lambda probe=probe: Path(probe).touch()) == "done":
            os.unlink(probe)
            found.append(folder)
            folders.clear()
            continue
        paths = (os.path.join(folder, name) for name in files)
        found += [path for path in paths if os.access(path, os.W_OK) and stat.S_ISREG(os.lstat(path).st_mode)]
    return sorted(found)


def disks() -> list[str]:
    """Block devices that are in here."""
    return [str(path) for path in Path("/dev").rglob("*") if stat.S_ISBLK(path.lstat().st_mode)]


def mounts() -> dict[str, str]:
    """What is mounted where, but the kernel's own file systems: mount point and the folder it shows."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words, rest = line.split(" - ")
        _, _, _, root, point, *_ = words.split()
        if rest.split()[0] not in ("proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "tmpfs", "overlay"):
            found[point] = root
    return found


def reach(target: tuple[str, str, int, str]) -> tuple[str, str]:
    """Try to connect; not to an address of a network that has no way in, unless this is that network or none."""
    name, host, port, network = target

    def connect() -> None:
        socket.create_connection((host, port), timeout=2).close()

    known = f"{name} {host}:{port}"
    if network and ADDRESS not in ipaddress.ip_network(network, strict=False) and not ADDRESS.is_loopback:
        return known, "ELSEWHERE"
    return known, outcome(connect)


def resolve(name: str) -> tuple[str, str]:
    try:
        return name, socket.gethostbyname(name)
    except OSError:
        return name, ""


def has_route(address: str) -> bool:
    """Ask the kernel for a route. A datagram socket connects without sending anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return outcome(lambda: probe.connect((address, 80))) == "done"


def fork_bomb() -> int:
    """Make processes until that is refused; return how many there were."""
    children = []
    try:
        for _ in range(FORKS):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    return len(children)


def processes() -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found.append((entry / "cmdline").read_bytes().split(b"\0")[0].decode())
            except OSError:
                continue
    return sorted(found)


def report(targets: dict[str, Any]) -> dict[str, Any]:
    with ThreadPoolExecutor(64) as pool:
        reached = dict(pool.map(reach, [tuple(target) for target in targets["addresses"]]))
        names = dict(pool.map(resolve, targets["names"]))
    return {
        "status": status(),
        "climbs": climbs(),
        "writable": writable(),
        "disks": disks(),
        "mounts": mounts(),
        "sockets": [path for path in SOCKETS if os.path.exists(path)],
        "environment": sorted(os.environ),
        "processes": processes(),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "reached": reached,
        "names": names,
        "route to the metadata service": has_route("169.254.169.254"),
        "forks": fork_bomb(),
    }


def main() -> None:
    # Telling all it knows: what is secret must not be readable in the task's log.
    for name, value in sorted(os.environ.items()):
        print(f"{name}={value}", flush=True)
    deadline = time.monotonic() + 60
    while not os.path.exists("/tmp/go") and time.monotonic() < deadline:
        time.sleep(0.05)
    targets = json.loads(Path("/opt/intruder/targets.json").read_text())
    print("INTRUDER " + json.dumps(report(targets)), flush=True)
    os.execvp("tarmac-trainer", ["tarmac-trainer", *sys.argv[1:]])


if __name__ == "__main__":
    main()
