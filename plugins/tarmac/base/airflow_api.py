"""Airflow's REST API (v2), as far as the commands need it. Every call raises ApiError with a sentence."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any, Self
from urllib.parse import quote

from tarmac.base.errors import ApiError
from tarmac.base.ids import DAG_ID
from tarmac.base.settings import settings
from tarmac.base.states import ACTIVE_STATES

# Airflow's largest page.
_PAGE = 100
# What is kept of a log: a reason stands at its end.
LOG_ENTRIES, LOG_BYTES = 200, 1024**2
# What a part of a log has at most: Airflow reads the log from its beginning for each part.
PART_ENTRIES, PART_BYTES = 20_000, 8 * 1024**2
# Airflow reads all of a log before it sends the first line.
_LOG_SECONDS = 120

# A volume of each of Airflow's services: without room for one more of Postgres' files, the engine's disk is full.
_LOGS, _ROOM_BYTES = "/opt/airflow/logs", 16 * 1024**2


# Of different calls.
_NO_DAG = (f"Dag with ID: `{DAG_ID}` was not found", f"Dag with dag_id: '{DAG_ID}' not found")


def disk_is_full(path: str = _LOGS) -> bool:
    """Tell whether the disk below a folder has no room left; False where there is no such folder."""
    try:
        return shutil.disk_usage(path).free < _ROOM_BYTES
    except FileNotFoundError:
        return False


def _run_path(run_id: str, *rest: object) -> str:
    """Return the path of a run, or of what is below it, for any id that a run may have. Pure."""
    # quote() leaves dots as they are, and a client takes `..` for the folder above.
    words = (quote(str(word), safe="").replace(".", "%2E") for word in (run_id, *rest))
    return f"/dags/{DAG_ID}/dagRuns/" + "/".join(words)


class AirflowApi:
    """A logged-in connection.

    Args:
        base_url: of the webserver, for example http://webserver:8080.
        user, password: the UI login.

    Raises:
        ApiError: the webserver does not answer or refuses the login.
    """

    def __init__(self, base_url: str, user: str, password: str) -> None:
        self._connect(base_url)
        answer = self._send("POST", "/auth/token", json={"username": user, "password": password})
        if answer.status_code == 401:
            if not self._has_database():
                raise ApiError(
                    "Airflow's database does not answer, so no login can be checked: `make ps` shows the service "
                    "postgres, and `make doctor FIX=1` starts it where it has stopped.",
                    503,
                )
            raise ApiError(
                f"Airflow refuses the login of {user!r}: set TARMAC_UI_PASSWORD in env/login.env, then `make up`.",
                401,
            )
        self._raise_for(answer)
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    @classmethod
    def with_token(cls, base_url: str, token: str) -> Self:
        """Make a connection with a token that Airflow gave a caller: Airflow decides what that caller may do."""
        api = cls.__new__(cls)
        api._connect(base_url)
        api._http.headers["Authorization"] = f"Bearer {token}"
        return api

    @property
    def token(self) -> str:
        """The token that the calls carry."""
        return str(self._http.headers["Authorization"]).removeprefix("Bearer ")

    def _connect(self, base_url: str) -> None:
        import httpx

        self._base_url = base_url
        # Certificates are of use for https only, and take longer to load than a call takes.
        self._http = httpx.Client(base_url=base_url, timeout=30, verify=base_url.startswith("https:"))

    def __enter__(self) -> Self:
        """Give the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._http.close()

    def _send(self, method: str, path: str, **kwargs: Any) -> Any:
        import httpx

        try:
            return self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error

    @staticmethod
    def _raise_for(answer: Any) -> None:
        if answer.is_error:
            problems: list[str] = []
            try:
                content = answer.json()
                detail, problems = content.get("detail", answer.text), content.get("problems", [])
            except (ValueError, AttributeError):  # a page of a proxy, not of Airflow
                detail = answer.text
            if answer.status_code == 404 and any(text in str(detail) for text in _NO_DAG):
                raise ApiError(
                    "Airflow answers, but the DAG is not there yet: wait a moment; if it stays so, `make logs "
                    "SERVICE=dag-processor` shows why.",
                    503,
                )
            if answer.is_server_error and disk_is_full():
                detail = (
                    "No space left on device: the Docker Engine's disk is full, and Airflow's database cannot store "
                    f"anything. Make space, then `make up`. Airflow said: {detail}"
                )
            raise ApiError(str(detail)[:5000], answer.status_code, problems)

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """Call the API below /api/v2 and return the JSON it answers.

        Raises:
            ApiError: no answer or an error status, with Airflow's own detail.
        """
        answer = self._send(method, f"/api/v2{path}", **kwargs)
        self._raise_for(answer)
        return answer.json() if answer.content else None

    def visit(self, path: str) -> None:
        """Fetch a page as a browser with this login does.

        Raises:
            ApiError: no answer or an error status.
        """
        self._raise_for(self._send("GET", path, headers={"Cookie": f"_token={self.token}"}))

    def trigger(self, request: dict[str, Any], run_id: str | None = None) -> str:
        """Start a run with a request; returns its run id."""
        payload: dict[str, Any] = {"logical_date": None, "conf": request}
        if run_id:
            payload["dag_run_id"] = run_id
        try:
            return str(self.call("POST", f"/dags/{DAG_ID}/dagRuns", json=payload)["dag_run_id"])
        except ApiError as error:
            if error.status or run_id:
                raise
            raise ApiError(
                f"{error} The session may have been started all the same: `make ps` shows it. With KEY= a request that "
                "is sent again starts nothing twice."
            ) from error

    def run(self, run_id: str) -> dict[str, Any]:
        """Return one run.

        Raises:
            ApiError: there is no such run (status 404), or no answer.
        """
        try:
            found: dict[str, Any] = self.call("GET", _run_path(run_id))
        except ApiError as error:
            if error.status in (404, 405):
                raise ApiError(f"RUN: there is no run {run_id!r}: `make ps` lists the latest.", 404) from error
            raise
        return found

    def change_run(self, run_id: str, **fields: str | None) -> None:
        """Change a run's `state`, `note` or both, in one transaction."""
        self.call("PATCH", _run_path(run_id), params={"update_mask": list(fields)}, json=fields)

    def clear_from(self, run_id: str, task_id: str) -> None:
        """Run a task of a run that has ended again, with everything after it."""
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id],
            "include_downstream": True,
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self.call("POST", f"/dags/{DAG_ID}/clearTaskInstances", json=body)

    def count_runs(self, state: str) -> int:
        """Return how many runs are in a state."""
        return int(self.call("GET", f"/dags/{DAG_ID}/dagRuns", params={"state": state, "limit": 1})["total_entries"])

    def is_paused(self) -> bool:
        """Tell whether a person has paused the DAG: then nothing of any run goes on."""
        return bool(self.call("GET", f"/dags/{DAG_ID}")["is_paused"])

    def _has_database(self) -> bool:
        # Without it Airflow refuses every login as a wrong one.
        answer = self._send("GET", "/api/v2/monitor/health")
        if answer.is_server_error:
            return False
        return bool(answer.is_error or answer.json()["metadatabase"]["status"] == "healthy")

    def silent_parts(self) -> tuple[str, ...]:
        """Return which of Airflow's scheduler and triggerer has not been heard of for half a minute or longer."""
        health = self.call("GET", "/monitor/health")
        return tuple(part for part in ("scheduler", "triggerer") if health[part]["status"] == "unhealthy")

    def runs(self, limit: int, offset: int = 0, states: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the latest runs, newest first, without the first `offset` of them.

        Args:
            states: only of runs in one of these; none: of all.
        """
        query = {"limit": limit, "offset": offset, "order_by": "-run_after", "state": list(states)}
        found: list[dict[str, Any]] = self.call("GET", f"/dags/{DAG_ID}/dagRuns", params=query)["dag_runs"]
        return found

    def task_instances(self, run_id: str) -> list[dict[str, Any]]:
        """Return a run's task instances."""
        found: list[dict[str, Any]] = self.call("GET", _run_path(run_id, "taskInstances"))["task_instances"]
        return found

    def active_tasks(self, run_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the task instances of some runs that have begun and not ended."""
        found: list[dict[str, Any]] = []
        while run_ids:
            body = {
                "dag_ids": [DAG_ID],
                "dag_run_ids": list(run_ids),
                "state": list(ACTIVE_STATES),
                "page_offset": len(found),
                "page_limit": _PAGE,
            }
            page = self.call("POST", "/dags/~/dagRuns/~/taskInstances/list", json=body)["task_instances"]
            found += page
            if len(page) < _PAGE:
                break
        return found

    def xcom(self, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom value, or None where there is none yet."""
        try:
            return self.call("GET", _run_path(run_id, "taskInstances", task_id, "xcomEntries", key))["value"]
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def log(self, run_id: str, task_id: str, attempt: int) -> list[dict[str, Any]]:
        """Return the end of a task's log: its last LOG_ENTRIES entries, or as many of them as fit into LOG_BYTES.

        Returns:
            Each a dict with `event` and mostly `level`, oldest first; an empty list without a log.
        """
        return self.log_end(run_id, task_id, attempt)[1]

    def log_end(self, run_id: str, task_id: str, attempt: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many entries a task's log has, and its end as `log` does."""
        last: deque[str] = deque()
        size = count = 0
        for line in self._log_lines(run_id, task_id, attempt):
            count += 1
            last.append(line)
            size += len(line)
            while len(last) > LOG_ENTRIES or (size > LOG_BYTES and len(last) > 1):
                size -= len(last.popleft())
        return count, [entry for line in last if isinstance(entry := _json_or_none(line), dict)]

    def log_from(self, run_id: str, task_id: str, attempt: int, first: int) -> list[dict[str, Any]]:
        """Return a part of a task's log, from entry number `first` on, counted from 0.

        Returns:
            Up to PART_ENTRIES entries as `log` has them, or as many of them as fit into PART_BYTES.
        """
        found: list[dict[str, Any]] = []
        size = 0
        with closing(self._log_lines(run_id, task_id, attempt)) as lines:
            for number, line in enumerate(lines):
                if number < first:
                    continue
                size += len(line)
                if len(found) >= PART_ENTRIES or (size > PART_BYTES and found):
                    break
                entry = _json_or_none(line)
                found.append(entry if isinstance(entry, dict) else {"event": line[:PART_BYTES]})
        return found

    def _log_lines(self, run_id: str, task_id: str, attempt: int) -> Generator[str]:
        """Give a log line by line, each a JSON object; none without a log.

        Airflow 3.3 has no call for a part of a finished log. As JSON it would make one document of it, in its own
        memory and in ours, ten times the log's size; as lines it passes them on in pieces.
        """
        import httpx

        path = "/api/v2" + _run_path(run_id, "taskInstances", task_id, "logs", attempt)
        try:
            with self._http.stream(
                "GET", path, headers={"Accept": "application/x-ndjson"}, timeout=_LOG_SECONDS
            ) as answer:
                if answer.status_code == 404:
                    return
                if answer.is_error:
                    answer.read()
                self._raise_for(answer)
                yield from answer.iter_lines()
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> ApiError:
        return ApiError(f"Airflow at {self._base_url} does not answer ({error}): is the stack up? Try `make up`.")


def _json_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def log_in() -> AirflowApi:
    """Connect to the stack's Airflow with its login.

    Raises:
        ApiError: the webserver does not answer or refuses the login.
    """
    user, password = (os.environ.get(f"TARMAC_UI_{key}", "airflow") for key in ("USER", "PASSWORD"))
    return AirflowApi(settings().airflow_url, user, password)
