"""The catalogue: what a parameter may be. Its likeness to the trainer is shown in tests/integration."""

import pytest

from tarmac.catalogue import MODELS, Parameter

WHOLE = Parameter("int", 1, 10)
NUMBER = Parameter("number", 0, 0.9)
CHOICE = Parameter("choice", choices=(None, "prep"))

VALUES = {
    "the lowest whole number": (WHOLE, 1, True),
    "the highest whole number": (WHOLE, 10, True),
    "one below the lowest": (WHOLE, 0, False),
    "one above the highest": (WHOLE, 11, False),
    "a float for a whole number": (WHOLE, 2.5, False),
    "true for a whole number": (WHOLE, True, False),
    "a string for a whole number": (WHOLE, "2", False),
    "null for a whole number": (WHOLE, None, False),
    "zero as a number": (NUMBER, 0, True),
    "the highest number": (NUMBER, 0.9, True),
    "just above the highest number": (NUMBER, 0.9000001, False),
    "infinity": (NUMBER, float("inf"), False),
    "nan": (NUMBER, float("nan"), False),
    "a list for a number": (NUMBER, [0], False),
    "a word that is a choice": (CHOICE, "prep", True),
    "null that is a choice": (CHOICE, None, True),
    "another word": (CHOICE, "train", False),
    "false for a choice": (CHOICE, False, False),
}


@pytest.mark.parametrize(("parameter", "value", "fine"), VALUES.values(), ids=VALUES.keys())
def test_a_value_is_taken_or_refused_with_what_is_allowed(parameter: Parameter, value: object, fine: bool):
    problem = parameter.problem(value)
    assert (problem is None) is fine
    if problem:
        assert problem.startswith("must be ")


def test_each_model_has_a_score_that_ranks_it():
    for name, model in MODELS.items():
        assert model.score, name
        assert model.title, name
