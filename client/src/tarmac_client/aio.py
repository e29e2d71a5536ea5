"""The client for asyncio. `client.py`, in which each call returns when it is done, is made of this file.

`make sync-client` makes it: without `async` and `await`, and with the names of tests/tools/sync_client.py. Of a line
that ends in `# sync: ...`, what follows stands there instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tarmac_client import config, files, transport
from tarmac_client.flow import Calls, Flow, Pause, Tell
from tarmac_client.types import (
    DagFile,
    Explanation,
    Finding,
    Mended,
    ModelVersion,
    Predictions,
    ProductionStep,
    Result,
    SessionInfo,
    SessionRow,
    StoredFile,
    Verdict,
)
from tarmac_client.verbs import Verbs

T = TypeVar("T")


class AsyncTarmac:
    """A stack.

    Args:
        url, user, password, token: of the stack and a login of its Airflow; those left out are taken from the
            environment or from what `tarmac login` kept.
        http: a connection of one's own to send with, for tests and for special networks.

    Raises:
        SettingsError: it is not known which stack to talk to, or as whom.

    Every method raises RefusedError, LoginError, VersionError or NoAnswerError. A call that gets no answer is tried
    again for some seconds first; that starts and stores nothing twice.
    """

    def __init__(
        self,
        url: str | None = None,
        user: str | None = None,
        password: str | None = None,
        *,
        token: str | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self.login = config.login_of(url, user, password, token)
        self._http = http or httpx.AsyncClient(**transport.options(self.login))
        self.verbs = Verbs(Calls(self.login))

    async def __aenter__(self) -> AsyncTarmac:
        """Give the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    # ---- sessions --------------------------------------------------------------------------------------------------

    async def train(
        self,
        model: str,
        train: str | Path,
        eval: str | Path | None = None,
        *,
        gpu: bool = False,
        parameters: Mapping[str, Any] | None = None,
        name: str | None = None,
        key: str | None = None,
        **more: Any,
    ) -> AsyncSession:
        """Start a session: store the files that the store lacks, check the request, start it.

        Args:
            model: its kind, one of those that `kinds` returns.
            train, eval: paths, ids of stored files or URLs; eval None: about a tenth of train is held out.
            name: under which the model is registered; None: that of its kind.
            key: sent again with the same request, it starts nothing and leads to the first session.
            more: other keys of a request, such as `seed` or `resources`.
        """
        evaluate = None if eval is None else str(eval)
        request = files.build_request(model, str(train), evaluate, gpu=gpu, parameters=parameters, name=name, more=more)
        return await self.send(request, key=key)

    async def run_code(
        self,
        command: Sequence[str],
        train: str | Path,
        eval: str | Path | None = None,
        *,
        code: str | Path | Sequence[str | Path] | None = None,
        image: str | None = None,
        git: str | None = None,
        requirements: str | None = None,
        python: str | None = None,
        gpu: bool = False,
        name: str | None = None,
        key: str | None = None,
        resources: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> AsyncSession:
        """Start a session that trains with code of your own (docs/own-code.md).

        Args:
            command: its words, such as `["python", "train.py"]`.
            train, eval: paths, ids of stored files or URLs; eval None: about a tenth of train is held out.
            code: the folder that the command is run in, a file or several, or what is stored; None: it is in the image.
            image: one that the stack allows; None: Tarmac's own trainer.
            git: a repository, @ and a commit, whose code it is; `code` is then a folder in it, None: all of it.
            requirements: the path in the code of a file that names libraries, which are installed before.
            python: for which Python, such as `3.11`, where the image has another one than Tarmac's.
            name: under which the model is registered; None: own_code.
            key: sent again with the same request, it starts nothing and leads to the first session.
            resources: such as `{"gpu_memory": "12GiB"}`.
            more: other keys of a request, such as `seed`.
        """
        data = {files.data_name(str(train)): (str(train), None if eval is None else str(eval))}
        request = files.build_run(
            command,
            data,
            code=code,
            image=image,
            git=git,
            requirements=requirements,
            python=python,
            gpu=gpu,
            name=name,
            resources=resources,
            more=more,
        )
        return await self.send(request, key=key)

    async def send(
        self, request: Mapping[str, Any], *, folder: str | Path = ".", key: str | None = None
    ) -> AsyncSession:
        """Start a session with a request; paths in it are relative to `folder`."""
        return AsyncSession(self, await self.run(self.verbs.start(request, Path(folder), key)))

    async def train_many(
        self, requests: Sequence[Mapping[str, Any]], *, folder: str | Path = ".", key: str | None = None
    ) -> list[AsyncSession]:
        """Start a session for each request, when all of them are good by themselves; they train as room allows.

        Args:
            requests: whole ones; paths in them are relative to `folder`.
            key: sent again with the same requests, it starts nothing and leads to the first sessions.

        Raises:
            RefusedError: a request is wrong; `problems` name its place, counted from 1. Nothing was started.
        """
        return [AsyncSession(self, one) for one in await self.run(self.verbs.start_many(requests, Path(folder), key))]

    async def session(self, session_id: str) -> AsyncSession:
        """Return a session that exists.

        Raises:
            NotFoundError: it does not.
        """
        found = AsyncSession(self, session_id)
        await found.refresh()
        return found

    async def sessions(self, limit: int = 20) -> list[SessionRow]:
        """Return the latest sessions, newest first."""
        return await self.run(self.verbs.sessions(limit))

    # ---- data sets, models, devices --------------------------------------------------------------------------------

    async def push(
        self,
        path: str | Path,
        *,
        script: bool = False,
        code: bool = False,
        weights: bool = False,
        text: str | None = None,
        label: str | None = None,
        labels_between: str | None = None,
        encoding: str | None = None,
        classes: dict[str, int] | None = None,
    ) -> str:
        """Store a file unless it is stored already; return what a request names it by.

        Args:
            path: lines as Tarmac trains on, or an export of a label tool (docs/exports.md), which is read as such.
            script: it is a .py or .sh file.
            code: it is a folder or a file of code, for `run_code`.
            weights: it is a folder with the weights of a transformer; what is returned goes into `base_model`.
            text, label: columns of a table; None: known by their names.
            labels_between: of a table: the sign between the labels of a text; "": a text has one label. None: so it
                is, and a file where that is not clear is refused.
            encoding: of the text, such as ISO-8859-1; None: UTF-8, or UTF-16 that says so itself.
            classes: the number of each class by its name, in files that belong together; those that this file adds
                are entered. None: by their names in this file alone.
        """
        if weights:
            return await self.run(self.verbs.push_weights(path))
        if code:
            return await self.run(self.verbs.push(files.identify_code(path, field="FILE")))
        file = files.identify(
            path,
            field="FILE",
            script=script,
            text_column=text,
            label_column=label,
            between=labels_between,
            encoding=encoding,
            classes=classes,
        )
        return await self.run(self.verbs.push(file))

    async def datasets(self, limit: int = 100) -> list[StoredFile]:
        """Return what is in the store, newest first."""
        return await self.run(self.verbs.datasets(limit))

    async def dataset(self, reference: str, *, beside: str | None = None) -> StoredFile:
        """Return what is known of a stored file, and what is in it; `beside`: how many lines that one has too."""
        return await self.run(self.verbs.dataset(reference, beside))

    async def remove_dataset(self, reference: str) -> None:
        """Remove a stored file.

        Raises:
            NotFoundError: it is not there.
            RefusedError: a session that is under way, or a model in production, needs it.
        """
        await self.run(self.verbs.remove_dataset(reference))

    async def predict(
        self, model: str, values: Sequence[Mapping[str, Any]], version: int | str | None = None
    ) -> Predictions:
        """Predict with a registered model, on the stack, in a container without a network.

        Args:
            model: its name.
            values: objects as a line of data holds them, such as `{"sentence": "..."}`; of up to 4 MiB in all.
            version: its number or an alias; None: what is in production, else the latest.

        Raises:
            RefusedError: an object cannot be read; names its place, counted from 1.
            NotFoundError: there is no such model or version.
        """
        return await self.run(self.verbs.predict(values, model, "" if version is None else str(version)))

    async def remove_model(self, model: str, version: int) -> None:
        """Remove a registered version with its files.

        Raises:
            NotFoundError: it is not there.
            RefusedError: it is in production, or another model was trained on from it.
        """
        await self.run(self.verbs.remove_model(model, version))

    async def models(self, name: str | None = None) -> list[ModelVersion]:
        """Return the registered versions, of one model or of all."""
        return await self.run(self.verbs.models(name))

    async def compare(self, a: str, b: str) -> list[dict[str, Any]]:
        """Return two versions, each written `name/3`: what was run, on what, and what came out, by section and name."""
        return await self.run(self.verbs.compare(a, b))

    async def promote(self, model: str, version: int, why: str = "") -> ProductionStep:
        """Put a version into production; return the step of its history.

        Raises:
            RefusedError: it is there already.
            NoAnswerError: no answer came; `production` says whether it was done.
        """
        return await self.run(self.verbs.promote(model, version, why))

    async def rollback(self, model: str, why: str = "") -> ProductionStep:
        """Take the last promotion back; return that step of the history. Raises: as `promote`."""
        return await self.run(self.verbs.roll_back(model, why))

    async def production(self, model: str, at: datetime | None = None) -> list[ProductionStep]:
        """Return what came into production, oldest first; with an aware time what was there then, if anything."""
        return await self.run(self.verbs.production(model, None if at is None else at.isoformat()))

    async def kinds(self) -> dict[str, str]:
        """Return the kinds of models that a request may name, with a title each."""
        return dict(await self.run(self.verbs.raw("/kinds")))

    async def kind(self, name: str) -> dict[str, Any]:
        """Return a kind of model: `title`, `score`, and `parameters` with type, bounds, default and what each does.

        Raises:
            NotFoundError: there is none of that name.
        """
        return dict(await self.run(self.verbs.kind(name)))

    async def gpus(self) -> dict[str, Any]:
        """Return `devices`, `reservations` and `queue`, as the API has them."""
        return dict(await self.run(self.verbs.raw("/gpus")))

    async def hosts(self) -> dict[str, Any]:
        """Return `hosts`, `reservations` and `queue` of CPU sessions, as the API has them."""
        return dict(await self.run(self.verbs.raw("/hosts")))

    async def doctor(self) -> list[Finding]:
        """Return what is wrong with the stack, part by part, with what to do."""
        return await self.run(self.verbs.doctor())

    async def mend(self) -> Mended:
        """Mend what is safe to mend without a question; return what was done, what was left, and why.

        Raises:
            ForbiddenError: your role may only look.
        """
        return await self.run(self.verbs.mend())

    async def check_gpus(self, host: str = "") -> dict[str, Any]:
        """Return whether a host's GPUs can be used: `usable`, `sentence` and `devices`, each tried for real.

        Args:
            host: "": the stack's own machine.
        """
        return await self.run(self.verbs.check_gpus(host))

    # ---- DAG files -------------------------------------------------------------------------------------------------

    async def upload_dag(self, path: str | Path, *, suffix: str = "", why: str = "") -> DagFile:
        """Have a DAG file checked and stored on the stack, which needs the role Admin; wait until Airflow shows it.

        Args:
            path: of one Python file.
            suffix: of a copy whose DAG ids end in `__suffix`; "": the file as it is.
            why: the reason, which the note of each run has.

        Raises:
            RefusedError: it is wrong, another person has uploaded one of this name, or uploads are off.
        """
        return await self.run(self.verbs.upload_dag(Path(path), suffix, why))

    async def dags(self) -> list[DagFile]:
        """Return the uploaded DAG files, by name."""
        return await self.run(self.verbs.dags())

    async def remove_dag(self, name: str) -> None:
        """Remove an uploaded DAG file; its runs stay.

        Raises:
            NotFoundError: it is not there.
            RefusedError: a run of it is under way.
        """
        await self.run(self.verbs.remove_dag(name))

    async def version(self) -> dict[str, Any]:
        """Return the versions of the stack and its API, and what this login may do."""
        return dict(await self.run(self.verbs.raw("/version")))

    # ---- the driver ------------------------------------------------------------------------------------------------

    async def run(self, flow: Flow[T]) -> T:
        """Do what a flow says; return its result."""
        result: list[T] = []
        async for _ in self._drive(flow, result):
            pass
        return result[0]

    def iterate(self, flow: Flow[Any]) -> AsyncIterator[Any]:
        """Do what a flow says; give what it tells on the way."""
        return self._drive(flow, [])

    async def _drive(self, flow: Flow[T], result: list[T]) -> AsyncIterator[Any]:
        reply: Any = None
        failed: Exception | None = None
        while True:
            try:
                step = flow.throw(failed) if failed else flow.send(reply)
            except StopIteration as end:
                result.append(end.value)
                return
            reply, failed = None, None
            if isinstance(step, Tell):
                yield step.value
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                body = step.content if step.file is None else transport.async_chunks(step.file, step.part)
                try:
                    reply = transport.answer_of(await self._http.request(**transport.arguments(step, body)))
                except httpx.HTTPError as error:
                    failed = transport.no_answer(self.login, error)


class AsyncSession:
    """A training session of a stack."""

    def __init__(self, tarmac: AsyncTarmac, session_id: str) -> None:
        self._tarmac, self.id = tarmac, session_id
        self._info: SessionInfo | None = None

    def __repr__(self) -> str:
        """Name it."""
        return f"<AsyncSession {self.id} {self._info.state if self._info else ''}>"

    @property
    def info(self) -> SessionInfo | None:  # sync: def info(self) -> SessionInfo:
        """All about it, as it was when it was asked last."""
        return self._info  # sync: return self._info or self.refresh()

    async def refresh(self) -> SessionInfo:
        """Ask again."""
        self._info = await self._tarmac.run(self._tarmac.verbs.session(self.id))
        return self._info

    @property
    def result(self) -> Result | None:
        """What it gave; None: it has not ended well, as far as is known."""
        return self.info.result if self.info else None  # sync: return self.info.result

    async def wait(self, seconds: float | None = None) -> AsyncSession:
        """Wait until it has ended well; return it.

        Raises:
            SessionFailedError: it has failed, or was marked as a success and has no model.
            TimeLimitError: it has not ended in so many seconds; it goes on.
        """
        self._info = await self._tarmac.run(self._tarmac.verbs.wait(self.id, seconds))
        return self

    async def follow(self) -> AsyncIterator[SessionInfo]:
        """Give its state every second until it has ended."""
        async for info in self._tarmac.iterate(self._tarmac.verbs.follow(self.id)):
            self._info = info
            yield info

    async def metrics(self) -> list[dict[str, Any]]:
        """Return the points of its curves as rows, also while it trains: `pandas.DataFrame(session.metrics())`."""
        return [asdict(point) for point in await self._tarmac.run(self._tarmac.verbs.metrics(self.id))]

    def logs(self, task: str | None = None, *, follow: bool = False) -> AsyncIterator[str]:
        """Give a task's log line by line; None: of the last task that has begun."""
        return self._tarmac.iterate(self._tarmac.verbs.logs(self.id, task, on=follow))

    async def cancel(self) -> None:
        """End it. Idempotent."""
        await self._tarmac.run(self._tarmac.verbs.cancel(self.id))

    async def retry(self) -> None:
        """Run it again, after it failed, from the task that failed on. Idempotent while it runs.

        Raises:
            RefusedError: it has not failed.
        """
        await self._tarmac.run(self._tarmac.verbs.retry(self.id))

    async def explain(self) -> Explanation:
        """Say why it waits or failed, with the numbers, and what to do."""
        return await self._tarmac.run(self._tarmac.verbs.explain(self.id))

    async def predict(self, values: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict with the model that it saved: an object for each that is given. Raises: as `predict` of the stack."""
        found = await self._tarmac.run(self._tarmac.verbs.predict(values, self.id, session=True))
        return list(found.predictions)

    async def reproduce(self) -> AsyncSession:
        """Train it again from its record, as a session of its own; return that one. `verdict` compares the two."""
        return AsyncSession(self._tarmac, await self._tarmac.run(self._tarmac.verbs.reproduce(self.id)))

    async def verdict(self, repetition: AsyncSession) -> Verdict:
        """Say whether a repetition, which has ended well, gave the same metrics."""
        return await self._tarmac.run(self._tarmac.verbs.verdict(self.id, repetition.id))
