"""The catalogue: what a parameter may be. test_trainer_agrees.py compares it with the trainer."""

from pathlib import Path

import pytest

from tarmac.request.catalogue import OURS, Parameter, catalogue, combine, parse

WHOLE = Parameter("int", 1, 10)
NUMBER = Parameter("number", 0, 0.9)
CHOICE = Parameter("choice", choices=(None, "prep"))
WORD = Parameter("word")

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
    "the code of a language": (WORD, "pt-BR", True),
    "null for a word": (WORD, None, True),
    "two words": (WORD, "in French", False),
    "a number for a word": (WORD, 3, False),
    "a long word": (WORD, 36 * "a", False),
}


@pytest.mark.parametrize(("parameter", "value", "fine"), VALUES.values(), ids=VALUES.keys())
def test_a_value_is_taken_or_refused_with_what_is_allowed(parameter: Parameter, value: object, fine: bool):
    problem = parameter.problem(value)
    assert (problem is None) is fine
    if problem:
        assert problem.startswith("must be ")


def test_each_model_has_a_score_that_ranks_it():
    for name, model in combine([("ours", OURS.read_bytes())]).models.items():
        assert model.score, name
        assert model.title, name


def test_each_parameter_of_ours_is_explained_in_the_docs_as_in_the_forms():
    page = (Path(__file__).parents[2] / "docs/train-your-own.md").read_text().splitlines()
    for name, model in combine([("ours", OURS.read_bytes())]).models.items():
        transformer = model.transformer.parameters.items() if model.transformer else ()
        for key, one in (*model.parameters.items(), *transformer):
            assert one.help, f"{name}.{key}"
            begin, end = f"| `{key}` | {one.range_text()} |", f"| {one.help} |"
            found = any(line.startswith(begin) and line.endswith(end) for line in page)
            assert found or name == "test_model", f"docs/train-your-own.md lacks of {name}: {begin} ... {end}"


TEAM = b"""
[word_count]
title = "Counts words"
score = "coverage"
image = "team/word-count:3"
command = ["/bin/sh", "/trainer.sh"]
gpu_memory = "2GiB"
memory = "512MiB"
parameters.top = { type = "int", low = 1, high = 100, default = 10, help = "words that are listed" }
parameters.case = { type = "choice", choices = ["lower", "keep"], default = "lower" }
"""


def test_a_team_s_trainer_is_read():
    models, problems = parse(TEAM, "team.toml")
    assert problems == []
    model = models["word_count"]
    assert (model.image, model.command, model.score) == ("team/word-count:3", ("/bin/sh", "/trainer.sh"), "coverage")
    assert (model.gpu_memory_bytes, model.memory_bytes) == (2 * 1024**3, 512 * 1024**2)
    assert model.parameters["top"] == Parameter("int", 1, 100, default=10, help="words that are listed")
    assert model.parameters["case"].choices == (None, "lower", "keep")


PROBLEMS = {
    "no TOML": (b"[word_count", "team.toml is not TOML"),
    "no text": (b"\xff\xfe", "team.toml is not TOML"),
    "a value outside a table": (b"title = 'x'", "'title' must be a table"),
    "a name with capitals": (b"[WordCount]\ntitle = 'x'", "'WordCount' must be a table"),
    "no image": (b"[a]\ntitle = 'x'\nscore = 'f1'", "a.image: is required and missing."),
    "an unknown key": (b"[a]\ntitle = 'x'\nscore = 'f1'\nimage = 'i'\ncolour = 1", "a.colour: unknown key; remove it"),
    "a size that is none": (b"[a]\ntitle = 'x'\nscore = 'f1'\nimage = 'i'\nmemory = 'big'", "a.memory: "),
    "a parameter of no type": (
        b"[a]\ntitle = 'x'\nscore = 'f1'\nimage = 'i'\nparameters.n = {low = 1}", "a.parameters.n.type: is required"
    ),
    "a default out of bounds": (
        b"[a]\ntitle = 'x'\nscore = 'f1'\nimage = 'i'\nparameters.n = {type='int', low=1, high=2, default=3}",
        "a.parameters.n: its default must be a whole number from 1 to 2",
    ),
    "a choice of nothing": (
        b"[a]\ntitle = 'x'\nscore = 'f1'\nimage = 'i'\nparameters.n = {type='choice'}", "a choice needs choices"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_a_broken_file_says_what_is_wrong_and_takes_nothing_else_away(content: bytes, reason: str):
    found = combine([("ours", OURS.read_bytes()), ("team.toml", content), ("more.toml", TEAM)])
    assert reason in " ".join(found.problems)
    assert {"named_entity_recognition", "word_count"} <= set(found.models)


def test_a_team_cannot_take_a_name_of_ours():
    content = b"[test_model]\ntitle = 'x'\nscore = 'f1'\nimage = 'evil'"
    found = combine([("ours", OURS.read_bytes()), ("team.toml", content)])
    assert found.models["test_model"].image == "tarmac"
    assert "'test_model' is taken" in found.problems[0]


def test_a_new_file_counts_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TARMAC_TRAINERS_DIR", str(tmp_path))
    assert "word_count" not in catalogue().models
    (tmp_path / "team.toml").write_bytes(TEAM)
    assert "word_count" in catalogue().models
    (tmp_path / "team.toml").unlink()
    assert "word_count" not in catalogue().models


def test_a_file_that_cannot_be_read_is_named_and_takes_no_other_model_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TARMAC_TRAINERS_DIR", str(tmp_path))
    (tmp_path / "team.toml").write_bytes(TEAM)
    (tmp_path / "gone.toml").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop.toml").symlink_to(tmp_path / "loop.toml")
    (tmp_path / "folder.toml").mkdir()
    found = catalogue()
    assert {"named_entity_recognition", "word_count"} <= set(found.models)
    assert [problem.partition(" (")[0] for problem in found.problems] == [
        "folder.toml cannot be read",
        "gone.toml cannot be read",
        "loop.toml cannot be read",
    ]
    assert "a link to a file that is not there" in found.problems[1]
    (tmp_path / "nothing").write_text("")
    assert len(catalogue().problems) == 2, "a link counts as soon as its file is there"
