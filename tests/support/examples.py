"""How many examples hypothesis tries: all in `make test`, a part in `make check`, where a person waits for them."""

import os

_PART = {"": 1, "few": 5}[os.environ.get("TARMAC_TEST_EXAMPLES", "")]


def examples(count: int) -> int:
    """How many examples to try of so many."""
    return max(1, count // _PART)
