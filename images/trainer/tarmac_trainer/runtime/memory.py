"""How much memory this container may use."""

from pathlib import Path

LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of control groups, version 2 and version 1."""

NO_LIMIT = 2**60
"""Version 1 writes a number above this where there is no limit."""


def limit_bytes() -> int | None:
    """The limit of the container; None: there is none, or it is not known."""
    for file in LIMIT_FILES:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < NO_LIMIT:
            return int(text)
    return None


def in_words(size: float) -> str:
    """A size for people. Pure."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
