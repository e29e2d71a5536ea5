"""Looks for known vulnerabilities in what the images are made of, and says what it could not look at.

    python tests/tools/audit.py

Python's pinned packages are looked up with pip-audit, in the package index's own list of vulnerabilities; Debian's by
asking apt, inside each image, whether a newer version is out: a security update that an image lacks is a known
vulnerability. A package that could not be looked up counts as not checked, never as good.
Exit codes: 0 nothing known; 1 something is known; 3 nothing is known, but not everything could be checked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbom import images_of_the_stack

LOCKS = ("airflow", "git", "mlflow", "trainer", "trainer-cuda", "trainer-torch", "trainer-torch-cuda", "build")
FOUND, UNCHECKED = 1, 3


@dataclass
class Answer:
    """What is known of one lock or image: how many packages were checked, and sentences about the others."""

    checked: int = 0
    known: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def read_pip_audit(text: str) -> Answer:
    """Read pip-audit's JSON. Pure.

    Where the index has no list of vulnerabilities, pip-audit skips every package, says "No known vulnerabilities found"
    and ends with 0: only a package without `skip_reason` was checked.
    """
    answer = Answer()
    for package in json.loads(text)["dependencies"]:
        if "skip_reason" in package:
            answer.unchecked.append(f"{package['name']} ({package['skip_reason']})")
            continue
        answer.checked += 1
        for one in package["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version"
            answer.known.append(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    return answer


def read_apt(text: str, installed: int) -> Answer:
    """Read `apt-get --simulate dist-upgrade`: lines `Inst NAME [OLD] (NEW ...)`. Pure."""
    answer = Answer(checked=installed)
    for line in text.splitlines():
        if line.startswith("Inst "):
            name, old, new, *source = line.split()[1:]
            answer.known.append(f"{name} {old.strip('[]')}: {new.strip('(')} is out ({' '.join(source).strip('()')})")
    return answer


def code_of(answers: list[Answer]) -> int:
    """Exit code for what was found. Pure."""
    if any(answer.known for answer in answers):
        return FOUND
    return UNCHECKED if any(answer.unchecked for answer in answers) else 0


def audit_lock(path: Path) -> Answer:
    """Look up every package of a lock file; where the index has nothing to say of the first, no other is asked for."""
    pinned = [line.split()[0] for line in path.read_text().splitlines() if "==" in line.partition("#")[0]]
    first = _pip_audit(pinned[:1])
    if first.unchecked:
        return Answer(unchecked=[f"every package, as for {first.unchecked[0]}"])
    return _pip_audit(pinned)


def _pip_audit(pinned: list[str]) -> Answer:
    command = ["pip-audit", "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", "-r", "/dev/stdin"]
    done = subprocess.run(command, input="\n".join(pinned), capture_output=True, text=True, check=False)
    try:
        return read_pip_audit(done.stdout)
    except ValueError:  # no JSON: nothing was looked up
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return Answer(unchecked=[f"{pinned[0].split('==')[0]} ({reason[0][:200]})"])


def audit_image(image: str) -> Answer:
    """Ask apt, in a container of an image, what it would upgrade."""
    script = "apt-get -qq update >&2 && dpkg-query -W | wc -l && apt-get --simulate -qq dist-upgrade"
    command: list[Any] = ["docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # apt-get update ends with 0 where it could fetch nothing, and only warns.
    if done.returncode or "Failed to fetch" in done.stderr or "Some index files failed" in done.stderr:
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return Answer(unchecked=[f"every package ({reason[0][:200]})"])
    count, _, rest = done.stdout.partition("\n")
    return read_apt(rest, int(count))


def show(what: str, answer: Answer) -> None:
    """Print one answer."""
    print(f"{what}: {answer.checked} checked, {len(answer.known)} known, {len(answer.unchecked)} not checked")
    for line in answer.known:
        print(f"  {line}")
    if answer.unchecked:
        more = f" and {len(answer.unchecked) - 3} more" if len(answer.unchecked) > 3 else ""
        print(f"  not checked: {', '.join(answer.unchecked[:3])}{more}")


def main() -> int:
    """Look at all locks and images."""
    answers = []
    for group in LOCKS:
        answers.append(audit_lock(Path(f"requirements-{group}.lock")))
        show(f"requirements-{group}.lock", answers[-1])
    for image in images_of_the_stack():
        answers.append(audit_image(image))
        show(image, answers[-1])
    return code_of(answers)


if __name__ == "__main__":
    sys.exit(main())
