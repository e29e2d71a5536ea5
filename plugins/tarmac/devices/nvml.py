"""The one door to NVML, NVIDIA's management library: every call is bounded in time, every refusal is one exception.

Knows nothing of admission. `devices` is what the rest of Tarmac uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from tarmac.base.errors import DriverRefusedError

FATAL_XIDS = frozenset({46, 48, 62, 64, 74, 79, 95, 119, 120, 140})
"""Xid codes after which no session may be placed on the GPU until a person has reset or repaired it.

From NVIDIA's Xid catalogue: those whose immediate action is to reset the GPU or to restart the machine.
46 the GPU stopped processing; 48 uncorrectable memory error; 62 the power microcontroller halted; 64 a memory row or
page could not be retired; 74 NVLink error; 79 fallen off the bus; 95 uncontained memory error, which may have hit any
process; 119 and 120 the GPU's system processor does not answer or failed; 140 unrecovered memory error.

Not in it: 13, 31, 43, 45, 68, 69 and 109 are faults of the application, or end one application; 63 says that a row was
marked for remapping, which the snapshot reads from the driver as long as it lasts; 92 counts corrected errors; 94 is
contained, so that only the process that it names is lost.
"""


class Code(enum.IntEnum):
    """The few of NVML's return codes (nvmlReturn_t in nvml.h) that Tarmac tells apart."""

    NOT_SUPPORTED = 3
    NOT_FOUND = 6
    DRIVER_NOT_LOADED = 9
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    LIB_RM_VERSION_MISMATCH = 18


_door = threading.Lock()


def _new_door() -> None:
    global _door
    _door = threading.Lock()


# A fork copies the lock but not the thread that would open it.
os.register_at_fork(after_in_child=_new_door)


def within[T](seconds: float, work: Callable[[], T]) -> T:
    """Run `work` in a daemon thread, one at a time in this process, and wait `seconds` for it.

    A driver that hangs cannot be interrupted: its thread stays, and other calls wait until it returns.

    Raises:
        TimeoutError: `work`, or the one before it, is not done in time.
        Exception: what `work` raised.
    """
    deadline = time.monotonic() + seconds
    door = _door
    if not door.acquire(timeout=max(0.0, seconds)):
        raise TimeoutError
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
            answer.set_exception(error)
        finally:
            door.release()

    try:
        threading.Thread(target=run, name="nvml", daemon=True).start()
    except RuntimeError:
        door.release()
        raise
    return answer.result(timeout=max(0.0, deadline - time.monotonic()))


def call(name: str, *arguments: Any) -> Any:
    """Call a function of pynvml by its name.

    Raises:
        DriverRefusedError: NVML, or the driver below it, answers with an error.
    """
    import pynvml

    try:
        return getattr(pynvml, name)(*arguments)
    except pynvml.NVMLError as error:
        raise DriverRefusedError(error.value, str(error)) from error


def ask(name: str, *arguments: Any) -> Any:
    """Call a function of pynvml by its name; None where it is refused."""
    try:
        return call(name, *arguments)
    except DriverRefusedError:
        return None


@contextlib.contextmanager
def session() -> Iterator[None]:
    """NVML, initialised; sessions may overlap, because NVML counts them.

    Raises:
        DriverRefusedError: there is no library or no driver, or the two do not fit together.
    """
    call("nvmlInit")
    try:
        yield
    finally:
        # What was read is read: a driver that fails here fails the next session's start.
        with contextlib.suppress(DriverRefusedError):
            call("nvmlShutdown")


class Handle:
    """One device as NVML hands it out. `refusals` maps each call that it refused to NVML's answer."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.refusals: dict[str, DriverRefusedError] = {}

    def ask(self, name: str, *arguments: Any) -> Any:
        """Ask the device; None where it refuses to answer, which is then in `refusals`."""
        try:
            return call(name, self.raw, *arguments)
        except DriverRefusedError as error:
            self.refusals[name] = error
            return None

    def refused(self, code: Code) -> bool:
        """Tell whether any call was answered so."""
        return any(error.code == code for error in self.refusals.values())

    def cannot(self, name: str) -> bool:
        """Tell whether the device, or its driver, has no such call at all."""
        error = self.refusals.get(name)
        return error is not None and error.code in (Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND)


class XidWatch:
    """Listens for Xid errors, the driver's reports of faults, from when it is entered until it is left.

    A driver that cannot report them, or does not answer, reports none; the snapshot is what tells that it is gone.
    An instance of a divided GPU (MIG) gets the reports of its whole GPU: they share the hardware.

    Args:
        uuids: of GPUs or MIG instances.
        timeout_seconds: for each call of the driver.
    """

    def __init__(self, uuids: Iterable[str], timeout_seconds: float = 2.0) -> None:
        self._uuids = sorted(set(uuids))
        self._timeout = timeout_seconds
        self._watched: dict[int | str, list[str]] = {}
        self._close: Callable[[], None] = lambda: None
        self._events: Any = None

    def __enter__(self) -> Self:
        """Start to listen."""
        with contextlib.suppress(TimeoutError, DriverRefusedError):
            self._events = within(self._timeout, self._open)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Stop listening and free the driver's event set."""
        self._events = None
        with contextlib.suppress(TimeoutError, DriverRefusedError):
            within(self._timeout, self._close)

    def poll(self) -> list[tuple[str, int]]:
        """Return what was reported since the last call, as (UUID as given, Xid). Waits for nothing but the driver."""
        if self._events is None:
            return []
        try:
            return within(self._timeout, self._drain)
        except (TimeoutError, DriverRefusedError):
            return []

    def _open(self) -> Any:
        with contextlib.ExitStack() as stack:
            stack.enter_context(session())
            events = call("nvmlEventSetCreate")
            stack.callback(call, "nvmlEventSetFree", events)
            for uuid in self._uuids:
                with contextlib.suppress(DriverRefusedError):
                    handle = call("nvmlDeviceGetHandleByUUID", uuid)
                    gpu = ask("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle) or handle
                    name = call("nvmlDeviceGetUUID", gpu)
                    if name not in self._watched:
                        call("nvmlDeviceRegisterEvents", gpu, 8, events)  # 8: nvmlEventTypeXidCriticalError
                        self._watched[name] = self._watched[_address(gpu)] = []
                    self._watched[name].append(uuid)
            self._close = stack.pop_all().close
            return events

    def _drain(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        # As many as any fault storm needs to be noticed: the rest comes with the next poll.
        for _ in range(64):
            try:
                event = call("nvmlEventSetWait_v2", self._events, 0)
            except DriverRefusedError:  # usually that nothing is waiting; what was found so far must not be lost
                break
            # By its handle first: a GPU that fell off the bus does not tell its UUID any more.
            uuids = self._watched.get(_address(event.device)) or self._watched.get(
                ask("nvmlDeviceGetUUID", event.device)
            )
            found += [(uuid, int(event.eventData)) for uuid in uuids or ()]
        return found


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
