"""The stack that docs/client-verbs.md is typed at: a small team's, on a morning, with one clock for everything.

The API and the checker are the real ones. Airflow, the ledger's rows, MLflow's versions and the machine are made up, in
the types that the code has for them.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from fastapi import HTTPException

from fakes.web import GOOD, Airflow, Fakes
from tarmac.admission.machines import Machine
from tarmac.admission.placement import Reason
from tarmac.admission.reasons import Why, eta
from tarmac.base import ids
from tarmac.base.session import SessionKey
from tarmac.base.units import GIB
from tarmac.checks import doctor, finding, gpus, mending, predicting, server
from tarmac.dagfiles import folder
from tarmac.devices.snapshot import Device, Health, Snapshot, State
from tarmac.ledger.records import DeviceRow, HostRow, Place
from tarmac.reaper.airflow_state import DagRow
from tarmac.reaper.orphans import Orphans
from tarmac.registry import tags as tag
from tarmac.registry.client import Run, Version
from tarmac.registry.facts import Trained, compared_facts, step_facts, version_facts
from tarmac.registry.promotion import Step
from tarmac.registry.repetition import Verdict, again
from tarmac.request.callers import Right
from tarmac.web.stack import Person

MORNING = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)
TOKEN = "token-of-ada"
GPU, SICK_GPU = "GPU-3f1c2a90", "GPU-88a0b7d4"

_PREPARED = (ids.CHECK_REQUEST_BODY, ids.CREATE_UNIQUE_SESSION_PATH, ids.RETRIEVE_RESOURCES, ids.DETERMINE_CPU_OR_GPU)
_ADMITTED = (ids.GPU_TRAINING_SENSOR, ids.GPU_PREFLIGHT_CONFIGURATION, ids.GPU_POOL_SETUP)
_SECONDS = {
    ids.CHECK_REQUEST_BODY: 0.4, ids.CREATE_UNIQUE_SESSION_PATH: 0.3, ids.RETRIEVE_RESOURCES: 0.8,
    ids.DETERMINE_CPU_OR_GPU: 0.4, ids.GPU_TRAINING_SENSOR: 0.3, ids.GPU_PREFLIGHT_CONFIGURATION: 41.2,
    ids.GPU_POOL_SETUP: 0.2, ids.TRAIN_MODEL_GPU: 63.5, ids.TRAIN_MODEL_CPU: 48.1, ids.SAVE_MODEL: 3.1,
    ids.EVAL_MODEL: 1.9, ids.UPDATE_MODEL_METADATA_REGISTRY: 0.6, ids.CLEANUP: 0.5, ids.DELETE_VOLUME: 0.2,
    ids.CHECK_DAG_SUCCESS: 0.2,
}  # fmt: skip
_SCORES = {
    "metrics": {"precision": 0.512, "recall": 0.401, "f1": 0.45}, "eval_lines": 210,
    "per_type": {
        "person": {"precision": 0.6, "recall": 0.5, "f1": 0.545},
        "location": {"precision": 0.4, "recall": 0.3, "f1": 0.343},
    },
    "support": {"person": 96, "location": 60},
}  # fmt: skip
_LOG = [
    "Training named_entity_recognition on 1,890 lines, scored on 210",
    "step 100 of 400: loss 41.2, f1 0.312",
    "step 200 of 400: loss 28.9, f1 0.398",
    "step 300 of 400: loss 24.1, f1 0.441",
    "step 400 of 400: loss 22.8, f1 0.450",
]


class Clock:
    """The time everywhere in this story, aware. It goes on only when a command is typed, or waits."""

    def __init__(self) -> None:
        self.now = MORNING

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def to(self, time: datetime) -> None:
        """Go on to this time, unless it is past."""
        self.now = max(self.now, time)

    def type(self) -> type[datetime]:
        """Return a `datetime` whose now is this clock's."""
        clock = self

        class Dates(type):
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, datetime)

        class Told(datetime, metaclass=Dates):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return clock.now.astimezone(tz)

        return Told


class Runs(Airflow):
    """Airflow with runs. Each pause of the client takes them one stage further. The newest is listed first."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock, self.stages = clock, dict[str, int]()
        self.log = list(_LOG)

    def seconds_of(self, task: str, state: str) -> float | None:
        return _SECONDS[task] if state == "success" else None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = super().__call__(request)
        if request.method == "PATCH" and json.loads(request.content).get("state") == "failed":
            self._end_badly(request.url.path.rpartition("/")[2])
        if request.url.path.endswith("/taskInstances/list"):
            asked = json.loads(request.content)
            found = [
                {"dag_run_id": run_id, "task_id": task, "state": state, "try_number": 1}
                for run_id in asked["dag_run_ids"]
                for task, state in self.tasks_of[run_id].items()
                if state in asked["state"]
            ]
            return httpx.Response(200, json={"task_instances": found})
        return answer

    def _end_badly(self, run_id: str) -> None:
        """As Airflow does where a run is marked as failed: what has not ended fails, and the teardowns run."""
        self.runs[run_id]["end_date"] = self._clock.now.isoformat()
        self.tasks_of[run_id] = {
            task: "success" if state == "success" else "failed" for task, state in self.tasks_of[run_id].items()
        } | {ids.CLEANUP: "success", ids.DELETE_VOLUME: "success"}

    def add(self, run_id: str, state: str, conf: dict[str, Any] = GOOD) -> None:
        super().add(run_id, state, conf)
        begun = self._clock.now.isoformat()
        self.runs[run_id] |= {"triggering_user_name": "ada", "start_date": begun, "end_date": None}
        self.runs = {run_id: self.runs.pop(run_id), **self.runs}
        self.stages[run_id] = 0
        self.show(run_id)

    def go_on(self) -> None:
        """Let the newest run that has not ended go on by one stage."""
        for run_id, run in self.runs.items():
            if run["state"] in ("queued", "running"):
                self.stages[run_id] += 1
                self.show(run_id)
                return

    def waits(self, run_id: str) -> bool:
        """Tell whether a run waits for a GPU."""
        run = self.runs.get(run_id, {})
        gpu = run.get("conf", {}).get("gpu")
        return bool(gpu) and run["state"] == "running" and self.stages[run_id] <= 1

    def on_gpu(self) -> list[str]:
        """Return the runs that train on a GPU."""
        return [one for one in self.runs if self.tasks_of[one].get(ids.TRAIN_MODEL_GPU) == "running"]

    def show(self, run_id: str) -> None:
        run = self.runs[run_id]
        gpu = bool(run["conf"].get("gpu"))
        training, other = (ids.TRAIN_MODEL_GPU, ids.TRAIN_MODEL_CPU)[:: 1 if gpu else -1]
        done: dict[str, str] = dict.fromkeys(_PREPARED, "success")
        run["state"] = "running"
        before = 2 if gpu else 0
        if gpu and self.stages[run_id] < before:
            self.tasks_of[run_id] = {**done, ids.GPU_TRAINING_SENSOR: "success", _ADMITTED[1]: "deferred"}
            return
        done |= dict.fromkeys(_ADMITTED, "success" if gpu else "skipped") | {other: "skipped"}
        own = run["conf"].get("model") == "own_code"
        stage = self.stages[run_id] - before
        if stage < 2:
            progress: dict[str, Any] = {"done": 100 * (stage + 1), "total": 400, "eta_seconds": 36 - 12 * stage}
            progress["metrics"] = {"f1": [[100, 0.312], [200, 0.398]][: stage + 1]}
            self.tasks_of[run_id] = {**done, training: "running"}
            self.xcoms_of[run_id] = {(training, "progress"): {"done": 1, "total": 2} if own else progress}
            return
        self.tasks_of[run_id] = {one: {**done, training: "success"}.get(one, "success") for one in ids.TASKS}
        name = run["conf"].get("name") or run["conf"].get("model")
        number = 3 if name == "news" else 1
        registered = {"name": name, "version": number, "url": _page(name, number)}
        scores = {"metrics": {"score": 0.75}} if own else _SCORES
        self.xcoms_of[run_id] = {
            (training, "return_value"): {"curve": [[100, 0.312], [400, 0.45]], "score_name": "f1"},
            (ids.EVAL_MODEL, "return_value"): scores,
            (ids.UPDATE_MODEL_METADATA_REGISTRY, "return_value"): registered,
        }
        took = sum(_SECONDS[task] for task, state in self.tasks_of[run_id].items() if state == "success")
        self._clock.to(datetime.fromisoformat(run["start_date"]) + timedelta(seconds=took))
        run |= {"state": "success", "end_date": self._clock.now.isoformat()}


class Rows:
    """The ledger, as far as `parts` asks it: two GPUs, one of them in quarantine, and the stack's own machine."""

    def __init__(self, runs: Runs, clock: Clock) -> None:
        self._runs, self._clock = runs, clock

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *_: object) -> None: ...

    transaction = contextlib.nullcontext

    def devices(self) -> list[DeviceRow]:
        name, total, room = "NVIDIA H100 80GB HBM3", 80 * GIB, 78 * GIB
        why = "three sessions in a row failed on it: CUDA error 719"
        return [
            DeviceRow(GPU, name, 0, total, room, 60 * GIB, 0, "", ""),
            DeviceRow(SICK_GPU, name, 1, total, room, 0, 0, "", why),
        ]

    def holders(self) -> list[dict[str, Any]]:
        most = {"used_bytes": 52 * GIB, "peak_bytes": 55 * GIB}
        trained = [self._held(one, device_uuid=GPU, bytes=40 * GIB, **most) for one in self._runs.on_gpu()]
        return [self._held("archive", device_uuid=GPU, bytes=60 * GIB, **most), *trained]

    def hosts(self) -> list[HostRow]:
        return [HostRow("local", 32 * GIB, 8000, 30 * GIB, 7500, 6 * GIB, 4000, 0, 0)]

    def host_holders(self) -> list[dict[str, Any]]:
        return [self._held("shop-nightly", host="local", bytes=6 * GIB, millicpus=4000, beside=False)]

    def _held(self, run_id: str, **held: Any) -> dict[str, Any]:
        times = dict.fromkeys(("admitted_at", "running_at"), self._clock.now - timedelta(minutes=25))
        return {"run_id": run_id, **held, **times, "suspect": False, "ends": (self._clock.now.timestamp() + 740)}

    def snapshots(self) -> dict[str, tuple[str, float]]:
        return {}

    def machines(self) -> list[Machine]:
        return []

    def queue(self, limit: int = 50, *, on_host: bool = False) -> list[dict[str, Any]]:
        found = []
        for run_id in self._runs.runs:
            key = SessionKey(ids.DAG_ID, run_id)
            if not on_host and (place := self.place_in_queue(key)):
                times = {"enqueued_at": self._clock.now, "deadline_at": self._clock.now + timedelta(hours=8)}
                need = {"memory_bytes": 40 * GIB, "device_count": 1, "host_bytes": 4 * GIB, "millicpus": 1000}
                rest = {"wanted_host": None, "view": "", "now": self._clock.now.timestamp()}
                row = {"dag_id": ids.DAG_ID, "run_id": run_id, "priority": 0, "estimate": place.estimate, **need}
                found.append({**row, **times, **rest, "reason": str(place.why)})
        return found

    def place_in_queue(self, key: SessionKey) -> Place | None:
        if not self._runs.waits(key.run_id):
            return None
        says = f"needs 40.0 GiB: {GPU} has 18.0 GiB free of 78.0 GiB, 60.0 GiB reserved; {SICK_GPU} is in quarantine"
        why = Why(Reason.WAITING_FOR_MEMORY, says, eta(740))
        return Place(0, why, 8 * 3600 - 20, 20.0, "40.0 GiB, the model's default: nothing like it was measured yet")

    def priority(self, key: SessionKey) -> int | None:
        return 0 if self._runs.waits(key.run_id) else None


def _page(name: str, version: int) -> str:
    return f"http://localhost:5000/#/models/{name}/versions/{version}"


def _version(number: int, score: float, **fields: Any) -> Version:
    tags = {
        tag.MODEL: "named_entity_recognition", tag.SCORE_NAME: "f1", tag.SCORE: str(score), tag.EVAL_LINES: "210",
        tag.EVALUATION_SET: "4e8DaSpQvgyqMgYH",
    }  # fmt: skip
    made = (MORNING - timedelta(days=4 - number, hours=2)).timestamp()
    return Version("news", number, f"{number:032x}", "models:/m-1", made, tags, **fields)


def _trained(version: Version, patience: str, seconds: float) -> Trained:
    params = {
        "model": "named_entity_recognition", "seed": "0", "device": "cpu", "patience": patience, "train_lines": "1890",
        "eval_lines": "210",
    }  # fmt: skip
    measured = {"f1": float(version.tags[tag.SCORE]), "seconds": seconds}
    run = {tag.IMAGE: "tarmac/trainer:0.1.0", tag.TRAINER_VERSION: "0.1.0", tag.RUN_ID: f"news-{version.version}"}
    return Trained(version, Run(version.run_id, "1", "FINISHED", params, measured, run, None), {})


def _step(kind: str, before: int | None, after: int, who: str, why: str, at: datetime) -> Step:
    return Step("news", kind, before, after, who, why, "f1", 0.431, 0.45, 0.005, "4e8DaSpQvgyqMgYH", at)


class Dags:
    """What Airflow's database has of uploaded DAG files: it loads one within 2 s."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def dags(self) -> list[DagRow]:
        loaded = self._clock.now
        return [
            DagRow(dag, folder.BUNDLE, f"{name}.py", loaded, True, True)
            for name, one in folder.all_uploads().items()
            for dag in one.dags
            if loaded - datetime.fromisoformat(one.at) >= timedelta(seconds=2)
        ]

    def file_errors(self, bundle: str) -> dict[str, tuple[datetime, str]]:
        return {}

    def run_counts(self, dag_ids: list[str]) -> tuple[int, list[str]]:
        return 4, []


class Story(Fakes):
    """The stack as Ada finds it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.airflow_api, self.real_place = clock, Runs(clock), True
        self.rows, self.dags = Rows(self.airflow_api, clock), Dags(clock)
        old = MORNING - timedelta(days=2)
        self.steps = [_step("rule", None, 1, "news-1", "the first version", old)]
        self.steps.append(_step("rule", 1, 2, "news-2", "f1 0.4310 is better than 0.4120 by more than 0.005", old))
        self.checker = self._told

    async def identify(self, token: str | None) -> Person:
        if token != TOKEN:
            raise HTTPException(401, "Not authenticated")
        return Person("ada", TOKEN)

    async def may(self, person: Person, right: Right) -> bool:
        return True

    def go_on(self, _: float = 0) -> None:
        """Let time pass, as somebody waits."""
        self.clock.pass_(12)
        self.airflow_api.go_on()

    @property
    def versions(self) -> list[Version]:
        now = self.steps[-1].to_version
        scores = {3: 0.45, 2: 0.431, 1: 0.412}
        return [_version(one, scores[one], aliases=("production",) * (one == now)) for one in scores]

    def _told(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Answer what MLflow, the engine and the machine would say; the checker's own code answers the rest."""
        match (method, path):
            case ("GET", "/models"):
                return _json([version_facts(one) for one in self.versions])
            case ("GET", "/compare"):
                found = {f"{one.name}/{one.version}": one for one in self.versions}
                both = (found[query["a"]], "600", 44.0), (found[query["b"]], "1200", 48.1)
                return _json(compared_facts(*(_trained(*one) for one in both)))
            case ("GET", "/production"):
                then = query.get("at")
                steps = [one for one in self.steps if then is None or one.at <= datetime.fromisoformat(then)]
                return _json([step_facts(one) for one in (steps if then is None else steps[-1:])])
            case ("POST", "/promote"):
                return self._step("person", int(query["version"]), query)
            case ("POST", "/rollback"):
                return self._step("rollback", self.steps[-1].from_version or 0, query)
            case ("DELETE", "/version"):
                return _json({"model": query["model"], "version": int(query["version"]), "files": True})
            case ("GET", "/repetition"):
                conf = self.airflow_api.runs[query["run"]]["conf"]
                return _json({"of": query["run"], "request": again(conf)})
            case ("GET", "/verdict"):
                return _json(asdict(Verdict(True, [], [])))
            case ("POST", "/predict"):
                said = {"named_entity": ["B-person", "O", "B-person", "O", "B-location"]}
                version = next(one.version for one in self.versions if "production" in one.aliases)
                return _json(asdict(predicting.Answer("news", version, "named_entity_recognition", [said])))
            case ("POST", "/gpu-check"):
                return _json(self._gpu_check())
            case ("GET", "/doctor"):
                return _json(self._findings())
            case ("POST", "/mend"):
                over = Orphans({}, {SessionKey(ids.DAG_ID, "shop-old"): "its run was deleted"}, {}, {})
                lines = mending.removed_lines(over, Orphans({}, {}, {}, {}))
                done = [{"part": "leftovers", "says": line} for line in lines]
                found = self._findings()
                return _json({"mended": done, "failed": [], "left": mending.left_of(found), "findings": found})
            case ("DELETE", "/file"):
                found = server.answer_to("GET", "/file", {"name": query["name"]}, io.BytesIO())
                return _json({key: found[key] for key in ("reference", "size")})
        return self._answer(method, path, query, body)

    def _step(self, kind: str, to: int, query: dict[str, str]) -> tuple[int, Any]:
        now = self.steps[-1].to_version
        self.steps.append(_step(kind, now, to, query["who"], query.get("why", ""), self.clock.now))
        return _json(step_facts(self.steps[-1]))

    def _gpu_check(self) -> dict[str, Any]:
        name, reset = "NVIDIA H100 80GB HBM3", "the driver wants the GPU to be reset"
        well = Device(
            GPU, name, 0, None, 80 * GIB, 0, 0, 80 * GIB, (), 0, 40, False, Health.OK, "", capability="9.0"
        )  # fmt: skip
        sick = replace(well, uuid=SICK_GPU, index=1, health=Health.NEEDS_RESET, fault=reset)
        seen = Snapshot(State.OK, "the NVIDIA driver lists 2 GPUs", "570.86.15", "12.8", (well, sick))
        return gpus.told("local", seen, {one.uuid: gpus.device_problem(one, "") for one in seen.devices}, passed=1)

    def _findings(self) -> list[dict[str, Any]]:
        now = self.clock.now
        found = [
            finding.Finding("engine", finding.State.OK, "version 29.1.0, 8 cores, 32.0 GiB"),
            doctor.clock("the engine's machine", now, now),
            doctor.room("the engine's disk", 212 * GIB, 480 * GIB),
            doctor.schema(11, 11),
            doctor.clock("Postgres", now, now),
            doctor.leftovers(Orphans({}, {}, {}, {})),
            doctor.reservations([*self.rows.holders(), *self.rows.host_holders()], now),
            *doctor.quarantine(self.rows.devices()),
            finding.Finding("registry", finding.State.OK, "MLflow answers; it has 2 models"),
            *doctor.health({"scheduler": {"status": "healthy"}, "metadatabase": {"status": "healthy"}}),
        ]
        return [asdict(one) for one in found]


def _json(value: Any) -> tuple[int, Any]:
    return 200, json.loads(json.dumps(value, default=lambda other: other.isoformat()))
