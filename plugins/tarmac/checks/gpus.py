"""Whether the GPUs of a host can be used: driver, health, what our images need; and each is handed over once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tarmac.base.ids import LOCAL_HOST
from tarmac.base.settings import settings
from tarmac.containers import engine, passthrough
from tarmac.devices.snapshot import Device, Snapshot, snapshot
from tarmac.devices.told import snapshot_of
from tarmac.hosts.address import is_elsewhere
from tarmac.hosts.engines import engine_of, image_on
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.statements import SNAPSHOT_SECONDS

CUDA = 12
"""Of the libraries in the images with CUDA: a driver for a later one runs them, one for an earlier one does not."""

TRAINER_NEEDS, TRANSFORMERS_NEED = (5, 0), (7, 0)
"""The lowest compute capability for CuPy built with CUDA 12, and for PyTorch 2.10 as its index has it."""


def driver_problem(cuda: str | None) -> str:
    """Say why a driver cannot run what our images bring; "": it can, or does not tell. Pure.

    Args:
        cuda: the latest version that the driver knows, such as `12.8`.
    """
    major = (cuda or "").partition(".")[0]
    if not major.isdecimal() or int(major) >= CUDA:
        return ""
    return (
        f"the NVIDIA driver is made for CUDA {cuda}, and the trainer's libraries for CUDA {CUDA}: install a newer one"
    )


def capability_problem(capability: str | None) -> tuple[str, str]:
    """Judge a device's compute capability. Pure.

    Returns:
        Why it cannot be used, and what it cannot be used for; "" each where there is nothing, or it is not known.
    """
    major, _, minor = (capability or "").partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        return "", ""
    own = int(major), int(minor)
    if own < TRAINER_NEEDS:
        least = ".".join(map(str, TRAINER_NEEDS))
        return f"its compute capability is {capability}, and the trainer's libraries need {least}: too old a GPU", ""
    if own < TRANSFORMERS_NEED:
        least = ".".join(map(str, TRANSFORMERS_NEED))
        return "", f"too old for transformers: its compute capability is {capability}, and PyTorch needs {least}"
    return "", ""


def device_problem(device: Device, driver: str) -> str:
    """Say why a device cannot be used, before it is tried; "": nothing is known against it. Pure.

    Args:
        driver: what is wrong with the driver, if anything.
    """
    if device.usable:
        return driver or capability_problem(device.capability)[0]
    if device.fault:
        return device.fault
    return "MIG is on: its instances are the devices" if device.mig_enabled else "its memory cannot be read"


def check(host: str = "") -> dict[str, Any]:
    """Look at a host's GPUs, and hand each to a container once for a moment.

    Args:
        host: "": the stack's own machine.

    Returns:
        `host`; `usable`, whether a session can train on one of its GPUs; `sentence`; `driver`, `cuda`: versions or
        None; `passed`, how many the engine handed to a container; `devices`, each with `uuid`, `name`, `total_bytes`,
        `used_bytes`, `health`, `mig`, `parent`, `capability`, `remark`, and `problem`, "" where it works.

    Raises:
        LookupError: there is no such host.
        ContainerError, OSError: its engine does not answer.
    """
    host = host or LOCAL_HOST
    seen = _seen(host)
    driver = driver_problem(seen.cuda_version)
    problems = {one.uuid: device_problem(one, driver) for one in seen.devices}
    tried = [one.uuid for one in seen.devices if one.usable and not problems[one.uuid]]
    refused = _tried(host, tried) if tried else {}
    return told(host, seen, problems | refused, passed=sum(not refused[one] for one in tried))


def told(host: str, seen: Snapshot, problems: Mapping[str, str], *, passed: int) -> dict[str, Any]:
    """Return what is answered of a host, as `check` says. Pure.

    Args:
        problems: of each device, by UUID; "": none.
        passed: how many were handed to a container.
    """
    found = [
        {
            "uuid": one.uuid,
            "name": one.name,
            "total_bytes": one.total_bytes,
            "used_bytes": one.used_bytes,
            "health": one.health.value,
            "mig": one.mig_enabled,
            "parent": one.parent,
            "capability": one.capability,
            "remark": capability_problem(one.capability)[1],
            "problem": problems[one.uuid],
        }
        for one in seen.devices
    ]
    usable = any(not one["problem"] for one in found)
    sentence = seen.sentence if not found else "a session can train on a GPU" if usable else "no GPU can be used"
    return {
        "host": host,
        "usable": usable,
        "sentence": sentence,
        "driver": seen.driver_version,
        "cuda": seen.cuda_version,
        "passed": passed,
        "devices": found,
        "unidentified": list(seen.unidentified),
    }


def _seen(host: str) -> Snapshot:
    if not is_elsewhere(host):
        return snapshot()
    with Ledger(settings().database_url) as ledger:
        if ledger.host(host) is None:
            there = ", ".join(sorted(one.name for one in ledger.hosts()))
            raise LookupError(f"There is no host {host!r}; there are: {there or 'none yet'}.")
        return snapshot_of(host, ledger.snapshot(host), SNAPSHOT_SECONDS)


def _tried(host: str, uuids: list[str]) -> dict[str, str]:
    stack, api = settings(), engine_of(host)
    image = stack.trainer_image
    if is_elsewhere(host):
        image = image_on(engine.client(), api, image, host)
    labels = passthrough.trial_labels(stack.stack)
    return {uuid: passthrough.problem(api, image, uuid, labels) or "" for uuid in uuids}
