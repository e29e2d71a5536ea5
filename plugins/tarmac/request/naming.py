"""What a session is called in lists, in Airflow and in MLflow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# As much of a description as the name of a run in MLflow takes.
_RUN_NAME_CHARACTERS = 250


def description(request: Mapping[str, Any], user: str | None) -> str:
    """Describe a run for the list of runs: model, name, data, owner. Pure.

    Args:
        request: as parse_request gives it, or as it was sent.
        user: who sent it; None: not known.
    """
    kind, name = str(request.get("model")), request.get("name")
    datasets = request.get("datasets")
    names = ", ".join(map(str, datasets)) if isinstance(datasets, Mapping) else ""
    parts = [f"{name} ({kind})" if name else kind]
    parts += [f"data {names if len(names) <= 200 else names[:199] + '…'}"] if names else []
    parts += [f"by {user}"] if user else []
    return ", ".join(parts)


def run_name(request: Mapping[str, Any], user: str | None) -> str:
    """Name a session's run in MLflow as its note in Airflow describes it. Pure.

    Args:
        request, user: as of `description`.
    """
    return description(request, user)[:_RUN_NAME_CHARACTERS]
