"""The containers of the stack on an engine, and for how long this process has seen each."""

from __future__ import annotations

import time

from tarmac.containers import engine
from tarmac.containers.calls import EngineCalls
from tarmac.reaper.orphans import Container


class Sightings:
    """Looks at one engine again and again.

    Args:
        stack: the name of the stack.
    """

    def __init__(self, stack: str) -> None:
        self._stack = stack
        self._first_seen: dict[str, float] = {}

    def containers(self, api: EngineCalls) -> list[Container]:
        """Return what is there now.

        Raises:
            OSError: the engine does not answer.
        """
        now = time.monotonic()
        found = engine.stack_containers(api, self._stack)
        # By this process's own clock: the engine's and ours may jump.
        self._first_seen = {one.id: self._first_seen.get(one.id, now) for one in found}
        return [
            Container(
                one.id,
                one.name,
                one.key,
                one.owner,
                one.generation,
                now - self._first_seen[one.id],
                one.runs,
                one.allowed_seconds,
            )
            for one in found
        ]
