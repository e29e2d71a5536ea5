"""Says whether this commit can be released; changes nothing. docs/release.md has the steps around it.

    python tests/tools/release.py [--quick]         `make release` (QUICK=1)

--quick leaves out the two checks that run something: migrations on a Postgres, and the upgrade test.
Exit code 0: everything that was checked holds; 1: something does not, and each such thing is said.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
UPGRADE_TEST = "test_make_up_with_other_images_leaves_a_training_alone_and_finishes_it"
"""In tests/faults: every service is made anew from other images while a session trains."""
MIGRATION_TEST = "test_down_to_nothing_leaves_nothing_and_up_again_makes_the_same"
"""In tests/postgres: all migrations up, down and up again on a real Postgres."""

VERSION = re.compile(r"\d+\.\d+\.\d+(?:rc\d+)?")
_STATED = {
    "images/*/Dockerfile": re.compile(r"^ARG VERSION=(\S+)", re.MULTILINE),
    "images/trainer/tarmac_trainer/__init__.py": re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE),
    "client/pyproject.toml": re.compile(r'^version = "([^"]+)"', re.MULTILINE),
}
"""Where else a version may be stated. What is not there, or takes it from pyproject.toml, cannot disagree."""


def version_problems(version: str, stated: Mapping[str, str]) -> Iterator[str]:
    """Say what is wrong with the project's version. Pure.

    Args:
        version: of pyproject.toml.
        stated: by the name of each other file, the version that it states.
    """
    if not VERSION.fullmatch(version):
        yield f"pyproject.toml: the version {version!r} is not of the form 1.2.3 or 1.2.3rc1."
    for name, other in sorted(stated.items()):
        if other != version:
            yield f"{name}: states version {other}, pyproject.toml states {version}: make them equal."


def changelog_problems(text: str, version: str) -> Iterator[str]:
    """Say what is wrong with the changelog for a version that is to be released. Pure."""
    parts = re.split(r"^## +(.+)$", text, flags=re.MULTILINE)
    sections = list(zip(parts[1::2], parts[2::2], strict=True))
    if not sections:
        yield "CHANGELOG.md: has no section `## 1.2.3, 2026-01-31`."
        return
    heading, body = sections[0]
    if not heading.startswith(f"{version},"):
        yield f"CHANGELOG.md: the first section is {heading!r}, not the one of {version}: add it."
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", heading.split(",", 1)[1].strip()):
        yield f"CHANGELOG.md: {heading!r} is not cut: write the day, `## {version}, YYYY-MM-DD`."
    if not re.search(r"^- \S", body, re.MULTILINE):
        yield f"CHANGELOG.md: the section {heading!r} says nothing."
    names = [name.split(",")[0].strip() for name, _ in sections]
    if len(names) != len(set(names)):
        yield "CHANGELOG.md: a version has two sections."


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-c", f"safe.directory={REPOSITORY}", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def git_problems(version: str) -> Iterator[str]:
    """Say what keeps the working tree from being tagged. Reads the repository and, where there is one, its origin."""
    status = _git("status", "--porcelain")
    if status.returncode:
        yield f"git: {status.stderr.strip()}"
        return
    if status.stdout:
        yield f"The working tree is not clean: commit or remove these:\n{status.stdout.rstrip()}"
    if _git("tag", "--list", f"v{version}").stdout:
        yield f"The tag v{version} exists: raise the version in pyproject.toml."
    if _git("remote", "get-url", "origin").returncode == 0:
        asked = _git("ls-remote", "--tags", "origin", f"refs/tags/v{version}")
        if asked.returncode:
            yield f"origin does not answer, so nothing is known of its tags: {asked.stderr.strip()}"
        elif asked.stdout:
            yield f"The tag v{version} exists at origin: raise the version in pyproject.toml."


def migration_problems(folder: Path) -> Iterator[str]:
    """Say which migrations lack a direction. The test that runs them comes after this."""
    names = {path.name for path in folder.glob("*.sql")}
    for name in sorted(names):
        other = name.replace(".up.sql", ".down.sql") if name.endswith(".up.sql") else name.replace(".down.", ".up.")
        if other not in names:
            yield f"{folder.name}/{name}: there is no {other}."
    if not names:
        yield f"{folder}: there are no migrations."


def test_problems() -> Iterator[str]:
    """Run the tests that a release rests on; say which failed or are not there. Shows their output."""
    for suite, name, runner in (
        ("postgres", MIGRATION_TEST, ["tests/check.sh", "postgres"]),
        ("faults", UPGRADE_TEST, ["tests/run.sh", "faults"]),
    ):
        if not any(f"def {name}(" in path.read_text() for path in (REPOSITORY / "tests" / suite).glob("test_*.py")):
            yield f"tests/{suite} has no test {name}: tell tests/tools/release.py its new name."
            continue
        print(f"Running {name} ...", flush=True)
        if subprocess.run([*runner, "-k", name], cwd=REPOSITORY).returncode:
            yield f"tests/{suite}: {name} failed; its output is above."


def stated_versions() -> dict[str, str]:
    """Return the version of each other file that states one."""
    found = {}
    for pattern, expression in _STATED.items():
        for path in sorted(REPOSITORY.glob(pattern)):
            if match := expression.search(path.read_text()):
                found[str(path.relative_to(REPOSITORY))] = match[1]
    return found


def main(*arguments: str) -> int:
    """Check all of it, say what does not hold; return the exit code."""
    if set(arguments) - {"--quick"}:
        print(__doc__, file=sys.stderr)
        return 2
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    problems = [
        *version_problems(version, stated_versions()),
        *git_problems(version),
        *changelog_problems((REPOSITORY / "CHANGELOG.md").read_text(), version),
        *migration_problems(REPOSITORY / "plugins/tarmac/ledger/migrations"),
    ]
    if "--quick" not in arguments:
        problems += test_problems()
    for problem in problems:
        print(f"- {problem}", file=sys.stderr)
    if problems:
        print(f"Version {version} cannot be released: {len(problems)} of the checks do not hold.", file=sys.stderr)
        return 1
    if "--quick" in arguments:
        print(f"Version {version}: the quick checks hold. Migrations and the upgrade were not run: make release")
        return 0
    print(f"Version {version} can be released:\n  git tag -a v{version} -m 'Tarmac {version}'")
    print(f"  git push origin v{version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
