"""A busy tower to look at: devices, a host, sessions that train and wait, in a real ledger and in a fake Airflow."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from fakes.web import GOOD, Fakes
from support.fleet import DAG_ID, World, cpu_entry, device, entry, query
from tarmac.admission.estimate import Outcome
from tarmac.base import ids
from tarmac.base.session import SessionKey
from tarmac.base.units import GIB
from tarmac.ledger.ledger import Ledger
from tarmac.ledger.samples import Reading, Samples
from tarmac.request import datasets
from tarmac.scheduler.host_cycle import run_host_cycle

HOSTILE = "<script>alert(1)</script>'\"&"
"""What a person might give a session, a data set or a label as its name."""

CURVE = [[step, round(0.62 - 0.5 / (step + 1), 4)] for step in range(1, 13)]


EVALUATION = {
    "metrics": {"accuracy": 0.777, "macro_f1": 0.6803},
    "eval_lines": 1012,
    "per_type": {
        "angry": {"precision": 0.81, "recall": 0.7, "f1": 0.751},
        "calm": {"precision": 0.83, "recall": 0.9, "f1": 0.863},
        HOSTILE: {"precision": 0.5, "recall": 0.375, "f1": 0.4286},
    },
    "support": {"angry": 300, "calm": 680, HOSTILE: 32},
    "confusion": {
        "angry": {"angry": 210, "calm": 85, HOSTILE: 5}, "calm": {"angry": 41, "calm": 612, HOSTILE: 27},
        HOSTILE: {"angry": 8, "calm": 12, HOSTILE: 12},
    },
}  # fmt: skip
"""What `eval` leaves of a kind of model that chooses one of some labels."""


KINDS = """
label = "tarmac-tests"
money_per_day = 60
currency = "EUR"
[[kind]]
name = "gpu-cloud"
provider = "script"
gpu = "NVIDIA L4"
gpu_memory = "22GiB"
cores = 8
memory = "30GiB"
most = 2
idle_minutes = 10
price_per_hour = 1.3
"""
"""env/hosts.toml of the scene."""


def fill_ledger(ledger: Ledger) -> None:
    """Put three devices, a host, a machine on demand, five trainings and four queued sessions into an empty ledger."""
    world = World(
        device("GPU-3f1c", index=0, name="NVIDIA H100 80GB HBM3"),
        device("GPU-88a0", index=1, name="NVIDIA H100 80GB HBM3", used=6 * GIB),
        device("GPU-c0de", index=2, name="NVIDIA H100 80GB HBM3"),
    )
    tower = world.tower(ledger)
    for number, outcome in enumerate((Outcome.SUCCESS, Outcome.SUCCESS, Outcome.OUT_OF_MEMORY, Outcome.SUCCESS)):
        _queue(ledger, f"old-{number}", entry(30))
        tower.run_cycle()
        held = ledger.claim(SessionKey(DAG_ID, f"old-{number}"))
        assert held is not None
        assert ledger.renew(held, running=True, peak_bytes=20 * GIB)
        assert ledger.finish(held, outcome, peak_bytes=20 * GIB)
    query(
        ledger._url,
        "UPDATE history SET seconds = 7200 - 1200 * (id % 3), ended_at = ended_at - id * interval '170 minutes'",
    )
    for name, gib, used in (("ner", 24, 19), ("rel", 40, 22), ("pos", 60, 51)):
        _queue(ledger, name, entry(gib))
        tower.run_cycle()
        held = ledger.claim(SessionKey(DAG_ID, name))
        assert held is not None
        if name != "pos":
            assert ledger.renew(held, running=True, used_bytes=used * GIB, peak_bytes=(used + 1) * GIB)
    ledger.quarantine("GPU-c0de", "three sessions in a row failed on it: CUDA error 719")
    for name, fields in (("big", {"priority": 5}), ("wait-2", {}), ("wait-3", {})):
        _queue(ledger, name, entry(70, **fields))
    tower.run_cycle()
    ledger.put_host("local", 30 * GIB, 8000, 28 * GIB, 7000)
    for name, gib, cores in (("cpu-1", 6, 2), ("cpu-2", 8, 4), ("cpu-3", 4, 4)):
        _queue(ledger, name, cpu_entry(gib, cores))
        run_host_cycle(ledger)
        if held := ledger.claim(SessionKey(DAG_ID, name)):
            assert ledger.renew(held, running=True)
    with Samples(ledger._url) as samples:
        samples.add([Reading("GPU-3f1c", 0, 0, 35, 71.0), Reading("GPU-88a0", 47 * GIB, 93, 61, 310.0)])
    # Twenty minutes of the same, warming up.
    query(
        ledger._url,
        "INSERT INTO session_sample SELECT span, at - n * interval '2 seconds', dag_id, run_id, samples,"
        " reserved_bytes, used_bytes * (1 - n / 900.0), utilisation - n % 23, watts"
        " FROM session_sample, generate_series(1, 600) n",
    )
    query(ledger._url, "UPDATE reservation SET running_at = running_at - interval '21 minutes'")
    query(
        ledger._url,
        "INSERT INTO machine (kind, price_per_hour, intended_at, until_at, trouble) VALUES ('gpu-cloud', 1.3,"
        " clock_timestamp() - interval '95 seconds', clock_timestamp() + interval '12 hours', %s)",
        (f"libcloud's create: openstack answers: no capacity {HOSTILE}",),
    )
    query(ledger._url, "UPDATE waiting SET enqueued_at = enqueued_at - interval '4 minutes'")


def _queue(ledger: Ledger, name: str, what: Any) -> None:
    ledger.enqueue(SessionKey(DAG_ID, name), what)


SESSIONS: dict[str, dict[str, Any]] = {
    "ner": {"model": "named_entity_recognition", "name": "WNUT17, larger batches"},
    "rel": {"model": "relation_extraction", "name": None},
    "pos": {"model": "part_of_speech_tagging", "name": HOSTILE},
    "big": {"model": "named_entity_recognition", "name": "all news of 2025"},
    "wait-2": {"model": "text_classification", "name": None},
    "wait-3": {"model": "text_classification", "name": "tickets"},
    "cpu-1": {"model": "collaborative_filtering", "name": "shop, nightly"},
    "cpu-2": {"model": "part_of_speech_tagging", "name": None},
    "cpu-3": {"model": "word_count", "name": None},
    "new": {"model": "test_model", "name": "just sent"},
}


def version(number: int, **fields: Any) -> dict[str, Any]:
    """A registered version as the checker tells of it."""
    known = {
        "name": "news-entities", "version": number, "aliases": [], "created": f"2026-11-{number:02}T08:00:00Z",
        "same_as": None, "mlflow_run": "f" * 32, "source": "models:/m-1", "url": "http://localhost:5000/#/models",
        "tags": {
            "tarmac.model": "named_entity_recognition", "tarmac.score_name": "ents_f",
            "tarmac.score": str(0.5 + number / 50), "tarmac.data": "news", "tarmac.datasets": "2" * 44,
        },
    }  # fmt: skip
    return known | fields


def step(**fields: Any) -> dict[str, Any]:
    """A step of what is in production as the checker tells of it."""
    known = {
        "model": "news-entities", "kind": "person", "from_version": 2, "to_version": 4, "who": "ada",
        "why": "better on the new labels", "at": "2026-11-20T09:00:00Z", "score_name": "ents_f", "from_score": 0.54,
        "to_score": 0.58, "margin": 0.005, "evaluation_set": None,
    }  # fmt: skip
    return known | fields


def fill_registry(fakes: Fakes) -> list[tuple[str, str, dict[str, str]]]:
    """Give the checker two registered models; return the list that what it is asked to change is noted in."""
    usual = fakes.checker
    changes: list[tuple[str, str, dict[str, str]]] = []
    sides = {"metric": {"ents_f": "0.5400"}, "parameter": {"dropout": "0.3"}, "data": {}, "training": {}, "origin": {}}

    def answer(method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        if path == "/models":
            found = [version(5), version(4, aliases=["production"]), version(2), version(1, name="other", tags={})]
            return 200, [one for one in found if query.get("model") in (None, one["name"])]
        if path == "/production":
            return 200, [step(kind="rule", from_version=None, to_version=2, why=HOSTILE), step()]
        if path == "/compare":
            return 200, [version(2) | sides, version(4) | sides | {"metric": {"ents_f": "0.5800", HOSTILE: HOSTILE}}]
        if path in ("/promote", "/rollback"):
            changes.append((method, path, query))
            return 200, step()
        return usual(method, path, query, body)

    fakes.checker = answer
    return changes


def fill_store(fakes: Fakes, store_url: str) -> list[str]:
    """Store two data sets, which two of the sessions train on; return their references."""
    found = []
    for name, lines, run_id in (("news", 40, "ner"), ("shop-baskets", 900, "cpu-1")):
        content = b"".join(b'{"sentence": "Ada met Bob %d times", "entities": []}\n' % line for line in range(lines))
        reference = datasets.put(io.BytesIO(content), store_url)[0]
        fakes.airflow_api.runs[run_id]["conf"] |= {"datasets": {name: {"train": reference, "eval": None}}}
        found.append(reference)
    return found


def fill_airflow(fakes: Fakes) -> None:
    """Give Airflow the runs of the same sessions."""
    fakes.usage, fakes.real_place = None, True  # as the ledger has them
    began = datetime.now(UTC) - timedelta(minutes=25)
    for number, (run_id, facts) in enumerate(SESSIONS.items()):
        fakes.airflow_api.add(run_id, "running", {**GOOD, "gpu": True, **facts})
        owner = ("ada", "grace", "linus")[number % 3]
        fakes.airflow_api.runs[run_id] |= {"start_date": began.isoformat(), "triggering_user_name": owner}
    for task, done, name in (("train_model_gpu", 61, "ents_f"), ("train_model_cpu", 34, "accuracy")):
        fakes.airflow_api.xcoms[task, "progress"] = {
            "done": done, "total": 100, "eta_seconds": 740.0, "message": "step 1,220 of 2,000",
            "metrics": {name: CURVE, "loss": [[step, round(8 / (step + 1), 3)] for step, _ in CURVE]},
        }  # fmt: skip
        fakes.airflow_api.xcoms[task, "mlflow_run"] = {
            "id": "1f",
            "url": "http://localhost:5000/#/experiments/1/runs/1f",
        }
    prepared = ("check_request_body", "create_unique_session_path", "retrieve_resources", "determine_cpu_or_gpu")
    admitted = ("gpu_training_sensor", "gpu_preflight_configuration", "gpu_pool_setup")
    done = dict.fromkeys((*prepared, *admitted), "success")
    fakes.airflow_api.tasks = {**done, "train_model_gpu": "running", "train_model_cpu": "skipped"}
    fakes.airflow_api.log = [f"step {step * 100:,} of 2,000: ents_f {value}" for step, value in CURVE] + [HOSTILE]
    fakes.airflow_api.add("failed", "failed", {**GOOD, "name": "last night's", "gpu": True})
    fakes.airflow_api.runs["failed"]["note"] = (
        "Failed: retrieve_resources: data set news: line 3 is not JSON (a value is missing, or is not written as "
        "JSON): 'Ada met Bob'"
    )
    fakes.airflow_api.tasks_of["failed"] = {
        **dict.fromkeys(prepared[:2], "success"),
        "retrieve_resources": "failed",
        "determine_cpu_or_gpu": "upstream_failed",
    }
    fakes.airflow_api.add("ended", "success", {**GOOD, "model": "sentiment_analysis", "name": "tickets, five moods"})
    fakes.airflow_api.tasks_of["ended"] = dict.fromkeys(ids.TASKS, "success") | {"train_model_cpu": "skipped"}
    fakes.airflow_api.xcoms["eval_model", "return_value"] = EVALUATION
    fakes.airflow_api.xcoms["update_model_metadata_registry", "return_value"] = {
        "name": "news-entities", "version": 5, "url": "http://localhost:5000/#/models/news-entities/versions/5",
    }  # fmt: skip
