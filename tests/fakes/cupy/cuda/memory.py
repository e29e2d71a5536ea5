"""Memory of the fake device: through the pool with its limit, or past it."""

from cupy.cuda import runtime

BLOCK = 512
"""The pool takes whole blocks of so many bytes."""


class OutOfMemoryError(MemoryError):
    """The pool could not grow; CuPy's text."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        text = f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes"
        super().__init__(text + (f", limit set to: {limit:,} bytes)." if limit else ")."))


class Memory:
    """Memory past the pool, given back when nothing refers to this object."""

    size = 0

    def __init__(self, size: int) -> None:
        runtime.malloc(size)
        self.size = size

    def __del__(self) -> None:
        if self.size:
            runtime.free(self.size)


class MemoryPool:
    """Keeps what it once took."""

    def __init__(self) -> None:
        self._total = 0
        self._limit = 0

    def set_limit(self, size: int) -> None:
        """Let the pool hold at most `size` bytes; 0: no limit."""
        self._limit = size

    def total_bytes(self) -> int:
        """Return what the pool holds."""
        return self._total

    def malloc(self, size: int) -> object:
        """Take `size` bytes, in whole blocks."""
        size = -(-size // BLOCK) * BLOCK
        if self._limit and self._total + size > self._limit:
            raise OutOfMemoryError(size, self._total, self._limit)
        try:
            runtime.malloc(size)
        except runtime.CUDARuntimeError as error:
            if error.status != runtime.OUT_OF_MEMORY:
                raise
            raise OutOfMemoryError(size, self._total, self._limit) from None
        self._total += size
        return object()


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    """Return the one pool."""
    return _pool
