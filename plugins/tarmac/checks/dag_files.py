"""Uploads, lists and removes DAG files: what is looked at, in which order. Whether a person may is decided before."""

from __future__ import annotations

import os
import re
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tarmac.base.errors import BusyError, DagFileError, InUseError
from tarmac.base.settings import settings
from tarmac.base.texts import one_line
from tarmac.checks.dag_facts import facts, remains
from tarmac.containers import engine
from tarmac.containers.looking import look
from tarmac.dagfiles import folder
from tarmac.dagfiles.copying import name_with, parsed, with_suffix
from tarmac.dagfiles.folder import BUNDLE, Upload
from tarmac.dagfiles.problems import SECONDS, problems
from tarmac.reaper.airflow_state import AirflowState, database_url

WAIT_SECONDS = 60.0
"""How long an upload waits for the one before it."""

_MOST_OF_A_REASON = 500
_one_at_a_time = threading.Lock()


def upload(name: str, source: bytes, *, suffix: str, why: str, who: str) -> dict[str, Any]:
    """Check a file and store it, where Airflow finds it within seconds.

    Args:
        name: of the file, without .py.
        suffix: of a copy with DAG ids of its own; "": none.
        why: the reason, which the note of each run has.

    Returns:
        As `listing` has it.

    Raises:
        DagFileError: it is wrong, or uploads are off.
        InUseError: another person has uploaded a file of this name.
        BusyError: others are checked.
        ContainerError, AirflowStateError: a part of the stack does not answer.
    """
    _refuse_when_off()
    _check_names(name, suffix)
    stored, file = name_with(name, suffix), f"{name}.py"
    parsed(source, file)
    source = with_suffix(source, suffix, file) if suffix else source
    if not _one_at_a_time.acquire(timeout=WAIT_SECONDS):
        raise BusyError("Another DAG file is checked now: try again in a moment.")
    try:
        uploads = folder.all_uploads()
        before = uploads.get(stored)
        if before is not None and before.who != who:
            raise InUseError(
                f"{before.who} has uploaded a file {stored!r}: upload yours as a copy (--as SUFFIX), or remove that "
                f"one first (tarmac dag rm {stored}). Nothing was uploaded."
            )
        stack = settings()
        found = look(engine.client(), stack.stack, stack.airflow_image, file, source, _code(), seconds=SECONDS)
        with _airflow() as airflow:
            others = {row.dag_id: row.file for row in airflow.dags() if row.there and row.bundle != BUNDLE}
            if wrong := problems(found, file=file, name=stored, suffix=suffix, others=others, uploads=uploads):
                raise DagFileError(" ".join([*wrong, "Nothing was uploaded."]))
            record = Upload(
                found["dags"], who, one_line(why)[:_MOST_OF_A_REASON], datetime.now(UTC).isoformat(), suffix
            )
            folder.put(stored, source, record)
            return facts(stored, record, airflow.dags(), airflow.file_errors(BUNDLE), stack.public_url)
    finally:
        _one_at_a_time.release()


def listing() -> list[dict[str, Any]]:
    """Return all uploads, by name, with what Airflow has of each.

    Raises:
        DagFileError: uploads are off.
        AirflowStateError: Airflow's database does not answer.
    """
    _refuse_when_off()
    with _airflow() as airflow:
        dags, errors, url = airflow.dags(), airflow.file_errors(BUNDLE), settings().public_url
    return [facts(name, upload, dags, errors, url) for name, upload in folder.all_uploads().items()]


def remove(name: str) -> dict[str, Any]:
    """Remove an uploaded file; its runs stay.

    Raises:
        LookupError: there is none of this name.
        InUseError: runs of it are under way.
        DagFileError: uploads are off.
        AirflowStateError: Airflow's database does not answer.
    """
    _refuse_when_off()
    uploads = folder.all_uploads()
    if name not in uploads:
        raise LookupError(f"There is no uploaded DAG file {name!r}: `tarmac dag ls` lists them.")
    with _airflow() as airflow:
        count, under_way = airflow.run_counts(uploads[name].dags)
    if under_way:
        more = f" and {len(under_way) - 1} more" if len(under_way) > 1 else ""
        raise InUseError(
            f"{name} is still needed: its run {under_way[0]}{more} has not ended. Mark it as failed in Airflow, or "
            "wait. Nothing was removed."
        )
    folder.remove(name)
    return {
        "name": name,
        "dags": list(uploads[name].dags),
        "runs": count,
        "remains": remains(count, settings().kept.days),
    }


def _refuse_when_off() -> None:
    if not settings().dag_upload:
        raise DagFileError(
            "Uploads of DAGs are off in this stack, since an upload gives the rights of root on its machine: "
            "TARMAC_DAG_UPLOAD=yes in env/stack.env and `make up` turn them on."
        )


def _check_names(name: str, suffix: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}", name):
        raise DagFileError(
            f"FILE: its name may have letters, digits, _ and - before .py, 80 at most (got {name[:100]!r}): rename it."
        )
    if suffix and not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", suffix):
        raise DagFileError(f"--as: a suffix may have letters, digits, _ and -, 40 at most (got {suffix[:100]!r}).")


def _airflow() -> closing[AirflowState]:
    return closing(AirflowState(database_url()))


def _code() -> dict[str, Path]:
    trainers = Path(os.environ.get("TARMAC_TRAINERS_DIR") or "/opt/airflow/trainers")
    return {"plugins": Path(__file__).parents[2], "trainers": trainers}
