"""What Airflow does with the DAGs of an uploaded file whenever it loads one, and with their runs."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from tarmac.base.session import NOTE_CHARACTERS
from tarmac.dagfiles.folder import Upload, read


def label(dag: Any) -> None:
    """Name the person and the reason in a DAG's tags and documentation.

    Raises:
        AirflowClusterPolicyViolation: the DAG has an id that was not checked when its file was uploaded, so it could be
            that of another DAG. Airflow shows that as the file's error, and leaves everything else as it is.
    """
    upload = read(PurePath(dag.fileloc).stem)
    if upload is None or dag.dag_id not in upload.dags:
        from airflow.exceptions import AirflowClusterPolicyViolation

        had = "no record of an upload" if upload is None else f"the ids {', '.join(upload.dags)}"
        raise AirflowClusterPolicyViolation(
            f"This file makes a DAG {dag.dag_id!r} here, and had {had} when it was checked: write a fixed id and "
            "upload it again (tarmac dag upload)."
        )
    dag.tags.update(upload.tags)
    dag.doc_md = "\n\n".join(text for text in (upload.label, dag.doc_md) if text)


def note_with_label(upload: Upload, note: str | None) -> str:
    """Return a run's note with the line that says who uploaded its DAG and why, once. Pure."""
    if upload.label in (note or "").splitlines():
        return note or ""  # a run that was cleared begins again
    before = f"{note}\n" if note else ""
    return f"{before}{upload.label}"[:NOTE_CHARACTERS]
