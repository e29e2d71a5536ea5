"""A person's own code as one file: a tar archive that is the same for the same code, so that it is stored once."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from tarmac_client.errors import SettingsError

MOST_FILES = 10_000
MOST_BYTES = 256 * 1024 * 1024
_LEFT_OUT = {"__pycache__", "node_modules", "venv"}


def archive(path: Path, *, field: str) -> tuple[bytes, int]:
    """Pack a folder, or one file; hidden files and what Python and npm make are left out.

    Args:
        field: what a message calls it.

    Returns:
        The archive, and how many files are in it.

    Raises:
        SettingsError: it cannot be read, is empty or too large, or holds a link.
    """
    if path.is_dir():
        return _pack(((file, file.relative_to(path)) for file in _files(path, field)), field, path)
    return pack_files([path], field=field)


def pack_files(paths: Sequence[Path], *, field: str) -> tuple[bytes, int]:
    """Pack files by their names alone, as `archive` does.

    Raises:
        SettingsError: one cannot be read.
    """
    return _pack(((path, Path(path.name)) for path in sorted(paths)), field, paths[0])


def _files(folder: Path, field: str) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _LEFT_OUT)
        for name in sorted([*folders, *names]):
            if Path(here, name).is_symlink():
                shown = Path(here, name).relative_to(folder)
                raise SettingsError(f"{field}: {str(shown)!r} is a link: put what it leads to in its place.")
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith(".pyc"):
                yield Path(here, name)


def pack_tar(content: bytes, *, field: str, what: str, below: str = "") -> tuple[bytes, int]:
    """Pack the files of a tar archive, as `archive` would pack the folder that it holds.

    Args:
        what: what a message calls the archive.
        below: the folder in it that is packed; "": all of it.

    Raises:
        SettingsError: there is no such folder, or as of `archive`.
    """
    inside = PurePosixPath(below)
    with tarfile.open(fileobj=io.BytesIO(content)) as given:
        chosen = sorted(
            (member for member in given if _is_code(PurePosixPath(member.name), inside)),
            key=lambda one: _order(one.name),
        )
        for member in chosen:
            if not (member.isreg() or member.isdir()):
                raise SettingsError(f"{field}: {member.name!r} is a link: put what it leads to in its place.")
        files = (
            (PurePosixPath(one.name).relative_to(inside), _content(given, one), bool(one.mode & 0o100))
            for one in chosen
            if one.isreg() and not one.name.endswith(".pyc")
        )
        return _packed(files, field, f"{what}: {below}" if below else what)


def _is_code(path: PurePosixPath, inside: PurePosixPath) -> bool:
    if inside not in path.parents:
        return False
    parts = path.relative_to(inside).parts
    return not any(part.startswith(".") for part in parts) and not _LEFT_OUT & set(parts)


def _order(name: str) -> tuple[tuple[bool, str], ...]:
    # As a folder is walked: its files, then what is in its folders.
    parts = PurePosixPath(name).parts
    return tuple((number < len(parts) - 1, part) for number, part in enumerate(parts))


def _content(given: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened = given.extractfile(member)
    return opened.read() if opened is not None else b""


def _pack(found: Iterable[tuple[Path, Path]], field: str, what: Path) -> tuple[bytes, int]:
    return _packed(_read(found, field), field, str(what))


def _read(found: Iterable[tuple[Path, Path]], field: str) -> Iterator[tuple[PurePosixPath, bytes, bool]]:
    for path, name in found:
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                raise SettingsError(f"{field}: {str(path)!r} is not a file.")
            yield PurePosixPath(name.as_posix()), path.read_bytes(), bool(about.st_mode & 0o100)
        except OSError as error:
            raise SettingsError(f"{field}: {str(path)!r} cannot be read: {error.strerror}.") from error


def _packed(found: Iterable[tuple[PurePosixPath, bytes, bool]], field: str, what: str) -> tuple[bytes, int]:
    out, count, size = io.BytesIO(), 0, 0
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, content, runs in found:
            count, size = count + 1, size + len(content)
            if count > MOST_FILES or size > MOST_BYTES:
                raise SettingsError(
                    f"{field}: {what!r} has more than {MOST_FILES:,} files or {MOST_BYTES // 1024**2} MiB: name a "
                    "folder with the code alone; data goes with --data."
                )
            member = tarfile.TarInfo(name.as_posix())
            # Nothing of this machine: the same code is the same archive everywhere.
            member.size, member.mode = len(content), 0o755 if runs else 0o644
            made.addfile(member, io.BytesIO(content))
    if not count:
        raise SettingsError(f"{field}: {what!r} holds no file to send: hidden files are left out.")
    return out.getvalue(), count
