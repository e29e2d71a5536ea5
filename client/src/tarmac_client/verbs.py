"""What a person does with a stack, as flows: each rule of the client once, for both of its forms."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from tarmac_client import files
from tarmac_client.errors import (
    NoAnswerError,
    NotFoundError,
    RefusedError,
    SessionFailedError,
    SettingsError,
    TimeLimitError,
    VersionError,
)
from tarmac_client.files import LocalFile
from tarmac_client.flow import PREFIX, Calls, Flow, Pause, Send, Tell
from tarmac_client.texts import counted
from tarmac_client.types import (
    DagFile,
    Explanation,
    Finding,
    LogPart,
    Mended,
    Metric,
    ModelVersion,
    Predictions,
    ProductionStep,
    SessionInfo,
    SessionRow,
    StoredFile,
    Verdict,
    known,
)

T = TypeVar("T")

POLL_SECONDS = 1.0
AWAY_TRIES = 20
"""How often a stack that does not answer is asked again while a session is followed, which takes about two minutes."""

_PAGE = 100
_KEY = r"[A-Za-z0-9_.~:+-]{1,128}"
_SKEW_SECONDS = 5.0
_UPLOAD_SECONDS = 3600.0
_PART_SECONDS = 600.0
_PART_TRIES = 5
_PREDICT_SECONDS = 600.0
_DAG_CHECK_SECONDS = 300.0
_DAG_TRIES = 60
"""How often Airflow is asked for the DAGs of an uploaded file, a second apart."""
_LOG_SECONDS = 150.0
"""Airflow reads all of a log before it sends a part; the stack waits up to 120 s for it."""
_WHOLE_BYTES = 16 * 1024 * 1024
"""Of a file that is sent in one call; a larger one goes in parts, which go on where a connection broke."""


def _check_key(key: str | None) -> None:
    """Refuse a key that the stack would refuse, before anything is uploaded. Pure.

    Raises:
        SettingsError: it can be no session's id.
    """
    if key is not None and not re.fullmatch(_KEY, key):
        raise SettingsError(f"--key: must be 1 to 128 letters, digits and . _ ~ : + - (got {key[:80]!r}).")


def new_key(request: Mapping[str, Any], at: datetime) -> str:
    """Return an idempotency key, which becomes the session's id: the model, the time and random letters."""
    name = str(request.get("name") or request.get("model") or "session")
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:64]
    return f"{readable}__{at:%Y-%m-%dT%H:%M:%S}_{secrets.token_hex(4)}"


class Verbs:
    """Flows of one stack.

    Args:
        calls: the stack.
        say: gets a line for people about what is uploaded.
    """

    def __init__(self, calls: Calls, say: Callable[[str], None] = lambda _: None) -> None:
        self.calls, self._say = calls, say

    # ---- sessions --------------------------------------------------------------------------------------------------

    def start(self, request: Mapping[str, Any], folder: Path, key: str | None = None) -> Flow[str]:
        """Check a request, store what the store lacks of its files, start it; return the session's id.

        Raises:
            RefusedError: a field is wrong, or a file is no data set; nothing was uploaded or started.
        """
        _check_key(key)
        made, found = files.with_references(request, folder)
        told = yield from self.calls.call("POST", "/checks", params={"world": "false"}, json={"request": made})
        _refuse(told["problems"])
        for file in found:
            yield from self.push(file, model=str(made.get("model") or ""))
        key = key or new_key(made, datetime.now(timezone.utc))
        started = yield from self.calls.call("POST", "/sessions", json={"request": made, "key": key})
        return str(started["id"])

    def start_many(
        self, requests: Sequence[Mapping[str, Any]], folder: Path, key: str | None = None
    ) -> Flow[list[str]]:
        """Start a session for each request, when all of them are good by themselves; return their ids in that order.

        Args:
            key: of the first one is `key-1`, and so on: sent again with it, the same requests start nothing.

        Raises:
            RefusedError: a request is wrong; names its place, counted from 1. Nothing was uploaded or started.
        """
        _check_key(key)
        made = [files.with_references(request, folder) for request in requests]
        problems = []
        for number, (request, _) in enumerate(made, 1):
            told = yield from self.calls.call("POST", "/checks", params={"world": "false"}, json={"request": request})
            problems += [f"request {number}: {problem}" for problem in told["problems"]]
        _refuse(problems)
        models = {file.reference: (file, str(one.get("model") or "")) for one, found in made for file in found}
        for file, model in models.values():
            yield from self.push(file, model=model)
        started = []
        for number, (request, _) in enumerate(made, 1):
            own = f"{key}-{number}" if key else new_key(request, datetime.now(timezone.utc))
            answer = yield from self.calls.call("POST", "/sessions", json={"request": request, "key": own})
            started.append(str(answer["id"]))
        return started

    def session(self, session_id: str) -> Flow[SessionInfo]:
        """Return all about a session."""
        return SessionInfo.of((yield from self.calls.call("GET", _session(session_id))))

    def sessions(self, limit: int) -> Flow[list[SessionRow]]:
        """Return the latest sessions, newest first."""
        found: list[SessionRow] = []
        while len(found) < limit:
            page = min(_PAGE, limit - len(found))
            rows = yield from self.calls.call("GET", "/sessions", params={"limit": page, "offset": len(found)})
            found += [SessionRow.of(row) for row in rows]
            if len(rows) < page:
                break
        return found

    def follow(self, session_id: str, seconds: float | None = None) -> Flow[SessionInfo]:
        """Tell a session's state every second until it has ended; return it. A stack that is away is waited for.

        Raises:
            TimeLimitError: it has not ended in so many seconds.
        """
        waited, away = 0.0, 0
        while True:
            try:
                info = yield from self.session(session_id)
            except NoAnswerError:
                away += 1
                if away > AWAY_TRIES:
                    raise
            else:
                away = 0
                yield Tell(info)
                if info.over:
                    return info
            if seconds is not None and waited >= seconds:
                raise TimeLimitError(f"Session {session_id} has not ended after {seconds:g} s; it goes on.")
            yield Pause(POLL_SECONDS)
            waited += POLL_SECONDS

    def wait(self, session_id: str, seconds: float | None = None) -> Flow[SessionInfo]:
        """Wait until a session has ended well; return it.

        Raises:
            SessionFailedError: it has failed, or was marked as a success and has no model.
            TimeLimitError: it has not ended in so many seconds.
        """
        info = yield from self.follow(session_id, seconds)
        if info.ended_well:
            return info
        if info.run_state == "success":
            raise SessionFailedError(f"Session {session_id} has ended without a model: {info.lacks}", info)
        raise SessionFailedError(f"Session {session_id} has failed: {info.why_failed or 'no reason is known'}", info)

    def metrics(self, session_id: str) -> Flow[list[Metric]]:
        """Return the points of a session's curves."""
        rows = yield from self.calls.call("GET", f"{_session(session_id)}/metrics")
        return [Metric(row["name"], row["step"], row["value"]) for row in rows]

    def _waiting(self, call: Callable[[], Flow[T]]) -> Flow[T]:
        """Make a call; a stack that is away is waited for."""
        away = 0
        while True:
            try:
                return (yield from call())
            except NoAnswerError:
                away += 1
                if away > AWAY_TRIES:
                    raise
            yield Pause(POLL_SECONDS)

    def logs(self, session_id: str, task: str | None = None, *, on: bool = False) -> Flow[None]:
        """Tell a task's log line by line.

        Args:
            task: its id; None: the last that has begun, and with `on` each that begins after it.
            on: go on as it grows, until the session has ended; a stack that is away is waited for.
        """
        now, first, attempt = task, 0, 0
        while True:
            path = f"{_session(session_id)}/logs"
            params: dict[str, Any] = {"first": first, **({} if now is None else {"task": now})}

            def ask(path: str = path, params: dict[str, Any] = params) -> Flow[Any]:
                return self.calls.call("GET", path, params=params, seconds=_LOG_SECONDS)

            part = LogPart.of((yield from (self._waiting(ask) if on else ask())))
            if part.attempt != attempt and attempt and first:
                first, attempt = 0, part.attempt  # another attempt has a log of its own
                continue
            attempt = part.attempt
            for line in part.lines:
                yield Tell(line)
            first = part.next
            if part.lines:
                now = part.task or now
                continue
            if not on:
                return
            info = yield from self._waiting(lambda: self.session(session_id))
            if task is None and (later := _later(info, part.task)):
                now, first, attempt = later, 0, 0
                continue
            if info.over and (part.ended or not part.task):
                return
            yield Pause(POLL_SECONDS)

    def cancel(self, session_id: str) -> Flow[list[str]]:
        """End a session; return what the stack says of it. Idempotent."""
        done = yield from self.calls.call("POST", f"{_session(session_id)}/cancel")
        if not done["cancelled"]:
            raise RefusedError(" ".join(done["said"]), status=409)
        return [str(line) for line in done["said"]]

    def retry(self, session_id: str) -> Flow[list[str]]:
        """Run a session that failed again, from the task that failed on; return what the stack says. Idempotent."""
        done = yield from self.calls.call("POST", f"{_session(session_id)}/retry")
        return [str(line) for line in done["said"]]

    def explain(self, session_id: str) -> Flow[Explanation]:
        """Return why a session waits or failed, and what to do."""
        return Explanation.of((yield from self.calls.call("GET", f"{_session(session_id)}/explain")))

    # ---- data sets, models, devices --------------------------------------------------------------------------------

    def push(self, file: LocalFile, *, model: str = "") -> Flow[str]:
        """Store a file unless it is stored already; return its reference.

        Args:
            model: a kind of model that it has to have lines for; "": it need not.

        Raises:
            RefusedError: it is no data set; nothing was uploaded.
        """
        for line in file.told:
            self._say(line)
        try:
            yield from self.calls.call("GET", f"/datasets/{file.name}")
        except NotFoundError:
            pass
        else:
            self._say(f"{file.short}: already stored")
            return file.reference
        told = yield from self.calls.call(
            "POST",
            "/checks/file",
            params={"suffix": file.suffix, "model": model, "lines": "true"},
            content=files.head(file),
        )
        _refuse([_of_file(file.title, problem) for problem in told["problems"]])
        yield from self._check_shapes(file, model)
        self._say(f"{file.short}: uploading {size(file.size)}")
        if file.size <= _WHOLE_BYTES or not (yield from self._push_parts(file)):
            yield from self.calls.call("PUT", f"/datasets/{file.name}", file=file, seconds=_UPLOAD_SECONDS)
        return file.reference

    def push_weights(self, folder: str | Path) -> Flow[str]:
        """Store a transformer's weights unless they are stored; return how a request's `base_model` names them.

        Raises:
            RefusedError: a file that is needed is not in the folder, or one is not allowed.
        """
        names = files.folder_names(folder, field="FILE")
        try:
            chosen = yield from self.calls.call("POST", "/checks/weights", json={"names": names})
        except RefusedError as error:
            raise RefusedError(f"{folder}: {error}") from error
        file = files.identify_weights(folder, chosen["names"], field="FILE")
        return f"weights:{(yield from self.push(file)).partition('/')[0]}"

    def _check_shapes(self, file: LocalFile, model: str) -> Flow[None]:
        """Refuse a large data set without a line for a model: the stack sees what lines there are, not all of them."""
        if not model or file.suffix != ".jsonl" or file.size < files.CHUNK:
            return
        params = {"suffix": file.suffix, "model": model}
        for most in (files.CHUNK, None):  # most files say it in their beginning
            content = files.shapes(file, most)
            if not content:
                return
            told = yield from self.calls.call("POST", "/checks/file", params=params, content=content)
            if not told["problems"]:
                return
        _refuse([_of_file(file.title, problem) for problem in told["problems"]])

    def _push_parts(self, file: LocalFile) -> Flow[bool]:
        """Upload a file in parts, from where an earlier upload of it ended; False: the stack takes no parts."""
        path = f"/datasets/{file.name}/upload"
        try:
            there = yield from self.calls.call("GET", path)
        except VersionError:  # an older stack
            return False
        if there["part_bytes"] is None:
            return False
        received, most = int(there["received"]), int(there["part_bytes"])
        if received:
            self._say(f"{file.short}: {size(received)} are there from before")
        refused = 0
        while True:
            part = (received, max(0, min(most, file.size - received)))
            params = {"offset": received, "total": file.size}
            try:
                done = yield from self.calls.call(
                    "PATCH", path, params=params, file=file, part=part, seconds=_PART_SECONDS
                )
            except RefusedError as error:
                # A part whose answer was lost has arrived; or another upload of the same file goes on.
                refused += 1
                if error.status != 409 or refused > _PART_TRIES:
                    raise
                yield Pause(POLL_SECONDS)
                received = int((yield from self.calls.call("GET", path))["received"])
                continue
            received, refused = int(done["received"]), 0
            if done["whole"]:
                return True
            self._say(f"{file.short}: {size(received)} of {size(file.size)}")

    def datasets(self, limit: int) -> Flow[list[StoredFile]]:
        """Return what is in the store, newest first."""
        rows = yield from self.calls.call("GET", "/datasets", params={"limit": limit})
        return [StoredFile.of(row) for row in rows]

    def dataset(self, reference: str, beside: str | None = None) -> Flow[StoredFile]:
        """Return what is known of a stored file, and what is in it. The stack reads all of it.

        Args:
            beside: another one, whose lines are compared.
        """
        _named(reference, *(() if beside is None else (beside,)))
        path = f"/datasets/{_file(reference)}/content"
        params = {} if beside is None else {"beside": _file(beside)}
        try:
            return StoredFile.of((yield from self.calls.call("GET", path, params=params, seconds=_UPLOAD_SECONDS)))
        except NotFoundError as error:
            lacks = beside if beside and repr(_file(beside)) in str(error) else reference
            raise _not_stored(lacks) from error

    def remove_dataset(self, reference: str) -> Flow[dict[str, Any]]:
        """Remove a stored file; return its reference and size."""
        _named(reference)
        try:
            return dict((yield from self.calls.call("DELETE", f"/datasets/{_file(reference)}", once=True)))
        except NotFoundError as error:
            raise _not_stored(reference) from error

    def predict(
        self, values: bytes | Sequence[Mapping[str, Any]], model: str, version: str = "", *, session: bool = False
    ) -> Flow[Predictions]:
        """Predict with a registered version, or with what a session saved.

        Args:
            values: JSON lines, or the objects of them.
            version: its number or an alias; "": what is in production, else the latest.
            session: `model` is a session.

        Raises:
            RefusedError: a line cannot be read; names it by its number, counted from 1.
            NotFoundError: there is no such model, version or session.
        """
        path = f"{_session(model)}/predict" if session else _model(model, "predict")
        answer = yield from self.calls.call(
            "POST",
            path,
            params={"version": version} if version else {},
            content=values if isinstance(values, bytes) else _as_lines(values),
            seconds=_PREDICT_SECONDS,
        )
        return known(Predictions, answer)

    def predict_with(self, values: bytes | Sequence[Mapping[str, Any]], what: str) -> Flow[Predictions]:
        """Predict with what a person names.

        Args:
            what: `name`, `name@3`, `name/3`, `name@production`, or a session's id.
        """
        match = re.fullmatch(r"([^@/]+)[@/](.+)", what)
        if match is not None:
            return (yield from self.predict(values, match[1], match[2]))
        try:
            return (yield from self.predict(values, what))
        except NotFoundError as error:
            no_model = error
        try:
            return (yield from self.predict(values, what, session=True))
        except NotFoundError:
            is_session = yield from self._is_session(what)
        said = f"{no_model} There is no session {what!r} either."
        if is_session:
            said = f"The session {what!r} has no model to predict with: `tarmac status {what}` says how far it is."
        raise NotFoundError(said, [], 404) from no_model

    def _is_session(self, session_id: str) -> Flow[bool]:
        try:
            yield from self.calls.call("GET", _session(session_id))
        except NotFoundError:
            return False
        return True

    def remove_model(self, name: str, version: int) -> Flow[dict[str, Any]]:
        """Remove a registered version; return what was removed."""
        return dict((yield from self.calls.call("DELETE", _model(name, str(version)), once=True)))

    def kind(self, name: str) -> Flow[dict[str, Any]]:
        """Return a kind of model with its parameters."""
        return dict((yield from self.calls.call("GET", f"/kinds/{_part('kind of model', name)}")))

    def models(self, name: str | None) -> Flow[list[ModelVersion]]:
        """Return the registered versions, of one model or of all."""
        rows = yield from self.calls.call("GET", "/models", params={} if name is None else {"name": name})
        return [ModelVersion.of(row) for row in rows]

    def compare(self, a: str, b: str) -> Flow[list[dict[str, Any]]]:
        """Return two versions, each written `name/3`, with what was run, on what, and what came out."""
        found = yield from self.calls.call("GET", "/models/compare", params={"a": a, "b": b})
        return [dict(one) for one in found]

    def promote(self, name: str, version: int, why: str) -> Flow[ProductionStep]:
        """Put a version into production."""
        body = {"version": version, "why": why}
        return ProductionStep.of((yield from self.calls.call("POST", _model(name, "promote"), json=body, once=True)))

    def roll_back(self, name: str, why: str) -> Flow[ProductionStep]:
        """Take the last promotion back."""
        body = {"why": why}
        return ProductionStep.of((yield from self.calls.call("POST", _model(name, "rollback"), json=body, once=True)))

    def production(self, name: str, at: str | None) -> Flow[list[ProductionStep]]:
        """Return what came into production, oldest first; with a time what was there then, if anything."""
        params = {} if at is None else {"at": at}
        rows = yield from self.calls.call("GET", _model(name, "production"), params=params)
        return [ProductionStep.of(row) for row in rows]

    def reproduce(self, session_id: str) -> Flow[str]:
        """Train again what a session trained, as a session of its own; return its id."""
        body = {"key": new_key({"name": f"{session_id.partition('__')[0]}-reproduced"}, datetime.now(timezone.utc))}
        started = yield from self.calls.call("POST", f"{_session(session_id)}/reproduce", json=body)
        return str(started["id"])

    def verdict(self, session_id: str, repetition: str) -> Flow[Verdict]:
        """Say whether a repetition of a session gave the same metrics."""
        params = {"repetition": repetition}
        return Verdict.of((yield from self.calls.call("GET", f"{_session(session_id)}/verdict", params=params)))

    def clock(self, now: datetime) -> Flow[list[Finding]]:
        """Compare this machine's clock with the stack's, by the time that its webserver writes on an answer.

        Args:
            now: aware.
        """
        answer = yield Send("GET", f"{PREFIX}/version")
        date = answer.headers.get("date")
        if date is None:
            return []
        skew = (parsedate_to_datetime(date) - now).total_seconds()
        if abs(skew) <= _SKEW_SECONDS:
            return [Finding("clock", "ok", "this machine's clock and the stack's agree")]
        ahead = "behind" if skew > 0 else "ahead of"
        return [
            Finding("clock", "note", f"this machine's clock is {abs(skew):.0f} s {ahead} the stack's", "Set it by NTP.")
        ]

    def doctor(self) -> Flow[list[Finding]]:
        """Return what is wrong with the stack, part by part."""
        rows = yield from self.calls.call("GET", "/doctor", seconds=120.0)
        return [known(Finding, row) for row in rows]

    def mend(self) -> Flow[Mended]:
        """Mend what is safe to mend; return what was done, and what was left."""
        # It looks at everything twice, and removes old logs.
        found = yield from self.calls.call("POST", "/doctor", seconds=600.0)
        return Mended(
            tuple(f"{one['part']}: {one['says']}" for one in found["mended"]),
            tuple(f"{one['part']}: {one['says']}" for one in found["failed"]),
            tuple((known(Finding, one), str(one["why"])) for one in found["left"]),
            tuple(known(Finding, one) for one in found["findings"]),
        )

    def check_gpus(self, host: str = "") -> Flow[dict[str, Any]]:
        """Return whether the GPUs of a host can be used, tried for real.

        Raises:
            NotFoundError: there is no such host.
            VersionError: the stack tries those of its own machine only.
        """
        params = {"host": host} if host else {}
        found = dict((yield from self.calls.call("POST", "/gpus/check", params=params, seconds=120.0)))
        if host and found.get("host") != host:
            raise VersionError("This stack tries the GPUs of its own machine only: update it, or leave the host out.")
        return found

    # ---- DAG files -------------------------------------------------------------------------------------------------

    def upload_dag(self, path: Path, suffix: str = "", why: str = "") -> Flow[DagFile]:
        """Have a DAG file checked and stored; wait until Airflow has loaded it, some seconds at most.

        Raises:
            SettingsError: the file cannot be read.
            RefusedError: it is wrong, another person has uploaded one of this name, or uploads are off.
        """
        if path.suffix != ".py":
            raise SettingsError(f"FILE: {str(path)!r} does not end in .py: a DAG file is one Python file.")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"FILE: {str(path)!r} cannot be read: {error.strerror}.") from error
        self._say(f"{path.name}: checking it in a container of the stack")
        params = {"suffix": suffix, "why": why}
        stored = yield from self.calls.call(
            "PUT", _dag(path.stem), params=params, content=content, seconds=_DAG_CHECK_SECONDS
        )
        found = DagFile.of(stored)
        for _ in range(_DAG_TRIES):
            if found.state != "waiting":
                break
            yield Pause(POLL_SECONDS)
            rows = yield from self.calls.call("GET", "/dags")
            found = next((DagFile.of(row) for row in rows if row["name"] == found.name), found)
        return found

    def dags(self) -> Flow[list[DagFile]]:
        """Return the uploaded DAG files, by name."""
        return [DagFile.of(row) for row in (yield from self.calls.call("GET", "/dags"))]

    def remove_dag(self, name: str) -> Flow[dict[str, Any]]:
        """Remove an uploaded DAG file; return what remains of it."""
        return dict((yield from self.calls.call("DELETE", _dag(name), once=True)))

    def raw(self, path: str, **params: Any) -> Flow[Any]:
        """Return what the stack answers, as JSON."""
        return (yield from self.calls.call("GET", path, params=params))


def _of_file(title: str, problem: str) -> str:
    said = problem.removeprefix("FILE: ")  # of a stack of an earlier version
    said = re.sub(r"^the file\b", "it", said, flags=re.IGNORECASE)
    return f"{title}: {said[:1].lower()}{said[1:]}"


def _part(what: str, name: str) -> str:
    """Write a name as one part of a call's path.

    Raises:
        NotFoundError: no thing has such a name: servers take a slash for the next part, whatever is written for it.
    """
    if not name or "/" in name:
        raise NotFoundError(f"There is no {what} {name!r}.", [], 404)
    return quote(name, safe="").replace(".", "%2E")  # a client takes `..` for the folder above


def _session(session_id: str) -> str:
    return f"/sessions/{_part('session', session_id)}"


def _named(*references: str) -> None:
    """Refuse what can be the name of no stored file, in the words in which it was typed.

    Raises:
        NotFoundError: names the first that is none.
    """
    for reference in references:
        if not files.names_stored(reference):
            raise _not_stored(reference)


def _file(reference: str) -> str:
    name = reference.rpartition("/")[2]
    return quote(name if "." in name else f"{name}.jsonl", safe="")


def _as_lines(values: Sequence[Mapping[str, Any]]) -> bytes:
    """Write objects as JSON lines.

    Raises:
        SettingsError: one is no object, or holds what JSON has no word for; names its place, counted from 1.
    """
    lines = []
    for number, value in enumerate(values, 1):
        if not isinstance(value, Mapping):
            raise SettingsError(
                f"Object {number} to predict for is {value!r:.60}; write for example {{'sentence': '...'}}."
            )
        try:
            lines.append(json.dumps(dict(value), ensure_ascii=False, allow_nan=False) + "\n")
        except (TypeError, ValueError, RecursionError) as error:
            raise SettingsError(f"Object {number} to predict for cannot be written as JSON: {error}.") from error
    if not lines:
        raise SettingsError("There is nothing to predict for: give one object at least.")
    return "".join(lines).encode("utf-8", "surrogatepass")


def _not_stored(reference: str) -> NotFoundError:
    return NotFoundError(
        f"There is no {reference!r} in the data set store: `tarmac data ls` lists what is there.", [], 404
    )


def _dag(name: str) -> str:
    return f"/dags/{_part('DAG file', name)}"


def _model(name: str, what: str) -> str:
    return f"/models/{_part('model', name)}/{what}"


def _later(info: SessionInfo, task: str) -> str | None:
    """Return the task after this one, in the pipeline's order, whose log has begun. Pure."""
    names = [one.id for one in info.tasks if one.attempt and one.state not in (None, "skipped", "upstream_failed")]
    if task not in names:
        return names[0] if names and not task else None
    after = names[names.index(task) + 1 :]
    return after[0] if after else None


def _refuse(problems: list[str]) -> None:
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        many = counted(len(problems), "problem")
        raise RefusedError(problems[0] if len(problems) == 1 else f"The request has {many}:{lines}", problems)


def size(count: float) -> str:
    """Write bytes for people. Pure."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
