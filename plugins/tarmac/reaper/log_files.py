"""The folder of Airflow's logs: which runs and days it has, how much they take, and how one is removed.

Links are not followed, since code that may write there could make one: nothing outside of the folder is reached.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from tarmac.base.session import SessionKey

LOGS = Path("/opt/airflow/logs")
# As Airflow names them: a folder a DAG with one a run in it; and one a day of the DAG processor.
_DAG, _RUN, _PARSING = "dag_id=", "run_id=", "dag_processor"


@dataclass(frozen=True)
class Taken:
    """How many bytes the files of a folder have, and when something in it was changed last, in seconds of the epoch."""

    size: int
    newest: float


@dataclass(frozen=True)
class Tail:
    """The end of a file, as many bytes as were asked for, and how many bytes all of it has."""

    content: bytes
    size: int


def old_days(names: Iterable[str], today: date, days: int) -> list[str]:
    """Return which of the DAG processor's folders are of a day that is more than so many days ago. Pure.

    Args:
        names: of folders; one that is no day is none of ours.
    """
    last = today - timedelta(days=days)

    def is_old(name: str) -> bool:
        try:
            return date.fromisoformat(name) < last
        except ValueError:
            return False

    return sorted(name for name in names if is_old(name))


def unneeded(found: Taken, *, before: float) -> bool:
    """Tell whether the logs of a run that Airflow does not know may go. Pure.

    Args:
        found: of its folder.
        before: in seconds of the epoch: what was changed since then stays.
    """
    return found.newest < before


class LogFiles:
    """The folder of the logs.

    Args:
        root: where it is.
    """

    def __init__(self, root: Path = LOGS) -> None:
        self._root = root

    def runs(self) -> dict[str, list[str]]:
        """Return the ids of the runs that have a folder, by DAG."""
        dags = self._folders(self._root)
        return {
            dag.removeprefix(_DAG): [
                one.removeprefix(_RUN) for one in self._folders(self._root / dag) if one.startswith(_RUN)
            ]
            for dag in dags
            if dag.startswith(_DAG)
        }

    def days(self) -> list[str]:
        """Return the names of the DAG processor's folders."""
        return self._folders(self._root / _PARSING)

    def run(self, key: SessionKey) -> Taken:
        """Measure a run's folder."""
        return self._measure(self._root / f"{_DAG}{key.dag_id}", f"{_RUN}{key.run_id}")

    def day(self, name: str) -> Taken:
        """Measure a folder of the DAG processor."""
        return self._measure(self._root / _PARSING, name)

    def remove_run(self, key: SessionKey) -> None:
        """Remove a run's folder; one that is gone is fine.

        Raises:
            OSError: it cannot be removed, or is a link.
        """
        self._remove(self._root / f"{_DAG}{key.dag_id}", f"{_RUN}{key.run_id}")

    def remove_day(self, name: str) -> None:
        """Remove a folder of the DAG processor; one that is gone is fine.

        Raises:
            OSError: it cannot be removed, or is a link.
        """
        self._remove(self._root / _PARSING, name)

    def newest_first(self, key: SessionKey) -> list[str]:
        """Return the paths of a run's logs inside its folder, those changed last first."""
        found: list[tuple[float, str]] = []
        with _opened(self._root / f"{_DAG}{key.dag_id}") as folder:
            name = f"{_RUN}{key.run_id}"
            for inside, _, files, inner in os.fwalk(name, dir_fd=folder):
                for one in files:
                    try:
                        status = os.stat(one, dir_fd=inner, follow_symlinks=False)
                    except FileNotFoundError:  # gone since
                        continue
                    if stat.S_ISREG(status.st_mode):
                        path = os.path.join(inside, one)
                        found.append((status.st_mtime, path.removeprefix(f"{name}/")))
        return [path for _, path in sorted(found, reverse=True)]

    def tail(self, key: SessionKey, path: str, most: int) -> Tail | None:
        """Return the end of one of a run's logs; None: it is gone since, or no file any more.

        Args:
            path: as `newest_first` gives it.
            most: bytes that are read.
        """
        *parents, name = Path(f"{_DAG}{key.dag_id}", f"{_RUN}{key.run_id}", path).parts
        with ExitStack() as opened:
            try:
                folder = opened.enter_context(_opened(self._root))
                for one in parents:
                    folder = opened.enter_context(_opened(one, folder))
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # a link in its place
                    return None
                raise
            with os.fdopen(file, "rb") as log:
                status = os.fstat(file)
                if not stat.S_ISREG(status.st_mode):
                    return None
                log.seek(max(0, status.st_size - most))
                return Tail(log.read(min(most, status.st_size)), status.st_size)

    @staticmethod
    def _folders(where: Path) -> list[str]:
        try:
            with _opened(where) as folder, os.scandir(folder) as found:
                return sorted(one.name for one in found if one.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @staticmethod
    def _measure(parent: Path, name: str) -> Taken:
        size, newest = 0, 0.0
        with _opened(parent) as folder:
            for _, _, files, inner in os.fwalk(name, dir_fd=folder):
                for one in (".", *files):
                    try:
                        status = os.stat(one, dir_fd=inner, follow_symlinks=False)
                    except FileNotFoundError:  # gone since
                        continue
                    newest = max(newest, status.st_mtime)
                    size += 0 if one == "." else status.st_size
        return Taken(size, newest)

    @staticmethod
    def _remove(parent: Path, name: str) -> None:
        try:
            with _opened(parent) as folder:
                shutil.rmtree(name, dir_fd=folder)
        except FileNotFoundError:
            return


@contextmanager
def _opened(folder: Path | str, parent: int | None = None) -> Iterator[int]:
    """Open a folder itself, not one that a link in its place leads to."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield number
    finally:
        os.close(number)
