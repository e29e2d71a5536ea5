"""The pages for people: links lead somewhere, the index of decisions and the list of licences are complete."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from tools import notices

REPOSITORY = Path(__file__).parents[2]
DECISIONS = REPOSITORY / "docs/decisions"
LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()]*\))?)\)")


def pages() -> list[Path]:
    """Every Markdown file that git knows or will know, else (no git) every one outside of build folders."""
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={REPOSITORY}", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode == 0:
        found = [REPOSITORY / name for name in listed.stdout.splitlines()]
    else:
        found = [path for path in REPOSITORY.rglob("*.md") if not {".venv", ".cache", "build"} & set(path.parts)]
    return [path for path in found if path.exists()]


def without_code(text: str) -> str:
    """Leave fenced blocks and code spans out: what looks like a link in them is none."""
    text = re.sub(r"^( *)(```+|~~~+).*?^\1\2[^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "`code`", text)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them: lower case, no punctuation, blanks are hyphens."""
    found: set[str] = set()
    text = re.sub(r"^( *)(```+).*?^\1\2[^\n]*$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def broken(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere."""
    problems = []
    for target in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / unquote(name)).resolve() if name else page
        if not file.exists():
            problems.append(f"{target}: there is no such file")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            problems.append(f"{target}: {file.name} has no such heading")
    return problems


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_relative_link_and_anchor_leads_somewhere(page: Path):
    assert broken(page) == []


def odd_headings(text: str) -> list[str]:
    """The headings that a text runs on from, or runs into: a part of the page is lost there."""
    lines = ["", *re.sub(r"^( *)(```+).*?^\1\2[^\n]*$", "", text, flags=re.MULTILINE | re.DOTALL).splitlines(), ""]
    return [
        line
        for before, line, after in zip(lines, lines[1:], lines[2:], strict=False)
        if re.match(r"#{1,6} ", line) and (before or after or ". " in line.lstrip("# "))
    ]


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_text_runs_on_from_a_heading(page: Path):
    assert odd_headings(page.read_text()) == []


def test_a_heading_that_text_runs_on_from_is_found():
    assert odd_headings("# One\n\n```\n# code\nx\n```\n\n## Cancelt to its end. It is 0 for\nsuccess.\n") == [
        "## Cancelt to its end. It is 0 for"
    ]


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# One thing\n[a](#one-thing) [b](#other) [c](gone.md) [d](https://example.org) `[e](f.md)`\n")
    assert broken(page) == ["#other: page.md has no such heading", "gone.md: there is no such file"]


def test_the_index_of_decisions_agrees_with_the_files():
    files = {}
    for path in sorted(DECISIONS.glob("[0-9]*.md")):
        text = path.read_text()
        found = re.match(
            r"# (\d{4}): (.+)\n\n- Status: (.+)\n- Date: (\d{4}-\d\d-\d\d)(?:, last changed (\d{4}-\d\d-\d\d))?\n", text
        )
        assert found, f"{path.name} starts with a title, then the lines Status and Date"
        number, title, status, date, changed = found.groups()
        assert path.name.startswith(f"{number}-")
        files[path.name] = (number, title, status, date, changed or "")
    rows = re.findall(
        r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+?) \| (.+?) \| (\d{4}-\d\d-\d\d) \| *(\d{4}-\d\d-\d\d)? *\|$",
        (DECISIONS / "README.md").read_text(),
        flags=re.MULTILINE,
    )
    assert {
        name: (number, title, status, date, changed) for number, name, title, status, date, changed in rows
    } == files


def test_a_decision_s_number_means_one_thing():
    numbers = [path.name[:4] for path in DECISIONS.glob("[0-9]*.md")]
    assert sorted(numbers) == sorted(set(numbers))


@pytest.mark.parametrize("image", notices.IMAGES)
def test_the_licence_of_each_package_that_an_image_carries_is_listed(image: str):
    text = (REPOSITORY / "THIRD-PARTY-NOTICES.md").read_text().split("## Python packages\n")[1]
    rows = re.findall(
        r"^\| (?:\[([^\]]+)\]\([^)]*\)|([^|\[]+)) \| (\S+) \| (.+?) \| (.+) \|$", text, flags=re.MULTILINE
    )
    listed = {((linked or plain).lower().replace("_", "-"), version): (licence, images.split(", "))
              for linked, plain, version, licence, images in rows}  # fmt: skip
    pinned = notices.pins((REPOSITORY / f"requirements-{image}.lock").read_text())
    assert pinned
    missing = [
        f"{name} {version}"
        for name, version in pinned
        if image not in listed.get((name.lower().replace("_", "-").replace(".", "-"), version), ("", []))[1]
        and image not in listed.get((name.lower().replace("_", "-"), version), ("", []))[1]
    ]
    assert missing == [], "write the page anew: make notices"


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"license_expression": "MIT", "license": "whatever"}, "MIT"),
        ({"classifier": ["License :: OSI Approved :: MIT License", "Topic :: X"]}, "MIT License"),
        ({"classifier": ["License :: OSI Approved"], "license": "BSD 3-Clause\n\nCopyright"}, "BSD 3-Clause"),
        ({}, "not stated in its metadata; see its files"),
    ],
)
def test_a_licence_is_what_the_package_says_it_is(metadata: dict[str, object], licence: str):
    assert notices.license_of(metadata) == licence


SUBJECTS: dict[str, tuple[str, str, list[str]]] = {
    "adding a user": (
        "docs/install.md",
        "Users",
        ["airflow users create", "--role User", "users reset-password", "users delete", "single sign-on"],
    ),
    "upgrading": ("docs/install.md", "Upgrade", ["make backup", "make down", "make up", "To go back"]),
    "cancelling": ("docs/operations.md", "Cancelling a session", ["make cancel RUN=", "who cancelled it"]),
    "several users": ("docs/operations.md", "Several users", ["There is no quota", "a stack each", "Who may read"]),
    "removing": (
        "docs/operations.md",
        "Remove what is no longer needed",
        ["| a run |", "| a model or a version |", "tarmac data rm", "| everything |", "There is no command"],
    ),
    "removing a model": (
        "docs/models.md",
        "Remove a model",
        ["tarmac models rm", "mlflow gc", "| the version in production |"],
    ),
    "scheduling": (
        "docs/train-your-own.md",
        "On a schedule",
        [
            "start sessions on a schedule, or cron does",
            "Start it on a schedule",
            "make trigger CONFIG=req.json FOLLOW=0 KEY=",
            "TriggerDagRunOperator",
        ],
    ),
}
"""What a person who runs a stack looks for: the page, its section, and what that has to say, the limits included."""


def section(page: Path, heading: str) -> str:
    """What stands below a heading of a page, up to the next of its rank; empty: there is none."""
    _, _, below = f"\n{page.read_text()}".partition(f"\n## {heading}\n")
    return below.partition("\n## ")[0]


@pytest.mark.parametrize(("page", "heading", "words"), SUBJECTS.values(), ids=SUBJECTS)
def test_what_one_does_with_a_stack_has_a_section_that_says_it(page: str, heading: str, words: list[str]):
    found = " ".join(section(REPOSITORY / page, heading).split())
    assert [word for word in words if word not in found] == [], f"{page}, {heading}"
    assert f"]({page})" in (REPOSITORY / "README.md").read_text(), "the page is in README's table"
