"""What Prometheus gets: who may read it, and that its names, labels and numbers are what the ledger has."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from fakes.web import Fakes
from tarmac.base.errors import CheckerUnavailableError
from tarmac.web.app import create_app
from tarmac.web.metrics import exposition

GIB = 1024**3
FACTS: dict[str, Any] = {
    "devices": [
        {
            "uuid": 'GPU-"a"\\', "name": "H100", "position": 0, "total_bytes": 80 * GIB, "capacity_bytes": 79 * GIB,
            "reserved_bytes": 20 * GIB, "external_bytes": GIB, "unusable": "", "quarantine": "Xid 79",
            "closed": "",
        }
    ],
    "hosts": [
        {
            "name": "local", "total_bytes": 16 * GIB, "capacity_bytes": 14 * GIB, "reserved_bytes": 4 * GIB,
            "beside_bytes": 0, "total_millicpus": 4000, "capacity_millicpus": 3500, "reserved_millicpus": 1500,
            "beside_millicpus": 0,
        }
    ],
    "gpu_reservations": [
        {"run_id": "one", "device_uuid": 'GPU-"a"\\', "used_bytes": 5, "running_at": "2026-11-28T06:00:00Z"},
        {"run_id": "two", "device_uuid": 'GPU-"a"\\', "used_bytes": None, "running_at": None},
        {"run_id": "two", "device_uuid": "GPU-b", "used_bytes": None, "running_at": None},
    ],
    "host_reservations": [],
    "waiting": [{"queue": "cpu", "sessions": 3, "seconds": 12.5}],
    "outcomes": [{"queue": "gpu", "outcome": "success", "attempts": 7}],
}  # fmt: skip


def values(text: str) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}


def test_the_numbers_are_those_of_the_ledger():
    found = values(exposition(FACTS))
    gpu = '{gpu="GPU-\\"a\\"\\\\",name="H100"}'
    assert found[f"tarmac_gpu_memory_total_bytes{gpu}"] == 80 * GIB
    assert found[f"tarmac_gpu_memory_reserved_bytes{gpu}"] == 20 * GIB
    assert found[f"tarmac_gpu_memory_used_bytes{gpu}"] == 5
    assert (found[f"tarmac_gpu_usable{gpu}"], found[f"tarmac_gpu_quarantined{gpu}"]) == (0, 1)
    assert found['tarmac_host_cores_reserved{host="local"}'] == 1.5
    assert found['tarmac_sessions{queue="gpu",state="training"}'] == 1
    assert found['tarmac_sessions{queue="gpu",state="reserved"}'] == 1, "a session on two devices is one"
    assert found['tarmac_sessions{queue="cpu",state="waiting"}'] == 3
    assert found['tarmac_queue_oldest_wait_seconds{queue="cpu"}'] == 12.5
    assert found['tarmac_queue_oldest_wait_seconds{queue="gpu"}'] == 0
    assert found['tarmac_training_attempts_total{queue="gpu",outcome="success"}'] == 7
    assert found['tarmac_training_attempts_total{queue="cpu",outcome="hung"}'] == 0
    assert found["tarmac_up"] == 1


def test_every_family_is_described_once_and_follows_the_rules_of_the_format():
    text = exposition(FACTS)
    assert text.endswith("\n")
    described = re.findall(r"^# HELP (\S+) ", text, re.MULTILINE)
    typed = re.findall(r"^# TYPE (\S+) (gauge|counter)$", text, re.MULTILINE)
    assert described == [name for name, _ in typed]
    assert len(described) == len(set(described))
    for name, kind in typed:
        assert re.fullmatch(r"tarmac_[a-z_]+", name)
        assert (kind == "counter") == name.endswith("_total"), name
    assert {re.split(r"[{ ]", line)[0] for line in text.splitlines() if line[0] != "#"} <= set(described)


def test_a_ledger_that_is_away_is_told_as_such():
    assert values(exposition(None)) == {"tarmac_up": 0}


@pytest.fixture
def fakes() -> Fakes:
    made = Fakes()
    made.checker = lambda *_: (200, FACTS)
    return made


@pytest.fixture
def client(fakes: Fakes) -> Iterator[TestClient]:
    with TestClient(create_app(fakes)) as client:
        yield client


def coded(pair: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (coded("viewer:right"), 200),
        (coded("viewer:wrong"), 401),
        (coded("without rights:right"), 403),
        ({"Authorization": "Bearer viewer"}, 200),
        ({"Authorization": "Bearer forged"}, 403),
        ({"Authorization": "Basic ===="}, 401),
    ],
)
def test_who_may_read_sessions_may_read_metrics(client: TestClient, headers: dict[str, str], status: int):
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == status
    assert ("tarmac_up 1" in answer.text) == (status == 200)


def test_a_password_is_checked_by_airflow_once_and_not_at_each_scrape(client: TestClient, fakes: Fakes):
    for _ in range(3):
        assert client.get("/metrics", headers=coded("viewer:right")).status_code == 200
    assert fakes.log_ins == ["viewer"]
    assert client.get("/metrics", headers=coded("viewer:wrong")).status_code == 401


def test_a_checker_that_is_away_is_seen_by_who_watches(client: TestClient, fakes: Fakes):
    def away(*_: Any) -> Any:
        raise CheckerUnavailableError("the checker does not answer")

    fakes.checker = away
    answer = client.get("/metrics", headers=coded("viewer:right"))
    assert answer.status_code == 200
    assert values(answer.text) == {"tarmac_up": 0}


def expressions(repository: Path) -> dict[str, list[str]]:
    """What the dashboard and the alert rules ask Prometheus, by file."""
    folder = repository / "docs/monitoring"
    dashboard = json.loads((folder / "grafana.json").read_text())
    rules = yaml.safe_load((folder / "alerts.yml").read_text())
    return {
        "grafana.json": [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]],
        "alerts.yml": [rule["expr"] for group in rules["groups"] for rule in group["rules"]],
    }


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yml"])
def test_the_dashboard_and_the_alerts_ask_for_metrics_and_labels_that_there_are(repository: Path, file: str):
    labels: dict[str, set[str]] = {}
    for line in exposition(FACTS).splitlines():
        if found := re.match(r"(tarmac_\w+)(?:\{(.*)\})? ", line):
            labels.setdefault(found[1], set()).update(re.findall(r"(\w+)=\"", found[2] or ""))
    asked = expressions(repository)[file]
    assert len(asked) >= 5
    for expression in asked:
        for name, matchers in re.findall(r"(tarmac_\w+)(\{[^}]*\})?", expression):
            assert name in labels, f"{name} is no metric: {expression}"
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= labels[name], expression
        for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {word.strip() for word in grouped.split(",")} <= set().union(*labels.values()), expression


def test_the_dashboard_can_be_imported_and_no_panel_covers_another(repository: Path):
    dashboard = json.loads((repository / "docs/monitoring/grafana.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert label in {"gpu", "name", "host", "queue", "state", "outcome"}, panel["title"]
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["datasource"]
