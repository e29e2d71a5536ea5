"""The fake device, and memory on it."""

from cupy.cuda import memory, runtime
from cupy.cuda.memory import Memory

__all__ = ["Device", "Memory", "memory", "runtime"]


class Device:
    """One of the GPUs that this container got; the stand-in knows the first only."""

    def __init__(self, device: int = 0) -> None:
        self.id = device

    def use(self) -> None:
        """Make this process's context on it."""
        if self.id != 0:
            raise runtime.CUDARuntimeError(runtime.INVALID_DEVICE)
        runtime.ensure_context()
