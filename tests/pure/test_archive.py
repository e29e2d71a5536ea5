"""What comes from another machine as an archive: passed on as it is where it is harmless, refused where it is not."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tracemalloc
from collections.abc import Iterator

import pytest

from tarmac.containers.archive import Limits, Passage, inputs_of

PLENTY = Limits(1000)


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.mode = tarfile.DIRTYPE, 0o755
    return made, b""


def file(name: str, content: bytes = b"x", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size, made.mode, made.uid = len(content), mode, 0
    return made, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made, b""


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    kept = io.BytesIO()
    with tarfile.open(fileobj=kept, mode="w", format=tarfile.PAX_FORMAT) as made:
        for entry, content in entries:
            made.addfile(entry, io.BytesIO(content))
    return kept.getvalue()


def chunks(content: bytes, size: int = 700) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def passed(*entries: tuple[tarfile.TarInfo, bytes], limits: Limits = PLENTY, left_out: tuple[str, ...] = ()) -> Passage:
    return Passage(chunks(archive(folder("session"), *entries)), limits, left_out)


def read(passage: Passage) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(passage))) as found:
        return found.getmembers()


def test_a_folder_passes_under_another_name_with_its_links():
    content = archive(
        folder("checkpoint"), file("checkpoint/a", b"1"), link("checkpoint/b", "checkpoint/a", tarfile.LNKTYPE),
        link("checkpoint/c", "a"),
    )  # fmt: skip
    passage = Passage(chunks(content), PLENTY, root="checkpoint", named="session/checkpoint.coming")
    assert [(one.name, one.linkname) for one in read(passage)] == [
        ("session/checkpoint.coming", ""),
        ("session/checkpoint.coming/a", ""),
        ("session/checkpoint.coming/b", "session/checkpoint.coming/a"),
        ("session/checkpoint.coming/c", "a"),
    ]
    for name in ("session/a", "checkpoint.other/a", "checkpoint/../a"):
        with pytest.raises(ValueError, match="does not lie in /session"):
            read(Passage(chunks(archive(file(name))), PLENTY, root="checkpoint", named="session/checkpoint.coming"))


def test_files_folders_and_links_pass_with_owner_and_mode_of_the_session():
    passage = passed(
        folder("session/model"),
        file("session/model/weights", b"1234", mode=0o4755),
        link("session/model/latest", "weights"),
        link("session/model/again", "session/model/weights", tarfile.LNKTYPE),
        file("session/" + "long/" * 40 + "name"),
    )
    found = {one.name: one for one in read(passage)}
    assert list(found)[:4] == ["session", "session/model", "session/model/weights", "session/model/latest"]
    weights = found["session/model/weights"]
    assert (weights.uid, weights.gid, weights.mode, weights.size) == (10001, 10001, 0o755, 4)
    assert found["session/model/latest"].linkname == "weights"
    assert found["session/model/again"].islnk()
    assert passage.files["session/model/again"] == hashlib.sha256(b"1234").hexdigest()
    assert passage.bytes == 5


def test_the_request_comes_last_since_where_it_is_all_is():
    names = [one.name for one in read(passed(file("session/request.json"), file("session/z"), file("session/data/a")))]
    assert names == ["session", "session/z", "session/data/a", "session/request.json"]


def test_what_is_left_out_is_compared_and_not_passed_on():
    passage = passed(
        folder("session/data"), file("session/data/a", b"lines"), file("session/database"), left_out=("session/data",)
    )
    assert [one.name for one in read(passage)] == ["session", "session/database"]
    assert inputs_of(passage.files) == {"session/data/a": hashlib.sha256(b"lines").hexdigest()}


REFUSED = {
    "a path that climbs": ([file("session/../etc/passwd")], "does not lie in /session"),
    "an absolute path": ([file("/etc/passwd")], "does not lie in /session"),
    "a path beside the session's": ([file("sessions/x")], "does not lie in /session"),
    "a link that leads out": ([link("session/model/x", "../../etc")], "leads out of /session, to '../../etc'"),
    "an absolute link": ([link("session/x", "/etc/passwd")], "leads out of /session"),
    "a path through a link": (
        [folder("session/a"), link("session/b", "a"), file("session/b/x")], "goes through a link",
    ),
    "a second name of a file outside": ([link("session/x", "etc/shadow", tarfile.LNKTYPE)], "did not come before it"),
    "a device": ([link("session/x", "", tarfile.CHRTYPE)], "is neither a file nor a folder nor a link"),
    "a pipe": ([link("session/x", "", tarfile.FIFOTYPE)], "is neither a file nor a folder nor a link"),
    "more than the limit": (
        [file("session/a", b"x" * 600), file("session/b", b"x" * 600)], "holds more than 1000 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_could_do_harm_is_refused(entries: list[tuple[tarfile.TarInfo, bytes]], reason: str):
    with pytest.raises(ValueError, match=reason):
        read(passed(*entries))


def test_too_many_entries_are_refused():
    with pytest.raises(ValueError, match="holds more than 3 files"):
        read(passed(*(file(f"session/{number}", b"") for number in range(9)), limits=Limits(1000, entries=3)))


def test_a_bomb_is_refused_before_its_bytes_are_read():
    """It says that it is a terabyte, and goes on for ever."""
    header, _ = file("session/model")
    header.size = 2**40

    def endless() -> Iterator[bytes]:
        yield header.tobuf(tarfile.GNU_FORMAT)
        while True:
            yield bytes(65536)

    with pytest.raises(ValueError, match="holds more than"):
        read(Passage(endless(), PLENTY))


def test_a_name_without_end_is_not_read_into_memory():
    header = tarfile.TarInfo("session/x")
    header.type, header.size = tarfile.XHDTYPE, 2**30

    def endless() -> Iterator[bytes]:
        yield header.tobuf(tarfile.GNU_FORMAT)
        while True:
            yield b"1" * 65536

    tracemalloc.start()
    with pytest.raises(ValueError, match="the name of an entry takes 1,073,741,824 bytes"):
        read(Passage(endless(), PLENTY))
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("kept", [512, 600, 1024, 1200, 1600, 2048])
def test_an_archive_that_breaks_off_is_no_archive(kept: int):
    content = archive(folder("session"), file("session/model", b"y" * 900))
    with pytest.raises(ValueError, match="did not come whole"):
        read(Passage(chunks(content[:kept]), PLENTY))
