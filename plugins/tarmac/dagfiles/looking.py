"""Loads one DAG file as Airflow does, and says as one line of JSON what came of it.

Runs in a container of Airflow's image without a network and without credentials (`containers/looking.py`): the file is
what people upload, and may do anything.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# The line has to fit into one line of a container's log.
_MOST_OF_A_TRACE, _MOST_ERRORS = 20_000, 5
MOST_DAGS = 200


def load(path: Path) -> dict[str, Any]:
    """Load a file.

    Returns:
        `errors`: Airflow's traces; `dags`: the ids of the first 201 DAGs, also of one that is there twice.
    """
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    bag = DagBag(dag_folder=path.parent, collect_dags=False, bundle_path=path.parent)
    found = bag.process_file(str(path), only_if_updated=False, safe_mode=True)  # type: ignore[no-untyped-call]
    errors = list(bag.import_errors.values())
    for dag in found:
        try:
            DagSerialization.to_dict(dag)
        except Exception as error:  # whatever the file made the DAG of
            errors.append(f"DAG {dag.dag_id!r} cannot be stored: {type(error).__name__}: {error}")
    return {
        "errors": [error[-_MOST_OF_A_TRACE:] for error in errors[:_MOST_ERRORS]],
        "dags": [dag.dag_id for dag in found[: MOST_DAGS + 1]],
    }


def main(path: str) -> None:
    """Load the file, and print what came of it after all that it prints itself."""
    answer = os.dup(1)  # which the file does not close
    result = {"event": "result", **load(Path(path))}
    os.write(answer, f"\n{json.dumps(result)}\n".encode())
    # Not by way of what the file has left to run at the end.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
