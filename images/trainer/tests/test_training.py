"""Real trainings on real data, from prep to eval."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import NINE, SAMPLE, Cupy, Session, line

from tarmac_trainer import models
from tarmac_trainer.runtime.device import Device
from tarmac_trainer.runtime.health import Heartbeat
from tarmac_trainer.runtime.training import Training
from tarmac_trainer.text.augmentation import Augmentation
from tarmac_trainer.text.entities import Sentence
from tarmac_trainer.text.scoring import Scores

MIB = 2**20

QUICK = {
    "max_steps": 60,
    "eval_frequency": 20,
    "batch_size": 16,
    "disguise": 0,
    "learn_rate": 0.003,
    "plain_share": 1,
    "perceptron": "never",
}


def prepared(session: Session, *, eval_on_train: bool = True, **more: Any) -> Session:
    reference = session.put(SAMPLE.read_bytes())
    session.request(
        {"wnut": {"train": reference, "eval": reference if eval_on_train else None}},
        model="named_entity_recognition",
        **{"parameters": QUICK, **more},
    )
    assert session.run("prep").code == 0
    return session


def test_a_real_training_learns_and_tells_how(session: Session) -> None:
    prepared(session)
    outcome = session.run("train")
    result = outcome.result
    assert result["best_score"] > 0.4  # it is evaluated on what it was trained with
    assert result["steps"] == 60
    assert [step for step, _ in result["curve"]] == [20, 40, 60]
    assert result["best_step"] in (20, 40, 60)
    assert dict(result["curve"])[result["best_step"]] == result["best_score"]
    assert result["score_name"] == "f1"
    assert result["seed"] == 0
    assert result["parameters"]["max_steps"] == 60
    assert result["seconds"] > 0
    curve = [(m["step"], m["value"]) for m in outcome.of("metric") if m["name"] == "f1"]
    assert curve == [tuple(point) for point in result["curve"]]
    loss = [(m["step"], m["value"]) for m in outcome.of("metric") if m["name"] == "loss"]
    assert [step for step, _ in loss] == [20, 40, 60]
    assert loss[0][1] > loss[-1][1] > 0  # the mean of the updates since the scoring before
    progress = outcome.of("progress")
    assert (progress[0]["done"], progress[-1]["done"]) == (0, 60)
    assert all(event["total"] == 60 for event in progress)
    health = json.loads((session.folder / "health.json").read_text())
    assert health["state"] == "done"
    assert session.run("health").out.startswith("healthy: the training is done")

    evaluated = session.run("eval").result
    assert evaluated["metrics"]["f1"] == pytest.approx(result["best_score"])
    assert evaluated["eval_lines"] == 160
    assert set(evaluated["per_type"]) == {
        "person", "location", "group", "creative-work", "corporation", "product"
    }  # fmt: skip
    written = json.loads((session.folder / "metrics.json").read_text())
    assert written["metrics"] == evaluated["metrics"]

    # Plain spaCy, in a process that cannot import this package.
    code = "import spacy, sys; print(list(spacy.load(sys.argv[1])(sys.argv[2]).ents))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(session.folder / "model"), "in London"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")


def test_the_time_left_is_of_the_steps_alone_and_told_once_enough_of_them_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    training: Training[str] = Training(tmp_path, lambda *_: {}, "f1", {}, 0, [], [], Heartbeat(tmp_path), Device("cpu"))

    def left(done: int, total: int, after: float) -> float | None:
        nonlocal now
        now += after
        training.progress(done, total)
        told: float | None = json.loads(capsys.readouterr().out).get("eta_seconds")
        return told

    # 100 s to load the weights, then a step in a second; an earlier attempt made 20 of them.
    assert left(20, 1000, 100) is None
    assert left(25, 1000, 5) is None
    assert left(30, 1000, 5) == 970
    assert left(80, 1000, 50) == 920
    # The second part, which is counted anew.
    assert left(0, 100, 30) is None
    assert left(10, 100, 20) == 180


def test_equal_requests_give_equal_models_and_another_seed_another(
    make_session: Callable[[str], Session],
) -> None:
    short = {**QUICK, "max_steps": 20, "eval_frequency": 10, "disguise": 0.5}
    weights, curves = [], []
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        session = prepared(make_session(name), seed=seed, parameters=short)
        curves.append(session.run("train").result["curve"])
        weights.append((session.folder / "model" / "ner" / "model").read_bytes())
    assert curves[0] == curves[1]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_it_stops_when_nothing_gets_better_and_keeps_the_best(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(session, parameters={**QUICK, "eval_frequency": 5, "patience": 10})
    values = iter([0.1, 0.5, 0.4, 0.5, 0.9])

    model = models.get("named_entity_recognition")
    monkeypatch.setattr(type(model), "score", lambda *_, **__: Scores({"f1": next(values)}))
    outcome = session.run("train")
    assert outcome.result["curve"] == [[5, 0.1], [10, 0.5], [15, 0.4], [20, 0.5]]
    assert (outcome.result["best_step"], outcome.result["steps"]) == (10, 20)
    assert "no better f1 for 10 steps" in outcome.out
    assert not (session.folder / ".model.partial").exists()


def test_one_step_is_one_step_and_a_retry_replaces_the_model(session: Session) -> None:
    prepared(session, parameters={**QUICK, "max_steps": 1})
    (session.folder / "model").mkdir()
    (session.folder / "model" / "old").write_text("of an attempt before")
    (session.folder / ".model.partial").mkdir()
    result = session.run("train").result
    assert (result["steps"], result["best_step"]) == (1, 1)
    assert not (session.folder / "model" / "old").exists()
    evaluated = session.run("eval")
    assert evaluated.result["metrics"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert "the model found no entity" in evaluated.result["reason"]


def test_a_failed_training_is_unhealthy(session: Session) -> None:
    session.request({"a": {"train": "x", "eval": None}})
    assert session.run("train").code == 1
    assert "unhealthy: the training failed" in session.run("health").out


def test_unexpected_errors_are_told_with_their_trace(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(session)
    monkeypatch.setattr("tarmac_trainer.text.pipelines.fit", None)
    outcome = session.run("train")
    assert outcome.code == 1
    assert outcome.error["message"].startswith("unexpected TypeError")
    assert outcome.error["retryable"] is True
    assert "Traceback" in outcome.err


def test_progress_comes_at_least_each_second_in_a_long_evaluation(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(session, parameters={**QUICK, "max_steps": 1})
    monkeypatch.setattr("tarmac_trainer.text.scoring.BATCH", 40)
    from spacy.language import Language

    plain = Language.pipe

    def slow(self: Any, docs: Any, **more: Any) -> Any:
        time.sleep(0.3)
        return plain(self, docs, **more)

    monkeypatch.setattr(Language, "pipe", slow)
    assert len(session.run("train").of("progress")) >= 4


def test_test_model_leaves_the_same_outputs_at_once(session: Session) -> None:
    content = NINE + line("plain line") + line("Ada0 Ada1 in Rome", "I-person B-person O I-location")
    reference = session.put(content)
    session.request({"a": {"train": reference, "eval": reference}})
    assert session.run("prep").result["skipped_lines"] == 0
    started = time.monotonic()
    result = session.run("train").result
    assert time.monotonic() - started < 5  # seconds, importing spaCy included
    assert result["best_score"] == 1.0
    assert result["curve"] == [[1, 1.0]]
    assert session.run("eval").result["metrics"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}
    import spacy

    assert [e.text for e in spacy.load(session.folder / "model")("Ada3 met Rome").ents] == [
        "Ada3",
        "Rome",
    ]


def test_test_model_takes_lines_without_any_entity(session: Session) -> None:
    session.request({"a": {"train": session.put(line("just words")), "eval": None}})
    assert session.run("prep").code == 0
    assert session.run("train").code == 0
    result = session.run("eval").result
    assert result["metrics"]["f1"] == 0.0
    assert "no entity in the eval lines" in result["reason"]


def test_train_seconds_makes_a_long_session_with_signs_of_life(session: Session) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}}, parameters={"train_seconds": 1.1})
    session.run("prep")
    outcome = session.run("train")
    assert outcome.result["seconds"] >= 1.1
    assert 4 <= len(outcome.of("progress")) <= 10


def test_a_training_of_train_seconds_ends_well_at_once_when_it_is_told_to(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tarmac_trainer.models.test_model.FINISH", tmp_path / "finish")
    (tmp_path / "finish").touch()
    session.request({"a": {"train": session.put(NINE), "eval": None}}, parameters={"train_seconds": 3600})
    session.run("prep")
    outcome = session.run("train")
    assert (outcome.code, outcome.result["seconds"] < 3600) == (0, True)


def on_a_gpu(session: Session, monkeypatch: pytest.MonkeyPatch, share: int | None = None, **parameters: Any) -> Session:
    session.request({"a": {"train": session.put(NINE), "eval": None}}, parameters=parameters)
    assert session.run("prep").code == 0
    monkeypatch.setenv("TARMAC_DEVICE", "cuda")
    if share is not None:
        monkeypatch.setenv("TARMAC_GPU_MEMORY_BYTES", str(share))
    return session


def test_test_model_holds_gpu_memory_of_a_known_size(
    session: Session, cupy: Cupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = on_a_gpu(session, monkeypatch, 2048 * MIB, gpu_memory_mib=1001, train_seconds=1).run("train")
    assert outcome.result["gpu_peak_bytes"] == 1001 * MIB
    assert outcome.result["device"] == "cuda"
    assert cupy.pool.limit == 1536 * MIB
    assert sum(cupy.pool.mallocs) == 1001 * MIB
    assert 2 < len(cupy.pool.mallocs) <= 8
    assert cupy.past_the_pool == []
    assert cupy.turned_on == [0]
    assert json.loads((session.folder / "health.json").read_text())["device"] == "cuda"


def test_more_gpu_memory_than_the_share_is_told_to_the_pipeline(
    session: Session, cupy: Cupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = on_a_gpu(session, monkeypatch, 2048 * MIB, gpu_memory_mib=1537).run("train")
    assert outcome.code == 3
    assert "needs 2,148,532,224 bytes or more; the limit is 2,147,483,648 bytes" in outcome.error["message"]
    assert outcome.error == {
        "event": "error",
        "message": outcome.error["message"],
        "retryable": True,
        "code": "GPU_OUT_OF_MEMORY",
        "needed_bytes": 2049 * MIB,
        "limit_bytes": 2048 * MIB,
    }


OFFENDERS = {
    "with a share": ({"share": 2048 * MIB, "gpu_memory_mib": 1000, "overrun_mib": 7}, (2048 - 512 - 1000 + 7) * MIB),
    "without one": ({"gpu_memory_mib": 1000, "overrun_mib": 7}, 7 * MIB),
}


@pytest.mark.parametrize(("given", "past_the_pool"), OFFENDERS.values(), ids=OFFENDERS)
def test_an_offender_takes_gpu_memory_above_its_share(
    session: Session, cupy: Cupy, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], past_the_pool: int
) -> None:
    assert on_a_gpu(session, monkeypatch, train_seconds=0.5, **given).run("train").code == 0
    assert cupy.past_the_pool == [past_the_pool]


def test_on_the_cpu_gpu_memory_is_ignored_with_a_line(session: Session) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}}, parameters={"gpu_memory_mib": 200_000})
    session.run("prep")
    outcome = session.run("train")
    assert outcome.code == 0
    assert "gpu_memory_mib and overrun_mib are ignored: this training runs on the CPU" in outcome.out.splitlines()


def test_a_training_that_hangs_lives_on_without_progress_until_it_is_stopped(session: Session) -> None:
    session.request(
        {"a": {"train": session.put(NINE), "eval": None}}, parameters={"train_seconds": 600, "hang_after": 0.3}
    )
    assert session.run("prep").code == 0
    command = [sys.executable, "-P", "-m", "tarmac_trainer", "train", "--session", str(session.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "parameters.hang_after asks for it" not in (told := process.stdout.readline()):
            assert told, "it ended by itself"
        stopped_at = json.loads((session.folder / "health.json").read_text())["time"]
        while time.time() - stopped_at < 1.5:
            time.sleep(0.1)
        outcome = session.run("health", "--max-age", "1")
        assert "unhealthy: no progress for" in outcome.out
        assert process.poll() is None
        process.terminate()
        assert process.stdout.read() == "stopped by SIGTERM\n"
        assert process.wait(5) == 143


@pytest.mark.parametrize("step", ["prep", "train", "eval", "save"])
def test_a_step_can_be_made_to_fail(session: Session, step: str) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}}, parameters={"fail": step})
    for before in ("prep", "train"):
        if before == step:
            break
        assert session.run(before).code == 0
    outcome = session.run(step)
    assert outcome.code == 2
    assert outcome.error == {
        "event": "error",
        "message": f"{step} fails because parameters.fail asks for it",
        "retryable": False,
    }


def test_steps_out_of_order_say_what_is_missing(session: Session) -> None:
    session.request({"a": {"train": session.put(NINE), "eval": None}})
    session.run("prep")
    outcome = session.run("eval")
    assert outcome.code == 1
    assert "run `train` first. In Airflow, clear the run from retrieve_resources on" in outcome.error["message"]
    assert outcome.error["retryable"] is False, "no attempt of this step brings what another one should have left"


def test_an_augmented_sentence_keeps_its_entity_types() -> None:
    sentences = [
        Sentence(("Ada", "Lovelace", "met", "X1", "."), ((0, 2, "person"), (3, 4, "product"))),
        Sentence(("Bob", "the"), ((0, 1, "person"),)),
    ]
    augmentation = Augmentation(sentences, share=1, plain_share=1, seed=3)
    seen = {augmentation.augmented(sentences[0]) for _ in range(50)}
    assert len(seen) > 10
    for sentence in seen:
        assert [kind for _, _, kind in sentence.spans] == ["person", "product"]
        start, end, _ = sentence.spans[1]
        product = sentence.words[start]
        assert (product[0].isupper(), product[1:].isdigit(), end - start) == (True, True, 1)
        assert sentence.words[-1] == "."
    assert Augmentation(sentences, share=0, plain_share=1, seed=3).augmented(sentences[0]) is sentences[0]


def test_each_round_of_batches_has_every_entity_and_a_share_of_plain_sentences() -> None:
    marked = [Sentence((f"x{number}",), ((0, 1, "x"),)) for number in range(4)]
    plain = [Sentence((str(number),)) for number in range(12)]
    batches = Augmentation(marked + plain, share=0, plain_share=0.5, seed=0).batches(4)
    seen: set[Sentence] = set()
    for _ in range(10):
        round_ = [next(batches) for _ in range(3)]
        assert [len(batch) for batch in round_] == [4, 4, 2]
        sentences = {s for batch in round_ for s in batch}
        assert len(sentences) == 10
        assert sentences >= set(marked)
        seen |= sentences
    assert seen == {*marked, *plain}


def test_the_config_is_complete() -> None:
    from tarmac_trainer.models.named_entity_recognition import CONFIG

    assert Path(CONFIG).is_file()


def test_neither_invented_words_nor_eval_words_become_part_of_the_model(session: Session) -> None:
    session.request(
        {"a": {"train": session.put(NINE), "eval": session.put(line("Zyx rests", "B-person O"))}},
        model="named_entity_recognition",
        parameters={"max_steps": 30, "eval_frequency": 10, "disguise": 1},
    )
    assert session.run("prep").code == 0
    assert session.run("train").code == 0
    strings = json.loads((session.folder / "model" / "vocab" / "strings.json").read_text())
    assert "Zyx" not in strings
    invented = {text for text in strings if re.fullmatch("[A-Z][a-z]{2}[0-9]", text)}
    assert invented <= {f"Ada{number}" for number in range(9)}
