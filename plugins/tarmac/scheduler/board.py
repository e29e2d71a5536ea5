"""What `make gpus` and `make hosts` show: what there is, who holds it, and the queue with a reason for each session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from tarmac.base.texts import one_line
from tarmac.base.units import format_cores, format_seconds, format_size
from tarmac.devices.told import heard
from tarmac.hosts.address import WARN_DAYS, is_elsewhere
from tarmac.hosts.kinds import declared
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import DeviceRow, HostRow
from tarmac.scheduler import machine_board

QUEUED = 50
"""Sessions of a queue that the commands show, at most."""


def board(
    devices: list[DeviceRow], holders: list[dict[str, Any]], queue: list[dict[str, Any]], now: datetime
) -> list[str]:
    """Return the lines. Pure.

    Args:
        devices, holders, queue: as the ledger gives them.
        now: the database's time.
    """
    if not devices and not queue:
        return [
            "No GPU is known: this machine has none, or no session has asked for one yet. make gpu-check looks now."
        ]
    lines = []
    for device in devices:
        free = max(0, device.capacity_bytes - device.reserved_bytes - device.external_bytes)
        where = f" on {device.host}" if is_elsewhere(device.host) else ""
        lines.append(
            f"{device.uuid}  {device.name}{where}: {format_size(free)} free of {format_size(device.capacity_bytes)}, "
            f"{format_size(device.reserved_bytes)} reserved, {format_size(device.external_bytes)} used by others"
        )
        if device.quarantine:
            lines.append(f"  in quarantine: {device.quarantine}")
            lines.append(f"  when it is well again: make release-gpu GPU={device.uuid}")
        elif why := device.closed or device.unusable:
            lines.append(f"  not usable: {why}")
        for row in holders:
            if row["device_uuid"] == device.uuid:
                lines.append(f"  {row['run_id']}  {_holding(row, now)}")
    return [*lines, "", *_queued(queue, now, "a GPU")]


def host_board(
    hosts: list[HostRow],
    holders: list[dict[str, Any]],
    queue: list[dict[str, Any]],
    now: datetime,
    devices: Sequence[DeviceRow] = (),
    told: Mapping[str, tuple[str, float]] | None = None,
) -> list[str]:
    """Return the lines of `make hosts`. Pure.

    Args:
        hosts, holders, queue: as the ledger gives them, of CPU sessions.
        now: the database's time.
        devices: all.
        told: what each other machine told of itself last, and how many seconds ago.
    """
    if not hosts and not queue:
        return ["No host has been measured yet: the scheduler's container does that when it starts."]
    lines = []
    for host in hosts:
        free = host.load.free
        line = (
            f"{host.name}  {free.millicpus / 1000:g} of {format_cores(host.capacity_millicpus)} free, "
            f"{format_size(free.memory_bytes)} free of {format_size(host.capacity_bytes)}"
        )
        lines.append(line + (f", {format_size(host.beside_bytes)} for GPU sessions" if host.beside_bytes else ""))
        if host.closed:
            since = f" for {format_seconds(host.silent_seconds)}" if host.trouble else ""
            why = f": {one_line(host.trouble)}" if host.trouble else ""
            lines.append(f"  takes no session: it {host.closed}{since}{why}")
        if text := certificate_sentence(host):
            lines.append(f"  {text}")
        if host.url:
            lines += [f"  {line}" for line in _machine(host.name, devices, (told or {}).get(host.name))]
        lines += [f"  {row['run_id']}  {_holding_of_host(row, now)}" for row in holders if row["host"] == host.name]
    return [*lines, "", *_queued(queue, now, "cores and memory")]


def certificate_sentence(host: HostRow) -> str:
    """Say that a host's certificate ends soon and what to do; "": it does not, or there is none. Pure."""
    left = host.certificate_seconds
    if left is None or left > WARN_DAYS * 86400:
        return ""
    when = f"ends in {format_seconds(left)}" if left > 0 else "has ended: no connection can be made any more"
    again = f"make host-certs NAME={host.name} URL={host.url} FILE={host.name}-certs.tar"
    return f"its certificate {when}: {again}, put the files there, restart its engine"


def _machine(name: str, devices: Sequence[DeviceRow], told: tuple[str, float] | None) -> list[str]:
    """Say what another machine told of itself, and which GPUs it has."""
    lines = []
    if told is not None and (found := heard(told[0])):
        seen = found.report
        lines.append(
            f"{format_size(seen.memory_free_bytes)} of {format_size(seen.memory_bytes)} of memory not in use, load "
            f"{seen.load:.1f}, {format_size(seen.disk_free_bytes)} of disk free, {format_seconds(told[1])} ago"
        )
    for device in (one for one in devices if one.host == name):
        free = max(0, device.capacity_bytes - device.reserved_bytes - device.external_bytes)
        why = f"in quarantine: {device.quarantine}" if device.quarantine else device.closed or device.unusable
        size = f"{format_size(free)} free of {format_size(device.capacity_bytes)}"
        lines.append(f"{device.uuid}  {device.name}: {f'not usable: {why}' if why else size}")
    return lines


def _queued(queue: list[dict[str, Any]], now: datetime, what: str) -> list[str]:
    lines = [] if queue else [f"No session waits for {what}."]
    for number, row in enumerate(queue, start=1):
        waited = (now - row["enqueued_at"]).total_seconds()
        priority = f", priority {row['priority']}" if row["priority"] else ""
        lines.append(f"{number}. {row['run_id']}  waits for {format_seconds(waited)}{priority}: {row['reason']}")
    return lines


def _holding_of_host(row: dict[str, Any], now: datetime) -> str:
    cores = f"{format_cores(row['millicpus'])} and " if row["millicpus"] else ""
    text = f"{cores}{format_size(row['bytes'])} reserved"
    if row["beside"]:
        return f"{text} beside its GPU"
    return text + _training(row, now)


def _holding(row: dict[str, Any], now: datetime) -> str:
    text = f"{format_size(row['bytes'])} reserved"
    if row["used_bytes"] is not None:
        text += f", {format_size(row['used_bytes'])} used, {format_size(row['peak_bytes'] or 0)} at most"
    return text + _training(row, now)


def _training(row: dict[str, Any], now: datetime) -> str:
    text = ", does not train yet"
    if row["running_at"] is not None:
        text = f", trains for {format_seconds((now - row['running_at']).total_seconds())}"
    return text + (", not heard of lately" if row["suspect"] else "")


def facts(ledger: Ledger, *, queued: int = QUEUED) -> dict[str, list[dict[str, Any]]]:
    """Read the ledger and return everything of it that people may see: `devices`, `reservations` and `queue`.

    Args:
        queued: how many sessions of the queue, at most.
    """
    with ledger.transaction():
        devices = [asdict(device) for device in ledger.devices()]
        return {"devices": devices, "reservations": ledger.holders(), "queue": ledger.queue(queued)}


def host_facts(ledger: Ledger, *, queued: int = QUEUED) -> dict[str, Any]:
    """Read the ledger and return what `make hosts JSON=1` shows: `hosts`, `reservations`, `queue` and `machines`.

    Each host has its `devices`, and `told_seconds`: since it told of itself last, None where it does not have to.
    """
    with ledger.transaction():
        told, devices = ledger.snapshots(), ledger.devices()
        hosts = [
            {
                **asdict(host),
                "devices": [one.uuid for one in devices if one.host == host.name],
                "told_seconds": told[host.name][1] if host.name in told else None,
            }
            for host in ledger.hosts()
        ]
        queue = ledger.queue(queued, on_host=True)
        machines = machine_board.facts(ledger, declared())
        return {"hosts": hosts, "reservations": ledger.host_holders(), "queue": queue, "machines": machines}


def all_facts(ledger: Ledger, *, queued: int) -> dict[str, Any]:
    """Read the ledger at one instant and return `gpus` and `hosts`, as above, and the database's time, `now`."""
    with ledger.transaction():
        found = {"gpus": facts(ledger, queued=queued), "hosts": host_facts(ledger, queued=queued)}
        return {"now": ledger.now(), **found}


def show(ledger: Ledger) -> list[str]:
    """Read the ledger and return the lines."""
    with ledger.transaction():
        return board(ledger.devices(), ledger.holders(), ledger.queue(), ledger.now())


def show_hosts(ledger: Ledger) -> list[str]:
    """Read the ledger and return the lines of `make hosts`."""
    with ledger.transaction():
        queue = ledger.queue(on_host=True)
        seen = (ledger.devices(), ledger.snapshots())
        lines = host_board(ledger.hosts(), ledger.host_holders(), queue, ledger.now(), *seen)
        return [*lines, *machine_board.lines(machine_board.facts(ledger, declared()))]
