"""What trains where, what waits and why, at one instant: the ledger and Airflow together. Pure but for `sessions`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tarmac.base import ids
from tarmac.base.airflow_api import AirflowApi
from tarmac.base.states import RUN_UNDER_WAY_STATES
from tarmac.web import answers
from tarmac.web.sessions import latest, metrics, progress, rows_of

Json = Mapping[str, Any]

SESSIONS = 100
"""Sessions under way that are shown, at most: Airflow's largest page."""

TOLD = 32
"""Trainings whose progress is asked for, at most: one call of Airflow's API each."""

RECENT = 40
"""Values of a metric that are shown beside the latest."""


def sessions(api: AirflowApi, ledger: Json) -> list[dict[str, Any]]:
    """Return the sessions under way as the API lists them, each with what its training told last (`told`)."""
    found = rows_of(api, api.runs(SESSIONS, states=RUN_UNDER_WAY_STATES))
    trains = trainings(ledger)
    asked = [row["id"] for row in found if row["id"] in trains][:TOLD]
    told = {run_id: api.xcom(run_id, trains[run_id], "progress") for run_id in asked}
    return [{**row, "told": told.get(row["id"])} for row in found]


def trainings(ledger: Json) -> dict[str, str]:
    """Return the sessions that train by what the ledger says, each with its training's task."""
    of_hosts = [row for row in ledger["hosts"]["reservations"] if not row["beside"]]
    tasks = ((of_hosts, ids.TRAIN_MODEL_CPU), (ledger["gpus"]["reservations"], ids.TRAIN_MODEL_GPU))
    return {row["run_id"]: task for rows, task in tasks for row in rows if row["running_at"]}


def overview(ledger: Json, under_way: Sequence[Json]) -> answers.Now:
    """Put together what the ledger and Airflow know.

    Args:
        ledger: `now`, `gpus`, `hosts` and `samples`, as the checker says.
        under_way: as `sessions` returns them.
    """
    at = datetime.fromisoformat(str(ledger["now"]))
    gpus, hosts = ledger["gpus"], ledger["hosts"]
    held = [*gpus["reservations"], *hosts["reservations"]]
    ends = {row["run_id"]: float(row["ends"]) for row in held if row["ends"] is not None}
    return answers.Now(
        at=at,
        devices=sorted(
            (_device(one, gpus["reservations"], ledger.get("samples", {})) for one in gpus["devices"]), key=_position
        ),
        no_gpu=ledger.get("no_gpu", ""),
        hosts=[_host(one, hosts["reservations"]) for one in hosts["hosts"]],
        queue=[*_queue(gpus["queue"], "gpu"), *_queue(hosts["queue"], "cpu")],
        sessions=[_session(row, ends.get(row["id"]), at) for row in under_way],
        machines=_machines(hosts.get("machines")),
    )


def _machines(found: Json | None) -> answers.Machines | None:
    if not found:
        return None
    kinds = [{**kind, "why": kind["barred"] or kind["says"]} for kind in found["kinds"]]
    sessions = [{"session": row["run_id"], "money": row["money"]} for row in found["sessions"]]
    return answers.Machines.model_validate({**found, "kinds": kinds, "sessions": sessions})


def attempts(ledger: Json, hours: int) -> answers.Attempts:
    """Return what trained in the last hours, of `now` and `attempts` as the checker says them."""
    at = datetime.fromisoformat(str(ledger["now"]))
    found = [
        answers.Attempt(
            session=row["run_id"],
            devices=row["devices"],
            host=None if row["devices"] else row["host"],
            began=row["began_at"],
            ended=row["ended_at"],
            outcome=row["outcome"],
            reserved_bytes=row["reserved_bytes"],
            peak_bytes=row["peak_bytes"],
        )
        for row in ledger["attempts"]
    ]
    return answers.Attempts(since=at - timedelta(hours=hours), at=at, attempts=found)


def _position(device: answers.Device) -> tuple[bool, str, bool, int, str]:
    return device.host != ids.LOCAL_HOST, device.host, device.position is None, device.position or 0, device.uuid


def _device(row: Json, reservations: Sequence[Json], samples: Json) -> answers.Device:
    last = samples.get(row["uuid"], {})
    free = max(0, row["capacity_bytes"] - row["reserved_bytes"] - row["external_bytes"])
    return answers.Device(
        uuid=row["uuid"],
        name=row["name"],
        host=row["host"],
        position=row["position"],
        total_bytes=row["total_bytes"],
        headroom_bytes=max(0, row["total_bytes"] - row["capacity_bytes"]),
        reserved_bytes=row["reserved_bytes"],
        others_bytes=row["external_bytes"],
        free_bytes=free,
        unusable=row["closed"] or row["unusable"],
        quarantine=row["quarantine"],
        utilisation_percent=last.get("utilisation"),
        temperature_celsius=last.get("temperature"),
        watts=last.get("watts"),
        sessions=[_holding(one) for one in reservations if one["device_uuid"] == row["uuid"]],
    )


def _host(row: Json, reservations: Sequence[Json]) -> answers.Host:
    free_bytes = row["capacity_bytes"] - row["reserved_bytes"] - row["beside_bytes"]
    free_millicpus = row["capacity_millicpus"] - row["reserved_millicpus"] - row["beside_millicpus"]
    return answers.Host(
        name=row["name"],
        total_bytes=row["total_bytes"],
        total_millicpus=row["total_millicpus"],
        headroom_bytes=max(0, row["total_bytes"] - row["capacity_bytes"]),
        headroom_millicpus=max(0, row["total_millicpus"] - row["capacity_millicpus"]),
        reserved_bytes=row["reserved_bytes"],
        reserved_millicpus=row["reserved_millicpus"],
        beside_bytes=row["beside_bytes"],
        free_bytes=max(0, free_bytes),
        free_millicpus=max(0, free_millicpus),
        sessions=[_holding(one) for one in reservations if one["host"] == row["name"]],
    )


def _holding(row: Json) -> answers.Holding:
    return answers.Holding(
        session=row["run_id"],
        reserved_bytes=row["bytes"],
        millicpus=row.get("millicpus") or 0,
        used_bytes=row.get("used_bytes"),
        peak_bytes=row.get("peak_bytes"),
        admitted=row["admitted_at"],
        trains_since=row["running_at"],
        silent=row["suspect"],
        beside=row.get("beside", False),
    )


def _queue(rows: Sequence[Json], of: str) -> list[answers.Queued]:
    return [
        answers.Queued.model_validate(
            {
                "session": row["run_id"],
                "place": place,
                "of": of,
                "priority": row["priority"],
                "since": row["enqueued_at"],
                "gives_up": row["deadline_at"],
                "estimate": row["estimate"],
                "why": row["reason"],
            }
        )
        for place, row in enumerate(rows, start=1)
    ]


def _session(row: Json, end: float | None, at: datetime) -> answers.UnderWay:
    far = progress(row["told"])
    points = metrics(row["told"], None)
    metric = latest(points)
    recent = [point["value"] for point in points if metric and point["name"] == metric["name"]][-RECENT:]
    left = None if end is None or end <= at.timestamp() else end - at.timestamp()
    if far and far["eta_seconds"] is not None:
        left = far["eta_seconds"]
    known = {key: value for key, value in row.items() if key != "told"}
    return answers.UnderWay.model_validate(
        {**known, "progress": far, "metric": metric, "recent": recent, "seconds_left": left}
    )
