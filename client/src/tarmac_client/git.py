"""A commit of a Git repository as code: fetched by git on this machine, with the login that its user has there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tarmac_client.errors import SettingsError
from tarmac_client.texts import without_login

_COMMIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/-]*")


def commit(source: str, *, folder: Path, field: str) -> tuple[bytes, str]:
    """Return the files of a commit.

    Args:
        source: a repository, @ and a commit, a branch or a tag: an address, or a path.
        folder: what a path is relative to.
        field: what a message calls it.

    Returns:
        A tar archive as git makes it, and the source with the whole id of the commit and without a login.

    Raises:
        SettingsError: there is no such repository or commit, it cannot be reached, or git is not installed; says why.
    """
    where, _, wanted = source.rpartition("@")
    if not where or not _COMMIT.fullmatch(wanted) or re.fullmatch(r"[a-z+]+://[^/]*", where) or where.startswith("-"):
        raise SettingsError(
            f"{field}: {source!r} is not REPOSITORY@COMMIT: write for example .@HEAD or https://...@v1.2."
        )
    local = folder / Path(where).expanduser()
    if local.is_dir():
        _git(["rev-parse", "--git-dir"], local, field, source)
        found = _resolved(local, wanted, field, source)
        return _git(["archive", "--format=tar", found], local, field, source), f"{_origin(local)}@{found}"
    with tempfile.TemporaryDirectory(prefix="tarmac-") as made:
        bare = Path(made)
        _git(["init", "--quiet", "--bare"], bare, field, source)
        try:
            _git(["fetch", "--quiet", "--depth", "1", "--", where, wanted], bare, field, source)
            found = _resolved(bare, "FETCH_HEAD", field, source)
        except SettingsError:
            # A server may give out no commit by its id, and none by the beginning of that.
            _git(["fetch", "--quiet", "--", where, "+refs/*:refs/*"], bare, field, source)
            found = _resolved(bare, wanted, field, source)
        return _git(["archive", "--format=tar", found], bare, field, source), f"{without_login(where)}@{found}"


def _resolved(repository: Path, wanted: str, field: str, source: str) -> str:
    asked = ["rev-parse", "--quiet", "--verify", "--end-of-options", f"{wanted}^{{commit}}"]
    try:
        return _git(asked, repository, field, source).decode().strip().splitlines()[-1]
    except SettingsError as error:
        raise SettingsError(f"{field}: {without_login(source)!r}: the repository has no commit {wanted!r}.") from error


def _origin(repository: Path) -> str:
    """Return what a repository of this machine was cloned from; else its folder's name."""
    try:
        said = _git(["config", "--get", "remote.origin.url"], repository, "", "").decode().strip()
    except SettingsError:
        said = ""
    return without_login(said) or repository.resolve().name


def _git(words: list[str], repository: Path, field: str, source: str) -> bytes:
    environment = {**os.environ, "LC_ALL": "C"}
    if not sys.stdin.isatty():
        environment["GIT_TERMINAL_PROMPT"] = "0"  # no person could type a password
    try:
        done = subprocess.run(["git", "-C", str(repository), *words], capture_output=True, env=environment, check=False)
    except FileNotFoundError as error:
        raise SettingsError(
            f"{field}: git is not installed on this machine; install it, or name a folder by --code."
        ) from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        told = next((line for line in said if line.startswith(("fatal:", "error:"))), said[-1] if said else "it failed")
        raise SettingsError(f"{field}: git cannot read {without_login(source)!r}: {without_login(told)[:300]}")
    return done.stdout
