"""What `make gpus` shows: the devices, their reservations, and the queue with a reason for each session."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from tarmac.base.units import format_seconds, format_size
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.records import DeviceRow


def board(
    devices: list[DeviceRow], holders: list[dict[str, Any]], queue: list[dict[str, Any]], now: datetime
) -> list[str]:
    """Return the lines. Pure.

    Args:
        devices, holders, queue: as the ledger gives them.
        now: the database's time.
    """
    if not devices and not queue:
        return ["No GPU has been seen yet: the first GPU session looks for them."]
    lines = []
    for device in devices:
        free = max(0, device.capacity_bytes - device.reserved_bytes - device.external_bytes)
        lines.append(
            f"{device.uuid}  {device.name}: {format_size(free)} free of {format_size(device.capacity_bytes)}, "
            f"{format_size(device.reserved_bytes)} reserved, {format_size(device.external_bytes)} used by others"
        )
        if device.quarantine:
            lines.append(f"  in quarantine: {device.quarantine}")
            lines.append(f"  when it is well again: make release-gpu GPU={device.uuid}")
        elif device.unusable:
            lines.append(f"  not usable: {device.unusable}")
        for row in holders:
            if row["device_uuid"] == device.uuid:
                lines.append(f"  {row['run_id']}  {_holding(row, now)}")
    lines.append("")
    if not queue:
        lines.append("No session is queued.")
    for number, row in enumerate(queue, start=1):
        waited = (now - row["enqueued_at"]).total_seconds()
        priority = f", priority {row['priority']}" if row["priority"] else ""
        lines.append(f"{number}. {row['run_id']}  waits for {format_seconds(waited)}{priority}: {row['reason']}")
    return lines


def _holding(row: dict[str, Any], now: datetime) -> str:
    text = f"{format_size(row['bytes'])} reserved"
    if row["used_bytes"] is not None:
        text += f", {format_size(row['used_bytes'])} used, {format_size(row['peak_bytes'] or 0)} at most"
    if row["running_at"] is not None:
        text += f", trains for {format_seconds((now - row['running_at']).total_seconds())}"
    else:
        text += ", does not train yet"
    return text + (", not heard of lately" if row["suspect"] else "")


def facts(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    """Read the ledger and return everything of it that people may see: `devices`, `reservations` and `queue`."""
    with ledger.transaction():
        devices = [asdict(device) for device in ledger.devices()]
        return {"devices": devices, "reservations": ledger.holders(), "queue": ledger.queue()}


def show(ledger: Ledger) -> list[str]:
    """Read the ledger and return the lines."""
    with ledger.transaction():
        return board(ledger.devices(), ledger.holders(), ledger.queue(), ledger.now())
