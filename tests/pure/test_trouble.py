"""docs/trouble.md has every error message that a user can meet, so that it is found by searching for its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.messages import HOLE, Message, of_python, of_shell, raised

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs/trouble.md").read_text()
MESSAGES = [
    *of_python(REPOSITORY / "plugins", REPOSITORY),
    *of_python(REPOSITORY / "images/trainer/tarmac_trainer", REPOSITORY),
    *of_python(REPOSITORY / "client/src/tarmac_client", REPOSITORY),
    *of_shell(REPOSITORY / "env/host", REPOSITORY),
]
SHORTEST = 11
"""Characters. What stays the same in a message may be too short to search for, such as `is blank`."""


def plain(text: str) -> str:
    """Words alone: code spans hold no backticks, tables escape their bars, lines are wrapped anywhere."""
    return re.sub(r"[\s'`\"\\]+", " ", text).lower()


def test_all_three_sources_have_messages():
    for folder, least in (("plugins", 60), ("images/trainer", 60), ("env/host", 30)):
        assert sum(message.where.startswith(folder) for message in MESSAGES) >= least


@pytest.mark.parametrize(
    "message",
    [one for one in MESSAGES if len(one.fixed) >= SHORTEST],
    ids=lambda message: f"{message.where} {message.fixed[:40]}",
)
def test_a_message_is_found_by_its_words(message: Message):
    assert plain(message.fixed) in plain(PAGE), f"docs/trouble.md lacks: {message.text.replace(HOLE, '...')}"


def test_messages_are_taken_out_of_code(tmp_path: Path):
    (tmp_path / "code.py").write_text(
        "def f(x):\n"
        "    raise DataError(f'data set {x}: it is ' + 'not there')\n"
        "    raise RequestError([f'KEY: {x!r} was used before'])\n"
        "    raise AssertionError('never seen by a user')\n"
        "    raise error\n"
    )
    found = list(raised(tmp_path / "code.py", tmp_path))
    assert [message.text for message in found] == [f"data set {HOLE}: it is not there", f"KEY: {HOLE} was used before"]
    assert [message.fixed for message in found] == ["it is not there", "was used before"]


def test_messages_are_taken_out_of_scripts(tmp_path: Path):
    (tmp_path / "a.sh").write_text('x || die "the port $port of ${name:-it} is \\\ntaken: $(why $x)."\n')
    (message,) = of_shell(tmp_path, tmp_path)
    assert message.text == f"the port {HOLE} of {HOLE} is taken: {HOLE}."
