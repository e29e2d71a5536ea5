"""Files that are compressed, of another encoding, or a folder: read as what is in them, or refused in one sentence."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_stack import LINE, Stack
from marked import marked

from tarmac_client import SettingsError, Tarmac, files
from tarmac_client.exports import packed
from tarmac_client.exports.lines import ExportError

Command = Callable[..., "tuple[int, str, str]"]
EXPORT = json.dumps({"text": "Ada met Bob", "label": [[0, 3, "PER"]]}) + "\n"
ADA = json.dumps(marked("Ada met Bob", ("Ada", "PER"))) + "\n"
DOCUMENT = "Ada met Zoë 😀 in Oslo.\nNo one came.\n\nBob left\nfor home.\n"
ANNOTATIONS = (
    "T1\tPER 0 3\tAda\nT2\tPER 8 11\tZoë\nT3\tLOC 17 21\tOslo\nR1\tLives-in Arg1:T1 Arg2:T3\nA1\tFamous T1\n"
    "T4\tPER 37 40\tBob\nR2\tKnows Arg1:T4 Arg2:T1\t\n"
)
LIVES_IN = {
    "sub": {"entity": "Ada", "type": "PER", "start": 0, "end": 1},
    "obj": {"entity": "Oslo", "type": "LOC", "start": 5, "end": 6},
    "relation": "Lives-in",
}
BRAT = [
    marked(
        "Ada met Zoë 😀 in Oslo.",
        ("Ada", "PER"),
        ("Zoë", "PER"),
        ("Oslo", "LOC"),
        sentence="Ada met Zoë 😀 in Oslo .",
        relations=[LIVES_IN],
    ),
    marked("No one came."),
    marked("Bob left", ("Bob", "PER")),
    marked("for home."),
]


def stored(stack: Stack) -> str:
    (content,) = stack.stored.values()
    return content.decode()


@pytest.mark.parametrize(
    ("text", "kept", "said"), [(LINE * 3, LINE * 3, "unpacked from gzip"), (EXPORT, ADA, "read as doccano")]
)
def test_gzip_is_unpacked_whatever_is_in_it(
    tarmac: Command, stack: Stack, tmp_path: Path, text: str, kept: str, said: str
):
    path = tmp_path / "mine.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode()[:20]) + gzip.compress(text.encode()[20:]))
    code, out, err = tarmac("data", "push", path)
    assert (code, stored(stack)) == (0, kept), err
    assert f"mine.jsonl.gz: {said}" in err
    plain = tmp_path / "plain.jsonl"
    plain.write_text(text)
    assert tarmac("data", "push", plain)[1] == out, "it is stored once, packed or not"


@pytest.mark.parametrize(("cut", "words"), [(-12, "cut off"), (None, "broken")])
def test_gzip_that_is_cut_off_or_broken_is_named(tmp_path: Path, cut: int | None, words: str):
    content = bytearray(gzip.compress(LINE.encode() * 100))
    if cut is None:
        content[14] ^= 0xFF
    path = tmp_path / "mine.gz"
    path.write_bytes(content[:cut])
    with pytest.raises(SettingsError, match=f"mine.gz' is compressed by gzip and {words}"):
        files.identify(path, field="FILE")


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused():
    with pytest.raises(ExportError, match="unpacks to more than 1 MiB"):
        packed.unpack(gzip.compress(bytes(50 * 1024**2)), 1024**2)


def test_an_encoding_is_taken_when_it_is_named_and_only_then(tarmac: Command, stack: Stack, tmp_path: Path):
    path = tmp_path / "films.csv"
    path.write_bytes("text;label\nschön;1\nöde;0\n".encode("iso-8859-1"))
    assert tarmac("data", "push", path, "--encoding", "ISO-8859-1")[0] == 0
    assert "schön" in stored(stack)
    assert tarmac("data", "push", path, "--encoding", "klingon") == (
        2, "", f"FILE: '{path}' cannot be read as 'klingon': there is no such encoding; ISO-8859-1 is one.\n",
    )  # fmt: skip
    code, _, err = tarmac("data", "push", path, "--encoding", "ascii")
    assert (code, "is not in ascii: byte 15" in err) == (2, True)


def brat(folder: Path, text: str = DOCUMENT, annotations: str | None = ANNOTATIONS) -> Path:
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "sub/one.txt").write_text(text, encoding="utf-8", newline="")
    if annotations is not None:
        (folder / "sub/one.ann").write_text(annotations, encoding="utf-8")
    return folder


def test_a_folder_of_brat_is_read_line_by_line(tarmac: Command, stack: Stack, tmp_path: Path):
    (brat(tmp_path / "news") / "alone.txt").write_text("x")
    code, _, err = tarmac("data", "push", tmp_path / "news")
    assert code == 0, err
    assert [json.loads(line) for line in stored(stack).splitlines()] == BRAT
    assert "news: read as brat's documents: 4 lines; labels: PER 3, LOC 1, Lives-in 1" in err
    assert "an event, attribute or note is not read" in err
    assert "left out: relations of mentions in two lines: 1" in err
    assert "left out: texts without an .ann file: 1" in err


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ("T1\tPER 1 4\tAda\n", "sub/one.ann, line 1: 'Ada' is not at characters 1 to 4"),
        ("T1\tPER 0 3\tAda\nR1\tin Arg1:T1 Arg2:T7\n", "sub/one.ann: the relation 'in' is of T7, which is not there"),
        ("T1 PER 0 3 Ada\n", "line 1: 'T1 PER 0 3 Ada' is not an entity"),
        ("T1\tPER 0 3;8 11\tAda Zoë\nT2\tPER 37 49\tBob left for\n", ""),
    ],
)
def test_what_brat_has_not_is_named_and_what_tags_cannot_say_is_left_out(tmp_path: Path, annotations: str, words: str):
    folder = brat(tmp_path, annotations=annotations)
    if words:
        with pytest.raises(SettingsError, match=words):
            files.identify(folder, field="FILE")
        return
    made = files.identify(folder, field="FILE")
    assert [line for line in made.told if "left out" in line] == [
        "  left out: mentions in several pieces: 1", "  left out: mentions over a line's end: 1",
    ]  # fmt: skip
    assert [json.loads(line) for line in made.path.read_text().splitlines()] == [BRAT[1], BRAT[3]]


def test_a_folder_that_is_none_of_brat_s_and_a_half_pair_are_named(tmp_path: Path, stack: Stack):
    with pytest.raises(SettingsError, match="is a folder"):
        files.identify(brat(tmp_path / "a", annotations=None), field="FILE")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.ann").write_text("T1\tPER 0 3\tAda\n")
    with pytest.raises(SettingsError, match=r"has x.ann without x.txt"):
        files.identify(tmp_path / "b", field="FILE")
    (brat(tmp_path / "c") / "sub/one.txt").write_bytes(DOCUMENT.encode("utf-16"))
    with pytest.raises(SettingsError, match=r"has sub/one.txt, which is not in utf-8: byte 1"), Tarmac() as client:
        client.push(tmp_path / "c")


def test_classes_are_the_same_numbers_in_all_files_of_a_call(tarmac: Command, stack: Stack, tmp_path: Path):
    train, scored = tmp_path / "train.csv", tmp_path / "eval.csv"
    train.write_text("text,label\na,bad\nb,good\nc,ok\n")
    scored.write_text("text,label\nd,ok\n")
    assert "became the numbers 2 'ok'" in tarmac("data", "push", train, scored)[2]
    assert "became the numbers 1 'ok'" in tarmac("data", "push", scored, "--classes", "fine, ok")[2]
    scored.write_text("text,label\nd,happy\ne,sad\n")
    other = "if that is 'happy', give the order with `--classes sad,happy`"
    assert other in tarmac("data", "push", scored)[2]
    assert other not in tarmac("data", "push", scored, "--classes", "sad,happy")[2]
    assert tarmac("data", "push", scored, "--classes", "ok,,ok") == (
        2, "", "--classes: 'ok,,ok' must be different names with commas between: --classes bad,good\n",
    )  # fmt: skip
