"""The command `tarmac`: what it prints, and its exit codes."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fake_stack import LINE, LOST, OVER, TRAINS, URL, WAITS, Stack, version

import tarmac_client
from tarmac_client import SessionFailedError, Tarmac, start
from tarmac_client.cli import show
from tarmac_client.cli.main import parser
from tarmac_client.types import SessionInfo

VERBS = {
    "login", "train", "run", "predict", "follow", "ls", "status", "logs", "explain", "retry", "cancel", "data push",
    "data ls", "data show", "models ls", "models compare", "models promote", "models rollback", "models production",
    "models reproduce", "data rm", "models rm", "gpus", "hosts", "completion",
    "gpu check", "dag upload", "dag ls", "dag rm", "doctor", "kinds", "passwords generate",
}  # fmt: skip
Command = Callable[..., "tuple[int, str, str]"]


def verbs(of: argparse.ArgumentParser, *before: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                below = list(verbs(one, *before, name))
                yield from below or [((*before, name), one)]


def test_each_verb_has_an_example_that_it_understands_and_takes_json(tarmac: Command):
    found = list(verbs(parser()))
    assert {" ".join(words) for words, _ in found} == VERBS
    for words, one in found:
        examples = [shlex.split(line) for line in (one.epilog or "").splitlines() if line.strip().startswith("tarmac ")]
        assert examples
        for example in examples:
            assert tuple(example[1 : 1 + len(words)]) == words
            parser().parse_args([*example[1:], "--json"])
        code, out, _ = tarmac(*words, "--help")
        assert code == 0
        assert "example:" in out


def test_a_session_is_followed_in_plain_lines_to_its_result(tarmac: Command, stack: Stack, data: Path):
    done = [{"id": "check_request_body", "state": "success", "attempt": 1, "seconds": 0.4}]
    stack.states = [WAITS, {**TRAINS, "tasks": done}, {**OVER, "tasks": done, "seconds": 75.0}]
    code, out, err = tarmac("train", "test_model", "--train", data, "--set", "max_steps=5", "--set", "mode=fast")
    assert code == 0
    (key,) = stack.started
    assert stack.started[key]["parameters"] == {"max_steps": 5, "mode": "fast"}
    assert f"Started session {key}" in err
    assert "my data.jsonl: uploading 132 bytes" in err
    lines = out.splitlines()
    assert "    waits: no device has 12 GiB free (2 before it in the queue)" in lines
    assert "    training  25 % of 20, at most 9 s left, f1 0.400 at step 2" in lines
    assert [line for line in lines if "check_request_body" in line] == [
        "  ✓ check_request_body                   0.4 s"
    ]
    assert lines[-6:] == [
        "  f1 0.410   on 3 evaluation lines",
        "  f1 0.10 to 0.80 on other lines like them (95 % interval)",
        "  warning: it says little",
        "  model  ner version 3  ",
        f"  page   {URL}/run",
        "  success after 1 min 15 s",
    ]
    assert "\x1b" not in out


def test_a_request_in_a_file_is_sent_as_it_is(tarmac: Command, stack: Stack, data: Path):
    path = data.parent / "req.json"
    path.write_text(json.dumps({"model": "m", "datasets": {"a": {"train": data.name}}, "parameters": {"a": 1}}))
    code, out, _ = tarmac("train", path, "--set", "b=2", "--detach", "--json", "--key", "mine")
    assert (code, json.loads(out)) == (0, {"id": "mine"})
    assert stack.started["mine"]["parameters"] == {"a": 1, "b": 2}
    assert len(stack.stored) == 1


def test_a_number_that_json_has_not_reaches_the_stack_which_names_its_field(
    tarmac: Command, stack: Stack, tmp_path: Path
):
    request = tmp_path / "nan.json"
    request.write_text('{"model": "test_model", "datasets": {"a": {"train": "file:///f"}}, "seed": NaN}')
    code, _, err = tarmac("train", request, "--detach", "--key", "odd")
    assert (code, err) == (0, "")
    assert math.isnan(stack.started["odd"]["seed"])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_under_the_output_is_said():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tarmac_client", "completion", "bash"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(show.__file__).parents[2])},
        )
    assert (done.returncode, done.stderr) == (3, "The output could not be written: No space left on device.\n")


def test_the_kinds_and_the_parameters_of_one_are_explained(tarmac: Command):
    code, out, _ = tarmac("kinds")
    assert code == 0
    assert out.splitlines()[1] == "ner    Named entities"
    code, out, _ = tarmac("kinds", "ner")
    assert code == 0
    assert out.splitlines()[2:12] == [
        "", "  patience  1 to 100,000, default 600", "    so many updates without a better score end the training",
        "", '  refit  "always" or "never"', "    trained again",
        "", "  language  a word", "    translated into", "",
    ]  # fmt: skip
    code, _, err = tarmac("kinds", "nre")
    assert code == 2
    assert err == "There is no kind of model 'nre'; there are: ner.\n"


def test_a_session_that_fails_says_why_and_exits_with_1(tarmac: Command, stack: Stack):
    stack.states = [{"run_state": "failed", "state": "done", "why_failed": "prep: \x1b[2Jline 3:\n\x1b[2Jno JSON"}]
    code, out, _ = tarmac("follow", "s")
    assert code == 1
    assert "  why    prep: \\x1b[2Jline 3:\n         \\x1b[2Jno JSON\n" in out


def test_a_session_that_was_marked_as_a_success_without_a_model_says_so(tarmac: Command, stack: Stack):
    stack.states = [{"run_state": "success", "state": "done", "lacks": "the run was marked as a success"}]
    code, out, _ = tarmac("follow", "s")
    assert code == 1
    assert "  but    the run was marked as a success\n" in out
    with pytest.raises(SessionFailedError, match="ended without a model: the run was marked as a success"):
        Tarmac().session("s").wait()


def test_a_task_that_a_person_skipped_is_shown_and_those_of_the_other_branch_are_not(tarmac: Command, stack: Stack):
    stack.states = [{**OVER, "tasks": [{"id": task, "state": "skipped"} for task in ("train_model_gpu", "eval_model")]}]
    for verb in ("follow", "status"):
        out = tarmac(verb, "s")[1]
        assert [line.split() for line in out.splitlines() if "skipped" in line] == [["eval_model", "skipped"]]
    stack.states = [{**stack.states[0], "run_state": "failed"}]
    assert "skipped" not in tarmac("follow", "s")[1], "Airflow skips what is left of one that was marked as failed"


def test_an_interrupt_leaves_the_session_and_says_how_to_come_back(
    tarmac: Command, stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    stack.states = [TRAINS]

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    for words, back in ((["follow", "s"], "tarmac follow s"), (["logs", "-f", "s"], "tarmac logs -f s")):
        code, _, err = tarmac(*words)
        assert (code, back in err) == (130, True)
    assert not any(path.endswith("/cancel") for _, path in stack.calls)


def test_an_interrupt_before_the_session_is_known_says_where_to_look(
    tarmac: Command, data: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tarmac_client.Tarmac.send", interrupted)
    code, out, err = tarmac("train", "test_model", "--train", str(data))
    assert (code, out) == (130, "")
    assert "'tarmac ls' lists it if it is." in err


def test_a_training_that_does_not_tell_how_much_there_is_to_do_has_no_share():
    info = SessionInfo.of({"id": "s", **TRAINS, "progress": {"done": 0, "total": 0}})
    assert "%" not in show.progress_text(info, bar=True)


def test_a_terminal_shows_one_live_line():
    stream = io.StringIO()
    screen = show.Screen(stream, live=True)
    for done in (5, 10):
        screen.show(SessionInfo.of({"id": "s", **TRAINS, "progress": {"done": done, "total": 20}}))
    screen.show(SessionInfo.of({"id": "s", "url": "u", **OVER}))
    assert stream.getvalue().count("\n") == 6
    assert "[██████··················] 25 % of 20" in stream.getvalue()
    assert stream.getvalue().count("\r\x1b[K") == 8


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no data": (["train", "test_model"], 2, "--train: is missing"),
    "no such file": (["train", "test_model", "--train", "none.jsonl"], 2, "'none.jsonl' is not there"),
    "no such request": (["train", "none.json"], 2, "none.json cannot be read: No such file"),
    "a request that is no JSON": (["train", "BROKEN.json"], 2, "BROKEN.json is not JSON"),
    "a key twice": (["train", "TWICE.json"], 2, "'model' is there more than once"),
    "a number of 5,000 digits": (["train", "HUGE.json"], 2, "HUGE.json holds a number of thousands of digits"),
    "data beside a request": (["train", "TWICE.json", "--train", "x"], 2, "leave them out"),
    "a parameter twice": (["train", "m", "--train", "x", "--set", "a=1", "--set", "a=2"], 2, "'a' is given twice"),
    "an empty key": (["train", "m", "--train", "TWICE.json", "--key", ""], 2, "--key: is empty"),
    "a parameter without a value": (["train", "m", "--train", "x", "--set", "steps"], 2, "is not KEY=VALUE"),
    "a version in words": (["models", "promote", "ner", "three"], 2, "'three' is not a version"),
    "a time in words": (["models", "production", "ner", "--at", "yesterday"], 2, "'yesterday' is not a time"),
    "no verb": ([], 2, "VERB"),
    "a session that is not there": (["status", "../gpus"], 2, "no "),
    "a data set that is not there": (["data", "show", "2" * 44], 2, "There is no "),
}


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_told_in_a_sentence(
    tarmac: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "BROKEN.json").write_text("{")
    (tmp_path / "HUGE.json").write_text('{"seed": ' + "9" * 5_000 + "}")
    (tmp_path / "TWICE.json").write_text('{"model": "a", "model": "b"}')
    found, out, err = tarmac(*words)
    assert (found, out) == (code, "")
    assert said in err


def test_a_wrong_password_a_role_a_stack_that_is_down_and_another_version_have_codes_of_their_own(
    tarmac: Command, stack: Stack, monkeypatch: pytest.MonkeyPatch
):
    stack.script = [LOST] * 9
    assert tarmac("ls")[0] == 3
    stack.script = []
    monkeypatch.setenv("TARMAC_PASSWORD", "wrong")
    code, _, err = tarmac("ls")
    assert (code, "name or the password is wrong" in err) == (4, True)
    stack.database = "unhealthy"
    code, _, err = tarmac("ls")
    assert (code, "does not answer, so no login can be checked" in err) == (3, True)
    stack.database = "healthy"
    monkeypatch.setenv("TARMAC_PASSWORD", "right")
    stack.api = "2.0"
    assert tarmac("ls")[0] == 5
    monkeypatch.delenv("TARMAC_URL")
    assert tarmac("ls")[0] == 2


def test_what_is_no_data_set_is_named_and_not_sent(tarmac: Command, stack: Stack, data: Path):
    stack.file_problems = ["FILE: the file is a Parquet file. Expected is JSON Lines. Nothing was stored."]
    code, _, err = tarmac("data", "push", data)
    assert (code, f"{data}: it is a Parquet file" in err) == (2, True)
    assert stack.stored == {}


def test_a_key_that_is_wrong_is_refused_before_anything_is_uploaded(tarmac: Command, stack: Stack, data: Path):
    code, _, err = tarmac("train", "test_model", "--train", data, "--key", "a b")
    assert (code, err) == (2, "--key: must be 1 to 128 letters, digits and . _ ~ : + - (got 'a b').\n")
    assert stack.stored == {}


def test_lists(tarmac: Command, stack: Stack, data: Path):
    code, out, _ = tarmac("data", "push", data)
    reference = out.strip()
    assert (code, list(stack.stored)) == (0, [reference])
    assert reference in tarmac("data", "ls")[1]
    out = tarmac("data", "show", reference, "--beside", reference)[1]
    assert (
        "  sentence             text in 1 line, 1 to 3 words, half have at most 2\nlabels of tags: O 3, B-x 1\n" in out
    )
    assert "warning: look at it\n" in out
    assert tarmac("ls", "--limit", "3")[1].splitlines()[1].startswith("s0")
    assert "production" in tarmac("models", "ls")[1]
    assert show.model_lines([], "ner") == ["ner has no version any more: tarmac models production ner"]
    assert "1. s: no device" in tarmac("gpus")[1]
    assert tarmac("logs", "s")[1] == "one\ntwo\n"
    assert tarmac("cancel", "s") == (0, "Run s is cancelled.\n", "")
    assert tarmac("cancel", "slow") == (1, "", "Run s has not ended after 10 s\n"), "not what was given is wrong"
    assert "done (success)" in tarmac("status", "s")[1]
    assert tarmac("hosts")[1].splitlines() == [
        "local  2.5 of 4 cores free, 2.0 GiB free of 4.0 GiB",
        "  s  1.5 cores and 1.0 GiB reserved",
        "No session waits for cores and memory.",
    ]


def test_a_comparison_of_scores_that_cannot_be_compared_begins_with_that():
    said = "The scores are from different evaluation lines, so they cannot be compared."
    both = [{**version(f"ner/{number}", "0.4"), "caution": said} for number in (1, 2)]
    assert show.comparison_lines(both)[:2] == [said, show.comparison_lines([{**one, "caution": ""} for one in both])[0]]


def test_models_are_compared_promoted_and_taken_back(tarmac: Command, stack: Stack):
    assert [line.split() for line in tarmac("models", "compare", "ner/1", "ner/2")[1].splitlines()] == [
        ["ner/1", "ner/2"], ["*", "metric", "f1", "0.4", "0.5"], ["parameter", "max_steps", "5", "5"],
    ]  # fmt: skip
    code, out, _ = tarmac("models", "promote", "ner", "3", "--why", "better")
    assert (code, out.splitlines()[0]) == (0, "ner: version 3 is in production, nothing was before")
    assert "by     ada (a person)" in out
    assert tarmac("models", "rollback", "ner")[0] == 0
    assert stack.sent == [{"version": 3, "why": "better"}, {"why": ""}]
    last = tarmac("models", "production", "ner")[1].splitlines()[-1]
    assert last.split()[:5] == ["2026-11-28T06:00:00Z", "-", "3", "a", "person"]
    then = tarmac("models", "production", "ner", "--at", "2026-11-28 07:00")[1]
    assert then == "Version 3 of ner was in production at 2026-11-28T07:00:00Z.\n"
    stack.production = False
    assert "Nothing of ner was in production at" in tarmac("models", "production", "ner", "--at", "2026-11-28")[1]
    assert "ever in production" in tarmac("models", "production", "ner")[1]


@pytest.mark.parametrize("words", [["promote", "ner", "3"], ["rollback", "ner"]])
def test_what_would_be_done_twice_is_sent_once(tarmac: Command, stack: Stack, words: list[str]):
    answer = stack.api_answer

    def lost(method: str, path: str, request: httpx.Request, body: bytes) -> tuple[int, object]:
        answer(method, path, request, body)
        raise httpx.ReadError("the answer was lost")

    stack.api_answer = lost  # type: ignore[method-assign,assignment]
    assert tarmac("models", *words)[0] == 3
    assert len(stack.sent) == 1


@pytest.mark.parametrize(("matches", "code", "said"), [(True, 0, "The metrics match."), (False, 1, "do not match.")])
def test_a_session_is_trained_again_and_compared(tarmac: Command, stack: Stack, matches: bool, code: int, said: str):
    stack.matches = matches
    found, out, err = tarmac("models", "reproduce", "ner__1")
    assert (found, out.splitlines()[-1].endswith(said)) == (code, True)
    assert "Repeating ner__1 from its record, as session ner-reproduced__" in err
    found, out, _ = tarmac("models", "reproduce", "ner__1", "--json")
    assert (found, json.loads(out)["matches"]) == (code, matches)
    sent = len(stack.calls)
    found, out, _ = tarmac("models", "reproduce", "ner__1", "--compare", "ner-reproduced__2")
    assert (found, out.splitlines()[-1].endswith(said)) == (code, True)
    assert not any(path.endswith("/reproduce") for _, path in stack.calls[sent:])
    stack.states = [{"run_state": "failed", "state": "done", "why_failed": "no memory"}]
    assert tarmac("models", "reproduce", "ner__1")[0] == 1


@pytest.fixture
def stack_folder(tmp_path: Path) -> Path:
    """The folder of a stack; its program writes down what it is told, and exits with what `exit` has."""
    folder = tmp_path / "tarmac"
    (folder / "env/host").mkdir(parents=True)
    script = folder / "env/host/passwords.sh"
    script.write_text(f'#!/bin/sh\necho new passwords\necho "$*" > {folder}/told\nexit $(cat {folder}/exit)\n')
    script.chmod(0o755)
    (folder / "exit").write_text("0")
    (folder / "env/login.env").write_text("# people's\nTARMAC_UI_USER=airflow\nTARMAC_UI_PASSWORD=a=b\n")
    (folder / "env/registry.env").write_text("MLFLOW_TRACKING_USERNAME=tarmac\nMLFLOW_TRACKING_PASSWORD=m\n")
    return folder


def test_new_passwords_are_made_by_the_stack_s_own_program_on_its_machine(
    tarmac: Command, stack: Stack, stack_folder: Path
):
    assert tarmac("passwords", "generate", "--folder", stack_folder, "--yes")[0] == 0
    assert (stack_folder / "told").read_text() == "1\n"
    code, out, _ = tarmac("passwords", "generate", "--folder", stack_folder, "--yes", "--json")
    assert (code, json.loads(out)) == (
        0, {"airflow": {"user": "airflow", "password": "a=b"}, "mlflow": {"user": "tarmac", "password": "m"}},
    )  # fmt: skip
    (stack_folder / "exit").write_text("3")
    assert tarmac("passwords", "generate", "--folder", stack_folder, "--yes")[0] == 3
    assert stack.calls == [], "nothing of it goes over the network"


def test_elsewhere_new_passwords_say_where_they_are_made(
    tarmac: Command, stack_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(stack_folder.parent)
    code, _, err = tarmac("passwords", "generate")
    assert (code, "are made on the machine of the stack" in err) == (2, True)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = tarmac("passwords", "generate", "--folder", stack_folder)
    assert (code, "no terminal to ask" in err, (stack_folder / "told").exists()) == (2, True, False)
    (stack_folder / "env/host/passwords.sh").chmod(0o644)
    code, _, err = tarmac("passwords", "generate", "--folder", stack_folder, "--yes")
    assert (code, "passwords.sh cannot be run: Permission denied." in err) == (2, True)


def test_a_repetition_is_left_alone_and_compared_later(tarmac: Command, stack: Stack, monkeypatch: pytest.MonkeyPatch):
    code, out, err = tarmac("models", "reproduce", "ner__1", "--detach")
    assert (code, out.startswith("ner-reproduced__")) == (0, True)
    compare = f"tarmac models reproduce ner__1 --compare {out.strip()}"
    assert err == f"When it has ended: {compare}\n"
    stack.states = [TRAINS]

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    for words in ([], ["--json"]):
        code, out, err = tarmac("models", "reproduce", "ner__1", "--compare", compare.split()[-1], *words)
        assert (code, err.splitlines()[-1].endswith(f"Come back: {compare}")) == (130, True)


def test_what_nothing_needs_is_removed(tarmac: Command, stack: Stack, data: Path):
    reference = tarmac("data", "push", data)[1].strip()
    assert tarmac("data", "rm", reference) == (0, f"Removed {reference} (132 bytes).\n", "")
    code, _, err = tarmac("data", "rm", reference.partition("/")[0])
    assert (code, f"There is no {reference.partition('/')[0]!r} in the data set store" in err) == (2, True)
    code, _, err = tarmac("data", "show", "nix")
    assert (code, err) == (2, "There is no 'nix' in the data set store: `tarmac data ls` lists what is there.\n")
    assert tarmac("models", "rm", "ner", "2")[1] == "Removed ner/2, with its files.\n"
    assert "its files stay" in tarmac("models", "rm", "ner", "3")[1]
    assert tarmac("models", "rm", "ner", "1") == (2, "", "ner/1 is in production\n")


def test_the_doctor_looks_at_both_sides(tarmac: Command, stack: Stack):
    code, out, _ = tarmac("doctor")
    lines = out.splitlines()
    assert (code, lines[-3:]) == (1, ["✗ disk                 full", "                       Make space.", "1 wrong."])
    assert any(line.startswith("✓ login                at http://stack.example:8081 as ada") for line in lines)
    assert any("this machine's clock and the stack's agree" in line for line in lines)
    stack.findings, stack.date = [], "Sat, 28 Nov 2020 06:00:00 GMT"
    code, out, _ = tarmac("doctor")
    assert (code, out.splitlines()[-1]) == (0, "Nothing is wrong. 1 note (!) to look at.")
    assert "s ahead of the stack's" in out
    stack.findings = [{"part": "fence", "state": "note", "says": "old", "todo": ""}]
    assert tarmac("doctor")[1].splitlines()[-1] == "Nothing is wrong. 2 notes (!) to look at."
    assert json.loads(tarmac("doctor", "--json")[1])[0]["part"] == "client"


def test_the_doctor_says_what_it_mended_and_why_it_left_the_rest(tarmac: Command, stack: Stack):
    code, out, _ = tarmac("doctor", "--fix")
    assert (code, out.splitlines()) == (
        1, ["✓ leftovers: removed volume v: over", "✗ disk: full", "  Left: you choose.", "  Make space.",
            "1 mended. 1 wrong."],
    )  # fmt: skip
    stack.findings = []
    assert tarmac("doctor", "--fix") == (0, "✓ leftovers: removed volume v: over\n1 mended. Nothing is wrong.\n", "")
    assert json.loads(tarmac("doctor", "--fix", "--json")[1])["done"] == ["leftovers: removed volume v: over"]
    stack.unmended = [{"part": "logs", "says": "could not be mended: away"}]
    assert tarmac("doctor", "--fix")[0] == 1


def test_a_script_learns_whether_there_is_a_gpu(tarmac: Command, stack: Stack):
    code, out, _ = tarmac("gpu", "check")
    assert (code, out.splitlines()) == (
        0,
        ["NVIDIA driver 570.1, CUDA ?", "✓ GPU-a  H100, 80.0 GiB, compute capability 9.0", "  too old for x",
         "The engine handed 1 GPU to a container.", "A session can train on a GPU."],
    )  # fmt: skip
    assert json.loads(tarmac("gpu", "check", "--host", "gpu2", "--json")[1])["host"] == "gpu2"
    stack.gpus = False
    assert tarmac("gpu", "check", "--json")[0] == 1


def test_a_stack_that_tries_its_own_gpus_only_says_so(tarmac: Command, stack: Stack):
    answered = stack.api_answer

    def older(method: str, path: str, request: httpx.Request, body: bytes) -> tuple[int, object]:
        status, found = answered(method, path, request, body)
        return status, {key: value for key, value in found.items() if key != "host"} if "gpus" in path else found

    stack.api_answer = older  # type: ignore[method-assign,assignment]
    assert tarmac("gpu", "check")[0] == 0
    code, _, err = tarmac("gpu", "check", "--host", "gpu2")
    assert (code, "tries the GPUs of its own machine only" in err) == (5, True)


def test_a_session_is_explained_and_run_again(tarmac: Command, stack: Stack):
    assert tarmac("explain", "s") == (0, "s: queued\n  why    It needs 12 GiB.\n  do     Wait.\n", "")
    assert json.loads(tarmac("explain", "s", "--json")[1])["todo"] == ["Wait."]
    code, out, _ = tarmac("retry", "s")
    assert (code, out.splitlines()[0]) == (0, "Run s runs again, from train_model_cpu on.")
    assert ("POST", "/tarmac/api/v1/sessions/s/retry") in stack.calls


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["status", "s"],
        ["data", "ls"],
        ["models", "ls"],
        ["models"],
        ["models", "--json", "ls"],
        ["completion", "zsh"],
        ["gpus"],
        ["hosts"],
        ["cancel", "s"],
        ["explain", "s"],
        ["retry", "s"],
    ],
)
def test_everything_is_there_as_json(tarmac: Command, words: list[str]):
    code, out, _ = tarmac(*words, "--json")
    assert code == 0
    assert json.loads(out) is not None


def test_login_tries_the_login_and_keeps_it_for_its_owner_only(
    tarmac: Command, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("TARMAC_URL", "TARMAC_USER", "TARMAC_PASSWORD"):
        monkeypatch.delenv(name)
    for password, wanted in (("wrong", 4), ("right", 0)):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{password}\n"))
        code, out, err = tarmac("login", URL + "/", "--user", "ada", "--password-stdin")
        assert code == wanted
        assert (tmp_path / "l.json").exists() == (wanted == 0)
    assert "may start sessions" in out
    assert "unencrypted" in err
    assert (tmp_path / "l.json").stat().st_mode & 0o777 == 0o600
    assert tarmac("ls")[0] == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "there is no terminal to ask" in tarmac("login", URL)[2]


def test_a_log_goes_on_until_the_session_has_ended(tarmac: Command, stack: Stack):
    stack.states = [TRAINS, OVER]
    stack.log = ["one"]
    answer = stack.api_answer

    def growing(method: str, path: str, request: httpx.Request, body: bytes) -> tuple[int, object]:
        if path.endswith("/sessions/s"):
            stack.log = ["one", "two"]
        return answer(method, path, request, body)

    stack.api_answer = growing  # type: ignore[method-assign,assignment]
    assert tarmac("logs", "-f", "s")[1] == "one\ntwo\n"


def test_status_says_what_a_session_does_now(tarmac: Command, stack: Stack):
    now = "not begun, since the DAG is paused in Airflow"
    stack.states = [{"run_state": "queued", "state": "queued", "now": now}]
    assert f"  now    {now}\n" in tarmac("status", "s")[1]


def test_long_names_of_types_are_cut_to_the_screen(tarmac: Command, stack: Stack, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "90")
    row = {"precision": 1, "recall": 1, "f1": 1, "support": 1200}
    by_type = [{"name": name, **row} for name in ("t" * 200, "short")]
    stack.states = [{"run_state": "success", "state": "done", "result": {"metrics": {}, "by_type": by_type}}]
    _, out, _ = tarmac("status", "s")
    told = [line for line in out.splitlines() if "P 1.000" in line]
    assert [len(line) for line in told] == [90, 90]
    assert "t…" in told[0]


def test_a_table_is_no_wider_than_the_screen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = show.table(["A", "NOTE"], [["a", "x" * 100], ["b", LINE]], cut=True)
    assert max(map(len, lines)) <= 40
    assert lines[1].endswith("…")
    assert show.table(["A", "NOTE"], [["a" * 50, "x" * 9]], cut=True) == [f"A{' ' * 49}  NOTE", f"{'a' * 50}  xxx…"]


def test_predict_prints_an_object_a_line(tarmac: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new.jsonl"
    path.write_text('{"sentence": "Zoë"}\n\n{"sentence": "Bob"}\n', encoding="utf-8")
    for what, which in (("ner", "production"), ("ner@7", "7"), ("ner/7", "7"), ("ner@champion", "champion")):
        code, out, err = tarmac("predict", what, path)
        assert (code, err) == (0, "ner version 3 (named_entity_recognition)\n")
        assert out == f'{{"which": "{which}", "said": "Zoë"}}\n{{"which": "{which}", "said": "Bob"}}\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"sentence": "a"}')))
    assert tarmac("predict", "s1", "-")[:2] == (0, '{"session": true}\n')
    assert json.loads(tarmac("predict", "ner", path, "--json")[1])["version"] == 3
    code, _, err = tarmac("predict", "nre", path)
    assert (code, err) == (2, "There is no 'nre'. There is no session 'nre' either.\n")
    code, _, err = tarmac("predict", "s", path)
    assert (code, err) == (
        2, "The session 's' has no model to predict with: `tarmac status s` says how far it is.\n",
    )  # fmt: skip
    assert tarmac("predict", "ner", tmp_path / "none")[0] == 2
    path.write_text("\n")
    assert "has no line to predict for" in tarmac("predict", "ner", path)[2]
    for text, said in (
        ('\n[{"sentence": "a"},\n{"sentence": "b"}]', ""),
        ('["a"]', "Object 1 to predict for is 'a'"),
        ('[{"sentence": "a"}', "begins like a JSON array and is not one"),
    ):
        path.write_text(text)
        code, out, err = tarmac("predict", "ner", path)
        assert (code, len(out.splitlines()), said in err) == ((2, 0, True) if said else (0, 2, True))


def test_ctrl_c_while_python_still_imports_ends_it_quietly(tmp_path: Path):
    # In place of what is imported: it says that it is there, and waits.
    (tmp_path / "httpx.py").write_text("import os, time\nos.write(1, b'.')\ntime.sleep(60)\n")
    source = Path(tarmac_client.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(source)])}
    with subprocess.Popen(
        [sys.executable, "-m", "tarmac_client", "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as started:
        assert started.stdout is not None
        assert started.stdout.read(1) == b"."
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=30)
    assert (started.returncode, out, err) == (130, b"", b"")


def test_ctrl_c_while_it_reads_its_words_ends_it_quietly(monkeypatch: pytest.MonkeyPatch):
    left = list[int]()
    before = signal.getsignal(signal.SIGINT)

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tarmac_client.cli.main.run", interrupted)
    monkeypatch.setattr(os, "_exit", left.append)
    try:
        start.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert left == [130]


def test_all_that_the_package_names_is_there():
    assert {name for name in tarmac_client.__all__ if getattr(tarmac_client, name, None) is None} == set()
    assert set(tarmac_client.__all__) == set(tarmac_client._HOME) <= set(dir(tarmac_client))
    with pytest.raises(AttributeError, match="has no attribute 'Tarmack'"):
        _ = tarmac_client.Tarmack


def test_what_is_stored_nowhere_is_named_as_it_was_typed(tarmac: Command):
    said = "There is no 'nope' in the data set store: `tarmac data ls` lists what is there.\n"
    assert tarmac("data", "rm", "nope") == tarmac("data", "show", "nope") == (2, "", said)
    known = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
    code, _, err = tarmac("data", "show", known, "--beside", "nope")
    assert (code, err) == (2, said)
    assert repr(known) in tarmac("data", "rm", known)[2]
