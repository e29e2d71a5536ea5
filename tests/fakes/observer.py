"""A process that observes the GPUs of a world, so that the tests' own process never loads an NVML library."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Self
from unittest import mock

from fakes.fakegpu import FAKE
from tarmac.devices import snapshot as devices
from tarmac.devices.agent import Faults

_watch = devices.XidWatch([])
_faults = Faults()


class Observer:
    """Observes the world of `environment` from one process, which lives as long as the `with` block."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)

    def __enter__(self) -> Self:
        # The loader of libraries reads the environment when a process starts, and never again. With the fake driver's
        # libraries, one process that was started so is forked for each observer; that takes a tenth of a start.
        with mock.patch.dict(os.environ, self._environment, clear=True):
            forked = self._environment.get("LD_LIBRARY_PATH") == str(FAKE)
            if forked:
                multiprocessing.set_forkserver_preload(["pytest", __name__])
                forkserver.ensure_running()
            self._pool = ProcessPoolExecutor(
                max_workers=1, mp_context=multiprocessing.get_context("forkserver" if forked else "spawn"),
                initializer=_live_in, initargs=(self._environment,),
            )  # fmt: skip
            self.pid = self.call(os.getpid)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def call[**P, T](self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call an importable function over there."""
        return self._pool.submit(function, *args, **kwargs).result()

    def snapshot(self, timeout_seconds: float = 30.0, proc: Path = Path("/proc")) -> devices.Snapshot:
        """Take a snapshot over there, with time enough for a busy machine."""
        return self.call(devices.snapshot, timeout_seconds, proc=proc)

    def told(self, now: float) -> devices.Snapshot:
        """Return what an agent over there tells of the devices, which has listened since the first call."""
        return self.call(_told, now)

    @contextmanager
    def watch(self, *uuids: str) -> Iterator[Callable[[], list[tuple[str, int]]]]:
        """Listen for Xids over there; gives the function that polls."""
        self.call(_listen, uuids)
        try:
            yield lambda: self.call(_poll)
        finally:
            self.call(_leave)


def _live_in(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def is_fake() -> bool:
    """Whether the NVML library that a process finds is not NVIDIA's; call it through an observer."""
    return hasattr(ctypes.CDLL("libnvidia-ml.so.1"), "fakenvml_alloc")


def _listen(uuids: tuple[str, ...]) -> None:
    global _watch
    _watch = devices.XidWatch(uuids, timeout_seconds=30).__enter__()


def _poll() -> list[tuple[str, int]]:
    return _watch.poll()


def _told(now: float) -> devices.Snapshot:
    return _faults.added(devices.snapshot(30.0), now)


def _leave() -> None:
    _watch.__exit__(None, None, None)
