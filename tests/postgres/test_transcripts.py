"""The rows that the transcripts of the docs are typed on are those that a ledger gives: a fake's contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fakes import scene
from fakes.story import Clock, Rows, Runs
from tarmac.ledger.ledger import Ledger
from tarmac.scheduler import board


def shapes(rows: Sequence[dict[str, Any]]) -> dict[str, set[type]]:
    """The types that each key has in some rows; of one that is None everywhere, none."""
    assert rows
    return {key: {type(row[key]) for row in rows} - {type(None)} for key in rows[0]}


def test_the_story_s_rows_have_the_keys_and_types_of_a_ledger_s(ledger: Ledger):
    scene.fill_ledger(ledger)
    clock = Clock()
    runs = Runs(clock)
    runs.add("big", "queued", {"gpu": True})
    for facts, parts in (
        (board.facts, ("devices", "reservations", "queue")),
        (board.host_facts, ("hosts", "reservations")),
    ):
        real, made = facts(ledger), facts(Rows(runs, clock))  # type: ignore[arg-type]
        for part in parts:
            told, known = shapes(made[part]), shapes(real[part])
            assert told.keys() == known.keys(), part
            assert [key for key, types in told.items() if known[key] and not types <= known[key]] == [], part
