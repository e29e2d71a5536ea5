"""Gives the ends of a session's task logs as a tar archive, for `make support RUN=`: from the folder of the logs alone.

It runs in a container of its own, so that it works where the stack does not. What it gives still has its secrets:
`cli/support.py` takes them out.
"""

from __future__ import annotations

import io
import re
import sys
import tarfile
from collections.abc import Sequence

from tarmac.base.errors import ExitCode
from tarmac.base.ids import DAG_ID
from tarmac.base.session import SessionKey
from tarmac.reaper.log_files import LogFiles, Tail

FOLDER = "session/logs"
MOST_OF_ONE = 8 * 1024**2
"""Bytes of a log that are read from its end. What goes out of it is less: `cli/support.py`."""
MOST = 64 * 1024**2
"""Bytes of all logs of a session, the latest first."""


def end_of(tail: Tail) -> bytes:
    """Return the whole lines of a log's end, with a line for what is missing before it. Pure.

    A line that was cut may begin in the middle of a secret, which would not be recognised any more.
    """
    if len(tail.content) == tail.size:
        return tail.content
    whole = tail.content.partition(b"\n")[2]
    return f"[the first {tail.size - len(whole)} bytes are left out]\n".encode() + whole


def name_of(path: str) -> str:
    """Return what a log is called in the archive: its task's name, and its attempt. Pure."""
    plain = "/".join(part.removeprefix("task_id=") for part in path.split("/"))
    return f"{FOLDER}/{re.sub(r'[^A-Za-z0-9_.=/-]', '_', plain)}"


def main(arguments: Sequence[str], files: LogFiles | None = None) -> int:
    """Write the logs of a session to standard output. Returns the exit code: 2 where there are none of it."""
    (run_id,) = arguments
    logs = files or LogFiles()
    if run_id not in logs.runs().get(DAG_ID, []):
        print(
            f"RUN: {run_id!r} has no log here: it is misspelled, none of its tasks has begun, or it is over for longer "
            "than TARMAC_KEEP_DAYS. 'make ps' lists the latest sessions.",
            file=sys.stderr,
        )
        return ExitCode.BAD_INPUT
    left_out = []
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:

        def add(name: str, content: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            out.addfile(entry, io.BytesIO(content))

        room = MOST
        for path in logs.newest_first(SessionKey(DAG_ID, run_id)):
            tail = logs.tail(SessionKey(DAG_ID, run_id), path, min(room, MOST_OF_ONE))
            if tail is None or (tail.size and not tail.content):
                left_out.append(name_of(path))
                continue
            room -= len(tail.content)
            add(name_of(path), end_of(tail))
        if left_out:
            why = f"The logs of a session are kept up to {MOST // 1024**2} MiB, the latest first. Left out:\n"
            add("session/left-out.txt", (why + "".join(f"{name}\n" for name in left_out)).encode())
    return ExitCode.SUCCESS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
