"""Reads one file as `tarmac data push` does, and says so as a trainer does.

The stack runs it in a container, for who has a browser alone: `python -m tarmac_client.reading FOLDER NAME`. The
file is FOLDER/read/NAME; FOLDER/options.json holds the arguments of `identify`. The lines that are made of the file go
into FOLDER/lines.jsonl.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from tarmac_client.errors import SettingsError
from tarmac_client.files import identify

BAD_INPUT = 2
_MOST_TOLD, _MOST_CHARACTERS = 40, 500
_MOST_CLASSES = 1000
"""More do not fit into a field of a form."""


def read(name: str) -> dict[str, object]:
    """Read the file in the working directory; write its lines.

    Returns:
        `own`: it holds lines as they are, and none were written. Else `told`, what it was read as, and `classes`, the
        number of each of its classes, and of those that were given; none where there are too many.

    Raises:
        SettingsError: it cannot be read; says why.
    """
    options = json.loads(Path("../options.json").read_text(encoding="utf-8"))
    classes: dict[str, int] = options.pop("classes", {})
    found = identify(name, field="FILE", classes=classes, **options)
    if found.path == Path(name):
        return {"own": True, "told": [], "classes": {}}
    shutil.copyfile(found.path, "../lines.jsonl")
    told = [line[:_MOST_CHARACTERS] for line in found.told[:_MOST_TOLD]]
    return {"own": False, "told": told, "classes": classes if len(classes) <= _MOST_CLASSES else {}}


def main(folder: str, name: str) -> int:
    """Read the file and print the result, or what is wrong with it; return the exit code."""
    os.chdir(Path(folder) / "read")  # so that messages call the file by its name
    try:
        result = {"event": "result", **read(name)}
    except SettingsError as error:
        print(json.dumps({"event": "error", "message": str(error), "retryable": False}))
        return BAD_INPUT
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
