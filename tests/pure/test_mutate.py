"""The mutation tool: its list fits the code, and what it reports is what happened."""

import pytest
from mutate import REPO, Mutation, mutated, read


def one(**fields: str) -> Mutation:
    known = {"name": "n", "kind": "k", "file": "f", "old": "a < b", "new": "a <= b", "suite": "pure"}
    return Mutation(**(known | fields), tests=[])


def test_a_mutation_changes_the_one_place():
    assert mutated("if a < b:", one()) == "if a <= b:"


@pytest.mark.parametrize("text", ["if a > b:", "a < b or a < b"], ids=["gone", "twice"])
def test_a_text_that_is_not_there_once_is_stale(text: str):
    assert mutated(text, one()) is None


def test_at_least_forty_places_and_each_is_in_the_code():
    found = read()
    assert len(found) >= 40
    stale = [each.name for each in found if mutated((REPO / each.file).read_text(), each) is None]
    assert stale == [], "change the mutation with the code that it breaks"


def test_the_tests_that_have_to_notice_exist():
    paths = [REPO / argument for each in read() for argument in each.tests if argument.startswith("tests/")]
    assert [path for path in paths if not path.exists()] == []
