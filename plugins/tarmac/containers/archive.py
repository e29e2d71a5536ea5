"""A tar archive that one engine sends and another is to unpack: read as it comes, checked by entry, written anew.

It comes from a machine that may be broken or malicious, so nothing of it is taken over as it is: paths and links stay
in the session's folder, only files, folders and links are let through, owners and special bits are replaced, and there
are limits. It is never in memory as a whole, and nothing is unpacked here. Pure, apart from reading the chunks.
"""

from __future__ import annotations

import builtins
import hashlib
import posixpath
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

from tarmac.base.session import SESSION_PATH, SESSION_USER
from tarmac.base.units import format_size
from tarmac.containers.results import Chunks

ROOT = SESSION_PATH.removeprefix("/")
# The file that is sent last: where it is, all the rest is.
REQUEST = f"{ROOT}/request.json"
# What a training reads and does not change.
INPUTS = (f"{ROOT}/data", f"{ROOT}/base", REQUEST)
_BLOCK = 1024**2
# An archive describes a long name before its entry; tarfile reads the description into memory as a whole.
_DESCRIPTION_BYTES = 64 * 1024
_DESCRIPTIONS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True)
class Limits:
    """The most that an archive may hold in all: bytes of files, and entries."""

    bytes: int
    entries: int = 200_000


class _Checked(tarfile.TarInfo):
    """An entry whose description is of a bearable size."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _DESCRIPTIONS and not 0 <= self.size <= _DESCRIPTION_BYTES:
            raise ValueError(f"the name of an entry takes {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


@dataclass
class Passage:
    """An archive on its way: iterate over it once; `files` is whole then.

    Args:
        chunks: the archive as it comes.
        limits: what it may hold.
        left_out: paths of which the content is read and compared, and not passed on.
        root: the folder that the archive is of, by its name there.
        named: the path that takes its place in what is passed on.

    Attributes:
        files: the SHA-256 of each file, by path, also of those that are left out.
        bytes: of their contents.
    """

    chunks: Iterable[builtins.bytes]
    limits: Limits
    left_out: Collection[str] = ()
    root: str = ROOT
    named: str = ROOT
    files: dict[str, str] = field(default_factory=dict)
    _links: set[str] = field(default_factory=set)
    bytes: int = 0
    _entries: int = 0
    _tail: builtins.bytes = b""

    def __iter__(self) -> Iterator[builtins.bytes]:
        """Yield the archive anew, in chunks.

        Raises:
            ValueError: it holds something that is refused, or did not come whole; a reason, without a subject.
        """
        request: list[builtins.bytes] = []
        source = cast(IO[builtins.bytes], Chunks(self._received()))
        try:
            with tarfile.open(fileobj=source, mode="r|", tarinfo=_Checked) as archive:
                while (entry := archive.next()) is not None:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                    name = self._name(entry)
                    passed = self._pass(archive, entry, name)
                    if name == REQUEST and REQUEST not in self.left_out:
                        request = list(passed)
                    elif any(name == one or name.startswith(f"{one}/") for one in self.left_out):
                        for _ in passed:
                            pass
                    else:
                        yield from passed
        except (tarfile.TarError, RecursionError) as error:
            raise ValueError(f"it did not come whole: {error}") from error
        # Where an archive breaks off between two entries, tarfile takes that for its end.
        if self._tail != builtins.bytes(tarfile.BLOCKSIZE):
            raise ValueError("it did not come whole: its end is missing")
        yield from request
        yield _END

    def _received(self) -> Iterator[builtins.bytes]:
        for chunk in self.chunks:
            self._tail = (self._tail + chunk)[-tarfile.BLOCKSIZE :] if chunk else self._tail
            yield chunk

    def _name(self, entry: tarfile.TarInfo) -> str:
        name = entry.name.removeprefix("./").rstrip("/")
        parts = name.split("/")
        if parts[0] != self.root or any(part in ("", ".", "..") for part in parts) or "\0" in name or len(name) > 4096:
            raise ValueError(f"the path {entry.name[:200]!r} does not lie in {SESSION_PATH}")
        name = self._renamed(name)
        parts = name.split("/")
        if any("/".join(parts[:count]) in self._links for count in range(1, len(parts))):
            raise ValueError(f"the path {name[:200]!r} goes through a link")
        return name

    def _renamed(self, name: str) -> str:
        return self.named + name.removeprefix(self.root)

    def _pass(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, name: str) -> Iterator[builtins.bytes]:
        self._entries += 1
        if self._entries > self.limits.entries:
            raise ValueError(f"it holds more than {self.limits.entries:,} files")
        made = tarfile.TarInfo(name)
        made.uid, made.gid = (int(part) for part in SESSION_USER.split(":"))
        made.mode, made.mtime = entry.mode & 0o777, max(0, min(int(entry.mtime), 2**33))
        if entry.isdir():
            made.type = tarfile.DIRTYPE
        elif entry.issym():
            self._check_link(entry, name)
            made.type, made.linkname = tarfile.SYMTYPE, entry.linkname
            self._links.add(name)
        elif entry.islnk():
            target = self._renamed(entry.linkname.removeprefix("./"))
            if target not in self.files:
                raise ValueError(f"{name[:200]!r} is a second name of {target[:200]!r}, which did not come before it")
            made.type, made.linkname = tarfile.LNKTYPE, target
            self.files[name] = self.files[target]
        elif entry.isreg() and not entry.issparse():
            made.size = entry.size
            yield made.tobuf(tarfile.PAX_FORMAT)
            yield from self._content(archive, entry, name)
            return
        else:
            raise ValueError(f"{name[:200]!r} is neither a file nor a folder nor a link")
        yield made.tobuf(tarfile.PAX_FORMAT)

    def _check_link(self, entry: tarfile.TarInfo, name: str) -> None:
        target = entry.linkname
        found = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if target.startswith("/") or not target or "\0" in target or not f"{found}/".startswith(f"{ROOT}/"):
            raise ValueError(f"the link {name[:200]!r} leads out of {SESSION_PATH}, to {target[:200]!r}")

    def _content(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, name: str) -> Iterator[builtins.bytes]:
        self.bytes += entry.size
        if self.bytes > self.limits.bytes:
            raise ValueError(f"it holds more than {format_size(self.limits.bytes)}")
        digest, left = hashlib.sha256(), entry.size
        content = archive.extractfile(entry)
        while left and content is not None and (block := content.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
            yield block
        if left:
            raise ValueError(f"{name[:200]!r} did not come whole")
        yield builtins.bytes(-entry.size % tarfile.BLOCKSIZE)
        self.files[name] = digest.hexdigest()


def inputs_of(files: Mapping[str, str]) -> dict[str, str]:
    """Return of an archive's files those that a training reads and does not change. Pure."""
    return {name: digest for name, digest in files.items() if any(f"{name}/".startswith(f"{one}/") for one in INPUTS)}
