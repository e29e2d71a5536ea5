"""A person who has nothing but a login and the client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.stack import REPO, Stack


class Person:
    """A person with a login and the client."""

    def __init__(self, stack: Stack, home: Path, user: str, password: str) -> None:
        self.url = str(stack.http.base_url).rstrip("/")
        self.user, self.password = user, password
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TARMAC_")},
            "PYTHONPATH": str(REPO / "client/src"), "TARMAC_CONFIG": str(home / "login.json"),
        }  # fmt: skip

    def tarmac(self, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tarmac_client", *map(str, words)]
        done = subprocess.run(
            command, env=self._environment, input=stdin, text=True, capture_output=True, timeout=480, cwd="/"
        )
        assert "Traceback" not in done.stderr
        return done

    def log_in(self) -> None:
        done = self.tarmac("login", self.url, "--user", self.user, "--password-stdin", stdin=f"{self.password}\n")
        assert done.returncode == 0, done.stderr
