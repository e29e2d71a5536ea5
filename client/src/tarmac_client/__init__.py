"""A client of a Tarmac stack: start, follow and end training sessions, store data sets, list models and GPUs.

from tarmac_client import Tarmac

session = Tarmac().train("named_entity_recognition", train="my.jsonl").wait()
session.metrics()
"""

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
