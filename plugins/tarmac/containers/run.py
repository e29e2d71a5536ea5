"""One step in a container: adopt what an earlier attempt started, or start it; follow it; judge its end.

Knows the engine and the trainer's protocol, and nothing of Airflow: what it finds out goes to a `Listener`.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from docker.errors import APIError, ImageNotFound, NotFound
from urllib3.exceptions import HTTPError

from tarmac.base.errors import ContainerError
from tarmac.base.session import LABEL_GENERATION
from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.containers.decisions import Adoption, Earlier, End, choose, no_result, verdict
from tarmac.containers.output import AHEAD_BYTES, Brake, Position, may_lack_its_beginning, records, written_bytes
from tarmac.containers.protocol import (
    MAX_LINE,
    Event,
    LineSplitter,
    has_result_behind_text,
    parse_line,
    render,
    unreadable_result,
)
from tarmac.containers.results import RAISE_SIZE, fetch, result_file
from tarmac.containers.spec import ContainerSpec, create

# An engine that is being restarted is waited for this long.
ENGINE_SECONDS = 300.0
# A training tells its progress several times a second, for hours; the log has it this often.
PROGRESS_SECONDS = 10.0


class EngineSilentError(Exception):
    """The engine has not answered for long. That says nothing about the step: it may well go on."""


class Log(Protocol):
    """Where what the container prints goes: a logger of the standard library, or Airflow's."""

    def info(self, text: Any, /, *values: Any) -> None:
        """Log a line."""

    def warning(self, text: Any, /, *values: Any) -> None:
        """Log a warning."""

    def error(self, text: Any, /, *values: Any) -> None:
        """Log an error."""


class Listener(Protocol):
    """What is told of a step as it goes."""

    def noticed(self, event: Event) -> None:
        """Take note of an event; `progress` and `metric` tell that it lives."""

    def unreachable(self, why: str) -> None:
        """Take note that the engine does not answer; "": it does again. The step may well go on.

        Called again and again while it does not. May raise, as `still_wanted` may.
        """

    def still_wanted(self) -> None:
        """Raise, to end the following and leave the container alone."""


@dataclass(frozen=True)
class Step:
    """A step to run.

    Args:
        name: of the contract's command, for messages and for the file of its result.
        identity: labels that only containers of this task have.
        generation: of the task: it changes when the task is cleared.
        needs_result: whether a step that ends well without a result has failed.
        result_bytes: the largest result that is taken.
        result_advice: what to do about a larger one.
        secrets: shown and kept as ***.
        again: exit codes after which it may be tried again; None: as the trainer contract says.
    """

    name: str
    identity: dict[str, str]
    generation: str
    needs_result: bool = False
    result_bytes: int = 1024**2
    result_advice: str = RAISE_SIZE
    secrets: Collection[str] = ()
    again: Collection[int] | None = None


def earlier(api: EngineCalls, step: Step) -> list[Earlier]:
    """Return the containers that earlier attempts of the step left, newest first."""
    found = []
    for container in engine.containers_with(api, step.identity):
        state = _inspect(api, container["Id"])["State"] if container["State"] == "exited" else {}
        found.append(
            Earlier(
                container["Id"],
                container["State"],
                container["Labels"].get(LABEL_GENERATION, step.generation),
                int(state["ExitCode"]) if state else None,
                bool(state.get("OOMKilled")),
            )
        )
    return found


def ended_well(found: Collection[Earlier], generation: str) -> bool:
    """Tell whether an earlier attempt's container has the result already. Pure."""
    return any(one.state == "exited" and one.generation == generation and one.exit_code == 0 for one in found)


def _inspect(api: EngineCalls, container_id: str) -> dict[str, Any]:
    try:
        return api.inspect_container(container_id)
    except NotFound as error:
        raise ContainerError(f"Container {container_id[:12]} was removed by a person or another program.") from error


def unwatched(container_id: str) -> AbstractContextManager[None]:
    """Accompany a container by nothing."""
    return nullcontext()


class ContainerRun:
    """A step from its container's start, or adoption, to its result. Used once.

    Attributes:
        container_id: "" until there is one.
        exit_code: None until it has ended.
        error: its last `error` event.
        last_text: the last line that was no event.
        printed_at: when it last printed a line, by time.monotonic; 0: not yet.
    """

    def __init__(
        self,
        api: EngineCalls,
        step: Step,
        listener: Listener,
        log: Log,
        *,
        ahead_bytes: int = AHEAD_BYTES,
        silent_seconds: float = ENGINE_SECONDS,
    ) -> None:
        self._api, self._step, self._listener, self._log = api, step, listener, log
        self.container_id = ""
        self.exit_code: int | None = None
        self.error: Event | None = None
        self._behind_text = False
        self.last_text = ""
        self.printed_at = 0.0
        self._result: dict[str, Any] | None = None
        self._unreadable = ""
        self._progress_at, self._progress_done = float("-inf"), -1.0
        self._ahead, self._silent_seconds = ahead_bytes, silent_seconds
        self._brake: Brake | None = None
        self._position = Position()
        self._splitter = LineSplitter()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def run(
        self, spec: ContainerSpec, watching: Callable[[str], AbstractContextManager[None]] = unwatched
    ) -> dict[str, Any] | None:
        """Do all of it. Returns the result, None: the step has none and needs none.

        Args:
            spec: what to start, where nothing is adopted.
            watching: what accompanies following the container, by its id.

        Raises:
            ContainerError: the step failed, or the engine refused.
            EngineSilentError: the engine does not answer.
        """
        adopted = self._adopt()
        self.container_id = adopted or self._start(spec)
        brake = self._brake = self._brake or Brake(self._api, self.container_id, ahead_bytes=self._ahead)
        try:
            with watching(self.container_id):
                state = self._follow(brake, adopted=adopted is not None)
        finally:
            brake.close()
        self._listener.still_wanted()
        self.exit_code = int(state["ExitCode"])
        end = End(self.exit_code, bool(state.get("OOMKilled")), self.error, self.last_text)
        # One that ended well stays until its result is kept, which may take another attempt: then it is an orphan, and
        # the reaper or delete_volume removes it. Removed here, a process that is lost now would train again.
        failed = verdict(self._step.name, end, spec.memory_bytes, again=self._step.again)
        if self.error is not None and str(self.error.data["message"]) not in str(failed):
            self._log.error("%s", render(self.error))
        if failed:
            engine.remove_container(self._api, self.container_id)
            raise failed
        return self._take_result()

    # ---- adopt or start ----------------------------------------------------------------------------------------------

    def _adopt(self) -> str | None:
        choice: Adoption = choose(earlier(self._api, self._step), self._step.generation)
        for one in choice.remove:
            engine.stop_and_remove(self._api, one.id, goes_on=True)
        for one in choice.stopped:
            self._log.warning(
                "Container %s of an earlier attempt was stopped (exit code %d) while nothing followed it, as when the "
                "machine or its engine goes down; starting again.",
                one.id[:12],
                one.exit_code,
            )
            engine.remove_container(self._api, one.id)
        if choice.adopt is None:
            return None
        self._log.info("Found container %s of an earlier attempt; following it.", choice.adopt.id[:12])
        if choice.adopt.state != "exited":
            self._brake = Brake(self._api, choice.adopt.id, ahead_bytes=self._ahead)
            self._brake.attach()
        return choice.adopt.id

    def _start(self, spec: ContainerSpec) -> str:
        try:
            container_id = create(self._api, spec)
        except APIError as error:
            if error.status_code != 409 or not spec.name:
                raise self._engine_error(spec, "cannot be created", error) from error
            # The name is taken by a container without our labels' task: the rest of a failed start. It never ran.
            engine.remove_container(self._api, spec.name)
            container_id = create(self._api, spec)
        self.container_id = container_id
        # Before the start, so that the container never prints without it.
        self._brake = Brake(self._api, container_id, ahead_bytes=self._ahead)
        try:
            for network in spec.networks[1:]:
                self._api.connect_container_to_network(container_id, network)
            self._brake.attach()
            self._api.start(container_id)
        except APIError as error:
            self._brake.close()
            engine.remove_container(self._api, container_id)
            raise self._engine_error(spec, "cannot be started", error) from error
        self._log.info("Started container %s from %s: %s", container_id[:12], spec.image, " ".join(spec.command))
        return container_id

    def _engine_error(self, spec: ContainerSpec, what: str, error: APIError) -> ContainerError:
        if isinstance(error, ImageNotFound):
            return engine.missing_image(spec.image)
        return ContainerError(f"The container for {self._step.name!r} {what}: {error.explanation}")

    # ---- follow ------------------------------------------------------------------------------------------------------

    def _follow(self, brake: Brake, *, adopted: bool) -> dict[str, Any]:
        """Show the output until the container ends; a broken log stream is read on where it broke.

        Returns the engine's last word on the container's state. An engine that does not answer says nothing about the
        container: it is waited for.
        """
        away_since: float | None = None
        if adopted:
            self._show_what_is_there(brake)
        while True:
            try:
                self._show(brake, follow=True)
                state: dict[str, Any] = _inspect(self._api, self.container_id)["State"]
                if away_since is not None:
                    self._listener.unreachable("")
                away_since = None
                if state["Status"] in ("exited", "dead"):
                    # The engine may end a followed stream before the last output is in it; the log itself is whole now.
                    self._show(brake, follow=False)
                    for line in self._splitter.end():
                        self._say(line)
                    return state
                brake.attach()
            except (OSError, HTTPError) as error:  # requests' and docker's errors are OSErrors
                if away_since is None:
                    away_since = time.monotonic()
                    self._log.warning("The Docker Engine does not answer; waiting for it: %s", error)
                self._listener.unreachable(str(error))
                if time.monotonic() - away_since > self._silent_seconds:
                    raise EngineSilentError(
                        f"The Docker Engine has not answered for {self._silent_seconds:g} s; the next attempt asks it "
                        "again."
                    ) from error
            self._listener.still_wanted()
            time.sleep(0.2 if away_since is None else 1.0)

    def _show_what_is_there(self, brake: Brake) -> None:
        try:
            written = self._show(brake, follow=False)
        except (OSError, HTTPError) as error:
            self._log.warning("The Docker Engine does not answer; its log is read when it does: %s", error)
            return
        if may_lack_its_beginning(written):
            self._log.warning(
                "The engine keeps the end of a container's output only: lines from before the first one above may be "
                "missing here. The log of the earlier attempt has those that it showed."
            )

    def _show(self, brake: Brake, *, follow: bool) -> int:
        """Show what is new. Returns how many bytes the engine's log has for it, at most."""
        written = 0
        try:
            for record in records(self._api, self.container_id, self._position, follow=follow):
                if self._position.gap:
                    self._log.warning(
                        "Lines are missing here: the engine dropped them while it could not be followed; how many, it "
                        "does not say."
                    )
                written += written_bytes(record)
                for line in self._splitter.feed(self._decoder.decode(record.content)):
                    self._say(line)
                    self._listener.still_wanted()
                brake.shown(len(record.content))
        except NotFound as error:
            raise ContainerError(f"Container {self.container_id[:12]} was removed while it was followed.") from error
        return written

    def _say(self, line: str) -> None:
        self.printed_at = time.monotonic()
        # Masked here, since the log's own masking reaches neither what is kept of a line nor other readers.
        for secret in self._step.secrets:
            line = line.replace(secret, "***")
        event = parse_line(line)
        if event is None:
            if why := unreadable_result(line):
                self._unreadable = why
            self._behind_text = self._behind_text or has_result_behind_text(line)
            self.last_text = line.strip() or self.last_text
            self._log.info("%s", line[:MAX_LINE])
            return
        if event.kind == "result":
            self._result, self._unreadable = event.data, ""
        if event.kind == "error":
            if self.error is not None:
                self._log.error("%s", render(self.error))
            self.error = event  # what the step fails with tells it
        elif self._is_shown(event):
            self._log.info("%s", render(event))
        self._listener.noticed(event)

    def _is_shown(self, event: Event) -> bool:
        """Whether an event gets a line in the log: of progress those at its ends do, of the others one in a while."""
        if event.kind != "progress":
            return event.data.get("quiet") is not True
        now, done = time.monotonic(), event.data["done"]
        # A step may say again and again that it is at an end of it.
        again = 0 < done < event.data["total"] or done == self._progress_done
        if again and now - self._progress_at < PROGRESS_SECONDS:
            return False
        self._progress_at, self._progress_done = now, done
        return True

    # ---- the result --------------------------------------------------------------------------------------------------

    def _why_none(self) -> str:
        if self._behind_text:
            return "other text stands before it on its line, so print a line end first"
        return f"it printed none, and said: {self.error.data['message']}" if self.error else "it printed none"

    def _take_result(self) -> dict[str, Any] | None:
        data, name = self._result, self._step.name
        if self._unreadable:
            raise no_result(name, f"the line that should be its result is not one: {self._unreadable}")
        if data is None:
            if self._step.needs_result:
                raise no_result(name, self._why_none())
            return None
        try:
            if file := result_file(data, name):
                step = self._step
                data = fetch(
                    self._api,
                    self.container_id,
                    file,
                    limit_bytes=step.result_bytes,
                    advice=step.result_advice,
                    secrets=step.secrets,
                )
        except ValueError as error:
            raise no_result(name, str(error)) from error
        return data
