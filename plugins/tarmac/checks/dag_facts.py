"""What is told of an uploaded file: whether Airflow has its DAGs, and what remains when it is removed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tarmac.base.texts import counted
from tarmac.dagfiles.folder import Upload
from tarmac.dagfiles.problems import problem_of
from tarmac.reaper.airflow_state import DagRow


def facts(
    name: str, upload: Upload, dags: Iterable[DagRow], errors: Mapping[str, tuple[datetime, str]], public_url: str
) -> dict[str, Any]:
    """Return an upload as the API shows it.

    Args:
        dags: all that Airflow has.
        errors: of files of the bundle: when Airflow could not load it, and the trace.

    Returns:
        Its record, and `state`: `shown`, Airflow has its DAGs as they were uploaded; `waiting`, it has not loaded the
        file since; `broken`, it cannot load it, for the reason in `error`.
    """
    since, file = datetime.fromisoformat(upload.at), f"{name}.py"
    have = {row.dag_id: row for row in dags if row.there and row.file == file and row.loaded and row.loaded >= since}
    found: dict[str, Any] = {
        "name": name,
        "dags": [
            {
                "id": dag,
                "url": f"{public_url}/dags/{dag}",
                "paused": have[dag].paused if dag in have else None,
                "next_run": have[dag].next_run if dag in have and not have[dag].paused else None,
            }
            for dag in upload.dags
        ],
        "who": upload.who,
        "why": upload.why,
        "at": upload.at,
        "suffix": upload.suffix,
        "state": "shown" if set(upload.dags) <= have.keys() else "waiting",
        "error": "",
    }
    failed_at, trace = errors.get(file, (None, ""))
    if failed_at and failed_at >= since:
        found |= {"state": "broken", "error": problem_of(trace, file)}
    return found


def remains(runs: int, keep_days: int | None) -> str:
    """Say what a removed file leaves. Pure."""
    if not runs:
        return "It had no run, so nothing remains of it but the name of its DAG in Airflow's database."
    ended = f"for {counted(keep_days or 0, 'day')} after {'it' if runs == 1 else 'they'} ended"
    until = "for ever (TARMAC_KEEP_DAYS)" if keep_days is None else ended
    have = "Its run with its log stays" if runs == 1 else f"Its {runs:,} runs with their logs stay"
    return (
        f"{have} in Airflow {until}. Airflow does not list the DAG any more; a file with the same DAG id shows "
        f"{'it' if runs == 1 else 'them'} again."
    )
