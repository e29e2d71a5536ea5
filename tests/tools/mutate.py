"""Is the suite sharp? Breaks the code in one place after the other and runs the tests that have to notice.

    make mutate                       every mutation of mutations.toml
    make mutate K=fence               those whose name has these words
    make mutate SUITES="pure trainer" those that these suites have to catch

Each mutation is applied to a copy of the working tree, never to the tree itself. It is caught where the tests fail. One
whose text is not in its file (or there twice) is reported as stale, not as caught. Exit code 0: all were caught.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutations.toml")
# What runs a suite, given pytest's arguments. Each runs in the copy of the tree.
SUITES = {
    "pure": ["tests/check.sh", "pure"],
    "postgres": ["tests/check.sh", "postgres"],
    "trainer": ["tests/check.sh", "trainer"],
}
SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One broken place: in `file`, `old` becomes `new`. `tests`: pytest's arguments for the tests to notice it."""

    name: str
    kind: str
    file: str
    old: str
    new: str
    suite: str
    tests: list[str]


def read(path: Path = LIST) -> list[Mutation]:
    """Return the mutations of a list.

    Raises:
        ValueError: a name is there twice, a suite is unknown, or a mutation changes nothing.
    """
    found = [Mutation(**row) for row in tomllib.loads(path.read_text())["mutation"]]
    names = [each.name for each in found]
    for each in found:
        if names.count(each.name) > 1 or each.suite not in SUITES or each.old == each.new:
            raise ValueError(
                f"{path.name}: the mutation {each.name!r} is there twice, or its suite or its text is wrong."
            )
    return found


def mutated(text: str, mutation: Mutation) -> str | None:
    """Return a file's text with the mutation in it; None where its text is not there exactly once. Pure."""
    return text.replace(mutation.old, mutation.new) if text.count(mutation.old) == 1 else None


def copy_tree(to: Path) -> None:
    """Copy the working tree, without what git ignores."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, names)):
        source, target = REPO / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def judge(tree: Path, mutation: Mutation) -> tuple[str, float]:
    """Apply a mutation to the copy, run its tests, take it back.

    Returns:
        "caught", "survived", "stale" (its text is gone) or "no tests" (its selection finds none); the seconds it took.
    """
    file = tree / mutation.file
    text = file.read_text()
    changed = mutated(text, mutation)
    if changed is None:
        return "stale", 0.0
    environment = {**os.environ, "TARMAC_TOOLS": os.environ.get("TARMAC_TOOLS") or str(REPO / ".venv" / "bin")}
    started = time.monotonic()
    file.write_text(changed)
    try:
        command = [*SUITES[mutation.suite], "-x", *mutation.tests]
        code = subprocess.run(
            command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        code = 1  # a mutation that makes the tests hang is noticed, too
    finally:
        file.write_text(text)
    said = {0: "survived", 5: "no tests", 4: "no tests"}.get(code, "caught")
    return said, time.monotonic() - started


def main() -> int:
    """Judge the chosen mutations; print a line for each and the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="words", default="", help="those whose name has these words")
    parser.add_argument("--suites", default=" ".join(SUITES), help="those that these suites have to catch")
    chosen = parser.parse_args()
    suites = chosen.suites.split()
    selected = [each for each in read() if chosen.words in each.name and each.suite in suites]
    if not selected:
        print("No mutation has such a name or suite.", file=sys.stderr)
        return 2
    results: list[str] = []
    with tempfile.TemporaryDirectory(prefix="tarmac-mutate-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
        for mutation in selected:
            said, seconds = judge(tree, mutation)
            results.append(said)
            print(f"{said:9} {seconds:6.1f} s  {mutation.suite:9} {mutation.kind:16} {mutation.name}", flush=True)
    print(f"{results.count('caught')} of {len(results)} caught")
    return 0 if set(results) == {"caught"} else 1


if __name__ == "__main__":
    sys.exit(main())
