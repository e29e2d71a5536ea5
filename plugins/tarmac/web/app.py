"""The API `/tarmac/api/v1`: docs/api.md. Each rule has its home elsewhere; here is who may call, and what HTTP says.

A call proves itself by a token of Airflow's in the header Authorization. Cookies count for reading only, and only for a
page of this site, so that no other site's page makes a person's browser start or end anything.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import anyio
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response

from tarmac.base.airflow_api import AirflowApi
from tarmac.base.errors import (
    ApiError,
    CheckerUnavailableError,
    DatasetError,
    ExitCode,
    RequestError,
    RunStateError,
    TarmacError,
)
from tarmac.base.settings import settings
from tarmac.base.states import LedgerState
from tarmac.base.units import format_size
from tarmac.cli.cancel import cancel_run
from tarmac.cli.explain import client_command, explain
from tarmac.cli.retry import retry_run
from tarmac.request import stored
from tarmac.request.callers import Right, basic, bearer, cookie_token
from tarmac.request.catalogue import Parameter, catalogue
from tarmac.request.content import HEAD_BYTES, may_be_read, problem_with_content, refused_for
from tarmac.request.schema import MAX_REQUEST_BYTES, request_problems
from tarmac.request.starting import check_key, start
from tarmac.request.text import read_json, text_problems
from tarmac.request.weights import choose
from tarmac.web import answers, metrics, now, sessions
from tarmac.web.dag_files import dag_file_calls
from tarmac.web.reading import reading_calls
from tarmac.web.stack import Person, Stack
from tarmac.web.versions import API_HEADER, API_VERSION, VERSION_HEADER, mismatch
from tarmac.web.words import for_client

T = TypeVar("T")

PREFIX = "/api/v1"
AT_ONCE = 16
"""Calls that are worked on at a time; more wait. They wait for Airflow's own API in threads that are not Airflow's."""

MAX_LINES_BYTES = 4 * 1024**2
"""Of lines to predict for, in one call."""

_CANCEL_SECONDS = 10.0
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": answers.Refusal, "description": "What was sent is wrong."},
    401: {"model": answers.Refusal, "description": "No token, or one that is not valid (any more)."},
    403: {"model": answers.Refusal, "description": "The caller's role does not allow it."},
    404: {"model": answers.Refusal, "description": "There is no such thing."},
    409: {"model": answers.Refusal, "description": "It is in another state, or still needed."},
    413: {"model": answers.Refusal, "description": "It is too large."},
    429: {"model": answers.Refusal, "description": "More is asked for at a time than is done; try again."},
    426: {"model": answers.Refusal, "description": "Client and stack speak other versions: it says which to update."},
    500: {"model": answers.Refusal, "description": "An error that is not foreseen; please report it."},
    503: {"model": answers.Refusal, "description": "A part of the stack does not answer; try again."},
}
NOWHERE: dict[str, Any] = {"ledger": LedgerState.NOTHING.value, "waits": None, "devices": []}
"""What the ledger has of a session that it does not know."""

# Names with passwords that are known to be right, at most.
_LOGINS = 20

Name = Annotated[
    str,
    Path(description="<id>.jsonl; a script's ends in .py or .sh, code's in .tar, weights' in .weights", max_length=60),
]
Suffix = Literal[".jsonl", ".py", ".sh", ".tar", ".weights"]
Model = Annotated[str, Path(description="of a registered model", max_length=250)]
Version = Annotated[str, Query(description="name/number", max_length=260)]
Which = Annotated[
    str, Query(description="its number or an alias; none: what is in production, else the latest", max_length=250)
]
Id = Annotated[str, Path(description="of the session: its run's id in Airflow", max_length=250)]


def create_app(stack: Stack) -> FastAPI:
    """Make the app; it is mounted at /tarmac."""
    app = FastAPI(
        title="Tarmac",
        version=API_VERSION,
        description="Training sessions, data sets, models and GPUs of a Tarmac stack. A call needs a token of "
        "Airflow's (POST /auth/token) as `Authorization: Bearer TOKEN`.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses=_REFUSALS,
    )
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def work(person: Person, do: Callable[[AirflowApi], T]) -> T:
        """Do something with Airflow's API as this person, in a thread of our own."""

        def connected() -> T:
            with stack.airflow(person) as api:
                return do(api)

        return await anyio.to_thread.run_sync(connected, limiter=limiter)

    async def asked(method: str, path: str, query: Mapping[str, str], **body: Any) -> Any:
        status, content = await stack.ask(method, path, query, **body)
        if status >= 400:
            # A refusal of the webserver itself, 401, is none of the caller.
            raise HTTPException(status if status in (400, 404, 409, 429, 500) else 503, content["detail"])
        return content

    async def contradicted(conf: object) -> list[str]:
        """Return what the world contradicts of a request, which may have bad fields."""
        return await stack.check(conf) if isinstance(conf, dict) else []

    async def checked_file(
        request: Request, suffix: str, *, whole: int = 0, first: bool = True
    ) -> tuple[int, AsyncIterator[bytes]]:
        """Return the size and the content of a file that a call brings, when its beginning is what it should be.

        Args:
            whole: bytes of the file that it is a part of; 0: it is all of it.
            first: it begins the file.
        """
        size = request.headers.get("content-length", "")
        if not size.isdecimal():
            raise HTTPException(411, "Content-Length is missing: send the file's size.")
        most = settings().upload_bytes
        if max(int(size), whole) > most:
            raise HTTPException(
                413,
                f"The file has {format_size(max(int(size), whole))}; at most {format_size(most)} are taken "
                "(TARMAC_UPLOAD_SIZE in env/stack.env). `make dataset` on the stack's machine takes any size.",
            )
        head, rest = await _head(request)
        # A beginning that is cut before as much as is looked at tells nothing.
        told = first and (whole in (0, int(size)) or int(size) >= HEAD_BYTES)
        if told and (problem := await anyio.to_thread.run_sync(problem_with_content, head, suffix, limiter=limiter)):
            raise DatasetError(problem)
        return int(size), rest

    async def found_with_place(person: Person, id: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
        """Return a session's run, and what the ledger has of it while it is under way."""
        run = await work(person, lambda api: sessions.run_of(api, id))
        return run, await asked("GET", "/place", {"run": id}) if sessions.under_way(run) else NOWHERE

    async def with_record(found: dict[str, Any]) -> dict[str, Any]:
        """Return a session with the address of its run in MLflow, where it failed before its training."""
        if found["run_state"] != "failed" or found["training_url"]:
            return found
        try:
            kept = await asked("GET", "/untrained", {"run": found["id"]})
        except (HTTPException, TarmacError):
            return found  # what is known of the session does not depend on the ledger
        return {**found, "training_url": kept.get("url")}

    async def explained(person: Person, run: dict[str, Any], place: Mapping[str, Any]) -> answers.Explanation:
        """Say why a session waits or failed, in the words of the client."""
        found = await work(person, lambda api: explain(api, run, place, client_command))
        words = {"why": [for_client(one) for one in found.why], "todo": [for_client(one) for one in found.todo]}
        return answers.Explanation(id=run["dag_run_id"], **asdict(found) | words)

    async def predicted(request: Request, query: Mapping[str, str]) -> Any:
        """Predict for the lines that a call brings, when they are few enough and look like lines."""
        lines = b""
        async for chunk in request.stream():
            lines += chunk
            if len(lines) > MAX_LINES_BYTES:
                raise HTTPException(
                    413, f"The lines have more than {MAX_LINES_BYTES // 1024**2} MiB: send fewer in a call."
                )
        head = lines[:HEAD_BYTES]
        if problem := await anyio.to_thread.run_sync(problem_with_content, head, ".jsonl", limiter=limiter):
            raise DatasetError(problem.removesuffix(" Nothing was stored."))
        return await asked("POST", "/predict", query, content=lines, size=len(lines))

    def allowed(right: Right, to: str | None = None) -> Callable[[Request], Awaitable[Person]]:
        async def check(request: Request) -> Person:
            token = bearer(request.headers)
            if token is None and right is Right.READ and request.headers.get("sec-fetch-site") == "same-origin":
                token = cookie_token(request.headers)
            person = await stack.identify(token)
            if wrong := mismatch(request.headers):
                raise HTTPException(426, wrong)
            if not await stack.may(person, right):
                raise HTTPException(
                    403, f"{person.name!r} has no role in Airflow that allows to {to or _WORDS[right]}."
                )
            # What no database keeps is refused by its field, in a body by _body.
            address = {**request.path_params, **request.query_params}
            if problems := text_problems(address, what="address"):
                raise RequestError(problems)
            return person

        return check

    logins: dict[str, Person] = {}

    async def login(headers: Mapping[str, str]) -> Person:
        """Return who calls, by a token, or by name and password: Airflow is asked once while the token lasts."""
        pair = basic(headers)
        if pair is None:
            return await stack.identify(bearer(headers))
        known = hashlib.sha256("\0".join(pair).encode()).hexdigest()
        if person := logins.get(known):
            try:
                return await stack.identify(person.token)
            except HTTPException:
                del logins[known]  # it has expired
        try:
            token = await anyio.to_thread.run_sync(stack.log_in, *pair, limiter=limiter)
        except ApiError as error:
            if error.unavailable:
                raise
            challenge = {"WWW-Authenticate": 'Basic realm="Tarmac"'}
            raise HTTPException(401, f"Airflow refuses the login of {pair[0]!r}.", challenge) from error
        person = await stack.identify(token)
        if len(logins) >= _LOGINS:
            logins.clear()
        logins[known] = person
        return person

    Reader = Annotated[Person, Depends(allowed(Right.READ))]  # noqa: N806
    Starter = Annotated[Person, Depends(allowed(Right.START))]  # noqa: N806
    Changer = Annotated[Person, Depends(allowed(Right.CHANGE))]  # noqa: N806
    Remover = Annotated[Person, Depends(allowed(Right.DELETE))]  # noqa: N806
    # A session promotes its model where its request says so: who may start one may do it by hand.
    Promoter = Annotated[Person, Depends(allowed(Right.START, "put models into production"))]  # noqa: N806

    Predictor = Annotated[Person, Depends(allowed(Right.START, "predict with models"))]  # noqa: N806

    _answer_errors(app)
    _name_versions(app)

    @app.get(f"{PREFIX}/openapi.json", include_in_schema=False)
    async def openapi(_: Reader, request: Request) -> dict[str, Any]:
        """Describe the API as OpenAPI does, with the address below which its paths are."""
        return {**app.openapi(), "servers": [{"url": request.scope.get("root_path") or "/"}]}

    @app.get(f"{PREFIX}/version")
    async def version(person: Reader) -> answers.About:
        """Say which stack this is, and what the caller may do."""
        return answers.About(
            api=API_VERSION,
            tarmac=settings().version,
            user=person.name,
            may_start=await stack.may(person, Right.START),
            may_change=await stack.may(person, Right.CHANGE),
            may_upload_dags=settings().dag_upload and await stack.may(person, Right.ADMIN),
        )

    @app.get(f"{PREFIX}/sessions", response_model=list[answers.Row])
    async def list_sessions(
        person: Reader, limit: Annotated[int, Query(ge=1, le=100)] = 20, offset: Annotated[int, Query(ge=0)] = 0
    ) -> Any:
        """List the latest sessions, newest first."""
        return await work(person, lambda api: sessions.rows(api, limit, offset))

    @app.post(f"{PREFIX}/sessions", status_code=201, openapi_extra=_takes(answers.Start))
    async def start_session(person: Starter, request: Request) -> answers.Started:
        """Start a session. With a key it is idempotent: sent again, it leads to the first session."""
        body = await _json_body(request, _REQUEST)
        conf, key = body.get("request"), body.get("key")
        problems = [f"{name}: unknown key; the body has request and key." for name in body.keys() - {"request", "key"}]
        if problems:
            raise RequestError(problems)
        check_key(key)
        if found := request_problems(conf):
            # All at once, unless the world cannot be asked. Of a request that is good so far Airflow's own API asks it.
            with suppress(CheckerUnavailableError):
                found = [*found, *await contradicted(conf)]
            raise RequestError(found)
        run_id, new = await work(person, lambda api: start(api, dict(conf or {}), key))
        return answers.Started(id=run_id, new=new, url=sessions.page_of(run_id))

    @app.post(f"{PREFIX}/checks", openapi_extra=_takes(answers.Start))
    async def check_request(_: Starter, request: Request, world: bool = True) -> answers.Checked:
        """Say what is wrong with a request, and what a good one would wait for now, without starting anything.

        world=false: only what is wrong with it by itself, not whether data sets, base model and GPUs are there.
        """
        conf = (await _json_body(request, _REQUEST)).get("request")
        problems = [*request_problems(conf), *(await contradicted(conf) if world else [])]
        if problems or not world:
            return answers.Checked(problems=[for_client(one) for one in problems], expected="")
        body = json.dumps(conf).encode()
        try:
            found = await asked("POST", "/expected", {}, content=body, size=len(body))
        except (HTTPException, TarmacError):
            # The request is good all the same; whether it would wait is not known while a part of the stack is away.
            return answers.Checked(problems=[], expected="")
        return answers.Checked(problems=[], expected=for_client(found["expected"]))

    @app.get(f"{PREFIX}/sessions/{{id}}", response_model=answers.Session)
    async def show_session(person: Reader, id: Id) -> Any:
        """Show all about a session: its state, why it waits or failed, its progress and its latest metric."""
        run, place = await found_with_place(person, id)
        return await with_record(await work(person, lambda api: sessions.session(api, run, place)))

    @app.get(f"{PREFIX}/sessions/{{id}}/overview", response_model=answers.Overview)
    async def show_overview(person: Reader, id: Id) -> Any:
        """Show at once what the calls below it say of a session: the session, its curves, its GPU use, why it waits."""
        run, place = await found_with_place(person, id)
        found, points = await work(person, lambda api: sessions.session_with_points(api, run, place))
        used = None if sessions.trains_on_cpu(found) else await asked("GET", "/usage", {"run": id})
        # What trains or has ended well neither waits nor failed.
        quiet = run["state"] == "success" or found["progress"] is not None
        return {
            "session": await with_record(found),
            "metrics": points,
            "usage": used,
            "explanation": None if quiet else await explained(person, run, place),
        }

    @app.get(f"{PREFIX}/sessions/{{id}}/metrics", response_model=list[answers.Metric])
    async def list_metrics(person: Reader, id: Id) -> Any:
        """List the points of a session's curves, also while it trains."""
        return await work(person, lambda api: sessions.points(api, sessions.run_of(api, id)))

    @app.get(f"{PREFIX}/sessions/{{id}}/usage", response_model=answers.Usage)
    async def show_usage(person: Reader, id: Id) -> Any:
        """Show what a session held and used of GPUs over time, and in all."""
        await work(person, lambda api: sessions.run_of(api, id))
        return await asked("GET", "/usage", {"run": id})

    @app.get(f"{PREFIX}/sessions/{{id}}/logs", response_model=answers.Log)
    async def show_log(
        person: Reader,
        id: Id,
        task: Annotated[str | None, Query(description="none: the last one that has begun")] = None,
        first: Annotated[int, Query(ge=0)] = 0,
        end: Annotated[bool, Query(description="the last entries instead; `first` does not count")] = False,
    ) -> Any:
        """Show a part of a task's log from entry number `first` on: up to 20,000 entries, of at most 8 MiB."""
        return await work(person, lambda api: sessions.log(api, id, task, None if end else first))

    @app.post(f"{PREFIX}/sessions/{{id}}/cancel")
    async def cancel_session(person: Changer, id: Id) -> answers.Cancelled:
        """End a session in whatever state it is. Idempotent."""
        said: list[str] = []

        def cancel(api: AirflowApi) -> int:
            sessions.run_of(api, id)
            return cancel_run(api, id, person.name, write=said.append, wait_seconds=_CANCEL_SECONDS)

        code = await work(person, cancel)
        return answers.Cancelled(cancelled=code == ExitCode.SUCCESS, said=[for_client(one) for one in said])

    @app.post(f"{PREFIX}/sessions/{{id}}/retry")
    async def retry_session(person: Changer, id: Id) -> answers.Retried:
        """Run a session that failed again, from the task that failed on, under its own id. Idempotent."""
        said: list[str] = []

        def retry(api: AirflowApi) -> str:
            sessions.run_of(api, id)
            return retry_run(api, id, person.name, write=said.append)

        task = await work(person, retry)
        return answers.Retried(id=id, task=task, said=[for_client(one) for one in said])

    @app.post(f"{PREFIX}/sessions/{{id}}/priority", openapi_extra=_takes(answers.Prioritise))
    async def prioritise_session(person: Changer, id: Id, request: Request) -> answers.Prioritised:
        """Give a session that waits another priority. Refused (409) if it does not wait. Idempotent."""
        priority = (await _body(request, answers.Prioritise)).priority
        await work(person, lambda api: sessions.run_of(api, id))
        place = await asked("POST", "/priority", {"run": id, "priority": str(priority), "who": person.name})
        return answers.Prioritised(id=id, priority=priority, waits=place["waits"])

    @app.get(f"{PREFIX}/sessions/{{id}}/explain")
    async def explain_session(person: Reader, id: Id) -> answers.Explanation:
        """Say why a session waits or failed, with the numbers, and what to do."""
        run, place = await found_with_place(person, id)
        return await explained(person, run, place)

    @app.post(f"{PREFIX}/sessions/{{id}}/reproduce", status_code=201, openapi_extra=_takes(answers.Repeat))
    async def reproduce_session(person: Starter, id: Id, request: Request) -> answers.Repeated:
        """Train again what a session trained, from its record, as a session of its own. With a key it is idempotent."""
        body = await _body(request, answers.Repeat)
        check_key(body.key)
        found = await asked("GET", "/repetition", {"run": id})
        run_id, new = await work(person, lambda api: start(api, found["request"], body.key))
        return answers.Repeated(id=run_id, new=new, url=sessions.page_of(run_id), of=found["of"])

    @app.get(f"{PREFIX}/sessions/{{id}}/verdict", response_model=answers.Verdict)
    async def compare_with_repetition(
        _: Reader, id: Id, repetition: Annotated[str, Query(description="id of the session that trained it again")]
    ) -> Any:
        """Say whether a repetition of a session, which has ended well, gave the same metrics."""
        return await asked("GET", "/verdict", {"run": id, "repetition": repetition})

    @app.get(f"{PREFIX}/datasets", response_model=list[answers.Listed])
    async def list_files(
        person: Reader, limit: Annotated[int, Query(ge=1, le=1000)] = 100, offset: Annotated[int, Query(ge=0)] = 0
    ) -> Any:
        """List what is in the data set store, newest first."""
        found = (await asked("GET", "/files", {}))[offset : offset + limit]
        names = await work(person, lambda api: sessions.names_of_data(api.runs(100))) if found else {}
        # What sessions called it comes first: people know it by that.
        return [
            {**one, "names": list(dict.fromkeys([*names.get(one["reference"], []), *one["called"]]))} for one in found
        ]

    @app.post(f"{PREFIX}/datasets", status_code=201, openapi_extra=_TAKES_A_FILE)
    async def store_new_file(
        _: Starter,
        request: Request,
        suffix: Suffix = ".jsonl",
        name: Annotated[str, Query(description="of the person's file; a list shows it", max_length=250)] = "",
    ) -> answers.Kept:
        """Store a file whose id is not known yet. Idempotent."""
        size, content = await checked_file(request, suffix)
        query = {"suffix": suffix, "name": name}
        return answers.Kept(**await asked("PUT", "/file", query, content=content, size=size))

    @app.get(f"{PREFIX}/datasets/{{name}}", response_model=answers.Stored)
    async def find_file(_: Reader, name: Name) -> Any:
        """Say whether a file is in the store. Quick."""
        return await asked("GET", "/file", {"name": name})

    @app.get(f"{PREFIX}/datasets/{{name}}/content", response_model=answers.Content)
    async def show_file(person: Reader, name: Name, beside: Annotated[str | None, Query(max_length=60)] = None) -> Any:
        """Read a stored data set and say what is in it: keys, labels, lengths, repeated lines, warnings.

        beside: the name of another data set; `overlap` counts the lines that are in both.
        """
        query = {"name": name, "read": "yes", **({} if beside is None else {"beside": beside})}
        found = await asked("GET", "/file", query)
        if await stack.may(person, Right.START):
            return found
        # Labels are of the lines, and so are the warnings that name them.
        return {**found, "sample": [], "labels": {}, "warnings": []}

    @app.put(f"{PREFIX}/datasets/{{name}}", openapi_extra=_TAKES_A_FILE)
    async def store_file(_: Starter, name: Name, request: Request) -> answers.Kept:
        """Store a file under the id of its content. Idempotent."""
        size, content = await checked_file(request, f".{stored.reference_of(name).rpartition('.')[2]}")
        return answers.Kept(**await asked("PUT", "/file", {"name": name}, content=content, size=size))

    @app.get(f"{PREFIX}/datasets/{{name}}/upload", response_model=answers.Upload)
    async def show_upload(_: Starter, name: Name) -> Any:
        """Say how much of an upload in parts is there."""
        return await asked("GET", "/upload", {"name": name})

    @app.patch(f"{PREFIX}/datasets/{{name}}/upload", response_model=answers.Upload, openapi_extra=_TAKES_A_FILE)
    async def add_part(
        _: Starter,
        name: Name,
        request: Request,
        offset: Annotated[int, Query(ge=0, description="bytes that were received before")],
        total: Annotated[int, Query(ge=1, description="bytes of the whole")],
    ) -> Any:
        """Add a part to an upload; the last one stores the file. Refused (409) if it does not go on from there."""
        suffix = f".{stored.reference_of(name).rpartition('.')[2]}"
        size, content = await checked_file(request, suffix, whole=total, first=offset == 0)
        query = {"name": name, "offset": str(offset), "total": str(total)}
        return await asked("PUT", "/upload", query, content=content, size=size)

    @app.delete(f"{PREFIX}/datasets/{{name}}", response_model=answers.Removed)
    async def remove_file(_: Remover, name: Name) -> Any:
        """Remove a file from the store. Refused (409) while a session or a model in production needs it."""
        return await asked("DELETE", "/file", {"name": name})

    @app.post(f"{PREFIX}/checks/file", openapi_extra=_TAKES_A_FILE)
    async def check_file(
        _: Starter, request: Request, suffix: Suffix = ".jsonl", model: str = "", lines: bool = False
    ) -> answers.FileProblems:
        """Say what a file is that is not what its suffix promises, by its beginning: 1 MiB is looked at.

        model: a kind of model; a data set without any line for it is refused, too.
        lines: let the model's trainer read the lines, and name the first broken ones.
        """
        head = (await _head(request))[0]
        known = catalogue().models.get(model)

        def check() -> tuple[str | None, bool]:
            if problem := problem_with_content(head, suffix):
                return problem, suffix == ".jsonl" and may_be_read(head)
            if known is None or suffix != ".jsonl":
                return None, False
            problem = refused_for(head, model=model, key=known.reads)
            return problem, problem is not None

        problem, other_form = await anyio.to_thread.run_sync(check, limiter=limiter)
        found = [problem] if problem else []
        if lines and known is not None and suffix == ".jsonl" and not found:
            # While no trainer can be asked, prep names them: it reads all lines of every data set.
            with suppress(HTTPException, CheckerUnavailableError):
                found = (await asked("POST", "/lines", {"model": model}, content=head, size=len(head)))["problems"]
        return answers.FileProblems(problems=[for_client(one) for one in found], other_form=other_form)

    @app.post(f"{PREFIX}/checks/weights", openapi_extra=_takes(answers.Names))
    async def choose_weights(_: Starter, request: Request) -> answers.Names:
        """Choose of the files of a folder those that a transformer's weights consist of, in the order of the archive.

        Refused (400) if one that is needed is missing. The archive that is stored is a tar of these files alone.
        """
        return answers.Names(names=choose((await _body(request, answers.Names)).names))

    @app.get(f"{PREFIX}/models", response_model=list[answers.Version])
    async def list_models(_: Reader, name: str | None = None) -> Any:
        """List registered versions, of one model or of all."""
        return await asked("GET", "/models", {} if name is None else {"model": name})

    @app.get(f"{PREFIX}/models/compare", response_model=list[answers.Compared])
    async def compare_versions(_: Reader, a: Version, b: Version) -> Any:
        """Show two versions side by side: what was run, on what, and what came out."""
        return await asked("GET", "/compare", {"a": a, "b": b})

    @app.get(f"{PREFIX}/models/{{name}}/production", response_model=list[answers.Step])
    async def show_production(_: Reader, name: Model, at: datetime | None = None) -> Any:
        """List what came into production, oldest first; with a time (UTC without a zone) what was there then."""
        zoned = at if at is None or at.tzinfo else at.replace(tzinfo=UTC)
        return await asked(
            "GET", "/production", {"model": name, **({} if zoned is None else {"at": zoned.isoformat()})}
        )

    @app.post(f"{PREFIX}/models/{{name}}/promote", openapi_extra=_takes(answers.Promote))
    async def promote_version(person: Promoter, name: Model, request: Request) -> answers.Step:
        """Put a version into production."""
        body = await _body(request, answers.Promote)
        query = {"model": name, "version": str(body.version), "who": person.name, "why": body.why}
        return answers.Step(**await asked("POST", "/promote", query))

    @app.post(f"{PREFIX}/models/{{name}}/rollback", openapi_extra=_takes(answers.Rollback))
    async def take_promotion_back(person: Promoter, name: Model, request: Request) -> answers.Step:
        """Take the last promotion back; that is a step of the history too."""
        body = await _body(request, answers.Rollback)
        return answers.Step(**await asked("POST", "/rollback", {"model": name, "who": person.name, "why": body.why}))

    @app.post(f"{PREFIX}/models/{{name}}/predict", response_model=answers.Predictions, openapi_extra=_TAKES_LINES)
    async def predict_by_version(_: Predictor, name: Model, request: Request, version: Which = "") -> Any:
        """Predict for JSON lines with a registered version, in a container without a network. Leaves nothing behind."""
        return await predicted(request, {"model": name, "version": version})

    @app.post(f"{PREFIX}/sessions/{{id}}/predict", response_model=answers.Predictions, openapi_extra=_TAKES_LINES)
    async def predict_by_session(_: Predictor, id: Id, request: Request) -> Any:
        """Predict for JSON lines with the model that a session saved, as with a version."""
        return await predicted(request, {"run": id})

    @app.delete(f"{PREFIX}/models/{{name}}/{{number}}", response_model=answers.RemovedVersion)
    async def remove_version(_: Remover, name: Model, number: Annotated[int, Path(ge=1, le=999_999_999)]) -> Any:
        """Remove a registered version with its files. Refused (409) while it is in production or a base of another."""
        return await asked("DELETE", "/version", {"model": name, "version": str(number)})

    @app.get(f"{PREFIX}/kinds")
    async def list_kinds(_: Reader) -> dict[str, str]:
        """List the kinds of models that a request may name, with a title each."""
        return {name: model.title for name, model in catalogue().models.items()}

    @app.get(f"{PREFIX}/kinds/{{name}}")
    async def show_kind(_: Reader, name: str) -> answers.Kind:
        """Show a kind of model with its parameters and their bounds."""
        found = catalogue().models.get(name)
        if found is None:
            raise HTTPException(404, f"There is no kind of model {name!r}; there are: {', '.join(catalogue().models)}.")
        return answers.Kind(
            name=name,
            title=found.title,
            score=found.score,
            scripts=found.scripts,
            parameters=_parameters(found.parameters),
            transformer=None if found.transformer is None else _parameters(found.transformer.parameters),
        )

    app.include_router(dag_file_calls(asked, allowed(Right.ADMIN), PREFIX))
    app.include_router(reading_calls(asked, allowed(Right.START), PREFIX))

    @app.get(f"{PREFIX}/gpus", response_model=answers.Gpus)
    async def show_gpus(_: Reader) -> Any:
        """Show the devices, what is reserved of them, and the queue with a reason for each session."""
        return await asked("GET", "/gpus", {})

    @app.post(f"{PREFIX}/gpus/check", response_model=answers.GpuCheck)
    async def check_gpus(
        _: Starter, host: Annotated[str, Query(description="whose; none: the stack's own machine's")] = ""
    ) -> Any:
        """Say whether a host's GPUs can be used: driver, health, and each handed to a container once for a moment."""
        return await asked("POST", "/gpu-check", {"host": host})

    @app.get(f"{PREFIX}/doctor", response_model=list[answers.Finding])
    async def examine_stack(_: Reader) -> Any:
        """Look at every part of the stack and say what is wrong, with the numbers, and what to do."""
        return await asked("GET", "/doctor", {})

    @app.post(f"{PREFIX}/doctor", response_model=answers.Mended)
    async def mend_stack(_: Starter) -> Any:
        """Mend what is safe to mend without a question, and say what was done, what was left, and why."""
        return await asked("POST", "/mend", {})

    @app.get(f"{PREFIX}/hosts", response_model=answers.Hosts)
    async def show_hosts(_: Reader) -> Any:
        """Show the hosts, what is reserved of them, and the queue of CPU sessions with a reason for each."""
        return await asked("GET", "/hosts", {})

    @app.get(f"{PREFIX}/attempts")
    async def list_attempts(_: Reader, hours: Annotated[int, Query(ge=1, le=24 * 31)] = 24) -> answers.Attempts:
        """List what trained in the last hours, on which devices and hosts."""
        return now.attempts(await asked("GET", "/attempts", {"hours": str(hours)}), hours)

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics(request: Request) -> Response:
        """Answer Prometheus: devices, hosts, reservations and queues. A name and a password will do, or a token."""
        person = await login(request.headers)
        if not await stack.may(person, Right.READ):
            raise HTTPException(403, f"{person.name!r} has no role in Airflow that allows to {_WORDS[Right.READ]}.")
        try:
            found = await asked("GET", "/counts", {})
        except (HTTPException, TarmacError):
            # What scrapes reads that the stack answers, and that its ledger does not.
            return Response(metrics.exposition(None), media_type=metrics.CONTENT_TYPE)
        return Response(metrics.exposition(found), media_type=metrics.CONTENT_TYPE)

    @app.get(f"{PREFIX}/now", response_model=answers.Now)
    async def show_now(person: Reader) -> Any:
        """Show hosts, devices, both queues and the sessions under way."""
        ledger = await asked("GET", "/now", {})
        return await work(person, lambda api: now.overview(ledger, now.sessions(api, ledger)))

    return app


def _parameters(found: Mapping[str, Parameter]) -> list[answers.Parameter]:
    return [_parameter(name, one) for name, one in found.items()]


def _parameter(name: str, one: Parameter) -> answers.Parameter:
    if one.kind == "choice":
        choices = [choice for choice in one.choices if choice is not None]
        return answers.Parameter(name=name, type="choice", choices=choices, default=one.default, help=one.help)
    if one.kind == "word":
        return answers.Parameter(name=name, type="word", default=one.default, help=one.help)
    kind: Literal["int", "number"] = "int" if one.kind == "int" else "number"
    return answers.Parameter(name=name, type=kind, low=one.low, high=one.high, default=one.default, help=one.help)


_WORDS = {
    Right.READ: "see sessions",
    Right.START: "start sessions",
    Right.CHANGE: "end sessions",
    Right.DELETE: "remove data sets and models",
    Right.ADMIN: "upload DAGs, which takes the role Admin",
}
_REQUEST = "a JSON object with the request under 'request'"
_TAKES_LINES = {"requestBody": {"required": True, "content": {"application/jsonl": {}}}}
_TAKES_A_FILE = {"requestBody": {"required": True, "content": {"application/octet-stream": {}}}}


async def _body[B: BaseModel](request: Request, kind: type[B]) -> B:
    """Read a JSON body, after the caller's right was checked.

    Raises:
        RequestError: it is not of that kind.
    """
    value = await _json_body(request)
    if problems := text_problems(value, what="body"):
        raise RequestError(problems)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise RequestError(
            [
                f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg'][0].lower()}{one['msg'][1:]} "
                f"(got {str(one['input'])[:80]!r})."
                for one in error.errors(include_url=False)
            ]
        ) from error


def _takes(model: type[BaseModel]) -> dict[str, Any]:
    # Read by hand, so that a key that is there twice is found; described all the same.
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


async def _json_body(request: Request, what: str = "a JSON object") -> dict[str, Any]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            text = f"The request is larger than {MAX_REQUEST_BYTES:,} bytes; put data into a data set."
            raise HTTPException(413, text)
    value, problems = read_json(body, what="body")
    if not isinstance(value, dict):
        raise RequestError([f"body: must be {what}."])
    if problems:
        raise RequestError([problem.removeprefix("request.") for problem in problems])
    return value


async def _head(request: Request) -> tuple[bytes, AsyncIterator[bytes]]:
    """Return the beginning of a body, as much as is looked at, and all of the body."""
    stream = request.stream()
    head = b""
    async for chunk in stream:
        head += chunk
        if len(head) >= HEAD_BYTES:
            break

    async def whole() -> AsyncIterator[bytes]:
        yield head
        async for chunk in stream:
            yield chunk

    return head[:HEAD_BYTES], whole()


def _refusal(status: int, detail: str, problems: list[str] | None = None) -> JSONResponse:
    found = [for_client(problem) for problem in problems or []]
    return JSONResponse({"detail": for_client(detail), "problems": found}, status)


def _answer_errors(app: FastAPI) -> None:
    """Answer every error that is raised on purpose with a sentence and the status that it means."""

    @app.exception_handler(TarmacError)
    async def refused(_: Request, error: TarmacError) -> JSONResponse:
        if isinstance(error, ApiError):
            return _refusal(error.status if 400 <= error.status < 500 else 503, str(error), error.problems)
        if isinstance(error, RequestError):
            return _refusal(400, str(error), error.problems)
        if isinstance(error, RunStateError):
            return _refusal(409, str(error))
        return _refusal(400 if error.exit_code == ExitCode.BAD_INPUT else 503, str(error))

    @app.exception_handler(StarletteHTTPException)
    async def answered(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return _refusal(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = [
            f"{one['loc'][-1]}: {one['msg'][0].lower()}{one['msg'][1:]} (got {str(one['input'])[:80]!r})."
            for one in error.errors()
        ]
        return _refusal(400, " ".join(found), found)


def _name_versions(app: FastAPI) -> None:
    @app.middleware("http")
    async def named(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        answer = await go_on(request)
        answer.headers[API_HEADER] = API_VERSION
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        if answer.status_code not in (401, 403):
            answer.headers[VERSION_HEADER] = settings().version
        return answer
