"""The ledger's schema comes and goes as a whole, whatever else tries at the same time."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from support.fleet import cpu_entry, key, query
from tarmac.admission.estimate import Outcome
from tarmac.base.errors import LedgerError
from tarmac.base.session import SessionKey
from tarmac.base.units import GIB
from tarmac.ledger import database
from tarmac.ledger.database import migrate
from tarmac.ledger.ledger import Ledger
from tarmac.scheduler.host_cycle import run_host_cycle

NEWEST = len(database.migrations())
TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
EVERYTHING = """
    SELECT 'relation', relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'function', proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 'type', typname::text FROM pg_type WHERE typnamespace = 'public'::regnamespace
    ORDER BY 1, 2
"""


def tables(url: str) -> set[str]:
    return {name for (name,) in query(url, TABLES)}


def test_a_new_database_gets_every_table(empty_database: str):
    assert migrate(empty_database) == (0, NEWEST)
    assert tables(empty_database) == {
        "admission", "arrival", "delivery", "device", "device_sample", "history", "host", "machine", "machine_kind",
        "notice", "notifier",
        "promoted_model", "promotion", "quarantine", "recording", "reservation", "schema_version", "session_sample",
        "session_usage", "snapshot", "tower", "untrained_run", "waiting",
    }  # fmt: skip


def test_a_second_time_changes_nothing(empty_database: str):
    migrate(empty_database)
    query(empty_database, "UPDATE tower SET dirty = false")
    assert migrate(empty_database) == (NEWEST, NEWEST)
    assert query(empty_database, "SELECT dirty FROM tower") == [(False,)]


def test_two_at_once_take_turns(empty_database: str):
    start, found = threading.Barrier(4), []

    def body() -> None:
        start.wait()
        found.append(migrate(empty_database))

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [(0, NEWEST)] + 3 * [(NEWEST, NEWEST)]


def test_down_to_nothing_leaves_nothing_and_up_again_makes_the_same(empty_database: str):
    migrate(empty_database)
    before = query(empty_database, EVERYTHING)
    assert migrate(empty_database, 0) == (NEWEST, 0)
    assert tables(empty_database) == {"schema_version"}
    assert not [name for kind, name in query(empty_database, EVERYTHING) if kind == "function"]
    assert migrate(empty_database) == (0, NEWEST)
    assert query(empty_database, EVERYTHING) == before


@pytest.mark.parametrize("to", [None, 0])
def test_a_schema_of_a_newer_tarmac_is_left_alone(empty_database: str, to: int | None):
    migrate(empty_database)
    query(empty_database, "INSERT INTO schema_version (version) VALUES (%s)", (NEWEST + 1,))
    with pytest.raises(LedgerError, match=rf"schema is version {NEWEST + 1} .* this Tarmac knows 0 to {NEWEST}\. Use"):
        migrate(empty_database, to)
    assert "reservation" in tables(empty_database)


def test_an_unknown_version_is_refused(empty_database: str):
    with pytest.raises(LedgerError, match=f"version {NEWEST + 1} is wanted"):
        migrate(empty_database, NEWEST + 1)
    assert tables(empty_database) == set()


def test_a_migration_that_fails_leaves_nothing(empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for path in database.MIGRATIONS.glob("0001_*.sql"):
        shutil.copy(path, tmp_path)
    (tmp_path / "0002_broken.up.sql").write_text("CREATE TABLE half (x integer); SELECT 1 / 0;")
    (tmp_path / "0002_broken.down.sql").write_text("DROP TABLE half;")
    monkeypatch.setattr(database, "MIGRATIONS", tmp_path)
    with pytest.raises(LedgerError, match="division by zero"):
        migrate(empty_database)
    assert tables(empty_database) == set()
    assert migrate(empty_database, 1) == (0, 1)
    with pytest.raises(LedgerError, match="division by zero"):
        migrate(empty_database)
    assert migrate(empty_database, 1) == (1, 1)
    assert "half" not in tables(empty_database)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0001_a.up.sql"], "lacks a direction"),
        (["0002_a.up.sql", "0002_a.down.sql"], "have gaps"),
        (["0001_a.up.sql", "0001_b.up.sql", "0001_a.down.sql"], "there twice"),
        (["1_a.up.sql"], "not a migration's name"),
    ],
)
def test_a_folder_of_migrations_that_makes_no_sense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], words: str
):
    for name in names:
        (tmp_path / name).write_text("SELECT;")
    monkeypatch.setattr(database, "MIGRATIONS", tmp_path)
    with pytest.raises(LedgerError, match=words):
        database.migrations()


BEFORE_HOSTS = 4
UNDER_WAY = """
    INSERT INTO device (uuid, name, position, total_bytes, capacity_bytes) VALUES ('GPU-a', 'H100', 0, 100, 90);
    INSERT INTO arrival (dag_id, run_id) VALUES ('d', 'trains'), ('d', 'waits');
    INSERT INTO reservation (dag_id, run_id, device_uuid, bytes, whole, token, lease_until, enqueued_at, sequence,
        priority, rule, data_bytes, signature)
    VALUES ('d', 'trains', 'GPU-a', 60, false, nextval('fencing_token'), clock_timestamp() + interval '1 minute',
        clock_timestamp(), 1, 0, 'request', 0, 'm:1');
    INSERT INTO waiting (dag_id, run_id, task_id, sequence, memory_bytes, device_count, policy, rule, estimate,
        data_bytes, signature, deadline_at)
    VALUES ('d', 'waits', 'gpu_preflight_configuration', 2, 50, 1, 'packed', 'request', '50 bytes', 0, 'm:1',
        clock_timestamp() + interval '1 hour');
"""


def test_sessions_that_are_under_way_when_hosts_come_and_go_are_kept(empty_database: str):
    migrate(empty_database, BEFORE_HOSTS)
    query(empty_database, UNDER_WAY)
    migrate(empty_database)
    trains, waits = SessionKey("d", "trains"), SessionKey("d", "waits")
    with Ledger(empty_database) as ledger:
        held = ledger.claim(trains)
        assert held is not None
        assert (held.bytes_by_device, held.host, held.host_bytes) == ({"GPU-a": 60}, "", 0)
        assert ledger.waiting() == [waits]
        ledger.put_host("local", 10 * GIB, 2000, 8 * GIB, 2000)
        for name in ("cpu", "queued"):
            ledger.enqueue(key(name), cpu_entry(5))
        assert run_host_cycle(ledger) == [key("cpu")]
        ended = ledger.claim(key("cpu"))
        assert ended is not None
        assert ledger.finish(ended, Outcome.SUCCESS, peak_bytes=1)
        assert run_host_cycle(ledger) == [key("queued")]
    assert migrate(empty_database, BEFORE_HOSTS) == (NEWEST, BEFORE_HOSTS)
    # What the older version knows is as it was; the trainings on the CPU go on without it.
    assert query(empty_database, "SELECT run_id, bytes FROM reservation") == [("trains", 60)]
    assert query(empty_database, "SELECT reserved_bytes FROM device") == [(60,)]
    assert query(empty_database, "SELECT run_id FROM waiting") == [("waits",)]
    assert query(empty_database, "SELECT count(*) FROM history") == [(0,)]
    query(empty_database, "UPDATE tower SET dirty = false")
    query(empty_database, "DELETE FROM reservation")
    assert query(empty_database, "SELECT dirty FROM tower") == [(True,)], "a release is heard"
    assert query(empty_database, "SELECT reserved_bytes FROM device") == [(0,)]
    assert migrate(empty_database) == (BEFORE_HOSTS, NEWEST)
