"""Emptying a session's folder."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tarmac_trainer.runtime.errors import CleaningError


@dataclass
class Removed:
    """How much is gone: files and links, and their bytes."""

    files: int = 0
    bytes: int = 0


def empty(folder: Path) -> Removed:
    """Remove everything in `folder`, not `folder` itself. Links are removed, never followed.
    Idempotent.

    Raises:
        CleaningError: names what could not be removed; everything else is gone.
    """
    removed = Removed()
    problems: list[str] = []
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise CleaningError(f"{folder} cannot be emptied: {error.strerror}") from error
    try:
        _empty(handle, str(folder), removed, problems)
    finally:
        os.close(handle)
    if problems:
        raise CleaningError(f"{len(problems)} entries could not be removed: " + "; ".join(problems[:5]))
    return removed


def _empty(folder: int, path: str, removed: Removed, problems: list[str]) -> None:
    """Empty the folder that is open as `folder`: by handle, so that no swapped-in link leads
    elsewhere."""
    for name in os.listdir(folder):
        try:
            info = os.lstat(name, dir_fd=folder)
            if stat.S_ISDIR(info.st_mode):
                _remove_folder(name, folder, f"{path}/{name}", removed, problems)
            else:
                os.unlink(name, dir_fd=folder)
                removed.files += 1
                removed.bytes += info.st_size
        except OSError as error:
            problems.append(f"{path}/{name}: {error.strerror}")


def _remove_folder(name: str, parent: int, path: str, removed: Removed, problems: list[str]) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        handle = os.open(name, flags, dir_fd=parent)
    except PermissionError:  # a folder without r, w or x for us, but ours: give it to ourselves
        os.chmod(name, 0o700, dir_fd=parent)
        handle = os.open(name, flags, dir_fd=parent)
    try:
        os.fchmod(handle, 0o700)
        before = len(problems)
        _empty(handle, path, removed, problems)
    finally:
        os.close(handle)
    if len(problems) == before:  # else it is not empty, which would only be a second message
        os.rmdir(name, dir_fd=parent)
