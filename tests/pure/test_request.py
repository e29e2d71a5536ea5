"""A request is accepted, or refused with one sentence for every bad field: its path, its value, what to do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tarmac.base.errors import RequestError
from tarmac.base.units import gpu_bytes
from tarmac.request import text
from tarmac.request.catalogue import catalogue
from tarmac.request.form import EXAMPLE_DATASETS, field_descriptions, form_defaults, form_schema
from tarmac.request.schema import parse_request, read_request, request_problems
from tarmac.request.text import key_text, read_json, short

ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
STORED = f"{ID}/{ID}.jsonl"
SCRIPT = f"{ID}/{ID}.py"
NER = "named_entity_recognition"
GOOD = {"model": "test_model", "datasets": {"tiny": {"train": STORED, "eval": None}}}
DEEP = 5_000


CODE = f"{ID}/{ID}.tar"
OWN = {**GOOD, "model": "own_code", "run": {"command": ["python", "train.py"], "code": CODE}}


def with_run(**more: object) -> dict:
    return {**OWN, "run": {**OWN["run"], **more}}


def with_train(reference: object) -> dict:
    return {**GOOD, "datasets": {"tiny": {"train": reference}}}


def with_parameters(**parameters: object) -> dict:
    return {**GOOD, "parameters": parameters}


def for_ner(**parameters: object) -> dict:
    return {**GOOD, "model": "named_entity_recognition", "parameters": parameters}


def problems_of(conf: object) -> list[str]:
    with pytest.raises(RequestError) as refused:
        parse_request(conf)
    return refused.value.problems


def test_more_gpus_than_a_trainer_uses_are_refused_and_not_reserved_for_nothing():
    asked = {**GOOD, "model": NER, "gpu": True, "resources": {"gpus": 2}}
    assert request_problems(asked) == [
        "resources.gpus: named_entity_recognition trains on one GPU, and others would be reserved and idle (got 2)."
    ]
    fine = (
        {**asked, "gpu": False}, {**asked, "model": "test_model"}, {**asked, "resources": {"gpus": 1}},
        {**asked, "script": SCRIPT},
    )  # fmt: skip
    for one in fine:
        assert request_problems(one) == []


def test_defaults_are_filled_in():
    request = parse_request({"model": "test_model", "datasets": {"tiny": {"train": STORED}}})
    assert request.model_dump(mode="json") == {
        "model": "test_model",
        "datasets": {"tiny": {"train": STORED, "eval": None}},
        "gpu": False,
        "seed": 0,
        "priority": 0,
        "resources": {
            "gpu_memory": None,
            "memory": None,
            "cpus": None,
            "host": None,
            "gpus": 1,
            "policy": "packed",
            "max_wait_seconds": 28800,
            "stall_seconds": 300,
        },
        "script": None,
        "run": None,
        "parameters": {},
        "name": None,
        "base_model": None,
        "no_cache": False,
        "promote": "never",
    }


ACCEPTED = {
    "an id of 44 characters": with_train(STORED),
    "an id of 43 characters": with_train(f"{'A' * 43}/{'A' * 43}.jsonl"),
    "a URL of an object store": with_train("s3://bucket/folder/data.jsonl"),
    "a file URL": with_train("file:///files/data.jsonl"),
    "a script": {**GOOD, "model": NER, "script": SCRIPT},
    "code of one's own": OWN,
    "code that is in the image": {**OWN, "run": {"command": ["train"], "image": "tarmac/trainer:latest"}},
    "code of a commit, with libraries": with_run(
        git="https://git.example/x@0123", requirements="needs/requirements.txt", python="3.11"
    ),
    "a URL with letters of other alphabets": with_train("s3://bucket/données-データ.jsonl"),
    "an eval set of its own": {**GOOD, "datasets": {"tiny": {"train": STORED, "eval": "s3://bucket/eval.jsonl"}}},
    "32 data sets": {**GOOD, "datasets": {f"set-{i}": {"train": STORED} for i in range(32)}},
    "a data set name of 64 characters": {**GOOD, "datasets": {"a" * 64: {"train": STORED}}},
    "a GPU": {**GOOD, "gpu": True},
    "a name of its own": {**GOOD, "name": "news-ner_2.1"},
    "a version to train on from": {**GOOD, "base_model": "news-ner/12"},
    "what is in production to train on from": {**GOOD, "base_model": "news-ner@production"},
    "what a run saved to train on from": {**GOOD, "base_model": "run:manual__2026-11-24T08:30:00.123+00:00"},
    "training anew, promoted by the rule": {**GOOD, "no_cache": True, "promote": "auto"},
    "the highest seed": {**GOOD, "seed": 2**32 - 1},
    "the lowest training time": with_parameters(train_seconds=0),
    "the longest training time": with_parameters(train_seconds=86_400),
    "a fraction where a number is asked for": with_parameters(train_seconds=0.5),
    "parameters of the entity model": for_ner(max_steps=1, dropout=0.9, learn_rate=1e-6, batch_size=32),
}


@pytest.mark.parametrize("conf", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_good_request_is_accepted_as_sent(conf: dict):
    accepted = parse_request(conf).model_dump(mode="json", exclude_unset=True)
    assert accepted == conf


def test_null_is_as_if_the_parameter_were_left_out():
    assert parse_request(with_parameters(train_seconds=None, fail=None)).parameters == {}
    with pytest.raises(RequestError, match="parameters.bogus: unknown for test_model"):
        parse_request(with_parameters(bogus=None))
    with pytest.raises(RequestError, match="parameters.bogus: no model takes it"):
        parse_request({**with_parameters(bogus=None, train_seconds=None), "model": "none"})


def test_a_character_that_is_not_seen_is_written_out_in_a_message():
    assert short("ü\u200b\u202e") == r"'ü\u200b\u202e'"
    assert short(["ü\u200b"]) == r'["ü\u200b"]'
    assert key_text("größe\u200b") == r"größe\u200b"


# (the request, the path of the bad field, the value as the message shows it, what the message tells to do)
REFUSED = {
    "not an object": ("train!", "request", "'train!'", "must be a JSON object"),
    "nothing at all": (None, "request", "null", "must be a JSON object"),
    "a list": ([GOOD], "request", '[{"model"', "must be a JSON object"),
    "no model": ({"datasets": GOOD["datasets"]}, "model", "", "is required"),
    "no data sets": ({"model": "test_model"}, "datasets", "", "is required"),
    "an unknown model": ({**GOOD, "model": "gpt"}, "model", "'gpt'", "must be one of named_entity_recognition, "),
    "own code without what to run": ({**GOOD, "model": "own_code"}, "run", '"command"', "is required"),
    "a command that is one text": (with_run(command="python"), "run.command", "'python'", "list"),
    "a command without a word": (with_run(command=[]), "run.command", "[]", "at least 1 entry"),
    "a word of a command that is a number": (with_run(command=["a", 3]), "run.command.1", "3", "must be a text"),
    "code that is a script": (with_run(code=SCRIPT), "run.code", "AF4japp", "data push --code"),
    "an image that nobody allowed": (with_run(image="evil/x"), "run.image", "'evil/x'", "allows no other image"),
    "a commit that nobody packed": (
        with_run(code=None, git=".@HEAD"),
        "run.git",
        "'.@HEAD'",
        "git is of run.code, which is missing: `tarmac run`",
    ),
    "libraries without code": (
        with_run(code=None, requirements="a.txt"),
        "run.requirements",
        "'a.txt'",
        "is of run.code, which is missing",
    ),
    "libraries elsewhere": (with_run(requirements="../a.txt"), "run.requirements", "'../a.txt'", "a file in the code"),
    "libraries by a whole path": (
        with_run(requirements="/a.txt"),
        "run.requirements",
        "'/a.txt'",
        "a file in the code",
    ),
    "a Python that is none": (with_run(requirements="a", python="py3"), "run.python", "'py3'", "such as 3.11"),
    "a Python for nothing": (with_run(python="3.11"), "run.python", "'3.11'", "says for which Python run.requirements"),
    "a key of own code that there is not": (with_run(args=[]), "run.args", "unknown key", "remove it"),
    "own code with a model of the trainer's": ({**OWN, "model": NER}, "run", "command", "only the model own_code"),
    "a script of no store": ({**GOOD, "model": NER, "script": "train.py"}, "script", "'train.py'", "make script"),
    "a data set as a script": ({**GOOD, "model": NER, "script": STORED}, "script", "AF4japp", "make script"),
    "a script where none runs": ({**GOOD, "script": SCRIPT}, "script", "AF4japp", "runs no scripts"),
    "a model that is a number": ({**GOOD, "model": 7}, "model", "7", "must be a text"),
    "a model in capitals": ({**GOOD, "model": "TEST_MODEL"}, "model", "'TEST_MODEL'", "must be one of"),
    "gpu as the word yes": ({**GOOD, "gpu": "yes"}, "gpu", "'yes'", "must be true or false"),
    "gpu as 1": ({**GOOD, "gpu": 1}, "gpu", "1", "must be true or false"),
    "a seed with a fraction": ({**GOOD, "seed": 1.5}, "seed", "1.5", "must be a whole number"),
    "a seed that is true": ({**GOOD, "seed": True}, "seed", "true", "must be a whole number"),
    "a seed below zero": ({**GOOD, "seed": -1}, "seed", "-1", "must be at least 0"),
    "a seed too high": ({**GOOD, "seed": 2**32}, "seed", "4294967296", "must be at most 4294967295"),
    "an unknown key": ({**GOOD, "epochs": 3}, "epochs", "", "unknown key; remove it or check its spelling"),
    "an unknown key in a data set": (
        {**GOOD, "datasets": {"tiny": {"train": STORED, "test": STORED}}},
        "datasets.tiny.test",
        "",
        "unknown key",
    ),
    "data sets as a list": ({**GOOD, "datasets": [STORED]}, "datasets", STORED[:40], "must be a JSON object"),
    "no data set at all": ({**GOOD, "datasets": {}}, "datasets", "{}", "at least 1"),
    "33 data sets": (
        {**GOOD, "datasets": {f"set-{i}": {"train": STORED} for i in range(33)}},
        "datasets",
        "",
        "at most 32",
    ),
    "a data set that is a string": (
        {**GOOD, "datasets": {"tiny": STORED}},
        "datasets.tiny",
        STORED[:40],
        "JSON object",
    ),
    "a data set without train": ({**GOOD, "datasets": {"tiny": {"eval": None}}}, "datasets.tiny.train", "", "required"),
    "train as null": (with_train(None), "datasets.tiny.train", "null", "must be a text"),
    "train as an empty string": (with_train(""), "datasets.tiny.train", "''", "must not be empty"),
    "train as a bare path": (with_train("data.jsonl"), "datasets.tiny.train", "'data.jsonl'", "make dataset FILE="),
    "a path that climbs": (with_train("../../etc/passwd"), "datasets.tiny.train", "'../../etc/passwd'", "make dataset"),
    "an id that climbs": (with_train(f"../{ID}/{ID}.jsonl"), "datasets.tiny.train", "'../AF4", "make dataset"),
    "a URL that climbs": (
        with_train("s3://b/../c.jsonl"),
        "datasets.tiny.train",
        "'s3://b/../c.jsonl'",
        "without '..'",
    ),
    "a URL that climbs in disguise": (
        with_train("file:///files/%2e%2E/etc/passwd"),
        "datasets.tiny.train",
        "'file:///files/%2e%2E/etc/passwd'",
        "s3://bucket",
    ),
    "a file system inside another": (
        with_train("s3://b/x::file:///etc/passwd"),
        "datasets.tiny.train",
        "'s3://b/x::file:///etc/passwd'",
        "s3://bucket",
    ),
    "a URL whose host is no address": (with_train("s3://[b/c"), "datasets.tiny.train", "'s3://[b/c'", "s3://bucket"),
    "a folder that is not the id": (with_train(f"{'A' * 44}/{ID}.jsonl"), "datasets.tiny.train", "'AAAA", "<id>/<id>"),
    "an id of 45 characters": (with_train(f"{'A' * 45}/{'A' * 45}.jsonl"), "datasets.tiny.train", "'AAAA", "<id>/<id>"),
    "an id of 42 characters": (with_train(f"{'A' * 42}/{'A' * 42}.jsonl"), "datasets.tiny.train", "'AAAA", "<id>/<id>"),
    "an id with a zero, which base58 lacks": (
        with_train(f"{'0' * 44}/{'0' * 44}.jsonl"),
        "datasets.tiny.train",
        "'0000",
        "<id>/<id>",
    ),
    "a URL with a line end behind it": (with_train("s3://b/c\n"), "datasets.tiny.train", "'s3://b/c\\n'", "URL"),
    "a URL with a space": (with_train("s3://bucket/my data"), "datasets.tiny.train", "'s3://bucket/my data'", "URL"),
    "a URL with a zero byte": (with_train("s3://bucket/a\0b"), "datasets.tiny.train", "\\x00", "NUL"),
    "a reference of a million characters": (
        with_train("s3://bucket/" + "x" * 1_000_000),
        "datasets.tiny.train",
        "(1000012 characters)",
        "at most 1024",
    ),
    "a name that is cut": (
        {**GOOD, "name": "ü" * 90},
        "name",
        "(90 characters)",
        "at most 64",
    ),
    "eval as a number": (
        {**GOOD, "datasets": {"tiny": {"train": STORED, "eval": 5}}},
        "datasets.tiny.eval",
        "5",
        "must be a text",
    ),
    "a data set name that climbs": (
        {**GOOD, "datasets": {"../tiny": {"train": STORED}}},
        "datasets.../tiny",
        "'../tiny'",
        "letters, digits",
    ),
    "an empty data set name": ({**GOOD, "datasets": {"": {"train": STORED}}}, "datasets.", "''", "letters, digits"),
    "a data set name of 65 characters": (
        {**GOOD, "datasets": {"a" * 65: {"train": STORED}}},
        "datasets.aaa",
        "'aaa",
        "at most 64",
    ),
    "a data set name with an umlaut": (
        {**GOOD, "datasets": {"größe": {"train": STORED}}},
        "datasets.größe",
        "'größe'",
        "letters, digits",
    ),
    "a name with a slash": ({**GOOD, "name": "news/ner"}, "name", "'news/ner'", "letters, digits"),
    "an empty name": ({**GOOD, "name": ""}, "name", "''", "letters, digits"),
    "a name that is a number": ({**GOOD, "name": 3}, "name", "3", "must be a text"),
    "a base model without a version": ({**GOOD, "base_model": "ner"}, "base_model", "'ner'", "'name/3'"),
    "version 0": ({**GOOD, "base_model": "ner/0"}, "base_model", "'ner/0'", "'name/3'"),
    "an alias that is none": ({**GOOD, "base_model": "ner@best"}, "base_model", "'ner@best'", "'name@production'"),
    "a run without an id": ({**GOOD, "base_model": "run:"}, "base_model", "'run:'", "'run:<id"),
    "a run with a quote": ({**GOOD, "base_model": "run:a'b"}, "base_model", "run:a'b", "'run:<id"),
    "no_cache as a word": ({**GOOD, "no_cache": "yes"}, "no_cache", "'yes'", "must be true or false"),
    "promote as true": ({**GOOD, "promote": True}, "promote", "true", "'never' or 'auto'"),
    "promote always": ({**GOOD, "promote": "always"}, "promote", "'always'", "'never' or 'auto'"),
    "parameters as a list": ({**GOOD, "parameters": [1]}, "parameters", "[1]", "must be a JSON object"),
    "65 parameters": (with_parameters(**{f"p{i}": 1 for i in range(65)}), "parameters", "", "at most 64"),
    "an unknown parameter": (with_parameters(epochs=3), "parameters.epochs", "", "takes train_seconds, fail"),
    "another model's parameter": (for_ner(fail="train"), "parameters.fail", "", "unknown for named_entity_recognition"),
    "a training below zero seconds": (
        with_parameters(train_seconds=-0.1),
        "parameters.train_seconds",
        "-0.1",
        "from 0",
    ),
    "a training of more than a day": (
        with_parameters(train_seconds=86_401),
        "parameters.train_seconds",
        "86401",
        "to 86400",
    ),
    "a training of true seconds": (with_parameters(train_seconds=True), "parameters.train_seconds", "true", "a number"),
    "a training of nan seconds": (
        with_parameters(train_seconds=float("nan")),
        "parameters.train_seconds",
        "NaN",
        "a number that JSON has",
    ),
    "a training of 400 digits": (with_parameters(train_seconds=10**400), "parameters.train_seconds", "1000", "from 0"),
    "a choice that is none": (with_parameters(fail="cleanup"), "parameters.fail", "'cleanup'", "null, 'prep', 'train'"),
    "a choice that is a list": (with_parameters(fail=["train"]), "parameters.fail", '["train"]', "must be one of"),
    "no step at all": (for_ner(max_steps=0), "parameters.max_steps", "0", "a whole number from 1 to 100000"),
    "half a step": (for_ner(max_steps=1.5), "parameters.max_steps", "1.5", "a whole number"),
    "a step count in quotes": (for_ner(max_steps="10"), "parameters.max_steps", "'10'", "a whole number"),
    "dropout of everything": (for_ner(dropout=1), "parameters.dropout", "1", "a number from 0 to 0.9"),
    "a string with half a surrogate pair": ({**GOOD, "model": "\ud800"}, "model", r"'\ud800'", "half of a character"),
    "a parameter named with half a surrogate pair": (
        with_parameters(**{"\ud800": 1}),
        r"parameters.\ud800",
        "",
        "half of a character",
    ),
}


@pytest.mark.parametrize(("conf", "path", "value", "advice"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_field_is_named_with_its_value_and_what_to_do(conf: object, path: str, value: str, advice: str):
    problems = problems_of(conf)
    mine = [problem for problem in problems if problem.startswith(path) and advice in problem]
    assert mine, problems
    assert value in mine[0]
    assert len(mine[0]) < 400


def test_every_bad_field_is_named_at_once():
    problems = problems_of(
        {
            "model": "test_model",
            "datasets": {
                "../up": {"train": "/etc/passwd"},
                "fine": {"train": STORED, "eval": 3, "test": 1},
                "no name!": {"train": STORED},
            },
            "gpu": "yes",
            "seed": -1,
            "parameters": {"fail": "never", "train_seconds": -1, "epochs": 2},
            "epochs": 3,
        }
    )
    for path in (
        "datasets.../up: the name",
        "datasets.../up.train:",
        "datasets.fine.eval:",
        "datasets.fine.test:",
        "datasets.no name!: the name",
        "gpu:",
        "seed:",
        "parameters.fail:",
        "parameters.train_seconds:",
        "parameters.epochs:",
        "epochs:",
    ):
        assert any(problem.startswith(path) for problem in problems), (path, problems)
    assert len(problems) == 11


def test_the_message_holds_every_problem_on_a_line_of_its_own():
    with pytest.raises(RequestError) as refused:
        parse_request({**GOOD, "gpu": "yes", "epochs": 3})
    assert str(refused.value).splitlines() == [
        "The request has 2 problems:",
        "  - gpu: must be true or false (got 'yes').",
        "  - epochs: unknown key; remove it or check its spelling.",
    ]


FLOODS = {
    "100,000 unknown keys": {**GOOD, **{f"key{i}": 1 for i in range(100_000)}},
    "100,000 unknown parameters": with_parameters(**{f"key{i}": 1 for i in range(100_000)}),
    "10,000 bad data sets": {**GOOD, "datasets": {f"set{i}": {"train": "no"} for i in range(10_000)}},
    "an unknown key of a million characters": {**GOOD, "x" * 1_000_000: 1},
    "a list 5,000 deep": {**GOOD, "parameters": {"fail": json.loads("[" * DEEP + "]" * DEEP)}},
    "objects 5,000 deep in place of a request": json.loads('{"a":' * DEEP + "1" + "}" * DEEP),
}


@pytest.mark.parametrize("conf", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_gives_a_message_of_bounded_size(conf: object):
    with pytest.raises(RequestError) as refused:
        parse_request(conf)
    assert len(str(refused.value)) < 50_000


@pytest.mark.parametrize("depth", [60, 9_000, 100_000])
def test_a_deep_request_is_refused_before_its_parts_are_looked_at(depth: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text, "path_of", lambda place: pytest.fail("paths to all of it take minutes"))
    body = json.dumps(GOOD)[:-1] + ', "parameters": {"a": ' + "[" * depth + "]" * depth + "}}"
    with pytest.raises(RequestError, match="request: is nested more than 50 deep"):
        read_request(body)


def test_a_deep_value_from_elsewhere_has_paths_of_its_problems_only(monkeypatch: pytest.MonkeyPatch):
    asked: list[object] = []
    monkeypatch.setattr(text, "path_of", lambda place: asked.append(place) or "there")
    value = json.loads("[" * DEEP + "NaN" + "]" * DEEP)
    assert text.text_problems(value) == [
        "there: must be a number that JSON has, which neither NaN nor infinity is (got NaN)."
    ]
    assert len(asked) == 1


def test_what_a_flood_leaves_out_is_counted():
    problems = problems_of({**GOOD, **{f"key{i}": 1 for i in range(1_000)}})
    shown = [problem for problem in problems if problem.startswith("key")]
    assert f"{1_000 - len(shown)} more problems" in problems[-1]


_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Cc", "Lu"]))
    | st.sampled_from([STORED, "s3://bucket/x", "file:///files/x", "test_model", "named_entity_recognition"]),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(categories=["Cs", "L", "P"])), inner)
    ),
    max_leaves=20,
)
_words = ["model", "datasets", "gpu", "seed", "parameters", "train", "eval", "fail", "max_steps", "tiny", "x"]
_requests = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["test_model", "named_entity_recognition", "other"]) | _anything,
        "datasets": st.dictionaries(
            st.sampled_from(_words) | st.text(),
            st.fixed_dictionaries({}, optional={"train": _anything, "eval": _anything, "x": _anything}) | _anything,
            max_size=4,
        ),
        "gpu": _anything,
        "seed": _anything,
        "parameters": st.dictionaries(st.sampled_from(_words) | st.text(), _anything, max_size=4) | _anything,
        "other": _anything,
    },
)


@given(_anything | _requests)
def test_any_json_is_a_request_or_a_request_error(conf: object):
    try:
        request = parse_request(conf)
    except RequestError as error:
        assert error.problems
        assert len(str(error)) < 50_000
        assert all("\n" not in problem for problem in error.problems)
    else:
        # What was accepted can be stored, sent and read again.
        text = json.dumps(request.model_dump(mode="json"), allow_nan=False)
        assert parse_request(json.loads(text)) == request


def test_the_form_has_each_field_and_no_key_that_airflow_chokes_on():
    schema = form_schema()
    assert (
        set(schema)
        == set(field_descriptions())
        == {
            "model",
            "datasets",
            "gpu",
            "seed",
            "priority",
            "resources",
            "script",
            "parameters",
            "name",
            "base_model",
            "no_cache",
            "promote",
        }
    )
    for name, field in schema.items():
        assert not {"default", "description", "source"} & set(field), name
        assert field["title"], name
    described = {name: text or schema[name]["description_md"] for name, text in field_descriptions().items()}
    assert all(described.values())


def test_the_form_marks_as_required_what_is_required_and_nothing_else():
    # Airflow's form puts a star on each field whose type may not be null.
    assert {name for name, field in form_schema().items() if "null" not in field["type"]} == {"model", "datasets"}


def test_an_emptied_optional_field_of_the_form_counts_as_left_out():
    optional = set(form_schema()) - {"model", "datasets"}
    assert parse_request({**GOOD, **dict.fromkeys(optional)}) == parse_request(GOOD)


def test_data_sets_start_with_an_example_that_cannot_be_sent_unchanged():
    example = form_defaults()["datasets"]
    assert example == EXAMPLE_DATASETS == json.loads(json.dumps(example))
    (problem,) = problems_of({**GOOD, "datasets": example})
    assert problem.startswith(
        "datasets.my-data.train: is still the example: choose a data set, or put the id that `make "
    )


def test_the_form_describes_the_parameters_of_each_model():
    text = form_schema()["parameters"]["description_md"]
    _, _, own = text.partition("**named_entity_recognition**")
    assert own.splitlines()[1] == (
        '  - *architecture* ("small" or "transformer"): small: a small network, from random weights; transformer: '
        "fine-tune the weights that base_model names; default: what base_model is"
    )
    assert "named_entity_recognition with a transformer" in text
    assert all(name in text for name in catalogue().models)


def test_the_form_is_self_contained():
    text = json.dumps(form_schema())
    assert "$ref" not in text
    assert "$defs" not in text
    assert "anyOf" not in text
    assert form_schema()["model"]["examples"] == list(catalogue().models)
    assert "enum" not in form_schema()["model"], (
        "a copy of the catalogue in Airflow's database would refuse a new model"
    )
    assert form_schema()["datasets"]["additionalProperties"]["properties"]["eval"]["type"] == ["string", "null"]


GPU = {"model": "test_model", "datasets": {"tiny": {"train": STORED}}, "gpu": True}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [("12GiB", 12 * 1024**3), ("12g", 12 * 1024**3), ("800 MiB", 800 * 1024**2), ("1.5G", 3 * 512 * 1024**2)]
    + [(64 * 1024**2, 64 * 1024**2), (1024**4, 1024**4)],
)
def test_gpu_memory_is_a_size_in_words_or_bytes(asked: object, wanted: int):
    request = parse_request({**GPU, "resources": {"gpu_memory": asked}})
    assert gpu_bytes(request.resources.gpu_memory) == wanted


@pytest.mark.parametrize("value", ["12", "12 bananas", "-1g", "", "0g", "9999g", 0, -5, 12, True, 1.5, [], {}])
def test_gpu_memory_that_is_no_size_is_refused_with_its_field_and_value(value: object):
    with pytest.raises(RequestError) as caught:
        parse_request({**GPU, "resources": {"gpu_memory": value}})
    (problem,) = caught.value.problems
    assert problem.startswith("resources.gpu_memory: must be a size such as '12GiB'")
    assert text.short(value)[:20] in problem


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"resources": {"gpus": 0}}, "resources.gpus"),
        ({"resources": {"policy": "random"}}, "resources.policy"),
        ({"resources": {"max_wait_seconds": 0}}, "resources.max_wait_seconds"),
        ({"resources": {"stall_seconds": 1}}, "resources.stall_seconds"),
        ({"resources": {"ram": "1g"}}, "resources.ram"),
        ({"resources": {"memory": "1"}}, "resources.memory"),
        ({"resources": {"memory": "much"}}, "resources.memory"),
        ({"resources": {"memory": "65537GiB"}}, "resources.memory"),
        ({"resources": {"memory": True}}, "resources.memory"),
        ({"resources": {"cpus": 0.05}}, "resources.cpus"),
        ({"resources": {"cpus": 1025}}, "resources.cpus"),
        ({"resources": {"cpus": "2"}}, "resources.cpus"),
        ({"resources": {"cpus": True}}, "resources.cpus"),
        ({"resources": {"cpus": float("nan")}}, "resources.cpus"),
        ({"resources": {"cpus": 10**400}}, "resources.cpus"),
    ],
)
def test_bad_resources_are_refused_by_name(extra: dict[str, object], field: str):
    with pytest.raises(RequestError) as caught:
        parse_request({**GPU, **extra})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [field]


NUL, HALF = "a\0b", "half \ud83d"
UNSTORABLE = {
    "a NUL in the base model": ({**GOOD, "base_model": "run:" + NUL}, "base_model"),
    "a NUL in the model": ({**GOOD, "model": NUL}, "model"),
    "a NUL in a reference": (with_train("s3://bucket/" + NUL), "datasets.tiny.train"),
    "a NUL in a data set's name": ({**GOOD, "datasets": {NUL: {"train": STORED}}}, r"datasets.a\x00b"),
    "a NUL in a parameter's value": (for_ner(max_steps=NUL), "parameters.max_steps"),
    "a NUL in a parameter's name": (for_ner(**{NUL: 1}), r"parameters.a\x00b"),
    "a NUL in an unknown key": ({**GOOD, NUL: 1}, r"a\x00b"),
    "a NUL deep in what is unknown": ({**GOOD, "x": [{"y": [NUL]}]}, "x.0.y.0"),
    "half a character in the name": ({**GOOD, "name": HALF}, "name"),
    "half a character in the base model": ({**GOOD, "base_model": HALF}, "base_model"),
    "half a character in a key": ({**GOOD, HALF: 1}, r"half \ud83d"),
    "half a character deep in a key": ({**GOOD, "x": {"y": {HALF: 1}}}, r"x.y.half \ud83d"),
}


@pytest.mark.parametrize(("conf", "field"), UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_a_text_that_no_database_keeps_is_refused_by_its_field(conf: dict[str, object], field: str):
    found = [problem for problem in problems_of(conf) if problem.startswith(f"{field}: ")]
    assert len(found) == 1, "once, and by its own field"
    assert "NUL" in found[0] or "half of a character" in found[0]
    assert found[0].isascii()


TWICE = {
    "the model": ('{"model": "a", "model": "test_model", "datasets": %s}', "model"),
    "a data set": ('{"model": "test_model", "datasets": {"d": {"train": "s3://a/b"}, "d": {}}}', "datasets.d"),
    "a reference": ('{"model": "test_model", "datasets": {"d": {"train": "s3://a", "train": 1}}}', "datasets.d.train"),
    "a parameter": ('{"model": "test_model", "parameters": {"x": 1, "x": 2}, "datasets": %s}', "parameters.x"),
    "a key in a list": ('{"model": "test_model", "x": [0, {"y": 1, "y": 1}], "datasets": %s}', "x.1.y"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "field"), TWICE.values(), ids=TWICE.keys())
def test_a_key_that_is_there_twice_is_refused_by_name_on_any_level(text: str, field: str):
    with pytest.raises(RequestError) as refused:
        read_request(text.replace("%s", json.dumps(GOOD["datasets"])))
    assert f"{field}: is there more than once; keep one of them." in refused.value.problems


def test_a_request_s_text_is_read_as_it_was_sent():
    sent, request = read_request(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert sent == GOOD
    assert request == parse_request(GOOD)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_json_lacks_is_refused_by_its_field(number: str):
    with pytest.raises(RequestError) as refused:
        read_request(json.dumps(GOOD)[:-1] + f', "x": {{"y": {number}}}}}')
    assert any(problem.startswith("x.y: must be a number that JSON has") for problem in refused.value.problems)


def test_the_parameters_of_an_unknown_model_are_judged_in_the_same_answer():
    conf = {**GOOD, "model": "gpt", "parameters": {"max_steps": -1, "rounds": 3, "patience": 10}}
    assert [problem.split(":")[0] for problem in problems_of(conf)] == [
        "model",
        "parameters.max_steps",
        "parameters.rounds",
    ]


ID, OTHER = "9PJ1Xh9JuuEgfu3Pk7jkYp4YYQYgaJRZvbBRzcALxrMG", "5kgQZcHtdyRcxTJU3LpW1QCv2ofR37FcTkWNXUXQ91VV"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (f"{ID}/{OTHER}.jsonl", "the two ids of this one differ"),
        (f"{ID}/{ID}", "this one lacks its end, .jsonl"),
        (f"{ID}/{ID}.py", "this one ends in .py"),
        (ID, "the id has to be there twice"),
        (f"{ID}.jsonl", "the id has to be there twice"),
    ],
)
def test_a_reference_that_is_nearly_one_says_what_it_lacks(reference: str, said: str):
    # It is cut in the message before the place where it is wrong.
    (problem,) = problems_of({**GOOD, "datasets": {"a": {"train": reference}}})
    assert f"data.jsonl; {said} (got " in problem


def test_a_reference_to_a_script_that_is_nearly_one_says_what_it_lacks():
    request = {**GOOD, "model": "named_entity_recognition", "script": f"{ID}/{ID}"}
    (problem,) = problems_of(request)
    assert "prints it; this one lacks its end, .py or .sh (got " in problem


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (float("nan"), "NaN"),
        ({"a": [1, None, "x"]}, '{"a": [1, null, "x"]}'),
        ("x", "'x'"),
    ],
)
def test_a_value_is_shown_as_it_was_written(value: object, written: str):
    assert text.short(value) == written


def test_memory_of_a_host_may_be_given_in_tebibytes():
    assert parse_request({**GOOD, "resources": {"memory": "1TiB"}}).resources.memory == "1TiB"


NOT_JSON = {
    '{"a" 1}': "a colon is missing behind a key", '{"a": 1,}': "there is a comma before a closing bracket",
    "{a: 1}": "a key in double quotes is missing", '{"a": "x': "the double quote that ends a text is missing",
    '{"a": "\\x"}': "a backslash in a text is not doubled", '{"a": 1} x': "something follows the end of the value",
    "[1,]": "there is a comma before a closing bracket", "x": "a value is missing, or is not written as JSON",
    '{"a": "\n"}': "a text holds a line break or another control character",
    '{"a": "\\u12"}': "\\u is not followed by four hex digits",
    '{"a": 1 "b": 2}': "a comma or a closing bracket is missing",
}  # fmt: skip


@pytest.mark.parametrize(("sent", "why"), NOT_JSON.items())
def test_what_is_not_json_is_said_without_the_words_of_a_programming_language(sent: str, why: str):
    with pytest.raises(RequestError) as refused:
        read_json(sent, what="request")
    assert refused.value.problems[0].startswith(f"request: is not JSON ({why}: line ")
