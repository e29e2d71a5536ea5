"""A person's own code that trains in place of a trainer, in an image of its choice: what `prep` makes ready for it.

The image need not know Tarmac. `prep` leaves the code in `code/` and a shell script, which is the entrypoint of the
training's container: it runs the command, and says of it what the trainer contract asks for. What the command leaves in
`model/` is only ever handled as files by what has a network or credentials.
"""

import json
import os
import shlex
import shutil
import stat
import tarfile
from pathlib import Path

from tarmac_trainer.runtime import events, files
from tarmac_trainer.runtime.errors import DataError, InputError
from tarmac_trainer.runtime.request import OwnRun

SCRIPT = "own_code.sh"
MOST_FILES = 10_000

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
started=$(date +%s)
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
    return _SCRIPT.format(command=shlex.join(run.command), seed=seed)


def prepare(session: Path, run: OwnRun, seed: int, archive: Path | None) -> None:
    """Unpack the code and write the script that runs it. Idempotent.

    Args:
        session: the session's folder.
        run: what the request says.
        seed: the request's.
        archive: a tar file with the code; None: all of it is in the image.

    Raises:
        DataError: the archive is none, or holds more than files and folders.
    """
    folder = code_folder(session)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if archive is not None:
        unpacked = unpack(archive, folder)
        events.say(f"code: {unpacked:,} {'file' if unpacked == 1 else 'files'}")
    files.write_durably(session / SCRIPT, script(run, seed).encode())


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
        raise DataError(f"the code is no tar file that can be read: {error}") from error
    return count


def check_model(folder: Path) -> None:
    """Refuse a model's folder that holds more than files and folders: a link would be followed where it is saved.

    Raises:
        InputError: names what it holds.
    """
    for here, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            mode = os.lstat(os.path.join(here, name)).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                shown = os.path.relpath(os.path.join(here, name), folder)
                raise InputError(
                    f"the model holds {shown!r}, a link or another thing that is no file: leave files only"
                )


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
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{wanted}, and is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(wanted)
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e300:
            raise InputError(f"{METRICS} of the model: {name!r} is {json.dumps(value)[:60]}, and must be a number")
    return {str(name): float(value) for name, value in found.items()}
