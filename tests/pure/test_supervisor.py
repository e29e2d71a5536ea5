"""When a scheduler counts as dead."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tarmac.base.errors import SettingsError
from tarmac.reaper.airflow_state import database_url
from tarmac.reaper.supervisor import SILENT_SECONDS, START_SECONDS, Pulse, listens, patience

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SILENT, START = int(SILENT_SECONDS), int(START_SECONDS)


def life(
    *checks: tuple[float, datetime | None | str], before: datetime | None = None, times: float = 1.0
) -> list[float]:
    """The times at which a scheduler started at 0 is found dead; "unavailable" is a database that does not answer."""
    pulse = Pulse(0.0, before)
    found = []
    for now, beat in checks:
        answers = beat != "unavailable"
        if pulse.dead(now, answers=answers, beat=beat if isinstance(beat, datetime) else None, patience=times):
            found.append(now)
    return found


def test_a_scheduler_that_beats_is_alive():
    assert life(*((t, NOON + timedelta(seconds=t)) for t in range(0, 300, 2))) == []


def test_one_that_falls_silent_while_its_database_answers_is_dead():
    beats = [(0.0, NOON), *((float(t), NOON + timedelta(seconds=2)) for t in range(2, 2 + SILENT + 3))]
    assert life(*beats, before=NOON)[0] == 2 + SILENT + 1


def test_silence_counts_only_while_the_database_answers():
    beat = NOON + timedelta(seconds=2)
    unavailable = [(float(t), "unavailable") for t in range(3, 90)]
    back = [(float(t), beat) for t in range(90, 90 + SILENT + 1)]
    assert life((0, NOON), (2, beat), *unavailable, *back, before=NOON) == []
    assert life((0, NOON), (2, beat), *unavailable, *back, (90 + SILENT + 1, beat), before=NOON) == [90 + SILENT + 1]


def test_a_slow_scheduler_on_an_overloaded_host_is_not_taken_for_a_dead_one():
    slow = [(float(t), NOON + timedelta(seconds=40 * (t // 40))) for t in range(0, 400)]  # a beat every 40 s
    assert life(*slow, times=patience(2.0, 2)) != []
    assert life(*slow, times=patience(24.0, 2)) == []
    silent = [(float(t), NOON + timedelta(seconds=min(t, 2))) for t in range(0, 400)]
    assert life(*silent, times=patience(24.0, 2))[0] == 2 + 6 * SILENT + 1


@pytest.mark.parametrize(
    ("load", "processors", "times"), [(0.0, 2, 1.0), (4.0, 2, 1.0), (8.0, 2, 2.0), (32.0, 16, 1.0), (500.0, 2, 8.0)]
)
def test_the_patience_grows_with_the_queue_of_a_processor_up_to_a_bound(load: float, processors: int, times: float):
    assert patience(load, processors) == times


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_by_an_hour_changes_nothing(hours: int):
    jumped = [(float(t), NOON + timedelta(seconds=t, hours=hours if t > 20 else 0)) for t in range(0, 60, 2)]
    assert life(*jumped) == []


def test_a_scheduler_has_time_to_start_and_not_for_ever():
    silent = [(float(t), NOON) for t in range(0, START + 3)]
    assert life(*silent, before=NOON)[0] == START + 1
    assert life(*((float(t), None) for t in range(0, START + 3)))[0] == START + 1


def test_a_socket_whose_listener_is_gone_is_told_from_one_that_listens(tmp_path: Path):
    path = str(tmp_path / "engine.sock")
    assert not listens(path)
    with socket.socket(socket.AF_UNIX) as engine:
        engine.bind(path)
        engine.listen()
        assert listens(path)
    assert not listens(path)


def test_the_databases_address_is_what_libpq_reads():
    url = "postgresql+psycopg2://airflow:secret@postgres/airflow"
    found = database_url({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url})
    assert found == "postgresql://airflow:secret@postgres/airflow"


@pytest.mark.parametrize("url", ["", "sqlite:////airflow.db", "airflow-db-not-allowed:///"])
def test_another_database_is_refused_by_name(url: str):
    with pytest.raises(SettingsError, match="AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        database_url({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url})
