"""Starts a session, at most once for a key."""

from __future__ import annotations

from typing import Any

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import ApiError, RequestError
from tarmac.request.run_id import run_id_problem
from tarmac.request.schema import parse_request
from tarmac.request.text import short


def check_key(key: str | None) -> None:
    """Check the form of a key; None: there is none. Pure.

    Raises:
        RequestError: it can be no run's id.
    """
    if key is not None and (problem := run_id_problem(key)):
        raise RequestError([f"KEY: {problem} (got {short(key)})."])


def start(api: AirflowApi, request: dict[str, Any], key: str | None) -> tuple[str, bool]:
    """Start a run with a request. With a key it is idempotent: the key is the run's id, which Airflow gives once.

    Returns:
        The run's id, and whether this call started it.

    Raises:
        RequestError: the key was used for another request.
        ApiError: Airflow, or the guard before it, refuses the request.
    """
    try:
        return api.trigger(request, key), True
    except ApiError as error:
        if error.status != 409 or not key:
            raise
    run = api.run(key)
    if parse_request(run["conf"] or {}) != parse_request(request):
        raise RequestError([f"KEY: {key!r} was used for another request; use another key."])
    return key, False
