"""What a person who follows a run reads."""

from collections import deque
from contextlib import nullcontext
from typing import Any

import pytest

from tarmac.base.errors import ApiError
from tarmac.cli import follow
from tarmac.cli.follow import PAUSED, SILENT, START_IT, STOPPED_FROM_OUTSIDE, Follower, curve, failure_reason, summary
from tarmac.cli.tables import _columns

CURVES = {
    "no points": ([], ""),
    "one point": ([[1, 0.5]], "█"),
    "only zeros": ([[1, 0], [2, 0]], "▁▁"),
    "a rise": ([[1, 0], [2, 0.5], [3, 1]], "▁▅█"),
    "a score below zero": ([[1, -1], [2, 1]], "▁█"),
}


@pytest.mark.parametrize(("points", "drawn"), CURVES.values(), ids=CURVES.keys())
def test_a_curve_is_one_line_of_bars(points: list[list[float]], drawn: str):
    assert curve(points) == drawn


def test_a_long_curve_keeps_its_ends_and_fits_the_width():
    drawn = curve([[step, step] for step in range(1, 1_001)])
    assert len(drawn) == 60
    assert (drawn[0], drawn[-1]) == ("▁", "█")


@pytest.mark.parametrize(
    ("resumed", "said"),
    [
        (
            {"times": 2, "step": 1200, "seconds_saved": 240.0},
            "  went on from a checkpoint of an earlier attempt: 4 min",
        ),
        ({"times": 1}, "  went on from a checkpoint of an earlier attempt"),
    ],
)
def test_the_summary_tells_the_time_that_a_checkpoint_saved(resumed: dict[str, float], said: str):
    assert any(line.startswith(said) for line in summary({"resumed": resumed}, None, None))
    assert summary({"resumed": "once"}, None, None) == summary({}, None, None) == []


def test_the_summary_tells_curve_scores_types_and_the_model():
    lines = summary(
        {"curve": [[100, 0.1], [200, 0.4]], "score_name": "f1", "best_score": 0.4, "best_step": 200, "seconds": 75},
        {
            "metrics": {"f1": 0.41, "precision": 0.5, "recall": 0.3},
            "per_type": {"person": {"precision": 1, "recall": 0.5, "f1": 0.667}},
        },
        {"name": "ner", "version": "3", "url": "http://localhost:5000/#/models/ner/versions/3"},
    )
    text = "\n".join(lines)
    assert "training curve (f1 on the evaluation set, steps 100 to 200)" in text
    assert "best 0.400 at step 200, 1 min 15 s" in text
    assert "precision 0.500   recall 0.300   f1 0.410" in text
    assert "person" in text
    assert "P 1.000   R 0.500   F1 0.667" in text
    assert "ner version 3" in text
    assert "http://localhost:5000/#/models/ner/versions/3" in text


def test_a_summary_says_on_how_many_lines_and_warns_of_few():
    few = "\n".join(summary(None, {"metrics": {"f1": 1.0}, "eval_lines": 1}, None))
    assert "  on 1 evaluation line\n" in few
    assert "  warning: the score is from 1 evaluation line only: from fewer than 30 it says little" in few
    ranged = {"metrics": {"f1": 1.0}, "eval_lines": 1, "interval": {"metric": "f1", "low": 0.2, "high": 1}}
    told = "  on 1 evaluation line; f1 0.20 to 1.00 on other lines like them (95 % interval)\n"
    assert told in "\n".join(summary(None, ranged, None))
    many = "\n".join(summary(None, {"metrics": {"f1": 1.0}, "eval_lines": 1200}, None))
    assert "  on 1,200 evaluation lines" in many
    assert "warning" not in many


def test_the_best_of_a_training_is_named_where_it_is_beside_the_curve():
    trained = {"curve": [[100, 0.1]], "score_name": "f1", "best_score": 0.4, "best_step": 100}
    assert "best 0.400: the perceptron alone" in "\n".join(
        summary({**trained, "best_is": "the perceptron alone"}, None, None)
    )


def test_a_training_that_was_scored_once_has_no_curve():
    """As each script: its one score is that of the evaluation, told below."""
    script = {"curve": [[1, 0.0]], "score_name": "f1", "best_score": 0.0, "best_step": 1, "seconds": 75}
    text = "\n".join(summary(script, {"metrics": {"f1": 0.0}}, None))
    assert "  trained and scored once, so there is no training curve; it took 1 min 15 s\n" in text
    assert "steps 1 to 1" not in text
    assert "best" not in text


def test_long_names_of_types_are_cut_to_the_screen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    row = {"precision": 1, "recall": 1, "f1": 1}
    lines = summary(None, {"per_type": {"t" * 200: row, "城市" * 60: row, "short": row}}, None)
    told = [line for line in lines if "P 1.000" in line]
    assert len(told) == 3
    assert all(_columns(line) <= 100 for line in told)
    assert len({_columns(line) for line in told}) == 1, "numbers stand below each other"
    assert sum("…" in line for line in told) == 2


def test_a_summary_shows_twenty_types_and_counts_the_others():
    row = {"precision": 1, "recall": 1, "f1": 1}
    text = "\n".join(summary(None, {"per_type": {f"type{number:02}": row for number in range(43)}}, None))
    assert "type19" in text
    assert "type20" not in text
    assert "and 23 more" in text


def test_a_summary_shows_twenty_metrics_and_counts_the_others():
    text = "\n".join(summary(None, {"metrics": {f"m{number:02}": 1.0 for number in range(43)}}, None))
    assert "m19" in text
    assert "m20" not in text
    assert "and 23 more metrics" in text


def test_a_summary_says_when_evaluation_lines_were_trained_on():
    scored = {"metrics": {"f1": 1.0}, "eval_lines": 1_200}
    text = "\n".join(summary(None, scored | {"eval_lines_seen": 1_100}, None))
    assert "was trained on 1100 of these 1200 lines: expect less on others" in text
    assert "trained on" not in "\n".join(summary(None, scored | {"eval_lines_seen": 0}, None))
    assert "trained on" not in "\n".join(summary(None, scored, None))


def test_a_summary_says_which_version_a_model_that_was_not_trained_is_the_same_as():
    registered = {"name": "ner", "version": "4", "url": "http://x", "same_as": "ner/3"}
    text = "\n".join(summary({"cached_from": "manual__1"}, None, registered))
    assert "the model is the same as ner/3; it has a version of its own" in text
    assert "the same as" not in "\n".join(summary({}, None, registered | {"same_as": ""}))


def test_a_summary_says_why_what_was_trained_before_was_trained_anew():
    registered = {"name": "ner", "version": "4", "url": "http://x", "trained_before": "manual__1"}
    sentence = "the same training was done before, by manual__1, but its model's files are gone, so it was trained anew"
    assert f"  {sentence}" in summary({}, None, registered)
    assert "before" not in "\n".join(summary({}, None, registered | {"trained_before": ""}))


ODD_RESULTS = {
    "a curve and nothing else": ({"curve": [[1, 0.5]]}, {}),
    "a curve that is none": ({"curve": "up", "best_score": 1}, {}),
    "points that are none": ({"curve": [[1], [2, "x"], {}, None, [3, True]], "best_score": 1, "best_step": 1}, {}),
    "texts for numbers": ({"curve": [[1, 1]], "best_score": "1", "best_step": None, "seconds": "long"}, {}),
    "types that are a list": ({}, {"metrics": {"f1": 1}, "per_type": ["person"]}),
    "types without their numbers": ({}, {"metrics": {"f1": 1}, "per_type": {"person": 1, "place": {"f1": 1}}}),
    "metrics that are none": ({}, {"metrics": [1]}),
}


@pytest.mark.parametrize(("trained", "scored"), ODD_RESULTS.values(), ids=ODD_RESULTS)
def test_results_of_other_trainers_cannot_spoil_a_success(trained: dict[str, Any], scored: dict[str, Any]):
    text = "\n".join(summary(trained, scored, {"name": "own", "version": "3", "url": "http://u"}))
    assert "model    own version 3" in text


def test_what_a_container_says_moves_no_cursor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    class Failed(Follower):
        def follow(self) -> str:
            self._run = {"note": None}
            return "failed"

        def cause(self) -> str:
            return "a\x1b[2Jb\x07\n\u202ec"

    monkeypatch.setattr(follow, "Follower", Failed)
    monkeypatch.setattr(follow, "Ledger", lambda _: nullcontext())
    api: Any = None
    assert follow.follow_run(api, "r") == 1
    out = capsys.readouterr().out
    assert r"  why      a\x1b[2Jb\x07" + "\n" in out
    assert r"           \u202ec" in out


def test_a_summary_of_nothing_is_empty():
    assert summary(None, None, None) == []


LOGS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no log": ([], "its log gives no reason"),
    "no error in it": ([{"event": "hello", "level": "info"}], "its log gives no reason"),
    "an exception": (
        [
            {"event": "Task failed", "level": "error", "error_detail": [{"exc_value": "disk full"}]},
            {"event": "later", "level": "error"},
        ],
        "disk full",
    ),
    "an exception with a cause: the outermost, which is listed last": (
        [{"event": "x", "level": "error", "error_detail": [{"exc_value": "inner"}, {"exc_value": "outer"}]}],
        "outer",
    ),
    "errors without an exception": (
        [
            {"event": "first", "level": "error"},
            {"event": "last", "level": "critical"},
            {"event": "bye", "level": "info"},
        ],
        "last",
    ),
    "a task that was ended from outside, whatever its container said last": (
        [
            {"event": f"{STOPPED_FROM_OUTSIDE}: stopping container 0123", "level": "info"},
            {"event": "x", "level": "error", "error_detail": [{"exc_value": "exit code 143"}]},
        ],
        f"{STOPPED_FROM_OUTSIDE} (somebody marked it failed or cleared it, or the stack was stopped)",
    ),
    "an exception without text": (
        [{"event": "it broke", "level": "error", "error_detail": [{"exc_value": ""}]}],
        "it broke",
    ),
}


@pytest.mark.parametrize(("entries", "reason"), LOGS.values(), ids=LOGS.keys())
def test_the_reason_of_a_failure_is_found_in_the_log(entries: list[dict[str, Any]], reason: str):
    assert failure_reason(entries) == reason


class Run:
    """Airflow's API, as far as the follower asks it: each look at the run goes one scene further."""

    def __init__(
        self,
        *scenes: Any,
        progress: Any = None,
        logs: dict[tuple[str, int], list[dict[str, Any]]] | None = None,
        **facts: Any,
    ):
        self.scenes, self.progress, self.logs, self.facts = deque(scenes), progress, logs or {}, facts

    def run(self, _: str) -> dict[str, Any]:
        self.scene = self.scenes.popleft() if len(self.scenes) > 1 else self.scenes[0]
        if isinstance(self.scene, ApiError):
            raise self.scene
        return {"state": self.scene[0], **self.facts}

    def is_paused(self) -> bool:
        return bool(self.facts.get("paused"))

    def silent_parts(self) -> tuple[str, ...]:
        return ()

    def task_instances(self, _: str) -> list[dict[str, Any]]:
        return [
            {"task_id": task, "state": state, "try_number": attempt, "duration": duration}
            for task, state, attempt, duration in self.scene[1:]
        ]

    def log(self, _: str, task_id: str, attempt: int) -> list[dict[str, Any]]:
        return self.logs.get((task_id, attempt), [])

    def xcom(self, *_: str) -> Any:
        return self.progress


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(follow, "_POLL_SECONDS", 0)


def followed(run: Run, *, live: list[str] | None = None) -> tuple[str, list[str]]:
    lines: list[str] = []
    state = Follower(run, "run", lines.append, None if live is None else live.append).follow()  # type: ignore[arg-type]
    return state, lines


def followed_to_the_end(run: Run) -> tuple[str, list[str], str]:
    """The state, the lines, and the cause of the failure."""
    lines: list[str] = []
    follower = Follower(run, "run", lines.append, None)  # type: ignore[arg-type]
    return follower.follow(), lines, follower.cause()


def test_who_follows_a_run_of_a_dag_that_is_paused_is_told_so_once():
    scenes = [("queued",), ("queued",), ("failed",)]
    assert followed(Run(*scenes, paused=True)) == ("failed", [f"    {PAUSED}"])
    assert followed(Run(*scenes)) == ("failed", [])
    assert followed(Run(("failed",), paused=True)) == ("failed", [])


def test_who_follows_a_run_is_told_when_a_part_of_airflow_does_not_run_and_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(follow, "_HEALTH_SECONDS", 0)
    silent = iter([(), ("scheduler", "triggerer"), ("scheduler",), (), ()])
    monkeypatch.setattr(Run, "silent_parts", lambda _: next(silent))
    assert followed(Run(*[("running",)] * 5, ("failed",))) == (
        "failed",
        [
            f"    {SILENT['scheduler']} {START_IT}",
            f"    {SILENT['triggerer']} {START_IT}",
            "    Airflow's triggerer is back.",
            "    Airflow's scheduler is back.",
        ],
    )


def test_each_task_is_told_once_in_the_order_of_the_pipeline():
    state, lines = followed(
        Run(
            ("running", ("check_request_body", "success", 1, 0.5)),
            ("running", ("check_request_body", "success", 1, 0.5)),
            (
                "success",
                ("check_DAG_success", "success", 1, 0.1),
                ("train_model_gpu", "skipped", 0, None),
                ("check_request_body", "success", 1, 0.5),
                ("train_model_cpu", "success", 1, 12.34),
            ),
        )
    )
    assert state == "success"
    assert [line.split()[:2] for line in lines] == [
        ["✓", "check_request_body"],
        ["✓", "train_model_cpu"],
        ["✓", "check_DAG_success"],
    ]
    assert "12.3 s" in lines[1]


BROKEN = (
    "failed",
    ("retrieve_resources", "failed", 1, 1.0),
    ("train_model_cpu", "upstream_failed", 0, None),
    ("cleanup", "failed", 1, 1.0),
    ("check_DAG_success", "failed", 1, 0.1),
)
SAID = {
    ("retrieve_resources", 1): [{"event": "line 7 is broken\nline 9, too", "level": "error"}],
    ("cleanup", 1): [{"event": "no room", "level": "error"}],
}


def test_what_a_failed_task_kept_from_running_is_left_out_and_the_first_cause_stands_alone():
    state, lines, cause = followed_to_the_end(Run(BROKEN, logs=SAID))
    assert state == "failed"
    assert [line.split()[:2] for line in lines] == [
        ["✗", "retrieve_resources"], ["✗", "cleanup"], ["✗", "check_DAG_success"],
    ]  # fmt: skip
    assert cause == "retrieve_resources: line 7 is broken\nline 9, too"


LINE = "Cancelled by ada at 2026-11-28 05:30:12 UTC."
# (the run's note, what its tasks left in words, the cause)
CAUSES = {
    "the cause that the pipeline found": (
        "ner, by ada\nFailed: retrieve_resources: line 7",
        None,
        "retrieve_resources: line 7",
    ),
    "who cancelled it": (f"{LINE}\nFailed: marked as failed", None, LINE),
    "what the task said, without its log": ("ner, by ada", "no such data set", "retrieve_resources: no such data set"),
}


@pytest.mark.parametrize(("note", "failure", "cause"), CAUSES.values(), ids=CAUSES.keys())
def test_the_cause_of_a_failed_run_is_read_where_it_is_told_best(note: str, failure: str | None, cause: str):
    assert followed_to_the_end(Run(BROKEN, logs=SAID, note=note, progress=failure))[2] == cause


def test_a_run_that_was_marked_failed_before_anything_failed_says_so():
    assert "marked as failed" in followed_to_the_end(Run(("failed", ("retrieve_resources", "skipped", 0, None))))[2]


def test_a_reason_on_the_way_is_one_line_of_bounded_length():
    run = Run(
        ("running", ("save_model", "up_for_retry", 1, 1.0)),
        ("success", ("save_model", "success", 2, 2.0)),
        logs={("save_model", 1): [{"event": "two\nlines " + "x" * 5_000, "level": "error"}]},
    )
    line = followed(run)[1][0]
    assert "tried again: two lines xxx" in line
    assert len(line) < 600


@pytest.mark.parametrize("state", ["success", "failed"])
def test_a_run_that_has_ended_before_is_shown_with_its_own_duration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str
):
    run = Run((state,), note=LINE, start_date="2026-11-28T11:50:00Z", end_date="2026-11-28T11:51:15Z")
    monkeypatch.setattr(follow, "Ledger", lambda _: nullcontext())
    assert follow.follow_run(run, "the-run") == (0 if state == "success" else 1)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"  {state} after 1 min 15 s"
    assert lines[-2].endswith("/runs/the-run")
    assert (f"  why      {LINE}" in lines) is (state == "failed")


def test_a_run_that_was_marked_as_a_success_without_a_model_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(follow, "Ledger", lambda _: nullcontext())
    assert follow.follow_run(Run(("success",), note="ner\nMarked: it has no model"), "the-run") == 1  # type: ignore[arg-type]
    assert "  but      it has no model" in capsys.readouterr().out.splitlines()


def test_a_task_that_a_person_skipped_is_shown_and_those_of_the_other_branch_are_not():
    skipped = [(task, "skipped", 0, None) for task in ("gpu_training_sensor", "train_model_gpu", "eval_model")]
    _, lines = followed(Run(("success", *skipped)))
    assert [line.split() for line in lines] == [["eval_model", "skipped"]]
    assert not followed(Run(("failed", ("eval_model", "skipped", 0, None))))[1], "it was marked as failed"


def test_a_retry_is_told_once_with_its_reason():
    waiting = ("running", ("save_model", "up_for_retry", 1, 1.0))
    _, lines = followed(
        Run(
            waiting,
            waiting,
            ("success", ("save_model", "success", 2, 2.0)),
            logs={("save_model", 1): [{"event": "MLflow is unavailable", "level": "error"}]},
        )
    )
    assert len(lines) == 2
    assert "attempt 1 failed, will be tried again: MLflow is unavailable" in lines[0]
    assert lines[1].startswith("  ✓ save_model")


PROGRESS = {"done": 30, "total": 60, "eta_seconds": 90, "message": "epoch 3"}


def test_the_progress_of_a_training_is_shown_live():
    live: list[str] = []
    followed(Run(("running", ("train_model_cpu", "running", 1, None)), ("success",), progress=PROGRESS), live=live)
    assert live == ["    train_model_cpu: 50 % of 60, at most 1 min 30 s left  epoch 3"]


def test_without_a_terminal_the_progress_is_told_when_it_moves_on():
    running = ("running", ("train_model_cpu", "running", 1, None))
    _, lines = followed(Run(running, running, running, ("success",), progress=PROGRESS))
    assert len(lines) == 1
    assert "50 % of 60" in lines[0]


def test_a_training_that_begins_anew_is_told_with_what_it_says():
    running = ("running", ("train_model_cpu", "running", 1, None))
    again = "training again, on all 1,200 lines"
    told: list[Any] = [
        {"done": 60, "total": 60},
        {"done": 3, "total": 40, "message": again},
        {"done": 3, "total": 40, "message": again},
    ]

    class Two(Run):
        def xcom(self, *words: Any) -> Any:
            return told.pop(0) if words[-1] == "progress" and told else None

    _, lines = followed(Two(running, running, running, ("success",)))
    assert [line.strip() for line in lines] == [
        "train_model_cpu: 100 % of 60",
        f"train_model_cpu: 7 % of 40  {again}",
    ]


UNAVAILABLE = {
    "no answer": 0,
    "a server whose database is unavailable": 500,
    "a gateway without a server": 502,
    "a server that starts": 503,
}


@pytest.mark.parametrize("status", UNAVAILABLE.values(), ids=UNAVAILABLE.keys())
def test_a_webserver_that_is_unavailable_for_a_moment_is_waited_for(status: int):
    state, lines = followed(Run(ApiError("unavailable", status), ApiError("unavailable", status), ("success",)))
    assert (state, lines) == ("success", [])


def test_a_webserver_that_stays_unavailable_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(follow, "_OUTAGE_SECONDS", -1)
    with pytest.raises(ApiError, match="unavailable"):
        followed(Run(ApiError("unavailable")))


def test_a_run_that_does_not_exist_ends_the_following_at_once():
    with pytest.raises(ApiError, match="no such run"):
        followed(Run(ApiError("no such run", 404)))


def test_the_order_is_the_pipelines(repository: Any):
    text = (repository / "dags" / "nlp_model_training.py").read_text()
    assert len(follow.TASKS) == len(set(follow.TASKS)) == 15
    assert all(task in text for task in follow.TASKS)
