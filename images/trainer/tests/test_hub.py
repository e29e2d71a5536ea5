"""Weights from a hub: what is fetched, what is refused, what is said where there is no way out."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import BASE, COMMIT, MODEL, Hub, running_hub

from tarmac_trainer.data import hub as hubs
from tarmac_trainer.runtime.errors import DataError, StoreError, TrainerError

WEIGHTS = (2).to_bytes(8, "little") + b"{}" + b"numbers"
GOOD = {
    "README.md": b"# of people",
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": WEIGHTS,
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model.safetensors.index.json": b"{}",
    "modeling_own.py": b"import os",
    "pytorch_model.bin": b"\x80\x04",
    "tokenizer.json": b"{}",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub(dict(GOOD)) as running:
        yield running


def test_files_that_weights_consist_of_are_fetched_once_each_and_nothing_else(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hubs.fetch(BASE, tmp_path / "base", hub_url=f"{hub.url}/")
    found = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    assert found == {name: GOOD[name] for name in ("config.json", "model.safetensors", "tokenizer.json")}
    assert sum("safetensors" in path for path in hub.asked) == 2  # where it is, and there
    assert f"{MODEL} at commit {COMMIT}: 3 files" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def without(name: str) -> Callable[[Hub], object]:
    return lambda hub: [hub.files.pop(one) for one in list(hub.files) if one.startswith(name)]


def other(name: str, content: bytes) -> Callable[[Hub], object]:
    return lambda hub: hub.files.update({name: content})


def given(name: str, content: bytes) -> Callable[[Hub], object]:
    return lambda hub: hub.instead.update({name: content})


def answers(status: int) -> Callable[[Hub], object]:
    return lambda hub: setattr(hub, "status", status)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (without("model"), DataError, "has no safetensors file at this commit, and 'pytorch_model.bin' can run code"),
        (without("config"), DataError, "the weights have no config.json"),
        (without("tokenizer"), DataError, "no tokenizer.json and no vocab.txt"),
        (other("config.json", b'{"model_type": "x", "auto_map": {}}'), DataError, "names code of the model's own"),
        (other("model.safetensors", b"\x80\x04" * 9), DataError, "model.safetensors is not a safetensors file"),
        (given("model.safetensors", WEIGHTS[:-1] + b"!"), DataError, "gives as model.safetensors is not what its"),
        (given("config.json", b'{"model_type": "BERT"}'), DataError, "gives as config.json is not what its commit has"),
        (given("model.safetensors", WEIGHTS + b"more"), DataError, "gives as model.safetensors is not what its"),
        (given("model.safetensors", WEIGHTS[:-1]), StoreError, "broke off after 16 of 17 bytes"),
        (answers(404), DataError, f"has no {MODEL} with this commit"),
        (answers(401), DataError, "to nobody without a login, or does not have it (HTTP 401)"),
        (answers(503), StoreError, "answers HTTP 503"),
        (lambda hub: setattr(hub, "listing", lambda: b"<html>"), StoreError, "is not a hub: it lists no files"),
        (lambda hub: setattr(hub, "listing", lambda: b'{"error": 1}'), StoreError, "is not a hub: it lists no files"),
    ],
)
def test_what_a_hub_does_not_give_is_said_in_a_sentence(
    hub: Hub, tmp_path: Path, change: Callable[[Hub], object], kind: type[TrainerError], said: str
) -> None:
    change(hub)
    with pytest.raises(kind) as caught:
        hubs.fetch(BASE, tmp_path / "base", hub_url=hub.url)
    assert str(caught.value).startswith("base_model: ")
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("base_model", "address", "kind", "said"),
    [
        (BASE, "", DataError, "this stack fetches from no hub (TARMAC_HUB_URL): download the model where you can"),
        (BASE, "http://127.0.0.1:1", StoreError, "cannot be reached from here ([Errno 111] Connection refused)"),
        (f"hf://{MODEL}@main", "http://127.0.0.1:1", DataError, "the 40 hex digits of a commit"),
    ],
)
def test_without_a_way_out_one_sentence_says_what_to_do(
    base_model: str, address: str, kind: type[TrainerError], said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        hubs.fetch(base_model, tmp_path / "base", hub_url=address)
    assert said in str(caught.value)


def test_an_encrypted_connection_does_not_lead_to_a_plain_one() -> None:
    import urllib.error
    import urllib.request

    request = urllib.request.Request("https://hub/file")
    with pytest.raises(urllib.error.HTTPError, match="not encrypted"):
        hubs._Redirects().redirect_request(request, None, 302, "Found", {}, "http://elsewhere/file")


def test_what_is_too_large_is_refused_before_it_is_fetched() -> None:
    config = hubs.Listed("config.json", 2 * 2**26, "0" * 40, None)
    large = hubs.Listed("model.safetensors", hubs.MOST_BYTES, "0" * 40, "0" * 64)
    small = hubs.Listed("config.json", 1, "0" * 40, None)
    with pytest.raises(DataError, match=r"config.json has 134,217,728 bytes, more than"):
        hubs.choose([config, large], MODEL)
    with pytest.raises(DataError, match=r"are 2 files of 17,179,869,185 bytes, more than"):
        hubs.choose([small, large], MODEL)
