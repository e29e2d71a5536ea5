"""Data that is not what it was, uploads that break off, a volume that is full: a clear failure, nothing else breaks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from support.faults import KILL, container_of, docker, send_signal
from support.stack import REPO, Stack
from support.waiting import wait_for

# The first test of the folder waits for the stack, too.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("second")]


def in_cli(stack: Stack, script: str) -> str:
    return docker("exec", container_of(stack, "airflow-cli"), "sh", "-c", script)


def test_a_data_set_that_was_changed_under_its_id_is_refused_by_name(stack: Stack, tmp_path: Any) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text((REPO / "examples" / "tiny.jsonl").read_text() + '{"sentence": "One more line"}\n')
    reference = stack.store(file)
    request = {"model": "test_model", "datasets": {"own": {"train": reference, "eval": None}}}
    assert stack.finish(stack.start(request)) == "success"
    in_cli(stack, f"chmod u+w /datasets/{reference}; echo '{{}}' >>/datasets/{reference}")
    run_id = stack.start(request)
    assert stack.finish(run_id) == "failed"
    log = stack.log(run_id, "check_request_body") + stack.log(run_id, "retrieve_resources")
    assert reference.split("/")[0] in log
    assert "the file was changed; store it again" in log
    in_cli(stack, f"rm -rf /datasets/{reference.split('/')[0]}")
    assert stack.store(file) == reference, "stored again, it is whole again"
    assert stack.finish(stack.start(request)) == "success"


def test_an_upload_that_breaks_off_leaves_nothing_that_a_request_could_name(stack: Stack) -> None:
    before = in_cli(stack, "find /datasets -name '*.jsonl' | sort")
    command = ["env/host/stack.sh", "exec", "-T", "airflow-cli", "python", "-m", "tarmac.cli", "dataset"]
    upload = subprocess.Popen(command, cwd=REPO, env=stack.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert upload.stdin
    upload.stdin.write(b'{"sentence": "half of it"}\n' * 200_000)
    upload.stdin.flush()
    assert wait_for("the upload's process", lambda: send_signal(stack, "airflow-cli", KILL, "tarmac.cli dataset"))
    upload.stdin.close()
    assert upload.wait(300) != 0
    assert in_cli(stack, "find /datasets -name '*.jsonl' | sort") == before


def test_a_full_volume_is_a_clear_failure_and_the_next_session_is_well(
    stack: Stack, training: Callable[..., str]
) -> None:
    from tarmac.base.session import session_labels, volume_name

    run_id = "has-no-room"
    volume = volume_name(stack.project, "nlp_model_training", run_id)
    labels = session_labels(stack.project, "nlp_model_training", run_id).items()
    memory = ("--driver", "local", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=8k")
    docker("volume", "create", *memory, *(w for key, value in labels for w in ("--label", f"{key}={value}")), volume)
    # The engine mounts it only while a container uses it: this one does, until the session is to remove it.
    holder = docker("run", "--detach", "--volume", f"{volume}:/session", "debian:trixie-slim", "sleep", "3600").strip()
    try:
        assert training(1, run_id=run_id) == run_id
        wait_for("a step that failed", lambda: stack.tasks(run_id)["retrieve_resources"]["try_number"] >= 2)
        docker("rm", "--force", holder)
        assert stack.finish(run_id) in ("failed", "success")
        path = f"/api/v2/dags/nlp_model_training/dagRuns/{run_id}/taskInstances/retrieve_resources/logs/1"
        first = stack.http.get(path, params={"full_content": "true"}, headers={"Accept": "application/json"}).text
        assert "no space left in the session's volume" in first
    finally:
        docker("rm", "--force", holder, check=False)
    assert stack.finish(training(1)) == "success"
