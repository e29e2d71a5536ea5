"""Makes the client's `client.py` of its `aio.py`: the same methods, each of which returns when it is done.

So the two cannot differ. `make sync-client` writes the file; tests/pure/test_client_package.py compares it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "client/src/tarmac_client"
HEADER = '"""The client: each call returns when it is done. Made of `aio.py` by `make sync-client`."""\n'
NAMES = {
    "AsyncTarmac": "Tarmac",
    "AsyncSession": "Session",
    "AsyncIterator": "Iterator",
    "AsyncClient": "Client",
    "async_chunks": "chunks",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "asyncio": "time",
}
_NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")


def synchronous(source: str) -> str:
    """Return the text of `client.py` for that of `aio.py`. Pure, but for the formatter."""
    code = re.sub(r'^""".*?"""\n', HEADER, source, count=1, flags=re.DOTALL)
    code = re.sub(r"^( *)\S.*  # sync: (.*)$", r"\1\2", code, flags=re.MULTILINE)
    code = re.sub(r"\b(async|await) ", "", code)
    code = _NAME.sub(lambda found: NAMES[found[1]], code)
    ruff = [sys.executable, "-m", "ruff"]
    given = ["--quiet", "--stdin-filename", str(PACKAGE / "client.py"), "-"]
    for words in (["check", "--select", "I", "--fix"], ["format"]):
        code = subprocess.run([*ruff, *words, *given], input=code, text=True, capture_output=True, check=True).stdout
    return code


def main() -> None:
    """Write the file."""
    (PACKAGE / "client.py").write_text(synchronous((PACKAGE / "aio.py").read_text()))


if __name__ == "__main__":
    main()
