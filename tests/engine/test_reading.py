"""Lines that a trainer cannot read are named before a file is stored: by the real trainer, in a container."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from support.steps import IMAGE
from tarmac.base.session import LABEL_PREDICTION
from tarmac.base.settings import settings
from tarmac.checks import reading
from tarmac.request.catalogue import Model, catalogue
from tarmac.request.content import HEAD_BYTES

GOOD = json.dumps({"sentence": "Ada met Bob", "named_entity": ["B-x", "O", "B-x"]})
SHORT = json.dumps({"sentence": "Ada met Bob", "named_entity": ["B-x"]})
OTHER = json.dumps({"sentence": "Ada met Bob", "named_entity": ["B-x", 7, "O"]})


def head(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.fixture(autouse=True)
def nothing_is_left(api: Any, stack: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TARMAC_TRAINER_IMAGE", f"tarmac/trainer:{os.environ.get('TARMAC_TAG') or 'latest'}")
    settings.cache_clear()
    yield
    settings.cache_clear()
    assert api.containers(all=True, filters={"label": [LABEL_PREDICTION, f"tarmac.project={stack}"]}) == []


def test_the_first_broken_lines_are_named_for_the_kind_of_model(api: Any):
    lines = head(GOOD, SHORT, '{"sentence": "for others"}', OTHER, GOOD, SHORT, SHORT)
    assert reading.broken_lines(lines, "named_entity_recognition") == [
        "FILE: 4 lines of it cannot be read for named_entity_recognition: line 2: 3 words but 1 tag; line 4: tag 2 "
        "must be a string, not 7; line 6: 3 words but 1 tag; and 1 more. Nothing was stored."
    ]
    assert reading.broken_lines(head(GOOD), "named_entity_recognition") == []
    cut = head(*([GOOD] * (HEAD_BYTES // len(GOOD) + 1)))[:HEAD_BYTES]
    assert reading.broken_lines(cut, "named_entity_recognition") == [], "the last line is cut, not broken"
    assert reading.broken_lines(head(SHORT), "none") == []


def test_a_trainer_without_the_command_leaves_it_to_prep(api: Any, monkeypatch: pytest.MonkeyPatch):
    kind = Model("shell", "score", image=IMAGE, command=("/bin/sh", "-c", "exit 2", "trainer"))
    monkeypatch.setitem(catalogue().models, "shell", kind)
    assert reading.broken_lines(head(SHORT), "shell") == []


@pytest.mark.parametrize("found", [(None, ["x"]), (0, []), ("3", ["x"]), (2, "x"), (-1, ["x"])])
def test_what_a_trainer_gives_in_another_form_counts_as_nothing(found: tuple[Any, Any]):
    assert reading.said(*found, "m") == []
