"""Adds another machine: checks everything that a training there needs, with a sentence each, then enters it as a host.

Runs in the checker: only there are the key and the local engine. What does not suit is a HostError, and nothing is
entered.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tarmac.base.errors import HostError
from tarmac.base.settings import settings
from tarmac.base.texts import counted
from tarmac.base.units import GIB, format_cores, format_seconds, format_size
from tarmac.containers import agent, engine, moving, passthrough
from tarmac.containers.calls import EngineCalls
from tarmac.devices.report import LONGEST, Report, read
from tarmac.devices.snapshot import State
from tarmac.hosts.address import Address, TlsAddress, check_name, read_tls_url, read_url
from tarmac.hosts.capacity import measure
from tarmac.hosts.certificates import for_host
from tarmac.hosts.engines import link_to
from tarmac.hosts.kinds import Kind, kind_of
from tarmac.hosts.link import Link, socket_of
from tarmac.hosts.ssh import fingerprint, host_key, public_key
from tarmac.hosts.tls import refuse_open_door
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import Connection

# Engines from here on take what our containers are made with.
OLDEST_ENGINE = 20
# Tarmac goes by its database's clock alone; a person who reads two logs side by side does not.
_SKEW_SECONDS = 60.0
# A container that starts on a busy machine tells of it within this time.
_AGENT_SECONDS = 30.0
_LITTLE_DISK = 20 * GIB


def key_line() -> dict[str, str]:
    """Return the line for authorized_keys: with this key an account may forward, and run nothing."""
    return {"line": f"restrict,port-forwarding {public_key()}"}


def suits(far: Mapping[str, Any], near: Mapping[str, Any], name: str, now: datetime) -> list[str]:
    """Judge what a machine's engine says of it. Pure.

    Args:
        far, near: what that engine and the local one say.
        now: aware.

    Returns:
        A sentence for each thing that was looked at.

    Raises:
        HostError: it does not suit.
    """
    version, kind = str(far.get("ServerVersion", "")), str(far.get("Architecture", "?"))
    major = version.split(".", 1)[0]
    if major.isdecimal() and int(major) < OLDEST_ENGINE:
        raise HostError(
            f"The engine of {name} has version {version}: install Docker Engine {OLDEST_ENGINE} or newer there."
        )
    if far.get("ID") == near.get("ID"):
        raise HostError(f"{name} is this machine: its engine has the same id. This machine trains already, as 'local'.")
    if kind != near.get("Architecture"):
        raise HostError(
            f"{name} is a machine of kind {kind} and the trainer's image is for {near.get('Architecture')}: it cannot "
            "train here built images. Use a machine of the same kind."
        )
    for limit, what in (("MemoryLimit", "memory"), ("CpuCfsQuota", "cores"), ("PidsLimit", "processes")):
        if far.get(limit) is False:
            raise HostError(
                f"The engine of {name} cannot limit the {what} of a container: its kernel lacks that control group. "
                "Turn it on there, as docker info says, and add the host again."
            )
    found = [
        f"engine {version} on {kind}, {format_cores(1000 * int(far['NCPU']))}, {format_size(int(far['MemTotal']))}"
    ]
    if text := far.get("SystemTime"):
        skew = abs((datetime.fromisoformat(text) - now).total_seconds())
        late = f"its clock is {format_seconds(skew)} off: logs there show other times; no decision depends on it"
        found.append(late if skew > _SKEW_SECONDS else "its clock is right")
    return found


def refuse_name_of_kind(name: str, kinds: Iterable[Kind]) -> None:
    """Refuse a name that the stack gives to a machine which it starts itself: that machine could be no host. Pure.

    Raises:
        HostError: it is one.
    """
    if kind := kind_of(name, kinds):
        raise HostError(
            f"NAME: {name!r} is what a machine of the kind {kind.name!r} in env/hosts.toml is called, and the stack "
            "starts and ends those itself: choose another name."
        )


def add(name: str, url: str, pinned: str) -> dict[str, Any]:
    """Enter a machine as a host; without a pinned key, only say which one it shows.

    Args:
        name, url: as the person gave them.
        pinned: the fingerprint that the person has compared; "": not yet.

    Returns:
        `fingerprint`, `key_file` of the machine, and `says`: a sentence for each check; empty: it was not added.

    Raises:
        HostError: it cannot be reached, does not suit, or is a host already.
        ContainerError: an engine refused.
    """
    check_name(name)
    address = read_url(url)
    with Ledger(settings().database_url) as ledger:
        if any(host.name == name for host in ledger.hosts()):
            raise HostError(f"NAME: there is a host {name!r} already: `make host-remove NAME={name}` first.")
        key = ""
        if isinstance(address, TlsAddress):
            if pinned:
                raise HostError("FINGERPRINT: is for a machine that is reached by SSH; leave it out for tcp://.")
        else:
            key = host_key(address)
            if not pinned:
                kind = key.split()[0].removeprefix("ssh-").split("-")[0]
                return {"fingerprint": fingerprint(key), "key_file": f"/etc/ssh/ssh_host_{kind}_key.pub", "says": []}
            if fingerprint(key) != pinned:
                raise HostError(
                    f"FINGERPRINT: {pinned!r} is not the fingerprint of {address.host}, which shows "
                    f"{fingerprint(key)}: another machine may answer in its place. Nothing was added."
                )
            public_key()
        link = link_to(f"{name}-trial", url, key)
        try:
            link.open()
            if isinstance(address, TlsAddress):
                refuse_open_door(name, address)
            return _add_linked(ledger, name, Connection(url, key, ""), link)
        except OSError as error:
            raise HostError(_silence(name, address, str(error) if link.runs else link.why())) from error
        finally:
            link.close()


def _silence(name: str, address: Address | TlsAddress, why: str) -> str:
    """Say what to look at where an engine does not answer over a link that came up. Pure."""
    if isinstance(address, TlsAddress):
        return f"The engine of {name} stopped answering while it was looked at: {why}"
    return (
        f"The engine of {name} does not answer on {address.socket} there: does Docker run, and may {address.user} use "
        f"it (group docker)? {why}"
    )


def certify(name: str, url: str) -> dict[str, Any]:
    """Make the certificates that a machine's engine needs to listen with TLS. They are kept nowhere here.

    Returns:
        `files`: the texts of `ca.pem`, `cert.pem` and `key.pem`; `ends`: until when they are valid; `port`.

    Raises:
        HostError: name or URL cannot be read.
    """
    check_name(name)
    address = read_tls_url(url)
    made = for_host(name, address.host)
    files = {"ca.pem": made.ca, "cert.pem": made.certificate, "key.pem": made.key}
    return {"files": files, "ends": made.ends.isoformat(), "port": address.port}


def _add_linked(ledger: Ledger, name: str, connection: Connection, link: Link) -> dict[str, Any]:
    far, near, stack = engine.client_at(socket_of(link.name)), engine.client(), settings()
    info = far.info()
    shows = "the pinned key"
    if ends := link.certificate_ends():
        shows = f"a certificate of this stack for its name, valid until {ends:%Y-%m-%d}"
    says = [f"it can be reached, and shows {shows}", *suits(info, near.info(), name, datetime.now(UTC))]
    others = {connected.engine_id: host for host, connected in ledger.connections().items()}
    if known := others.get(str(info["ID"])):
        raise HostError(f"NAME: that machine is the host {known!r} already.")
    began = time.monotonic()
    image = moving.far_image(near, far, stack.trainer_image, name)
    says.append(f"it has the image {stack.trainer_image} ({time.monotonic() - began:.0f} s)")
    found = _report(far, image, name)
    says += [disk_sentence(found), _gpu_sentence(far, image, found)]
    offers = measure(far, stack, name)
    measured = [offers.total_bytes, offers.total_millicpus, offers.capacity_bytes, offers.capacity_millicpus]
    entered = Connection(connection.url, connection.host_key, str(info["ID"]))
    if not ledger.add_host(name, entered, measured):
        raise HostError(f"NAME: there is a host {name!r} already: `make host-remove NAME={name}` first.")
    says.append(
        f"sessions may reserve {format_cores(offers.capacity_millicpus)} and {format_size(offers.capacity_bytes)} there"
    )
    return {
        "fingerprint": fingerprint(connection.host_key) if connection.host_key else "",
        "key_file": "",
        "says": says,
        "gpus": len([device for device in found.snapshot.devices if device.usable]),
    }


def _report(far: EngineCalls, image: str, name: str) -> Report:
    """Start the machine's agent, which stays, and read what it tells first."""
    container, deadline = agent.ensure(far, settings().stack, image), time.monotonic() + _AGENT_SECONDS
    while time.monotonic() < deadline:
        if line := agent.last_line(far, container, LONGEST):
            try:
                return read(line)
            except ValueError as error:
                raise HostError(f"What the agent on {name} tells cannot be read: {error}.") from error
        time.sleep(0.2)
    words = agent.last_words(far, container)
    agent.remove(far, settings().stack)
    raise HostError(
        f"The agent on {name}, a container of the image {settings().trainer_image}, told nothing within "
        f"{_AGENT_SECONDS:g} s: {words or 'it says nothing'}. Is that machine busy? Add it again."
    )


def disk_sentence(found: Report) -> str:
    """Say how much room the engine's disk has. Pure."""
    text = f"its engine's disk has {format_size(found.disk_free_bytes)} free of {format_size(found.disk_bytes)}"
    if found.disk_free_bytes < _LITTLE_DISK:
        text += ": make space there, a session's data and model have to fit (docker system df)"
    return text


def _gpu_sentence(far: EngineCalls, image: str, found: Report) -> str:
    labels = passthrough.trial_labels(settings().stack)
    problems = {
        device.uuid: passthrough.problem(far, image, device.uuid, labels)
        for device in found.snapshot.devices
        if device.usable
    }
    return gpu_sentence(found, problems)


def gpu_sentence(found: Report, problems: Mapping[str, str | None]) -> str:
    """Say which GPUs a machine has, and whether containers get them. Pure.

    Args:
        found: what its agent tells.
        problems: of each device that can be used, what is wrong with giving it to a container, as it was tried; None:
            nothing.
    """
    seen, cards = found.snapshot, found.gpu_cards
    if not seen.devices:
        if not cards:
            return "it has no NVIDIA GPU: sessions train on its cores"
        count = counted(cards, "NVIDIA GPU")
        if seen.state is State.NO_DRIVER:
            return (
                f"it has {count} that containers do not get: install NVIDIA's driver and the NVIDIA Container Toolkit "
                "there and restart its engine; until then sessions train on its cores"
            )
        return f"it has {count} that cannot be used: {seen.sentence}; until that is mended sessions train on its cores"
    lines = []
    for device in seen.devices:
        size = "memory not known" if device.total_bytes is None else format_size(device.total_bytes)
        problem = problems.get(device.uuid) or device.fault
        if not problem and device.uuid not in problems:
            problem = "it is split into MIG instances" if device.mig_enabled else "its memory cannot be read"
        state = f"not usable: {problem}" if problem else "a container got it"
        lines.append(f"{device.uuid} {device.name}, {size} ({state})")
    return f"its GPUs: {'; '.join(lines)}"
