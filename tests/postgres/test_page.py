"""The page Now on a real ledger: what is reserved, used, queued and in quarantine reaches the reader."""

from __future__ import annotations

import re
from html import unescape

import pytest
from fastapi.testclient import TestClient

from fakes import scene
from fakes.web import Fakes
from tarmac.base.settings import settings
from tarmac.base.units import GIB
from tarmac.ledger.ledger import Ledger
from tarmac.web.app import create_app
from tarmac.web.mounted import beside
from tarmac.web.page.app import create_page


def test_a_viewer_sees_devices_hosts_sessions_and_the_queue(
    ledger: Ledger, database: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TARMAC_DATABASE_URL", database)
    settings.cache_clear()
    scene.fill_ledger(ledger)
    fakes = Fakes()
    scene.fill_airflow(fakes)
    api = create_app(fakes)
    with TestClient(beside(api, create_page(api, stopping=lambda: True))) as browser:
        answer = browser.get("/news/now", headers={"Cookie": "_token=viewer"})
        past = browser.get("/api/v1/attempts", headers={"Authorization": "Bearer viewer"}).json()["attempts"]
        history = browser.get("/history?hours=168", headers={"Cookie": "_token=viewer"})
        used = browser.get("/api/v1/sessions/ner/usage", headers={"Authorization": "Bearer viewer"}).json()
        page = browser.get("/sessions/ner", headers={"Cookie": "_token=viewer"}).text
        found = browser.get("/api/v1/now", headers={"Authorization": "Bearer viewer"}).json()
    assert answer.status_code == 200, answer.text
    assert "GPU-88a0, 93 % busy, 61 °C, 310 W" in answer.text
    assert 200 < len(used["samples"]) <= 302
    assert (used["samples"][-1]["reserved_bytes"], used["samples"][-1]["used_bytes"]) == (24 * GIB, 19 * GIB)
    assert "GPU memory, GiB" in page
    text = re.sub(r"\s+", " ", unescape(re.sub(r"^data: |<[^>]+>", " ", answer.text, flags=re.M)))
    for words in (
        "5 sessions hold a reservation, 4 in the queue, 1 of 3 GPUs out of use",
        "9.0 GiB free of 80.0 GiB; 64.0 GiB reserved, of that 41.0 GiB used; 6.0 GiB used by others; 1.0 GiB headroom",
        "GPU-c0de three sessions in a row failed on it: CUDA error 719",
        "WNUT17, larger batches named_entity_recognition ada trains for 21 min",
        "61 % at most 12 min ents_f 0.5815",
        "Cores: 1 free of 8; 6 cores reserved; 1 core headroom",
        "all news of 2025 1 priority 5 named_entity_recognition ada a GPU for 4 min",
        "needs 70.0 GiB: GPU-3f1c has 19.0 GiB free of 79.0 GiB, 60.0 GiB reserved",
        "needs 4 cores and 4.0 GiB of memory: local has 1 of 7 cores",
        "just sent",
        scene.HOSTILE,
    ):
        assert words in text, text
    ended = [(one["session"], one["outcome"], len(one["devices"])) for one in past if one["ended"]]
    assert ended == [
        ("old-3", "success", 1), ("old-2", "out_of_memory", 1), ("old-1", "success", 1), ("old-0", "success", 1),
    ]  # fmt: skip
    under_way = {one["session"]: (one["host"], one["outcome"]) for one in past if not one["ended"]}
    assert under_way == {
        "ner": (None, None), "rel": (None, None), "cpu-1": ("local", None), "cpu-2": ("local", None),
    }  # fmt: skip
    assert "Host local" in history.text
    assert history.text.count('class="failed"') == 1
    assert [one["session"] for one in found["queue"]] == ["big", "wait-2", "wait-3", "cpu-3"]
