"""The engine: session volumes, fencing, templated mounts. All of it idempotent, nothing left by a failure."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tarmac.base.errors import ContainerError
from tarmac.base.session import session_labels, volume_name
from tarmac.containers import engine, passthrough
from tarmac.containers.mounts import TemplatedMount, check_rendered

IMAGE = "debian:trixie-slim"


def test_a_session_s_volume_holds_the_request_for_the_session_s_user_alone(session: Any):
    step = session.step("stat -c '%n %u:%g %a' /session /session/request.json; cat /session/request.json")
    step.run()
    assert "/session 10001:10001 700" in step.lines
    assert "/session/request.json 10001:10001 600" in step.lines
    assert json.loads("".join(step.lines[-3:])) == {"model": "test_model"}
    assert session.api.inspect_volume(session.volume)["Labels"] == session.labels


def test_making_it_twice_keeps_what_is_in_it(session: Any):
    session.step("echo 1 >/session/model").run()
    session.request = {"model": "test_model", "seed": 2}
    session.make_volume()
    step = session.step("cat /session/model /session/request.json", task_id="eval_model")
    step.run()
    assert "1" in step.lines
    assert any('"seed": 2' in line for line in step.lines)


def test_a_volume_that_is_not_tarmacs_is_refused_and_kept(session: Any, api: Any):
    other = session_labels("other-stack", "other", "run")
    with pytest.raises(ContainerError, match="not this session's") as refused:
        engine.create_session_volume(api, session.volume, other, {}, IMAGE)
    assert not refused.value.retryable
    assert engine.volume_exists(api, session.volume)


def test_a_failure_leaves_no_volume(new_session: Callable[[], Any]):
    session = new_session()
    with pytest.raises(ContainerError, match="run `make up`"):
        session.make_volume(image="tarmac/no-such-image:none")
    assert not engine.volume_exists(session.api, session.volume)


def test_a_failure_keeps_a_volume_that_was_there_before(session: Any):
    with pytest.raises(ContainerError):
        session.make_volume(image="tarmac/no-such-image:none")
    assert engine.volume_exists(session.api, session.volume)


def test_runs_of_the_same_millisecond_have_two_volumes(api: Any, stack: str):
    runs = ["manual__2026-11-22T06:24:21.083001+00:00", "manual__2026-11-22T06:24:21.083002+00:00"]
    names = [volume_name(stack, "nlp_model_training", run) for run in runs]
    for name, run in zip(names, runs, strict=True):
        engine.create_session_volume(api, name, session_labels(stack, "nlp_model_training", run), {"run": run}, IMAGE)
    assert len({api.inspect_volume(name)["Mountpoint"] for name in names}) == 2
    assert [engine.remove_volume(api, name) for name in names] == [True, True]


def test_removing_a_volume_twice_is_fine(session: Any):
    assert engine.remove_volume(session.api, session.volume) is True
    assert engine.remove_volume(session.api, session.volume) is False


def test_a_volume_in_use_is_not_removed_and_says_so(session: Any, until: Any):
    step = session.step("echo ready; sleep 60").start()
    until("the container's first line", lambda: "ready" in step.lines)
    with pytest.raises(ContainerError, match="in use"):
        engine.remove_volume(session.api, session.volume)
    engine.fence(session.api, session.labels)
    with pytest.raises(ContainerError, match="removed|exit code 1"):
        step.join()


def test_fencing_ends_every_container_of_the_session_and_no_other(
    session: Any, new_session: Callable[[], Any], until: Any
):
    other = new_session()
    other.make_volume()
    steps = [
        session.step("echo ready; sleep 60").start(),
        session.step("echo ready; sleep 60", task_id="eval_model").start(),
        other.step("echo ready; sleep 60").start(),
    ]
    for step in steps:
        until("a container's first line", lambda step=step: "ready" in step.lines)
    kept = engine.fence(session.api, session.labels, keep_task="eval_model")
    assert kept == [steps[0].operator.container_name]
    assert len(session.containers()) == 1
    assert engine.fence(session.api, session.labels) == [steps[1].operator.container_name]
    assert session.containers() == []
    assert engine.fence(session.api, session.labels) == []
    assert len(other.containers()) == 1
    engine.fence(other.api, other.labels)


def test_a_session_is_deleted_with_its_containers_and_twice(session: Any, until: Any):
    from tarmac.tasks.pipeline import delete_session

    step = session.step("echo ready; sleep 60").start()
    until("the container's first line", lambda: "ready" in step.lines)
    first = delete_session("nlp_model_training", session.run_id, None)
    assert first == {"volume": session.volume, "removed": True, "fenced": [step.operator.container_name]}
    again = delete_session("nlp_model_training", session.run_id, None)
    assert again == {"volume": session.volume, "removed": False, "fenced": []}


def test_removing_what_is_gone_is_fine(api: Any):
    engine.remove_container(api, "0" * 64)
    engine.stop_and_remove(api, "0" * 64)


def test_an_engine_that_cannot_hand_over_a_gpu_says_so_and_keeps_nothing(api: Any, stack: str):
    problem = passthrough.problem(api, IMAGE, "GPU-none", {"tarmac.project": stack})
    assert problem is not None
    assert "NVIDIA Container Toolkit" in problem


def test_a_mount_s_source_and_target_are_templates(session: Any):
    from tarmac.tasks.container_operator import TrainingContainerOperator

    operator = TrainingContainerOperator(
        task_id="train",
        image=IMAGE,
        command=["train"],
        mounts=[TemplatedMount(source="{{ names[run_id] }}", target="/{{ 'session' }}")],
    )
    operator.render_template_fields({"run_id": session.run_id, "names": {session.run_id: session.volume}})
    (mount,) = operator.mounts
    assert (mount["Source"], mount["Target"], mount["Type"]) == (session.volume, "/session", "volume")
    check_rendered(operator.mounts)


def test_a_rendered_mount_is_what_the_container_gets(session: Any):
    step = session.step("echo written >/data/file")
    step.operator.mounts.append(TemplatedMount(source="{{ volume }}", target="/data"))
    step.operator.render_template_fields({"volume": session.volume})
    step.run()
    check = session.step("cat /session/file", task_id="eval_model")
    check.run()
    assert "written" in check.lines


EMPTY = {
    "a source that rendered to nothing": {"source": "{{ nothing }}"},
    "a source that rendered to None": {"source": "{{ none }}"},
    "a target that rendered to nothing": {"target": "{{ nothing }}"},
}


@pytest.mark.parametrize("template", EMPTY.values(), ids=EMPTY.keys())
def test_a_mount_that_rendered_to_nothing_starts_no_container(session: Any, template: dict[str, str]):
    step = session.step("true")
    step.operator.mounts.append(TemplatedMount(**{"source": session.volume, "target": "/data", **template}))
    step.operator.render_template_fields({"nothing": "", "none": None})
    with pytest.raises(ValueError, match=r"has no (source|target)"):
        step.run()
    assert session.containers() == []


def test_a_mount_that_was_never_rendered_is_refused():
    with pytest.raises(ValueError, match="has no source"):
        check_rendered([TemplatedMount(source="{{ volume }}", target="/data")])


@pytest.mark.parametrize("empty", ["source", "target"])
def test_a_mount_without_a_source_or_target_is_refused_when_it_is_written(empty: str):
    with pytest.raises(ValueError, match="needs a source and a target"):
        TemplatedMount(**{"source": "volume", "target": "/data", empty: ""})
