"""What the API says is in the words of who calls it, not in those of make."""

from __future__ import annotations

import pytest

from tarmac.web.words import for_client

SAID = {
    "KEY: 'k' was used for another request; use another.": "key: 'k' was used for another request; use another.",
    "RUN: r has ended already (success): there is nothing to cancel.": (
        "session: r has ended already (success): there is nothing to cancel."
    ),
    "FILE: the file is a Parquet file. Nothing was stored.": "The file is a Parquet file. Nothing was stored.",
    "must be '<id>/<id>.jsonl' as `make dataset FILE=...` prints it": (
        "must be '<id>/<id>.jsonl' as `tarmac data push FILE` prints it"
    ),
    "store it with `make script FILE=...` and use": "store it with `tarmac data push --script FILE` and use",
    "there: make promote MODEL=a.b VERSION=..., of those that `make models` lists.": (
        "there: tarmac models promote a.b NUMBER, of those that `tarmac models ls` lists."
    ),
    "or go back to version 2: make rollback MODEL=ner": "or go back to version 2: tarmac models rollback ner",
    "`make follow RUN=a:b` shows why.": "`tarmac follow a:b` shows why.",
    "line 2 has a byte 0xe9: convert it (iconv -f WINDOWS-1252 -t UTF-8)": (
        "line 2 has a byte 0xe9: say which: `tarmac data push FILE --encoding WINDOWS-1252`"
    ),
    "`make doctor FIX=1`, see `make doctor`": "`make doctor FIX=1`, see `tarmac doctor`",
    "Make retry RUN=, or send it again; `make retry RUN=` does": (
        "tarmac retry SESSION, or send it again; `tarmac retry SESSION` does"
    ),
    "see `make ps`, with make gpus": "see `tarmac ls`, with tarmac gpus",
    "run `make up`, see `make logs SERVICE=scheduler`": "run `make up`, see `make logs SERVICE=scheduler`",
    "name: 'RUN: x' is taken": "name: 'RUN: x' is taken",
    "": "",
}


@pytest.mark.parametrize(("said", "told"), SAID.items())
def test_a_message_has_no_words_of_make(said: str, told: str):
    assert for_client(said) == told
