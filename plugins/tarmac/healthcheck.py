"""The services' health checks, run by the engine: `healthcheck.py URL` or `healthcheck.py process NAME`.

Standard library only and started with -S: a check runs every 30 s for ever, and importing Airflow costs seconds.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def url_problem(url: str) -> str | None:
    """Say what is wrong with a component's health page, or None. An answer of 200 may still carry bad news."""
    try:
        with urllib.request.urlopen(url, timeout=8) as answer:  # noqa: S310  the URL is ours, from compose.yaml
            text = answer.read()
            body = json.loads(text) if text else {}  # the scheduler answers good news with an empty page
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    bad = [
        name for name, part in body.items() if isinstance(part, dict) and part.get("status") not in (None, "healthy")
    ]
    return f"{url}: unhealthy: {', '.join(bad)}" if bad else None


def process_problem(name: str) -> str | None:
    """Say that no Airflow process with this subcommand runs in this container, or None."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue  # it ended between the listing and the read
        if name.encode() in words and b"process" not in words or any(f"airflow {name}".encode() in w for w in words):
            return None
    return f"no process {name!r} runs"


def main(arguments: list[str]) -> int:
    """Exit 0 when healthy, 1 with a reason when not."""
    problem = process_problem(arguments[1]) if arguments[0] == "process" else url_problem(arguments[0])
    if problem:
        print(problem)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
