"""What `make release` refuses; the two tests that it runs exist under the names it calls them by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import release

REPOSITORY = Path(__file__).parents[2]
CUT = "# Changelog\n\n## 1.2.0, 2026-12-01\n\n- Something new.\n\n## 1.1.0, 2026-11-01\n\n- Something old.\n"


def test_a_version_that_is_stated_once_or_equally_is_right():
    assert list(release.version_problems("1.2.0", {})) == []
    assert list(release.version_problems("1.2.0", {"images/x/Dockerfile": "1.2.0"})) == []


@pytest.mark.parametrize(
    ("version", "stated", "problem"),
    [
        ("1.2", {}, "'1.2' is not of the form"),
        ("1.2.0", {"images/x/Dockerfile": "1.1.0"}, "images/x/Dockerfile: states version 1.1.0"),
    ],
)
def test_a_version_that_is_wrong_is_told(version: str, stated: dict[str, str], problem: str):
    assert problem in "".join(release.version_problems(version, stated))


def test_a_changelog_that_is_cut_is_right():
    assert list(release.changelog_problems(CUT, "1.2.0")) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CUT.replace("2026-12-01", "unreleased"), "'1.2.0, unreleased' is not cut"),
        (CUT.replace("## 1.2.0, 2026-12-01\n\n- Something new.\n\n", ""), "the first section is '1.1.0, 2026-11-01'"),
        (CUT.replace("- Something new.\n", ""), "says nothing"),
        (CUT.replace("1.1.0", "1.2.0"), "two sections"),
        ("# Changelog\n", "has no section"),
    ],
)
def test_a_changelog_that_is_not_ready_is_told(text: str, problem: str):
    assert problem in "".join(release.changelog_problems(text, "1.2.0"))


def test_a_migration_without_its_other_direction_is_told(tmp_path: Path):
    for name in ("0001_a.up.sql", "0001_a.down.sql", "0002_b.up.sql"):
        (tmp_path / name).touch()
    assert [problem.split("/")[-1] for problem in release.migration_problems(tmp_path)] == [
        "0002_b.up.sql: there is no 0002_b.down.sql."
    ]
    assert list(release.migration_problems(REPOSITORY / "plugins/tarmac/ledger/migrations")) == []


@pytest.mark.parametrize(("suite", "name"), [("postgres", release.MIGRATION_TEST), ("faults", release.UPGRADE_TEST)])
def test_the_tests_that_a_release_rests_on_exist(suite: str, name: str):
    assert any(f"def {name}(" in path.read_text() for path in (REPOSITORY / "tests" / suite).glob("test_*.py"))


def test_all_versions_agree_now():
    version = release.tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert list(release.version_problems(version, release.stated_versions())) == []
