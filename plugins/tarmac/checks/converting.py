"""A file of another form than lines, such as a table or a label tool's export: read as lines, checked, and stored."""

from __future__ import annotations

import io
import os
import re
import threading
from pathlib import Path
from typing import IO, Any

from tarmac.base.errors import BusyError, DatasetError
from tarmac.base.settings import settings
from tarmac.checks import reading
from tarmac.containers import engine
from tarmac.containers.converting import lines_of
from tarmac.request import datasets
from tarmac.request.catalogue import catalogue
from tarmac.request.content import HEAD_BYTES, problem_with_content, refused_for

WAIT_SECONDS = 30.0
"""How long a file waits for the one before it, which may take as much memory."""

_one_at_a_time = threading.Lock()
_NO_NAME = re.compile(r"[^\w. ()+-]+")
_MOST_OF_A_NAME = 100


def convert(content: bytes, *, name: str, model: str, options: dict[str, Any]) -> dict[str, Any]:
    """Read a file as `tarmac data push` does and store the lines that are made of it. Idempotent.

    Args:
        name: of the file, for messages.
        model: the kind of model that the lines are for; "": any.
        options: of the client's `identify`: text_column, label_column, between, encoding, classes.

    Returns:
        `reference`, `size` in bytes and `new` of what is stored, and `told` and `classes` as of `lines_of`.

    Raises:
        DatasetError: it cannot be read, or its lines are none for the model; says why, and nothing is stored.
        BusyError: others are read.
        ContainerError: the engine does not answer.
    """
    if not _one_at_a_time.acquire(timeout=WAIT_SECONDS):
        raise BusyError("Another file is read now: try again in a moment.")
    stack = settings()
    try:
        client = engine.client()
        with lines_of(client, stack.stack, stack.airflow_image, _client(), short_name(name), content, options) as made:
            lines = io.BytesIO(content) if made.own else made.lines
            stored = _checked_and_stored(lines, model)
            datasets.call(stored["reference"], name, stack.store_url)
            return {**stored, "told": made.told, "classes": made.classes}
    finally:
        _one_at_a_time.release()


def _checked_and_stored(lines: IO[bytes], model: str) -> dict[str, Any]:
    head = lines.read(HEAD_BYTES)
    problem = problem_with_content(head, ".jsonl")
    known = catalogue().models.get(model)
    if problem is None and known is not None:
        problem = refused_for(head, model=model, key=known.reads)
    for found in [problem] if problem else reading.broken_lines(head, model):
        raise DatasetError(found)
    reference, size, new = datasets.put(lines, settings().store_url, head=head)
    return {"reference": reference, "size": size, "new": new}


def short_name(name: str) -> str:
    """Return a file's name as a path and a message can have it. Pure."""
    return _NO_NAME.sub("_", name.rpartition("/")[2])[-_MOST_OF_A_NAME:].strip(". ") or "file"


def _client() -> Path:
    return Path(os.environ.get("TARMAC_CLIENT_DIR") or "/opt/airflow/client")
