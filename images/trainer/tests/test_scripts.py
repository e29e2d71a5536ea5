"""A user's own training code, from the store to a scored model."""

import hashlib
import sys
from pathlib import Path

import base58
import pytest
from conftest import NINE, Session

GOOD = """
import json, os, spacy, sys
from pathlib import Path
print(json.dumps({"event": "progress", "done": 1, "total": 4}))
print("read", len(Path("data/train.jsonl").read_text().splitlines()), "lines")
nlp = spacy.blank("en")
nlp.add_pipe("entity_ruler").add_patterns([{"label": "person", "pattern": [{"TEXT": {"REGEX": "^Ada"}}]}])
nlp.to_disk(os.environ["TARMAC_MODEL"])
"""


def stored(session: Session, code: str, suffix: str = ".py") -> str:
    data_id = base58.b58encode(hashlib.sha256(code.encode()).digest()).decode()
    (session.store / data_id).mkdir(exist_ok=True)
    (session.store / data_id / f"{data_id}{suffix}").write_text(code)
    return f"{data_id}/{data_id}{suffix}"


def prepared(session: Session, script: str) -> Session:
    reference = session.put(NINE)
    session.request({"a": {"train": reference, "eval": reference}}, "named_entity_recognition", script=script)
    return session


def test_a_script_trains_in_place_of_the_model_s_own_code(session: Session) -> None:
    prepared(session, stored(session, GOOD))
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert outcome.result["best_score"] == 1.0
    assert "read 9 lines" in outcome.out.splitlines()
    assert {"event": "progress", "done": 1.0, "total": 4.0} in [
        {key: event[key] for key in ("event", "done", "total")} for event in outcome.of("progress")
    ]
    assert session.run("eval").result["metrics"]["f1"] == 1.0
    assert not (session.folder / ".model.script").exists()


def test_a_shell_script_is_one_too(session: Session) -> None:
    code = 'import os, spacy; spacy.blank("en").to_disk(os.environ["TARMAC_MODEL"])'
    code = f"{sys.executable} -c '{code}'\n"
    prepared(session, stored(session, code, ".sh"))
    assert session.run("prep").code == 0
    assert session.run("train").result["best_score"] == 0.0


FAILURES = {
    "a crash": ("raise KeyError('colour')", 1, "exit code 1: KeyError: 'colour'"),
    "bad input, by its own word": ("print('no such column'); raise SystemExit(2)", 2, "exit code 2: no such column"),
    "no model": ("print('done')", 2, "left no named_entity_recognition model"),
}


@pytest.mark.parametrize(("code", "exit_code", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_script_that_fails_says_why(session: Session, code: str, exit_code: int, reason: str) -> None:
    prepared(session, stored(session, code))
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert outcome.code == exit_code
    assert reason in outcome.error["message"]
    assert not (session.folder / "model").exists()


def test_a_script_that_was_changed_in_the_store_is_refused(session: Session) -> None:
    reference = stored(session, GOOD)
    Path(session.store / reference).write_text(GOOD + "# and more")
    outcome = prepared(session, reference).run("prep")
    assert outcome.code == 2
    assert "the content does not match its id" in outcome.error["message"]
