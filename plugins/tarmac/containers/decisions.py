"""What is decided about a step's container: which one is adopted, and what its end means. Pure."""

from __future__ import annotations

import signal
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tarmac.base.errors import ContainerError
from tarmac.base.units import format_size
from tarmac.containers.protocol import MAX_MESSAGE, Event

EXIT_BAD_INPUT = 2
# How a container ends that was stopped from outside: SIGKILL, SIGTERM, or with its engine.
STOPPED_CODES = {137, 143, 255}
# What a person's own code ends with that wants to be tried again (EX_TEMPFAIL of sysexits.h), or that was stopped.
OWN_CODE_AGAIN = frozenset({75, *STOPPED_CODES})
# The `code` of an error event: something that the step needs did not answer.
UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True)
class Earlier:
    """A container that an earlier attempt of the same task left.

    Args:
        state: the engine's word: created, running, paused, restarting, exited, dead.
        generation: its task's; it changes when the task is cleared.
        exit_code: of one that has exited.
        out_of_memory: whether the engine killed it for its memory.
    """

    id: str
    state: str
    generation: str
    exit_code: int | None = None
    out_of_memory: bool = False

    @property
    def was_stopped(self) -> bool:
        """Whether it ended from outside, so that it has no result."""
        return self.state == "exited" and self.exit_code in STOPPED_CODES and not self.out_of_memory


@dataclass(frozen=True)
class Adoption:
    """What becomes of the containers of earlier attempts: one is followed, or none; the others are removed."""

    adopt: Earlier | None
    stopped: tuple[Earlier, ...]
    remove: tuple[Earlier, ...]


def choose(found: Sequence[Earlier], generation: str) -> Adoption:
    """Choose the container to follow instead of starting one.

    One that was started before the task was cleared is not this task's any more, and one that was stopped while
    nothing followed it (the machine or its engine went down) has no result.

    Args:
        found: newest first.
        generation: of the task now.
    """
    adopt: Earlier | None = None
    stopped, remove = [], []
    for one in found:
        if adopt or one.state not in ("running", "exited", "paused") or one.generation != generation:
            remove.append(one)
        elif one.was_stopped:
            stopped.append(one)
        else:
            adopt = one
    return Adoption(adopt, tuple(stopped), tuple(remove))


@dataclass(frozen=True)
class End:
    """How a container ended, and what it said before."""

    exit_code: int
    out_of_memory: bool = False
    error: Event | None = None
    last_text: str = ""


_SIGNALS = {128 + one.value: one.name for one in signal.Signals}
"""How a process ended that has such an exit code, as shells and the engine count."""


def verdict(step: str, end: End, memory_bytes: int, *, again: Collection[int] | None = None) -> ContainerError | None:
    """Say what an end means. None: the step succeeded.

    Args:
        step: the contract's command, for the message.
        end: how its container ended.
        memory_bytes: its limit.
        again: exit codes after which it may be tried again; None: all but EXIT_BAD_INPUT.
    """
    if end.exit_code == 0:
        return None
    if end.out_of_memory:
        return ContainerError(
            f"The step {step!r} ran out of memory: it needs more than its limit of {format_size(memory_bytes)}. "
            "Use less data or a smaller model, or raise TARMAC_TRAINER_MEMORY in env/stack.env and run `make up`.",
            out_of_memory=True,
        )
    said = end.error.data if end.error else {}
    reason = str(said.get("message") or end.last_text or "it said nothing")[:MAX_MESSAGE]
    if "message" not in said and (name := _SIGNALS.get(end.exit_code)):
        # Its last line is from before: what ended it had no word.
        reason = f"a signal ended it, {name}; the last line that it printed: {reason}"
    return ContainerError(
        f"The step {step!r} failed with exit code {end.exit_code}: {reason}",
        retryable=(end.exit_code != EXIT_BAD_INPUT if again is None else end.exit_code in again)
        and bool(said.get("retryable", True)),
        unavailable=said.get("code") == UNAVAILABLE,
    )


def no_result(step: str, why: str) -> ContainerError:
    """Make the error of a step that ended well and whose result is missing or lost; the same would happen again."""
    return ContainerError(
        f"The step {step!r} ended well and its result is lost: {why}. What needs the result cannot go on.",
        retryable=False,
    )
