"""What is said when Airflow refuses a call."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from tarmac.base import airflow_api
from tarmac.base.airflow_api import AirflowApi, ApiError, disk_is_full


def refusal(monkeypatch: pytest.MonkeyPatch, status: int, *, free: int) -> str:
    monkeypatch.setattr(airflow_api.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(ApiError) as refused:
        AirflowApi._raise_for(httpx.Response(status, json={"detail": "Database error"}))
    assert refused.value.status == status
    return str(refused.value)


def test_a_server_error_on_a_full_disk_says_that_the_disk_is_full(monkeypatch: pytest.MonkeyPatch):
    said = refusal(monkeypatch, 500, free=4096)
    assert said.startswith("No space left on device")
    assert said.endswith("Database error")


@pytest.mark.parametrize(("status", "free"), [(500, 10**9), (404, 4096)], ids=["there is space", "not the server's"])
def test_another_refusal_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch, status: int, free: int):
    assert refusal(monkeypatch, status, free=free) == "Database error"


def test_where_there_is_no_folder_no_disk_is_full(tmp_path: Path):
    assert not disk_is_full(str(tmp_path / "nowhere"))
