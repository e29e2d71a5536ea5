"""Weights of a transformer from a model hub, by plain HTTP: `hf://org/name@<commit>`.

The commit is part of the name, so that equal names are equal weights. Each file is compared with the hash that the
hub's listing of this commit has of it. Only files that weights consist of are fetched (`weights.NAMES`): nothing that
runs when it is read, and no code.
"""

import hashlib
import http.client
import json
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from typing_extensions import override

from tarmac_trainer.data import weights
from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.counting import counted
from tarmac_trainer.runtime.errors import DataError, StoreError

PREFIX = "hf://"
"""How a base model begins that names weights of a hub."""

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
NAME = re.compile(rf"{PREFIX}(?P<model>{_PART}/{_PART})@(?P<commit>[0-9a-f]{{40}})")
"""Such a base model as a whole; kept here and by the stack (docs/decisions/0015)."""

MOST_BYTES = 16 * 2**30
"""Of all files together."""

SECONDS = 60
"""Without a byte, after which a transfer has failed."""

_MOST_LISTED_BYTES = 4 * 2**20
_CHUNK = 2**20
_WHOLE = "model.safetensors"
_STORE_IT = "download the model where you can and store it with `make weights DIR=...`"


@dataclass(frozen=True)
class Listed:
    """A file of a commit: its size in bytes, and its SHA-256, or where the hub has none, its id in git."""

    path: str
    size: int
    git: str
    sha256: str | None


def fetch(base_model: str, folder: Path, *, hub_url: str) -> None:
    """Fetch weights from a hub as `folder`, which appears whole or not. Idempotent.

    Args:
        base_model: as the request has it.
        folder: to make or to replace.
        hub_url: the address of the hub or of a mirror of it; "": none is to be asked.

    Raises:
        DataError: the hub does not have it, or it is no weights; says why.
        StoreError: the hub did not deliver, or the volume is full.
    """
    match = NAME.fullmatch(base_model)
    if match is None:
        raise DataError(f"base_model: must be hf://org/name@ and the 40 hex digits of a commit (got {base_model!r})")
    if not hub_url:
        raise DataError(f"base_model: this stack fetches from no hub (TARMAC_HUB_URL): {_STORE_IT}")
    model, commit, hub = match["model"], match["commit"], hub_url.rstrip("/")
    with _failures(model, hub), _open(f"{hub}/api/models/{model}/tree/{commit}") as answer:
        listed = _read_listing(answer.read(_MOST_LISTED_BYTES))
    chosen = choose(listed, model)
    partial = folder.with_name(f".{folder.name}.fetched")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for one in chosen:
            events.say(f"base_model: fetching {one.path}, {one.size:,} bytes")
            with _failures(model, hub), _open(f"{hub}/{model}/resolve/{commit}/{quote(one.path)}") as answer:
                _copy(answer, partial / one.path, one)
        weights.check(partial)
        files.replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(one.size for one in chosen)
    events.say(f"base_model: {model} at commit {commit}: {counted(len(chosen), 'file')}, {size:,} bytes, from {hub}")


def choose(listed: Iterable[Listed], model: str) -> list[Listed]:
    """Choose of a commit's files those that weights consist of. Pure.

    Raises:
        DataError: what is needed is not among them, or they are too large; says what.
    """
    listed = list(listed)
    chosen = {one.path: one for one in listed if weights.NAMES.fullmatch(one.path)}
    if _WHOLE in chosen:  # some commits have them in one piece and in several
        chosen = {name: one for name, one in chosen.items() if not name.startswith("model") or name == _WHOLE}
    if not any(name.endswith(".safetensors") for name in chosen):
        pickles = sorted(one.path for one in listed if re.fullmatch(r".*\.(?:bin|pt|pth|ckpt|h5|msgpack)", one.path))
        also = f", and {pickles[0]!r} can run code when it is read, so it is never taken" if pickles else ""
        raise DataError(f"base_model: {model} has no safetensors file at this commit{also}: name another commit")
    for one in chosen.values():
        if not one.path.endswith(".safetensors") and one.size > weights.MOST_TEXT_BYTES:
            raise DataError(f"base_model: {one.path} has {one.size:,} bytes, more than {weights.MOST_TEXT_BYTES:,}")
    size = sum(one.size for one in chosen.values())
    if len(chosen) > weights.MOST_FILES or size > MOST_BYTES:
        raise DataError(
            f"base_model: the weights of {model} are {len(chosen)} files of {size:,} bytes, more than "
            f"{weights.MOST_FILES} files or {MOST_BYTES:,} bytes"
        )
    return [chosen[name] for name in sorted(chosen)]


def _read_listing(content: bytes) -> list[Listed]:
    """Read the hub's answer. Pure.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    return [
        Listed(one["path"], int(one["size"]), one["oid"], (one.get("lfs") or {}).get("oid"))
        for one in json.loads(content)
        if one["type"] == "file"
    ]


def _copy(source: IO[bytes], target: Path, listed: Listed) -> None:
    """Copy a file and compare it with what the listing says of it.

    Raises:
        DataError: it is another file.
        StoreError: it broke off, or cannot be written.
    """
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % listed.size, usedforsecurity=False)  # that is what git itself has
    size = 0
    try:
        copy = target.open("wb")
    except OSError as error:
        raise _full(error) from error
    with copy:
        while chunk := source.read(min(_CHUNK, listed.size + 1 - size)):
            sha256.update(chunk)
            git.update(chunk)
            size += len(chunk)
            try:
                copy.write(chunk)
            except OSError as error:
                raise _full(error) from error
    if size < listed.size:
        raise StoreError(f"base_model: the transfer of {listed.path} broke off after {size:,} of {listed.size:,} bytes")
    same = sha256.hexdigest() == listed.sha256 if listed.sha256 else git.hexdigest() == listed.git
    if size > listed.size or not same:
        raise DataError(f"base_model: what the hub gives as {listed.path} is not what its commit has")


def _full(error: OSError) -> StoreError:
    return StoreError(f"base_model: the session's volume cannot be written to: {error.strerror}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows the hub to where its files are, but not from an encrypted connection to a plain one."""

    @override
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ({"https"} if req.type == "https" else {"http", "https"}):
            raise urllib.error.HTTPError(newurl, code, "it leads to a connection that is not encrypted", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "tarmac"})  # noqa: S310  the stack's own setting
    return urllib.request.build_opener(_Redirects).open(request, timeout=SECONDS)


@contextmanager
def _failures(model: str, hub: str) -> Iterator[None]:
    """Turn what a transfer raises into a sentence."""
    try:
        yield
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            raise DataError(f"base_model: the hub at {hub} has no {model} with this commit") from error
        if error.code in (401, 403):
            raise DataError(
                f"base_model: the hub at {hub} gives {model} to nobody without a login, or does not have it "
                f"(HTTP {error.code}): {_STORE_IT}"
            ) from error
        raise StoreError(f"base_model: the hub at {hub} answers HTTP {error.code} ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise StoreError(
            f"base_model: the hub at {hub} cannot be reached from here ({getattr(error, 'reason', error)}): without a "
            f"way out, {_STORE_IT}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"base_model: what answers at {hub} is not a hub: it lists no files of {model}") from error
