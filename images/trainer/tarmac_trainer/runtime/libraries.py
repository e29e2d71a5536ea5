"""Libraries that a person's own code asks for in a requirements file: installed by `prep`, kept for the next session.

Only wheels are taken, which are unpacked: nothing of them runs where there is a network. What was installed for a file
is kept under the hash of all that it depends on, so that the same file gives the same libraries again, also without an
index. What nothing has used for `KEPT_DAYS` is removed.
"""

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.errors import DataError, StoreError

FOLDER = "libraries"
"""In the session's folder."""

RECORD = "libraries.json"
"""In the session's folder, and among the artifacts of its run: what was installed, and for which Python."""

CACHE = Path("/libraries")
OUR_PYTHON = "3.13"
"""That of this image, which installs."""

KEPT_DAYS = 30
MOST_SECONDS = 3600
PIP = ("/usr/bin/python3", "-I", "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-input")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[A-Za-z0-9,. _-]*\])?\s*([<>=!~(].*)?")
_WHEEL = re.compile(r"(?:\./)?(?:[A-Za-z0-9_+-][A-Za-z0-9._+-]*/)*[A-Za-z0-9][A-Za-z0-9._+-]*\.whl")
_HASH = re.compile(r"\s--hash[= ]\s*sha(?:256|384|512):[0-9a-f]{64,128}")
_NO_ANSWER = ("Retrying (", "Connection", "Max retries", "SSLError", "ReadTimeout", "HTTP error 5")


@dataclass(frozen=True)
class Wanted:
    """What a requirements file asks for: its lines, and the wheels of the code that it names, below the code."""

    lines: tuple[str, ...]
    wheels: tuple[str, ...]


def read(text: str, name: str) -> Wanted:
    """Read a requirements file: names with versions, markers and hashes, and wheels that lie in the code. Pure.

    Raises:
        DataError: a line asks for something else; names it.
    """
    lines, wheels = list[str](), list[str]()
    for number, line in _logical(text):
        bare = _HASH.sub("", f" {line}").strip()
        wanted, _, _ = bare.partition(";")
        wanted = wanted.strip()
        if _WHEEL.fullmatch(wanted):
            wheels.append(wanted.removeprefix("./"))
            lines.append(line if line.startswith("./") else f"./{line}")
        elif _NAME.fullmatch(wanted) and "://" not in bare:
            lines.append(line)
        else:
            raise DataError(
                f"{name}, line {number}: {line[:80]!r} is not a library with its version, nor a wheel of the code "
                "(./wheels/NAME.whl): options, other files, folders and addresses are not taken"
            )
    if not lines:
        raise DataError(f"{name} names no library: leave run.requirements out")
    return Wanted(tuple(lines), tuple(wheels))


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """The lines without comments and blank ones, those that go on behind a backslash as one, each with its number."""
    first, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        bare = re.sub(r"(^|\s)#.*$", "", line).strip()
        first = first or number
        goes_on = bare.endswith("\\")
        parts.append(bare.removesuffix("\\").strip())
        if goes_on:
            continue
        if whole := " ".join(part for part in parts if part):
            yield first, whole
        first, parts = 0, []
    if whole := " ".join(part for part in parts if part):
        yield first, whole


def install(
    session: Path, code: Path, requirements: str, python: str | None, *, index: str, cache: Path | None = None
) -> list[str]:
    """Leave the libraries of a requirements file in the session's folder. Idempotent.

    Args:
        session: the session's folder.
        code: where its code lies.
        requirements: the path of the file in the code.
        python: for which Python, such as `3.11`; None: that of this image.
        index: the address of the package index; "": none is asked.
        cache: a folder that sessions share, None: the stack's; one that cannot be written to is not used.

    Returns:
        What was installed, as `name==version`, in order.

    Raises:
        DataError: the file is not there, or cannot be followed; says why.
        StoreError: the index does not answer, or the disk is full.
    """
    cache = cache or CACHE
    wanted = read(_text(code, requirements), requirements)
    for wheel in wanted.wheels:
        if not (code / wheel).is_file():
            raise DataError(f"{requirements} names {wheel}, which is not in the code")
    version = python or OUR_PYTHON
    kept = cache / _key(code, wanted, version, index) if os.access(cache, os.W_OK | os.X_OK) else None
    target = session / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    try:
        if kept is not None and kept.is_dir():
            os.utime(kept)
            shutil.copytree(kept, target)
            said = "kept from a session before"
        else:
            with tempfile.TemporaryDirectory(dir=session, prefix=".pip-") as scratch:
                _pip(wanted, target, code, requirements, version, index=index, scratch=Path(scratch))
            said = "installed"
            if kept is not None:
                _keep(target, kept)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError("libraries: no space left in the session's volume or in that of the libraries") from error
        raise
    if kept is not None:
        prune(cache)
    found = installed(target)
    files.write_json(session / RECORD, {"python": version, "libraries": found})
    events.say(f"libraries, {said}, for Python {version}: {', '.join(found)}")
    return found


def recorded(session: Path) -> list[str]:
    """What `install` left in a session's folder, as `name==version`; nothing where it asked for none."""
    if not (session / RECORD).is_file():
        return []
    found: list[str] = files.read_json(session / RECORD, made_by="prep")["libraries"]
    return found


def installed(folder: Path) -> list[str]:
    """What is in a folder of libraries, as `name==version`."""
    infos = (path.name.removesuffix(".dist-info") for path in folder.glob("*.dist-info"))
    return sorted("==".join(info.rsplit("-", 1)) for info in infos)


def prune(cache: Path, now: float | None = None) -> None:
    """Remove what no session has used for long, and what a killed one left."""
    oldest = (time.time() if now is None else now) - KEPT_DAYS * 86400
    for path in cache.iterdir():
        try:
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path)
        except FileNotFoundError:  # another session removed it meanwhile
            continue


def _text(code: Path, requirements: str) -> str:
    try:
        return (code / requirements).read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DataError(f"run.requirements: the code has no file {requirements}") from None
    except UnicodeDecodeError:
        raise DataError(f"run.requirements: {requirements} is not UTF-8 text") from None


def _key(code: Path, wanted: Wanted, version: str, index: str) -> str:
    wheels = [hashlib.sha256((code / wheel).read_bytes()).hexdigest() for wheel in wanted.wheels]
    said = [sorted(wanted.lines), wheels, version, index, platform.machine(), platform.libc_ver()]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _keep(target: Path, kept: Path) -> None:
    partial = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".partial-"))
    try:
        shutil.copytree(target, partial / "whole")
        os.rename(partial / "whole", kept)
    except OSError as error:
        if not kept.is_dir():  # else another session kept the same meanwhile
            events.say(f"the libraries are not kept for the next session: {error.strerror}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _pip(
    wanted: Wanted, target: Path, code: Path, requirements: str, version: str, *, index: str, scratch: Path
) -> None:
    file = scratch / "requirements.txt"
    file.write_text("".join(f"{line}\n" for line in wanted.lines), encoding="utf-8")
    where = ["--no-index"]
    if index:
        where = ["--index-url", index]
        address = urlsplit(index)
        if address.scheme == "http":
            where += ["--trusted-host", address.netloc.rpartition("@")[2]]
    compiled = [] if version == OUR_PYTHON else ["--no-compile"]
    command = [
        *PIP, "install", "--no-cache-dir", "--no-warn-script-location", "--only-binary", ":all:", "--python-version",
        version, "--target", str(target), *where, *compiled, "--requirement", str(file),
    ]  # fmt: skip
    # Nothing of this container's credentials; and not /tmp, which is memory.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(scratch), "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=code, env=environment, capture_output=True, text=True, check=False, timeout=MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise StoreError(f"libraries: {requirements} was not installed within {MOST_SECONDS // 60} minutes") from None
    if done.returncode == 0:
        return
    shutil.rmtree(target, ignore_errors=True)
    why = _why(done.stdout + done.stderr)
    if "No space left on device" in done.stderr:
        raise StoreError("libraries: no space left in the session's volume or in that of the libraries")
    if any(word in done.stderr for word in _NO_ANSWER):
        raise StoreError(f"libraries: the package index at {shown(index)} does not answer: {why}")
    if not index:
        raise DataError(
            f"{requirements}: {why}. This stack asks no package index (TARMAC_PACKAGE_INDEX): put wheels into the code "
            "and name them (./wheels/NAME.whl), or take an image that has the libraries"
        )
    raise DataError(f"{requirements}, for Python {version} and by wheels alone: {why}")


def shown(index: str) -> str:
    """The address of an index without a login. Pure."""
    return re.sub(r"//[^/@]*@", "//", index)


def _why(output: str) -> str:
    """What pip says was wrong, in a line. Pure."""
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    return shown(" ".join((errors or output.splitlines()[-1:] or ["pip said nothing"])[0].split()))[:500]


def command_lines(version: str) -> Sequence[str]:
    """Lines of a shell script that make the libraries known to Python, and refuse another Python. Pure."""
    return (
        f'export PYTHONPATH="$session/{FOLDER}${{PYTHONPATH:+:$PYTHONPATH}}"',
        "asked='import sys; print(\"%d.%d\" % sys.version_info[:2])'",
        'found=$(python3 -c "$asked" 2>/dev/null || python -c "$asked" 2>/dev/null)',
        f'if [ "$found" != {version} ]; then',
        f'    echo "the libraries are for Python {version}, and the Python of this image is: '
        '${found:-none} (run.python)"',
        "    exit 2",
        "fi",
    )
