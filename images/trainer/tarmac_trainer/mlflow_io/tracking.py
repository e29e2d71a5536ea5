"""The connection to MLflow that `save`, `restore` and all that fetches a model share."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tarmac_trainer.runtime.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these when it is imported. Waiting is bounded (four tries of at most 20 s),
# nothing is sent to anybody but the server, and nothing is drawn into the log.
_QUIET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextmanager
def connected() -> "Iterator[MlflowClient]":
    """Give a client of the MLflow at `MLFLOW_TRACKING_URI`, whose failures are RegistryErrors.

    Raises:
        RegistryError: the variable is not set, MLflow does not answer, or it refuses.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        raise RegistryError("MLFLOW_TRACKING_URI is not set: there is no MLflow")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        mlflow.set_tracking_uri(uri)
        yield mlflow.MlflowClient()
    except (MlflowException, OSError) as error:
        raise RegistryError(f"MLflow at {_without_password(uri)}: {_reason(error)}") from error


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _reason(error: Exception) -> str:
    """The first line of what MLflow says, short enough for a log line, without a stack of
    causes."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "Max retries exceeded" in text or "Connection refused" in text:
        return "does not answer"
    if "error code 401" in text:
        return "refuses the login: check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in env/registry.env"
    return text[:500]
