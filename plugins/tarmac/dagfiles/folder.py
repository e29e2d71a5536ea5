"""The folder of the uploaded DAG files: each with a record beside it of who uploaded it and why.

Airflow reads it as a bundle of its own. Every process that loads such a file reads the record, so this module imports
the standard library alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

BUNDLE = "uploaded"
"""The bundle's name in Airflow."""

ROOT = "/opt/airflow/uploads"
MOST_BYTES = 256 * 1024
"""Of one file."""

_DAY = "%Y-%m-%d %H:%M UTC"
_MOST_OF_A_TAG = 100


@dataclass(frozen=True)
class Upload:
    """What is known of an uploaded file. `dags`: their ids. `suffix`: of a copy, else "". `at`: ISO 8601."""

    dags: Sequence[str]
    who: str
    why: str
    at: str
    suffix: str = ""

    @property
    def tags(self) -> set[str]:
        """The tags that its DAGs get in Airflow. Pure."""
        return {"uploaded", f"by {self.who}"[:_MOST_OF_A_TAG]}

    @property
    def label(self) -> str:
        """The line that each run's note gets. Pure."""
        day = datetime.fromisoformat(self.at).astimezone(UTC).strftime(_DAY)
        return f"Uploaded by {self.who}, {day}: {self.why or 'no reason was given'}"


def folder() -> Path:
    """Return where the files are while uploads are on; compose.yaml names another folder while they are off."""
    return Path(os.environ.get("TARMAC_UPLOADED_DAGS_DIR") or f"{ROOT}/yes")


def read(name: str) -> Upload | None:
    """Return what is known of an upload; None: there is none of this name."""
    try:
        return Upload(**json.loads((folder() / f"{name}.json").read_bytes()))
    except FileNotFoundError:
        return None


def all_uploads() -> dict[str, Upload]:
    """Return all uploads by name."""
    names = sorted(path.stem for path in folder().glob("*.json"))
    return {name: found for name in names if (found := read(name)) is not None}


def upload_of(dag_id: str) -> Upload | None:
    """Return the upload that a DAG is of; None: it is of none."""
    return next((upload for upload in all_uploads().values() if dag_id in upload.dags), None)


def put(name: str, source: bytes, upload: Upload) -> None:
    """Store a file with its record, in the place of one of the same name. Each is whole or not there.

    The record comes first: Airflow refuses a file whose record does not name its DAGs.
    """
    folder().mkdir(mode=0o755, exist_ok=True)
    _replace(folder() / f"{name}.json", json.dumps(asdict(upload)).encode())
    _replace(folder() / f"{name}.py", source)


def remove(name: str) -> None:
    """Remove a file with its record. Idempotent."""
    for suffix in (".py", ".json"):
        (folder() / f"{name}{suffix}").unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")  # which Airflow takes for no DAG file
    part.write_bytes(content)
    part.replace(path)
