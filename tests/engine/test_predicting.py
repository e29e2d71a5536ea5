"""A prediction on a real engine: what its containers get, how it ends, and that it leaves nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.steps import IMAGE
from support.waiting import PATIENCE
from tarmac.base import session as names
from tarmac.base.errors import BusyError, ContainerError, PredictionError, UnknownModelError
from tarmac.base.settings import settings
from tarmac.checks import predicting
from tarmac.containers import engine
from tarmac.containers import predicting as asking
from tarmac.registry.origins import Base
from tarmac.request.catalogue import Model, catalogue

# Shell in the place of a trainer: what comes first in the model's name says what it does.
FETCH = """set -eu
case $1 in
fetch)
    test -n "$MLFLOW_TRACKING_URI"
    mkdir /session/model
    echo "$TARMAC_MODEL_URI" > /session/model/uri
    echo '{"event": "result", "bytes": 1}' ;;
predict)
    test -z "${MLFLOW_TRACKING_URI:-}"
    test "$(ls /sys/class/net)" = lo
    ! touch /etc/x 2>/dev/null
    uri=$(cat /session/model/uri)
    case $uri in
    slow) sleep 600 ;;
    bad) echo '{"event": "error", "message": "line 2: \\"sentence\\" is missing", "retryable": false}'; exit 2 ;;
    old) echo 'predict: no such command'; exit 2 ;;
    broken) exit 1 ;;
    faulty) echo '{"event": "error", "message": "unexpected KeyError: text", "retryable": true}'; exit 1 ;;
    large) head -c 20000000 /dev/zero | tr '\\0' ' ' > /session/result-predict.json
        sum=$(sha256sum /session/result-predict.json | cut -c1-64)
        echo "{\\"event\\": \\"result\\", \\"file\\": \\"result-predict.json\\", \\"bytes\\": 20000000, \\"sha256\\": \\"$sum\\"}" ;;
    *) echo "{\\"event\\": \\"result\\", \\"predictions\\": [{\\"user\\": $(id -u), \\"lines\\": $(wc -l < /session/lines.jsonl)}]}" ;;
    esac ;;
esac
"""  # noqa: E501  lines of shell
LINES = b'{"sentence": "a"}\n{"sentence": "b"}\n'


@pytest.fixture
def ask(api: Any, stack: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Predicts with a model whose trainer is a shell script."""
    kind = Model("shell", "score", image=IMAGE, command=("/bin/sh", "-c", FETCH, "trainer"), memory_bytes=64 * 1024**2)
    monkeypatch.setitem(catalogue().models, "shell", kind)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setattr(predicting, "Registry", lambda: None)
    monkeypatch.setattr(predicting, "find_version", lambda _, name, which: Base(f"{name}/{which or 4}", name, "shell"))
    network = settings().registry_network
    api.create_network(network, labels={"tarmac.project": stack}, internal=True)
    yield lambda name, which="": predicting.predict(LINES, model=name, version=which)
    api.remove_network(network)


@pytest.fixture(autouse=True)
def no_volume_is_left(api: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[str] = []
    hold = asking._hold

    def held(*given: Any) -> str:
        container = hold(*given)
        made.append(api.inspect_container(container)["Mounts"][0]["Name"])
        return container

    monkeypatch.setattr(asking, "_hold", held)
    yield
    assert not [name for name in made if engine.volume_exists(api, name)]


def test_a_model_is_fetched_with_credentials_and_asked_without_a_network(ask: Callable[..., Any]):
    answer = ask("mine")
    assert (answer.model, answer.version, answer.kind) == ("mine", 4, "shell")
    assert answer.predictions == [{"user": 10001, "lines": 2}]


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("bad", PredictionError, '^line 2: "sentence" is missing$'),
        ("old", PredictionError, "The trainer of shell cannot predict: .*no such command"),
        ("broken", ContainerError, "failed with exit code 1"),
        ("faulty", PredictionError, "^The trainer of shell failed: unexpected KeyError: text$"),
        ("large", ContainerError, "20,000,000 bytes and the limit is .*: send fewer lines in a call"),
    ],
)
def test_what_goes_wrong_is_said_in_a_sentence(ask: Callable[..., Any], name: str, kind: type, said: str):
    with pytest.raises(kind, match=said):
        ask(name)


def test_one_that_takes_too_long_is_stopped(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asking, "SECONDS", 4)
    with pytest.raises(PredictionError, match="took longer than 4 s and was stopped: send fewer lines"):
        ask("slow")


def test_more_at_a_time_than_there_are_turns_are_refused_and_a_kill_leaves_nothing_for_long(
    api: Any, stack: str, ask: Callable[..., Any], until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(predicting, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(predicting, "_turns", threading.BoundedSemaphore(1))
    said: list[BaseException] = []

    def go_on() -> None:
        try:
            ask("slow")
        except ContainerError as error:
            said.append(error)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()

    def running() -> Any:
        labels = {names.LABEL_PROJECT: stack, names.LABEL_TASK: "predict"}
        found = engine.containers_with(api, labels)
        return found and found[0]["State"] == "running" and found[0]

    container = until("the prediction to run", running)
    with pytest.raises(BusyError, match="predictions run now, and more are not run at a time"):
        ask("mine")
    (seen,) = [one for one in engine.stack_containers(api, stack) if one.id == container["Id"]]
    assert (seen.key, seen.allowed_seconds) == (None, asking.SECONDS + 60)
    # What a checker does that was started after another was killed.
    assert len(asking.remove_leftovers(api, stack)) == 3
    thread.join(PATIENCE)
    assert "removed" in str(said[0]) or "exit code" in str(said[0])


def test_a_kind_that_left_the_catalogue_is_named(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(catalogue().models, "shell")
    with pytest.raises(UnknownModelError, match="mine/4 is of the kind 'shell', which the catalogue does not have"):
        ask("mine")
