"""A person's own code that trains in place of a trainer, in an image of its choice: what `prep` makes ready for it.

The image need not know Tarmac. `prep` leaves the code in `code/` and a shell script, which is the entrypoint of the
training's container: it runs the command, and says of it what the trainer contract asks for. What the command leaves in
`model/` is only ever handled as files by what has a network or credentials.
"""

import json
import os
import re
import shlex
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tarmac_trainer.runtime import events, files, libraries
from tarmac_trainer.runtime.counting import counted
from tarmac_trainer.runtime.errors import DataError, InputError
from tarmac_trainer.runtime.request import OwnRun

SCRIPT = "own_code.sh"
MOST_FILES = 10_000
MANY_FILES = 2_000
"""Of a model: each is sent to the registry by a call of its own."""

LONGEST_NAME = 200
"""Bytes of a file's name in a model, which becomes a part of an address."""

PREDICT = "predict.py"
"""In the model's folder: Python with `predict(folder, rows)`, a list of JSON objects for a list of JSON objects."""

NAME_FILE = "tarmac.json"
"""In a saved model's folder: which kind of model it is, and the libraries that own code was trained with."""

_METRIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/-]{0,99}")
METRICS = "metrics.json"
"""In the model's folder: the numbers that the code measured, a JSON object."""

_SCRIPT = """\
#!/bin/sh
# Runs the code of this session; `prep` wrote it. It knows two commands of the trainer contract.
session=${{TARMAC_SESSION:-/session}}
case "$1" in
health) echo "healthy: the command runs"; exit 0 ;;
train) ;;
*) echo "own code knows the commands train and health, not: $1"; exit 2 ;;
esac
export TARMAC_MODEL="$session/model" TARMAC_DATA="$session/data"
rm -rf "$session/model" "$session/training.json"
mkdir "$session/model" || exit 75
cd "$session/code" || exit 2
{libraries}started=$(date +%s)
{command}
code=$?
finished=$(date +%s)
[ $code -eq 0 ] || exit $code
if [ -L "$TARMAC_MODEL" ] || [ ! -d "$TARMAC_MODEL" ]; then
    echo "the command removed the folder that TARMAC_MODEL names, or put something else there: write the model into it"
    exit 2
fi
if [ -z "$(ls -A "$TARMAC_MODEL" 2>/dev/null)" ]; then
    echo "the command ended well and left nothing in the folder that TARMAC_MODEL names: write the model there"
    exit 2
fi
seconds=$((finished - started))
device=${{TARMAC_DEVICE:-cpu}}
{{
    printf '{{"score_name": "score", "curve": [], "parameters": {{}}, "seed": %s, "device": "%s", ' {seed} "$device"
    printf '"seconds": %s, "finished": %s, "image": "%s"}}' "$seconds" "$finished" "${{TARMAC_IMAGE:-}}"
}} > "$session/.training.json" || exit 75
mv "$session/.training.json" "$session/training.json" || exit 75
printf '{{"event": "result", "seconds": %s, "seed": %s, "device": "%s"}}\\n' "$seconds" {seed} "$device"
"""


def code_folder(session: Path) -> Path:
    """Where a session keeps its own code. Pure."""
    return session / "code"


def script(run: OwnRun, seed: int) -> str:
    """The shell script that runs a command as the trainer contract asks for. Pure."""
    lines = () if run.requirements is None else libraries.command_lines(run.python or libraries.OUR_PYTHON)
    return _SCRIPT.format(command=shlex.join(run.command), seed=seed, libraries="".join(f"{line}\n" for line in lines))


def prepare(session: Path, run: OwnRun, seed: int, archive: Path | None, *, index: str = "") -> list[str]:
    """Unpack the code, install its libraries, and write the script that runs it. Idempotent.

    Args:
        session: the session's folder.
        run: what the request says.
        seed: the request's.
        archive: a tar file with the code; None: all of it is in the image.
        index: the address of the package index; "": none is asked.

    Returns:
        The libraries that were installed, as `name==version`.

    Raises:
        DataError: the archive is none, or holds more than files and folders; its libraries cannot be had.
        StoreError: the package index does not answer, or the disk is full.
    """
    folder = code_folder(session)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if archive is not None:
        unpacked = unpack(archive, folder)
        events.say(f"code: {counted(unpacked, 'file')}")
    found = []
    if run.requirements is not None:
        found = libraries.install(session, folder, run.requirements, run.python, index=index)
    files.write_durably(session / SCRIPT, script(run, seed).encode())
    return found


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a tar file of regular files and folders, and nothing else; returns how many files.

    Raises:
        DataError: it is none, or a member is something else, or would lie elsewhere.
    """
    count = 0
    try:
        with tarfile.open(archive, "r:") as found:
            for member in found:
                if not (member.isreg() or member.isdir()) or member.issparse():
                    raise DataError(f"the code holds {member.name!r}, which is neither a file nor a folder")
                count += member.isreg()
                if count > MOST_FILES:
                    raise DataError(f"the code has more than {MOST_FILES:,} files: leave data and libraries out")
                found.extract(member, folder, filter="data")
    except tarfile.FilterError as error:
        raise DataError(f"the code holds a name that leads elsewhere: {error}") from error
    except tarfile.TarError as error:
        raise DataError(f"the code is not a tar file that can be read: {error}") from error
    return count


def check_model(folder: Path) -> None:
    """Refuse a model's folder that holds more than files and folders: a link would be followed where it is saved.

    Raises:
        InputError: names what it holds.
    """
    for path, shown in _entries(folder):
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise InputError(f"the model holds {shown!r}, a link or another thing that is not a file: leave files only")


def check_left(folder: Path) -> None:
    """Refuse a model of own code that cannot be saved or loaded, before it is saved; warn of what is doubtful.

    Raises:
        InputError: says what is wrong.
    """
    check_model(folder)
    measured(folder)
    count = 0
    for path, shown in _entries(folder):
        name = os.path.basename(path)
        if not name.isprintable() or len(os.fsencode(name)) > LONGEST_NAME:
            raise InputError(
                f"the model holds {shown[:LONGEST_NAME]!r}: a name must be of at most {LONGEST_NAME} bytes, UTF-8, and "
                "without characters that are not seen"
            )
        is_folder = os.path.isdir(path)
        if not os.access(path, os.R_OK | (os.X_OK if is_folder else 0)):
            raise InputError(f"the model holds {shown!r}, which cannot be read: leave it readable (chmod u+rwX)")
        count += not is_folder
    if count > MANY_FILES:
        events.say(f"warning: the model has {count:,} files, which take long to save and to load: pack them into few")
    predict = folder / PREDICT
    if predict.is_file():
        try:
            compile(predict.read_bytes(), PREDICT, "exec")
        except (SyntaxError, ValueError) as error:
            events.say(f"warning: {PREDICT} is not Python that can be run, so the model cannot predict: {error}")


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    """Each file and folder below a folder: its path, and that below the folder."""
    for here, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = os.path.join(here, name)
            yield path, os.path.relpath(path, folder)


def measured(folder: Path) -> dict[str, float]:
    """The numbers that the code left in `metrics.json` of its model; none where there is no such file.

    Raises:
        InputError: it is not a JSON object of numbers.
    """
    path = folder / METRICS
    if not path.exists():
        return {}
    wanted = f'{METRICS} of the model must be a JSON object such as {{"score": 0.9}}'
    if not path.is_file():
        raise InputError(f"{wanted}, and is a folder")
    repeated: list[str] = []

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        repeated.extend(name for name in [files.repeated_key(pairs)] if name is not None)
        return dict(pairs)

    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{wanted}, and is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(wanted)
    if repeated:
        raise InputError(f"{METRICS} of the model: the key {json.dumps(repeated[0])[:80]} is there twice")
    for name, value in found.items():
        if not _METRIC.fullmatch(name):
            raise InputError(
                f"{METRICS} of the model: {name[:60]!r} is not a name of a metric: take 1 to 100 letters, digits, "
                "blanks and . _ / -, which begin with a letter or digit"
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e300:
            raise InputError(
                f"{METRICS} of the model: {name!r} is {json.dumps(value)[:60]}, and must be a finite number"
            )
    return {str(name): float(value) for name, value in found.items()}
