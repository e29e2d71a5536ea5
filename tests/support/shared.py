"""One stack for all processes of a test run (pytest-xdist), and turns on it: tests that disturb it run alone.

The first test that needs the stack starts it; the process that started the run removes it in the end. Without xdist
there is one process, and everything else is the same.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.stack import Stack, make_stack, remove_stack

_FOLDER = pytest.StashKey[Path]()
_INPUT = "tarmac_shared_folder"
TIME_LIMIT = 1800
"""Seconds for a test that waits for `make up` too: which one that is, is chance."""


def configure(config: pytest.Config) -> None:
    """Agree on a folder for what the processes of this run share."""
    given = getattr(config, "workerinput", {}).get(_INPUT)
    config.stash[_FOLDER] = Path(given or tempfile.mkdtemp(prefix="tarmac-test-shared-"))


def configure_node(node: Any) -> None:
    """Tell a process of xdist's where that folder is."""
    node.workerinput[_INPUT] = str(node.config.stash[_FOLDER])


def finish(config: pytest.Config) -> None:
    """Remove the stack, where there is one and this is the process that started the run."""
    if hasattr(config, "workerinput") or _FOLDER not in config.stash:
        return
    folder = config.stash[_FOLDER]
    state = folder / "stack.json"
    if state.exists():
        remove_stack(_stack_of(json.loads(state.read_text())))
    if not os.environ.get("TARMAC_KEEP"):
        shutil.rmtree(folder)


def note_groups(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Write down for the scheduler which tests belong to a group, by the marker `xdist_group`.

    xdist's own `loadgroup` puts a group into a test's id, which pytest 9.2 does not let it.
    """
    marks = {item.nodeid: item.get_closest_marker("xdist_group") for item in items}
    found = {nodeid: f"group {mark.args[0]}" for nodeid, mark in marks.items() if mark}
    folder = config.stash[_FOLDER]
    part = folder / f"groups-{os.getpid()}"
    part.write_text(json.dumps(found))
    part.replace(folder / "groups.json")


def scheduler(config: pytest.Config, log: Any) -> object:
    """A scheduler of xdist's that gives the tests of a group to one process, and each other test to any."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            groups: dict[str, str] = json.loads((config.stash[_FOLDER] / "groups.json").read_text())
            return groups.get(nodeid, nodeid)

    return Groups(config, log)


def put_last(items: list[pytest.Item]) -> None:
    """Move tests that disturb a stack behind all others; the order is kept otherwise."""
    items.sort(key=lambda item: item.get_closest_marker("disturbs") is not None)


def shared_stack(config: pytest.Config, overrides: Mapping[str, str]) -> Stack:
    """The run's stack, started where no other process has done so.

    Args:
        overrides: contents of its env/*.env, by name.
    """
    folder = config.stash[_FOLDER]
    with _lock(folder / "start.lock", fcntl.LOCK_EX):
        state = folder / "stack.json"
        if state.exists():
            running = _stack_of(json.loads(state.read_text()))
            running.log_in()
            return running
        env_dir = folder / "env"
        env_dir.mkdir()
        running = make_stack(env_dir, overrides)
        ports = [running.web, running.mlflow_port]
        said = {"env_dir": str(env_dir), "project": running.project, "ports": ports, "up_output": ""}
        state.write_text(json.dumps(said))  # before it runs: whatever comes of it is removed in the end
        running.up()
        state.write_text(json.dumps(said | {"up_output": running.up_output}))
        return running


@contextmanager
def turn(item: pytest.Item) -> Iterator[None]:
    """Let a test run beside others, or alone where it is marked `disturbs`."""
    alone = item.get_closest_marker("disturbs") is not None
    with _lock(item.config.stash[_FOLDER] / "turn.lock", fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
        yield


@contextmanager
def _lock(path: Path, kind: int) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, kind)
        yield


def _stack_of(said: dict[str, Any]) -> Stack:
    found = Stack(Path(said["env_dir"]), project=said["project"], ports=tuple(said["ports"]))
    found.up_output = said["up_output"]
    return found
