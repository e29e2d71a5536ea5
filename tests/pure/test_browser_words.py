"""What a person with a browser reads where a sentence names a command of a terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tarmac.admission.placement import Reason
from tarmac.base.browser import FOR_THE_CLIENT, FOR_THE_MACHINE, in_browser, told
from tarmac.cli.explain import TODO, client_command, make_command
from tarmac.cli.remedies import rows
from tarmac.web.words import for_client

_WITH_A_BUTTON = (
    r"\b(?:make|tarmac) (?:retry|cancel|explain|follow|gpus|hosts|kinds|models|promote|rollback|data ls|dag )"
)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        (
            "`tarmac retry manual__2026-11-30T08:00:00+00:00` takes it up again at eval_model.",
            '"Run again from where it failed" takes it up again at eval_model.',
        ),
        ("`tarmac retry r` runs it again with the same request.", '"Run it again" runs it with the same request.'),
        (
            "Leave fail out. Send the request again, corrected.",
            'Leave fail out. Correct it in the form of "Run again with changes".',
        ),
        (
            "Correct the data set, store it, and send the request again with that.",
            'Correct the data set, upload it, and choose it in the form of "Run again with changes".',
        ),
        (
            "make retry RUN=, or send the request again",
            '"Run again from where it failed", or use "Run again with changes"',
        ),
        ("tarmac explain SESSION says what it does", "the session's page says what it does"),
        ("end a session (`make hosts` lists them)", 'end a session (the page "Now" lists them)'),
        ("tarmac ls lists the latest", 'the page "Sessions" lists the latest'),
        (
            "put it into production: `tarmac models promote ner 3`.",
            'put it into production: "Promote" on the model\'s page.',
        ),
        ("go back: tarmac models rollback ner", 'go back: "Roll back" on the model\'s page'),
        ("store it: `make dataset FILE=...`", 'store it: an upload on the page "Data sets"'),
        (
            "must be '<id>/<id>.jsonl' as `tarmac data push FILE` prints it, or a URL",
            "must be '<id>/<id>.jsonl' as its upload shows it, or a URL",
        ),
        ("remove that one first (tarmac dag rm nightly)", 'remove that one first ("Remove" on the page "DAG files")'),
        ("make space; nothing is made up", "make space; nothing is made up"),
    ],
)
def test_a_command_that_the_page_has_a_button_for_is_that_button(text: str, reads: str):
    assert in_browser(text) == reads
    assert told(text) == reads, "everybody can do that"


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("Raise TARMAC_PARALLELISM in env/stack.env and run `make up`.", FOR_THE_MACHINE),
        ("`make ps` shows which service does not run, `make up` starts it", FOR_THE_MACHINE),
        ("the processes outside Tarmac: `nvidia-smi` lists them", FOR_THE_MACHINE),
        ("`tarmac doctor` says what is wrong", FOR_THE_CLIENT),
    ],
)
def test_a_command_without_a_button_stays_with_who_can_give_it(text: str, who: str):
    stop = "" if text.endswith(".") else "."
    assert told(for_client(text)) == f"{text}{stop} {who}"


def test_no_remedy_and_no_reason_leaves_a_command_that_a_button_does(repository: Path):
    known = rows((repository / "docs/trouble.md").read_text())
    texts = [one for row in known for one in (row.cause, row.todo)] + [
        str(todo).replace("{listing}", command(verb=verb))
        for reason, todo in TODO.items()
        for command, verb in ((make_command, "gpus"), (client_command, "hosts"))
        if reason is not Reason.WAITING_FOR_TURN
    ]
    for text in texts:
        for written in (text, for_client(text)):
            assert not re.search(_WITH_A_BUTTON, in_browser(written)), written
