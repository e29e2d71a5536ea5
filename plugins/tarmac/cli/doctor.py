"""What `make doctor` and `make gpu-check` do: ask the checker, which has the engine's socket; print what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tarmac.base.errors import CheckerUnavailableError, ExitCode, HostError
from tarmac.base.texts import counted, one_line
from tarmac.base.units import format_size
from tarmac.request.checker import call_checker

MARKS = {"ok": "✓", "note": "!", "wrong": "✗"}


def ask(method: str, path: str, **query: str) -> Any:
    """Return what the checker answers.

    Raises:
        HostError: there is no such host.
        CheckerUnavailableError: it does not answer.
    """
    status, answer = asyncio.run(call_checker(method, path, query))
    if status == 404:
        raise HostError(str(answer.get("detail", status)))
    if status != 200:
        raise CheckerUnavailableError(f"the checker does not answer: {answer.get('detail', status)}")
    return answer


def code_of(found: Sequence[Mapping[str, Any]]) -> int:
    """Return the exit code: 1 where something is wrong. Pure."""
    return ExitCode.RUN_FAILED if any(one["state"] == "wrong" for one in found) else ExitCode.SUCCESS


def finding_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of `make doctor`, what is wrong last. Pure."""
    lines = []
    for one in sorted(found, key=lambda one: list(MARKS).index(one["state"])):
        lines.append(f"{MARKS[one['state']]} {one['part']:<20} {one_line(one['says'])}")
        if one["todo"]:
            lines.append(f"  {'':<20} {one_line(one['todo'])}")
    wrong = sum(one["state"] == "wrong" for one in found)
    notes = sum(one["state"] == "note" for one in found)
    look = f" {counted(notes, 'note')} (!) to look at." if notes else ""
    return [*lines, (f"{wrong} wrong." if wrong else "Nothing is wrong.") + look]


def mended_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of `make doctor FIX=1`: what was mended, then what is left and why. Pure."""
    lines = [f"{MARKS['ok']} {one['part']:<20} {one_line(one['says'])}" for one in found["mended"]]
    lines += [f"{MARKS['wrong']} {one['part']:<20} {one_line(one['says'])}" for one in found["failed"]]
    for one in sorted(found["left"], key=lambda one: list(MARKS).index(one["state"])):
        lines.append(f"{MARKS[one['state']]} {one['part']:<20} {one_line(one['says'])}")
        lines.append(f"  {'':<20} Left: {one_line(one['why'])}.")
        if one["todo"]:
            lines.append(f"  {'':<20} {one_line(one['todo'])}")
    mended = f"Mended inside the stack: {len(found['mended']) or 'nothing'}."
    wrong = len(found["failed"]) + sum(one["state"] == "wrong" for one in found["left"])
    return [*lines, f"{mended} {f'{wrong} wrong.' if wrong else 'Nothing is wrong.'}"]


def gpu_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the lines of `make gpu-check`. Pure."""
    lines = [f"NVIDIA driver {found['driver']}, CUDA {found['cuda'] or '?'}"] if found["driver"] else []
    for device in found["devices"]:
        facts = ["memory not known" if device["total_bytes"] is None else format_size(device["total_bytes"])]
        facts += [f"compute capability {device['capability']}"] if device["capability"] else []
        facts += [f"an instance of {device['parent']}"] if device["parent"] else []
        name = f"{device['uuid']}  {device['name']}, {', '.join(facts)}"
        lines.append(f"{MARKS['wrong' if device['problem'] else 'ok']} {name}")
        lines += [f"  {one_line(text)}" for text in (device["problem"], device["remark"]) if text]
    if found["passed"]:
        lines.append(f"The engine handed {counted(found['passed'], 'GPU')} to a container.")
    lines += [f"{MARKS['wrong']} {one_line(text)}" for text in found["unidentified"]]
    sentence = one_line(found["sentence"]).rstrip(".")
    return [*lines, f"{sentence[:1].upper()}{sentence[1:]}."]
