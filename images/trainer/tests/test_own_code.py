"""A person's own code: what prep makes ready, what the script does with it, what is kept of it."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import base58
import pytest
from conftest import Outcome, Session

from tarmac_trainer import models
from tarmac_trainer.mlflow_io import predicting
from tarmac_trainer.runtime import own_code
from tarmac_trainer.runtime.errors import DataError, InputError
from tarmac_trainer.runtime.request import OwnRun

LINES = "".join(json.dumps({"text": f"line {number}", "topic": number % 3}) + "\n" for number in range(30))
TRAIN = """
import json, os, pathlib
data, model = pathlib.Path(os.environ["TARMAC_DATA"]), pathlib.Path(os.environ["TARMAC_MODEL"])
lines = [json.loads(line) for line in (data / "train.jsonl").open()]
print(json.dumps({"event": "metric", "name": "loss", "value": 0.5, "step": 1}))
(model / "topics.json").write_text(json.dumps(sorted({line["topic"] for line in lines})))
(model / "metrics.json").write_text(json.dumps({"score": 0.75, "lines": len(lines)}))
(model / "predict.py").write_text(
    "import json, pathlib\\n"
    "def predict(folder, rows):\\n"
    "    topics = json.loads(pathlib.Path(folder, 'topics.json').read_text())\\n"
    "    return [{'topic': topics[len(row['text']) % len(topics)]} for row in rows]\\n"
)
"""


def code(**found: str) -> bytes:
    """A tar file of files by name; two underscores stand for a dot."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, text in found.items():
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(text.encode())
            made.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def put(session: Session, content: bytes) -> str:
    data_id = base58.b58encode(hashlib.sha256(content).digest()).decode()
    (session.store / data_id).mkdir(exist_ok=True)
    (session.store / data_id / f"{data_id}.tar").write_bytes(content)
    return f"{data_id}/{data_id}.tar"


def prepared(session: Session, archive: bytes, *command: str) -> Outcome:
    session.request(
        {"d": {"train": session.put(LINES), "eval": None}},
        model="own_code",
        seed=7,
        run={"command": list(command or ("python3", "train.py")), "code": put(session, archive), "image": None},
    )
    return session.run("prep")


def run_script(session: Session, command: str = "train") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", str(session.folder / own_code.SCRIPT), command],
        env={"PATH": os.environ["PATH"], "TARMAC_SESSION": str(session.folder), "TARMAC_IMAGE": "team/x@sha256:1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.usefixtures("mlruns")
def test_its_model_is_scored_by_itself_saved_and_predicts(session: Session) -> None:
    ready = prepared(session, code(train__py=TRAIN))
    assert "parameters" not in ready.result, "they would promise that equal trainings give equal models"
    assert ready.result["train_lines"] + ready.result["eval_lines"] == 30
    done = run_script(session)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0] == {"event": "metric", "name": "loss", "value": 0.5, "step": 1}
    assert events[-1]["event"] == "result"
    assert events[-1]["seed"] == 7
    metrics = session.run("eval").result["metrics"]
    assert metrics == {"score": 0.75, "lines": float(ready.result["train_lines"])}
    saved = session.run("save").result
    import mlflow

    run = mlflow.get_run(saved["mlflow_run_id"])
    assert run.data.params["command"] == '["python3", "train.py"]'
    assert run.data.tags["tarmac.image"] == "team/x@sha256:1"
    assert run.data.tags["tarmac.script"].endswith(".tar")
    loaded = mlflow.pyfunc.load_model(saved["model_uri"])
    assert loaded.predict([{"text": "abcd"}, {"text": "abc"}]) == [{"topic": 1}, {"topic": 0}]


def test_a_model_without_a_score_counts_as_0_and_says_why(session: Session) -> None:
    prepared(session, code(train__py="import os; open(os.environ['TARMAC_MODEL'] + '/weights', 'w').write('x')"))
    assert run_script(session).returncode == 0
    scored = session.run("eval")
    assert scored.result["metrics"] == {"score": 0.0}
    assert "metrics.json" in scored.result["reason"]
    with pytest.raises(InputError, match="left no predict.py"):
        predicting.Predictor(models.get("own_code"), models.get("own_code").load(session.folder / "model")).predict(
            [{}]
        )


@pytest.mark.parametrize(
    ("train", "code_of", "words"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("print('nothing')", 2, "left nothing in the folder that TARMAC_MODEL names"),
        ("1 / 0", 1, ""),
    ],
)
def test_a_command_that_fails_ends_as_it_did_and_leaves_no_model_of_before(
    session: Session, train: str, code_of: int, words: str
) -> None:
    prepared(session, code(train__py=train))
    (session.folder / "model").mkdir()
    (session.folder / "model" / "of before").write_text("x")
    done = run_script(session)
    assert (done.returncode, words in done.stdout) == (code_of, True)
    assert not (session.folder / "training.json").exists()
    assert not list((session.folder / "model").iterdir())


def test_words_reach_the_command_as_they_are(session: Session) -> None:
    odd = ["a b", "$HOME", "it's", "`x`", "", "*", "a\nb"]
    train = "import json, os, sys; open(os.environ['TARMAC_MODEL'] + '/w', 'w').write(json.dumps(sys.argv[1:]))"
    prepared(session, code(train__py=train), "python3", "train.py", *odd)
    assert run_script(session).returncode == 0
    assert json.loads((session.folder / "model" / "w").read_text()) == odd


def test_it_knows_health_and_no_other_command(session: Session) -> None:
    prepared(session, code(train__py=TRAIN))
    assert run_script(session, "health").returncode == 0
    assert run_script(session, "save").returncode == 2


@pytest.mark.parametrize("made", ["environ", "nowhere", "folder"])
def test_a_model_with_a_link_is_not_saved(session: Session, made: str) -> None:
    prepared(session, code(train__py=TRAIN))
    assert run_script(session).returncode == 0
    target = {"environ": "/proc/self/environ", "nowhere": "/none", "folder": "/proc/self"}[made]
    (session.folder / "model" / "sub").mkdir()
    (session.folder / "model" / "sub" / "link").symlink_to(target)
    for step in ("eval", "save"):
        failed = session.run(step)
        assert failed.code == 2
        assert "sub/link" in failed.error["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "must be a JSON object"),
        ("score: 0.9", "must be a JSON object .*, and is not JSON: Expecting value"),
        ('{"score": "high"}', "'score'"),
        ('{"score": NaN}', "'score'"),
        ('{"score": 1%s}' % ("0" * 400), "'score' is 1000.*must be a finite number"),
        ('{"score": 1, "score": 2}', 'the key "score" is there twice'),
        ('{"score": 1, "a\\nb": 2}', "not a name of a metric"),
        ('{"score": 1, "": 2}', "not a name of a metric"),
        ('{"score": 1, "%s": 2}' % ("x" * 101), "not a name of a metric"),
    ],
)
def test_metrics_that_are_no_numbers_are_refused(session: Session, text: str, words: str) -> None:
    folder = session.folder / "model"
    folder.mkdir()
    (folder / own_code.METRICS).write_text(text)
    with pytest.raises(InputError, match=words):
        own_code.measured(folder)


def test_metrics_that_are_a_folder_are_refused(session: Session) -> None:
    (session.folder / "model" / own_code.METRICS).mkdir(parents=True)
    with pytest.raises(InputError, match="and is a folder"):
        own_code.measured(session.folder / "model")


@pytest.mark.parametrize(
    ("left", "words"),
    {
        "broken metrics": (
            "(model / 'metrics.json').write_text('[1]')",
            "metrics.json of the model must be a JSON object",
        ),
        "a name on two lines": ("(model / 'new\\nline').write_text('x')", r"'new\nline': a name must be of"),
        "a name that is no text": ("open(bytes(model) + b'/\\xff', 'w').close()", "a name must be of"),
        "a name of 250 bytes": ("(model / ('n' * 250)).write_text('x')", "a name must be of at most 200 bytes"),
        "a file without rights": (
            "(model / 'secret').touch(); (model / 'secret').chmod(0)",
            "'secret', which cannot be",
        ),
        "a folder without rights": ("(model / 'sub').mkdir(mode=0)", "'sub', which cannot be"),
    }.values(),
)
def test_what_nobody_could_use_is_refused_before_it_is_saved(
    session: Session, monkeypatch: pytest.MonkeyPatch, left: str, words: str
) -> None:
    # The tests may run as root, and root may read each file.
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o400))
    head = "import os, pathlib; model = pathlib.Path(os.environ['TARMAC_MODEL']); (model / 'w').write_text('x')\n"
    prepared(session, code(train__py=head + left))
    assert run_script(session).returncode == 0
    failed = session.run("save")
    assert failed.code == 2
    assert words in failed.error["message"]


@pytest.mark.usefixtures("mlruns")
def test_what_is_doubtful_of_a_model_is_said_where_it_is_saved(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_code, "MANY_FILES", 2)
    bad = TRAIN + "(model / 'predict.py').write_text('def predict(:')"
    prepared(session, code(train__py=bad))
    assert run_script(session).returncode == 0
    said = session.run("save").out
    assert "warning: the model has 3 files" in said
    assert "warning: predict.py is not Python that can be run, so the model cannot predict: invalid syntax" in said


@pytest.mark.parametrize("left", ["m.write_text('x')", "m.symlink_to('/tmp')", "pass"])
def test_what_stands_in_the_place_of_the_models_folder_is_refused_at_once(session: Session, left: str) -> None:
    train = f"import os, pathlib; m = pathlib.Path(os.environ['TARMAC_MODEL']); m.rmdir(); {left}"
    prepared(session, code(train__py=train))
    done = run_script(session)
    assert done.returncode == 2
    assert "removed the folder that TARMAC_MODEL names, or put something else there" in done.stdout
    assert '"event": "result"' not in done.stdout


def test_an_archive_with_more_than_files_or_that_is_none_is_refused(tmp_path: Path) -> None:
    def refused(member: tarfile.TarInfo, words: str) -> None:
        archive = tmp_path / "x.tar"
        with tarfile.open(archive, "w") as made:
            made.addfile(member)
        (tmp_path / "code").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=words):
            own_code.unpack(archive, tmp_path / "code")

    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    refused(link, "'link', which is neither")
    pipe = tarfile.TarInfo("pipe")
    pipe.type = tarfile.FIFOTYPE
    refused(pipe, "'pipe', which is neither")
    refused(tarfile.TarInfo("../out"), "leads elsewhere")
    assert not (tmp_path / "out").exists()
    (tmp_path / "text").write_text("print()")
    with pytest.raises(DataError, match="not a tar file"):
        own_code.unpack(tmp_path / "text", tmp_path / "code")


def test_what_is_not_run_is_named(session: Session) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "run: the model own_code needs it"),
        ({"run": 3}, "run: must be an object"),
        ({"run": {"command": "python"}}, "run.command: must be a list"),
        ({"run": {"command": ["a"], "code": 3}}, "run.code: must be a text"),
    ]
    for more, words in wrong:
        session.request({"d": {"train": session.put(LINES), "eval": None}}, model="own_code", **more)
        assert words in session.run("prep").error["message"]
    run = {"command": ["a"]}
    session.request({"d": {"train": session.put(LINES), "eval": None}}, model="test_model", run=run)
    assert "only the model own_code takes it" in session.run("prep").error["message"]


def test_the_trainer_itself_trains_no_own_code(session: Session) -> None:
    prepared(session, code(train__py=TRAIN))
    assert own_code.SCRIPT in session.run("train").error["message"]


def test_the_script_is_the_same_for_the_same_request() -> None:
    assert own_code.script(OwnRun(("a",)), 3) == own_code.script(OwnRun(("a",)), 3)
