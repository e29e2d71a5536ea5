"""What Prometheus reads of a stack, in its text format (version 0.0.4). Pure.

Labels have few values: devices, hosts, two queues, and the outcomes of a training; never a session or a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tarmac.admission.estimate import Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
QUEUES = ("gpu", "cpu")

Sample = tuple[Mapping[str, str], float]


def exposition(facts: Mapping[str, Any] | None) -> str:
    """Return the text.

    Args:
        facts: `counts` of the checker; None: the ledger does not answer.
    """
    families = [*_families(facts)] if facts else []
    return "\n".join(
        [*_lines("tarmac_up", "gauge", "Whether the ledger answers.", [({}, float(bool(facts)))]), *families, ""]
    )


def _families(facts: Mapping[str, Any]) -> Iterable[str]:
    devices, hosts = facts["devices"], facts["hosts"]
    for name, text, key in (
        ("memory_total_bytes", "Memory of a GPU.", "total_bytes"),
        ("memory_capacity_bytes", "Memory of a GPU that sessions may reserve: all but the headroom.", "capacity_bytes"),
        ("memory_reserved_bytes", "Memory of a GPU that sessions have reserved.", "reserved_bytes"),
        ("memory_others_bytes", "Memory of a GPU that processes of no session use.", "external_bytes"),
    ):
        yield from _lines(f"tarmac_gpu_{name}", "gauge", text, [(_gpu(one), one[key]) for one in devices])
    yield from _lines(
        "tarmac_gpu_usable", "gauge", "Whether sessions can be admitted to a GPU.",
        [(_gpu(one), float(not (one["unusable"] or one["quarantine"] or one["closed"]))) for one in devices],
    )  # fmt: skip
    yield from _lines(
        "tarmac_gpu_quarantined", "gauge", "Whether a GPU is in quarantine until a person releases it.",
        [(_gpu(one), float(bool(one["quarantine"]))) for one in devices],
    )  # fmt: skip
    used: dict[str, int] = {one["uuid"]: 0 for one in devices}
    for row in facts["gpu_reservations"]:
        used[row["device_uuid"]] = used.get(row["device_uuid"], 0) + (row["used_bytes"] or 0)
    yield from _lines(
        "tarmac_gpu_memory_used_bytes", "gauge", "Memory of a GPU that sessions use, as last seen.",
        [(_gpu(one), used[one["uuid"]]) for one in devices],
    )  # fmt: skip
    for name, text, key, scale in (
        ("memory_total_bytes", "Memory of a host.", "total_bytes", 1),
        ("memory_capacity_bytes", "Memory of a host that sessions may reserve.", "capacity_bytes", 1),
        ("memory_reserved_bytes", "Memory of a host that CPU sessions have reserved.", "reserved_bytes", 1),
        ("memory_beside_bytes", "Memory of a host that GPU sessions may take there.", "beside_bytes", 1),
        ("cores", "Cores of a host.", "total_millicpus", 1000),
        ("cores_capacity", "Cores of a host that sessions may reserve.", "capacity_millicpus", 1000),
        ("cores_reserved", "Cores of a host that CPU sessions have reserved.", "reserved_millicpus", 1000),
    ):
        samples = [({"host": one["name"]}, one[key] / scale) for one in hosts]
        yield from _lines(f"tarmac_host_{name}", "gauge", text, samples)
    yield from _sessions(facts)


def _gpu(device: Mapping[str, Any]) -> dict[str, str]:
    return {"gpu": device["uuid"], "name": device["name"]}


def _sessions(facts: Mapping[str, Any]) -> Iterable[str]:
    waiting = {row["queue"]: row for row in facts["waiting"]}
    counts: dict[tuple[str, str], int] = {}
    for queue, rows in (("gpu", facts["gpu_reservations"]), ("cpu", facts["host_reservations"])):
        # A session holds several devices in several rows.
        begun = {row["run_id"]: row["running_at"] is not None for row in rows}
        counts[queue, "training"] = sum(begun.values())
        counts[queue, "reserved"] = len(begun) - counts[queue, "training"]
        counts[queue, "waiting"] = int(waiting[queue]["sessions"]) if queue in waiting else 0
    yield from _lines(
        "tarmac_sessions", "gauge", "Sessions that wait, have reserved and not begun, or train.",
        [({"queue": queue, "state": state}, count) for (queue, state), count in counts.items()],
    )  # fmt: skip
    yield from _lines(
        "tarmac_queue_oldest_wait_seconds", "gauge", "How long the session that has waited longest has; 0: none waits.",
        [({"queue": queue}, float(waiting[queue]["seconds"]) if queue in waiting else 0.0) for queue in QUEUES],
    )  # fmt: skip
    ended = {(row["queue"], row["outcome"]): row["attempts"] for row in facts["outcomes"]}
    yield from _lines(
        "tarmac_training_attempts_total", "counter", "Trainings that ended, by how.",
        [
            ({"queue": queue, "outcome": str(outcome)}, ended.get((queue, str(outcome)), 0))
            for queue in QUEUES for outcome in Outcome
        ],
    )  # fmt: skip


def _lines(name: str, kind: str, text: str, samples: Sequence[Sample]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(word)}"' for label, word in labels.items())
        lines.append(f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}")
    return lines


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
