"""Asks the checker, which runs in the scheduler's container, what the world says of a request.

Only there are the Docker socket and the credentials of MLflow and of the data set store together; the webserver and
`airflow dags trigger` have fewer of them, and get sentences.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from tarmac.base.errors import CheckerUnavailableError
from tarmac.base.settings import settings

if TYPE_CHECKING:
    import httpx

CHECKER_PORT = 8975
_CONNECT_SECONDS, _SECONDS, _FILE_SECONDS = 2.0, 30.0, 600.0
# A file may be large, and its store slow; a new host is sent an image; a model may predict for minutes; the engine
# measures its volumes; a DAG file is loaded in a container.
_LONG = ("/file", "/upload", "/host", "/predict", "/doctor", "/mend", "/space", "/dag")


def checker_token() -> str:
    """Return what a caller of the checker proves itself with: derived from a secret of Airflow's own services.

    Raises:
        CheckerUnavailableError: this process was not given the secret.
    """
    secret = os.environ.get("AIRFLOW__API__SECRET_KEY", "")
    if not secret:
        raise CheckerUnavailableError("AIRFLOW__API__SECRET_KEY is not set: run `make up`, see env/airflow.env.")
    return hmac.new(secret.encode(), b"tarmac request checker", hashlib.sha256).hexdigest()


async def ask_checker(conf: object) -> list[str]:
    """Return a sentence for each field of a request that the world contradicts. Starts nothing that stays.

    Args:
        conf: the request as JSON, whole or with bad fields; those are passed over.

    Raises:
        CheckerUnavailableError: it does not answer.
    """
    import httpx

    try:
        async with _client() as http:
            answer = await http.post("/check", content=json.dumps(conf).encode())
            answer.raise_for_status()
            return [str(problem) for problem in answer.json()["problems"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise _silent(error) from error


async def call_checker(
    method: str, path: str, query: Mapping[str, str], content: AsyncIterator[bytes] | bytes = b"", size: int = 0
) -> tuple[int, Any]:
    """Ask for what the ledger, the registry or the store has, or store a file.

    Args:
        content: the body, of `size` bytes.

    Returns:
        The HTTP status and the JSON that it answers: what was asked for, or `detail` with a sentence.

    Raises:
        CheckerUnavailableError: it does not answer.
    """
    import httpx

    try:
        async with _client(_FILE_SECONDS if path in _LONG else _SECONDS) as http:
            answer = await http.request(
                method, path, params=dict(query), content=content, headers={"Content-Length": str(size)}
            )
            return answer.status_code, answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise _silent(error) from error


def _client(seconds: float = _SECONDS) -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(
        base_url=settings().checker_url,
        timeout=httpx.Timeout(seconds, connect=_CONNECT_SECONDS),
        verify=False,  # noqa: S501  plain http
        headers={"Authorization": f"Bearer {checker_token()}"},
    )


def _silent(error: Exception) -> CheckerUnavailableError:
    return CheckerUnavailableError(
        f"the checker does not answer: {type(error).__name__}: {error}. It is in the service scheduler; "
        "`make doctor FIX=1`, on the stack's machine, starts that where it has stopped"
    )
