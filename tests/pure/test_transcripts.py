"""Each verb of `tarmac` is in the docs by a transcript, typed again here: `make sync-transcripts` writes it."""

from __future__ import annotations

import difflib
import os
import shlex
from pathlib import Path

import pytest

from support import transcripts
from support.terminal import terminal
from tarmac_client.cli.completion import verbs_of
from tarmac_client.cli.main import parser

PAGE = "docs/client-verbs.md"


def verb_of(line: str, verbs: set[str]) -> str | None:
    words = shlex.split(line)[1:]
    return next((found for count in (1, 2) if (found := " ".join(words[:count])) in verbs), None)


def test_each_verb_has_a_transcript(repository: Path):
    known = [path for path, _, _ in verbs_of(parser())]
    verbs = {" ".join(path) for path in known if not any(one[: len(path)] == path and one != path for one in known)}
    page = (repository / PAGE).read_text()
    typed = [verb_of(one.command, verbs) for one in transcripts.commands(page) if one.command.startswith("tarmac")]
    assert verbs - set(typed) == set(), f"{PAGE} has no transcript of these"
    assert None not in typed, f"{PAGE} has commands that `tarmac` does not know"


def test_each_transcript_is_what_a_person_sees_who_types_it(repository: Path, tmp_path: Path):
    path = repository / PAGE
    page, codes = path.read_text(), list[tuple[str, int]]()
    with terminal(tmp_path) as typed:

        def run(one: transcripts.Typed) -> list[str]:
            seen = typed.type(one.command)
            codes.append((one.command, typed.code))
            return seen

        now = transcripts.with_outputs(page, run)
    if os.environ.get("UPDATE_TRANSCRIPTS"):
        path.write_text(now)
        page = now
    differs = "\n".join(difflib.unified_diff(page.splitlines(), now.splitlines(), "the page", "typed", lineterm=""))
    assert not differs, f"`make sync-transcripts` writes it:\n{differs}"
    following = [line for line, _ in codes[1:]] + [""]
    silent = [
        line for (line, code), after in zip(codes, following, strict=True) if code and "echo $?" not in (line, after)
    ]
    assert silent == [], "these end with another exit code than 0: show that by `echo $?` after them"


def test_an_output_that_differs_is_seen_and_one_that_is_right_stays():
    page = "```console\n$ a\none\n...\nthree\n$ b\nold\n```\n\n```\n$ c\n```\n"
    told = {"a": ["one", "two", "2", "three"], "b": ["new"]}
    assert transcripts.with_outputs(page, lambda one: told[one.command]) == page.replace("old", "new")
    told["a"] = ["one", "two", "three", "four"]
    assert "four" in transcripts.with_outputs(page, lambda one: told[one.command])
    with pytest.raises(ValueError, match="begins with a command"):
        transcripts.typed_in("output\n$ a\n")
