"""A client of a Tarmac stack: start, follow and end training sessions, store data sets, list models and GPUs.

from tarmac_client import Tarmac

session = Tarmac().train("named_entity_recognition", train="my.jsonl").wait()
session.metrics()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tarmac_client.aio import AsyncSession, AsyncTarmac
    from tarmac_client.client import Session, Tarmac
    from tarmac_client.config import Login
    from tarmac_client.errors import (
        LoginError,
        NoAnswerError,
        NotFoundError,
        RefusedError,
        SessionFailedError,
        SettingsError,
        TarmacClientError,
        TimeLimitError,
        VersionError,
    )
    from tarmac_client.types import (
        Confusion,
        DagFile,
        DagId,
        Explanation,
        Finding,
        Interval,
        LogPart,
        Mended,
        Metric,
        ModelVersion,
        Predictions,
        ProductionStep,
        Progress,
        Result,
        SessionInfo,
        SessionRow,
        StoredFile,
        TaskInfo,
        TypeScore,
        Verdict,
        Waits,
    )

__version__ = "0.1.0"

__all__ = [
    "AsyncSession",
    "AsyncTarmac",
    "Confusion",
    "Explanation",
    "Finding",
    "Interval",
    "Mended",
    "LogPart",
    "Login",
    "LoginError",
    "Metric",
    "ModelVersion",
    "DagFile",
    "DagId",
    "Predictions",
    "ProductionStep",
    "NoAnswerError",
    "NotFoundError",
    "Progress",
    "RefusedError",
    "Result",
    "Session",
    "SessionFailedError",
    "SessionInfo",
    "SessionRow",
    "SettingsError",
    "StoredFile",
    "Tarmac",
    "TarmacClientError",
    "TaskInfo",
    "TimeLimitError",
    "TypeScore",
    "Verdict",
    "VersionError",
    "Waits",
]

_MODULES = {
    "aio": (
        "AsyncSession",
        "AsyncTarmac",
    ),
    "client": (
        "Session",
        "Tarmac",
    ),
    "config": ("Login",),
    "errors": (
        "LoginError",
        "NoAnswerError",
        "NotFoundError",
        "RefusedError",
        "SessionFailedError",
        "SettingsError",
        "TarmacClientError",
        "TimeLimitError",
        "VersionError",
    ),
    "types": (
        "Confusion",
        "DagFile",
        "DagId",
        "Explanation",
        "Finding",
        "Interval",
        "LogPart",
        "Mended",
        "Metric",
        "ModelVersion",
        "Predictions",
        "ProductionStep",
        "Progress",
        "Result",
        "SessionInfo",
        "SessionRow",
        "StoredFile",
        "TaskInfo",
        "TypeScore",
        "Verdict",
        "Waits",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no sooner: the command's first line is to run before all of it is read."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
