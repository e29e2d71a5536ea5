"""A user's own training code, from the store to a scored model."""

import hashlib
import json
import math
import sys
from pathlib import Path

import base58
import pytest
from conftest import NINE, Session
from paths import EXAMPLES

from tarmac_trainer.cli import main

GOOD = """
import json, os, spacy, sys
from pathlib import Path
print(json.dumps({"event": "progress", "done": 1, "total": 4}))
print("read", len(Path("data/train.jsonl").read_text().splitlines()), "lines")
nlp = spacy.blank("en")
nlp.add_pipe("entity_ruler").add_patterns([{"label": "person", "pattern": [{"TEXT": {"REGEX": "^Ada"}}]}])
nlp.to_disk(os.environ["TARMAC_MODEL"])
"""


def stored(session: Session, code: str, suffix: str = ".py") -> str:
    data_id = base58.b58encode(hashlib.sha256(code.encode()).digest()).decode()
    (session.store / data_id).mkdir(exist_ok=True)
    (session.store / data_id / f"{data_id}{suffix}").write_text(code)
    return f"{data_id}/{data_id}{suffix}"


def prepared(session: Session, script: str) -> Session:
    reference = session.put(NINE)
    session.request({"a": {"train": reference, "eval": reference}}, "named_entity_recognition", script=script)
    return session


def test_a_script_trains_in_place_of_the_model_s_own_code(session: Session) -> None:
    prepared(session, stored(session, GOOD))
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert outcome.result["best_score"] == 1.0
    assert "read 9 lines" in outcome.out.splitlines()
    assert {"event": "progress", "done": 1.0, "total": 4.0} in [
        {key: event[key] for key in ("event", "done", "total")} for event in outcome.of("progress")
    ]
    assert session.run("eval").result["metrics"]["f1"] == 1.0
    assert not (session.folder / ".model.script").exists()


def test_the_memory_of_a_script_counts(session: Session) -> None:
    prepared(session, stored(session, f"hoard = bytearray(b'x' * 700_000_000)\n{GOOD}"))
    assert session.run("prep").code == 0
    assert session.run("train").result["memory_peak_bytes"] > 1_000_000_000, "its own 700 MB, and the trainer's"


def test_a_shell_script_is_one_too(session: Session) -> None:
    code = 'import os, spacy; spacy.blank("en").to_disk(os.environ["TARMAC_MODEL"])'
    code = f"{sys.executable} -c '{code}'\n"
    prepared(session, stored(session, code, ".sh"))
    assert session.run("prep").code == 0
    assert session.run("train").result["best_score"] == 0.0


FAILURES = {
    "no memory": ("raise MemoryError('full')", 1, "exit code 1: MemoryError: full"),
    "a server that is unavailable": (
        "raise ConnectionError('unavailable')",
        1,
        "exit code 1: ConnectionError: unavailable",
    ),
    "an exit code of its own": ("print('bye'); raise SystemExit(7)", 1, "exit code 7: bye"),
    "an import of what is not there": (
        "import no_such_library",
        2,
        "not tried again): ModuleNotFoundError: No module named 'no_such_library'",
    ),
    "a key that is not there": ("raise KeyError('colour')", 2, "not tried again): KeyError: 'colour'"),
    "a name that is not there": ("train()", 2, "not tried again): NameError: name 'train' is not defined"),
    "bad input, by its own word": (
        "print('no such column'); raise SystemExit(2)",
        2,
        "not tried again): no such column",
    ),
    "a signal": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 1, "ended by signal 11, SIGSEGV: it said"),
    "bytes that are no text": (
        "import sys; sys.stdout.buffer.write(b'a\\0\\xff\\x1b[31mred'); sys.stdout.flush(); raise SystemExit(3)",
        1,
        "exit code 3: a\ufffd\ufffd\x1b[31mred",
    ),
    "no model": (
        "print('done')",
        2,
        "left no named_entity_recognition model in the folder that TARMAC_MODEL names (it is",
    ),
    "an error on several lines": (
        "raise ValueError('2 columns are wrong:\\n  a\\n  b')",
        2,
        "not tried again): ValueError: 2 columns are wrong: a b",
    ),
    "an error of the machine on several lines": (
        "raise OSError('the disk\\nis full')",
        1,
        "exit code 1: OSError: the disk is full",
    ),
    "a link for a model": (
        "import os; m = os.environ['TARMAC_MODEL']; os.rmdir(m); os.symlink('/tmp', m)",
        2,
        "write the named_entity_recognition model into that folder",
    ),
    "data that it removed": ("import shutil; shutil.rmtree('data')", 2, "the script removed data/train.jsonl"),
    "a request that it wrote over": (
        "open('request.json', 'a').write(' ')",
        2,
        "the script changed request.json, which later steps read: write to /tmp",
    ),
    "lines that it took out": (
        "p = 'data/eval.jsonl'; lines = open(p).readlines(); open(p, 'w').writelines(lines[:1])",
        2,
        "the script changed data/eval.jsonl",
    ),
    "a standard input that is empty": ("input()", 2, "not tried again): EOFError"),
    "several errors of its own": (
        "raise ExceptionGroup('many', [KeyError('a'), ExceptionGroup('more', [TypeError('b')])])",
        2,
        "not tried again): KeyError: 'a'; TypeError: b",
    ),
    "several errors, of the machine too": (
        "raise ExceptionGroup('many', [KeyError('a'), OSError('b')])",
        1,
        "exit code 1: KeyError: 'a'; OSError: b",
    ),
}


@pytest.mark.parametrize(("code", "exit_code", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_script_that_fails_says_why(session: Session, code: str, exit_code: int, reason: str) -> None:
    prepared(session, stored(session, code))
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert outcome.code == exit_code
    assert reason in outcome.error["message"]
    assert not (session.folder / "model").exists()


SENTIMENT = "".join(json.dumps({"sentence": f"film {i}", "sentiment": {"binary": i % 2}}) + "\n" for i in range(6))
OF_ANOTHER_KIND = {
    "an empty pipeline": ("", "its pipeline puts no text into a class: it is empty, and a textcat has to be in it"),
    "a pipeline of another kind": ("nlp.add_pipe('sentencizer')", "it is sentencizer, and a textcat"),
    "classes in words": (
        "p = nlp.add_pipe('textcat'); p.add_label('POS'); p.add_label('NEG'); nlp.initialize()",
        "its classes must be whole numbers, not 'NEG', 'POS'",
    ),
}


@pytest.mark.parametrize(("made", "reason"), OF_ANOTHER_KIND.values(), ids=OF_ANOTHER_KIND)
def test_a_model_of_another_kind_is_refused_once_and_named(session: Session, made: str, reason: str) -> None:
    code = f"import os, spacy\nnlp = spacy.blank('en')\n{made}\nnlp.to_disk(os.environ['TARMAC_MODEL'])\n"
    reference = session.put(SENTIMENT)
    datasets = {"a": {"train": reference, "eval": reference}}
    session.request(datasets, "sentiment_analysis_binary", script=stored(session, code))
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert outcome.code == 2
    assert reason in outcome.error["message"]


def test_a_model_that_cannot_be_scored_is_the_script_s_fault(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from tarmac_trainer.models.named_entity_recognition import NamedEntityRecognition

    def broken(*_: object, **__: object) -> None:
        raise IndexError("no such layer")

    prepared(session, stored(session, GOOD))
    assert session.run("prep").code == 0
    monkeypatch.setattr(NamedEntityRecognition, "score", broken)
    outcome = session.run("train")
    assert outcome.code == 2
    assert "model that the script left cannot be scored: IndexError: no such layer" in outcome.error["message"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [("x = 1\nif x\n", "the script, line 2 is not Python"), ("x = '\0'", "the script is not Python")],
)
def test_a_script_that_is_no_python_is_refused_before_anything_is_trained(
    session: Session, code: str, reason: str
) -> None:
    outcome = prepared(session, stored(session, code)).run("prep")
    assert outcome.code == 2
    assert reason in outcome.error["message"]


def test_a_traceback_is_of_the_script_alone(session: Session) -> None:
    prepared(session, stored(session, "def inner():\n    return {}['colour']\ninner()\n"))
    session.run("prep")
    out = session.run("train").out
    assert 'script.py", line 2, in inner' in out
    assert "runpy" not in out
    assert "user_code" not in out


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("no-such-command-here", 2), ("if", 2), ("exit 5", 1)],
    ids=["no command", "syntax", "other"],
)
def test_a_shell_script_that_fails(session: Session, code: str, exit_code: int) -> None:
    prepared(session, stored(session, code + "\n", ".sh"))
    session.run("prep")
    assert session.run("train").code == exit_code


def test_what_a_script_left_running_is_ended(session: Session, tmp_path: Path) -> None:
    leave = f'{sys.executable} -c \'import os, spacy; spacy.blank("en").to_disk(os.environ["TARMAC_MODEL"])\''
    code = f"""
tail -f /dev/null &
echo $! >> {tmp_path}/pids
(setsid sh -c 'echo $$ >> {tmp_path}/pids; while :; do echo still here; sleep 0.01; done' &)
while [ "$(wc -l < {tmp_path}/pids)" -lt 2 ]; do sleep 0.01; done
{leave}
echo script is done
"""
    prepared(session, stored(session, code, ".sh"))
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert outcome.result["best_score"] == 0.0
    assert "script is done" in outcome.out.splitlines()
    assert "processes running: ended" in outcome.out
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


NO_EVENTS = [
    '{"event": "progress", "done": 1, "total": Infinity}',
    '{"event": "progress", "done": NaN, "total": 4}',
    '{"event": "progress", "done": 1' + 400 * "0" + ', "total": 4}',
    '{"event": "progress", "done": "1", "total": 4}',
    '{"event": "progress", "done": true, "total": 4}',
    '{"event": "progress", "done": 1}',
    '{"event": "metric", "name": "loss", "value": -Infinity}',
    '{"event": "metric", "name": 7, "value": 1}',
    '{"event": "metric", "name": "loss", "value": 1, "step": 1e300}',
    '{"event": ["progress"]}',
    "{" + 5_000 * '"a":{',
    "[1]",
    "null",
]


def test_no_event_ends_a_training_and_what_is_none_is_shown(session: Session) -> None:
    code = "import sys\nfor line in " + repr(NO_EVENTS) + ":\n    print(line)\n" + GOOD
    prepared(session, stored(session, code))
    assert session.run("prep").code == 0
    session.capsys.readouterr()
    assert main(["train", "--session", str(session.folder)]) == 0
    out = session.capsys.readouterr().out.splitlines()
    assert [told for told in out if told in NO_EVENTS] == NO_EVENTS
    for told in set(out) - set(NO_EVENTS):
        if told.startswith('{"event": "progress"'):
            assert math.isfinite(json.loads(told)["total"])


def test_a_long_line_and_one_without_an_end_are_shown(session: Session) -> None:
    code = "print('y' * 200_000)\n" + GOOD + "\nsys.stdout.write('no end')\n"
    prepared(session, stored(session, code))
    session.run("prep")
    outcome = session.run("train")
    assert outcome.code == 0
    assert outcome.out.count("y") >= 200_000
    assert "no end" in outcome.out.splitlines()


def test_the_example_s_script_trains_under_a_kind_of_another_name(
    session: Session, mlruns: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setenv("TARMAC_KIND", "sentiment_analysis_binary")
    content = "".join(
        json.dumps({"sentence": f"a {'good' if good else 'bad'} film {number}", "sentiment": {"binary": good}}) + "\n"
        for number in range(20)
        for good in (0, 1)
    )
    reference = session.put(content)
    script = stored(session, (EXAMPLES / "train_sentiment.py").read_text())
    session.request({"a": {"train": reference, "eval": reference}}, "ours_with_more", script=script, seed=0)
    for command in ("prep", "train", "eval"):
        assert session.run(command).code == 0
    assert session.run("eval").result["metrics"]["macro_f1"] > 0.9
    saved = session.run("save").result
    run = mlflow.get_run(saved["mlflow_run_id"])
    assert run.data.params["model"] == "ours_with_more"
    assert mlflow.get_experiment(run.info.experiment_id).name == "ours_with_more"
    told = mlflow.pyfunc.load_model(saved["model_uri"]).predict([{"sentence": "a good film"}])
    assert told == [{"sentiment": {"binary": 1}}]


def test_the_record_says_what_was_run(session: Session, mlruns: None) -> None:
    import mlflow

    losses = """
for step in range(3):
    print(json.dumps({"event": "metric", "name": "loss", "value": 3.0 - step, "step": step}))
"""
    script = stored(session, GOOD + losses)
    prepared(session, script)
    request = json.loads((session.folder / "request.json").read_text())
    (session.folder / "request.json").write_text(json.dumps({**request, "parameters": {"max_steps": 7}}))
    assert session.run("prep").code == 0
    outcome = session.run("train")
    assert [event["value"] for event in outcome.of("metric") if event["name"] == "loss"] == [3.0, 2.0, 1.0]
    assert outcome.result["parameters"] == {"max_steps": 7}
    run_id = session.run("save").result["mlflow_run_id"]
    run = mlflow.get_run(run_id)
    assert run.data.params["script"] == run.data.tags["tarmac.script"] == script
    assert "learn_rate" not in run.data.params
    curve = mlflow.MlflowClient().get_metric_history(run_id, "script.loss")
    assert sorted({(point.step, point.value) for point in curve}) == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_a_script_that_was_changed_in_the_store_is_refused(session: Session) -> None:
    reference = stored(session, GOOD)
    Path(session.store / reference).write_text(GOOD + "# and more")
    outcome = prepared(session, reference).run("prep")
    assert outcome.code == 2
    assert "the content does not match its id" in outcome.error["message"]
