"""What a person brings as a transformer's weights, and which training a request then asks for."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fakes.weights import FILES, tar
from tarmac.base.errors import DatasetError, RequestError
from tarmac.base.settings import settings
from tarmac.checks import world
from tarmac.checks.removal import sessions_with_file
from tarmac.registry.origins import find_base
from tarmac.request import datasets, weights
from tarmac.request.catalogue import OUR_IMAGE, TRANSFORMERS_IMAGE, architecture, catalogue, entry
from tarmac.request.content import problem_with_content
from tarmac.request.schema import parse_request
from tarmac.scheduler.needs import workload_fingerprint
from tarmac.tasks import pipeline
from tarmac_client import files

ID = "AF4japp77czNJo9thM9RHYM7oMpeZZXnGyNiHoCMxtr7"
HUB = f"hf://org/bert@{'0a' * 20}"
NER: dict[str, Any] = {
    "model": "named_entity_recognition",
    "datasets": {"a": {"train": f"{ID}/{ID}.jsonl"}},
}


def stored(given: io.BytesIO, folder: Path) -> str:
    return datasets.put(given, folder.as_uri(), ".weights")[0]


def test_equal_files_have_one_id_whatever_made_the_archive(tmp_path: Path):
    made = [
        tar(FILES),
        tar(FILES, mtime=1_700_000_000, form=tarfile.PAX_FORMAT),
        tar(FILES, mtime=5, form=tarfile.USTAR_FORMAT, before="./"),
    ]
    references = {stored(one, tmp_path) for one in made}
    assert len(references) == 1
    with tarfile.open(tmp_path / references.pop()) as archive:
        members = archive.getmembers()
        assert {member.name: archive.extractfile(member).read() for member in members} == FILES  # type: ignore[union-attr]
    assert {(member.mtime, member.uid, member.mode) for member in members} == {(0, 0, 0o644)}


def test_the_client_packs_a_folder_as_the_stack_would(tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    packed = files.identify_weights(folder, weights.choose(FILES), field="FILE")
    assert packed.reference == stored(tar(FILES), tmp_path)


def test_of_a_hub_s_folder_only_what_weights_consist_of_is_chosen():
    there = [*FILES, "README.md", "pytorch_model.bin", "modules.json", ".gitattributes", "model.onnx"]
    assert weights.choose(there) == sorted(FILES)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["config.json", "pytorch_model.bin", "vocab.txt"], "can run code when it is read"),
        (["config.json", "vocab.txt"], "has no model.safetensors"),
        (["model.safetensors", "vocab.txt"], "has no config.json"),
        (["model.safetensors", "config.json"], "has no tokenizer.json and no vocab.txt"),
        ([f"model-{n:05}-of-00070.safetensors" for n in range(70)] + ["config.json", "vocab.txt"], "more than 64"),
    ],
)
def test_a_folder_without_weights_is_refused(names: list[str], said: str):
    with pytest.raises(DatasetError, match=said):
        weights.choose(names)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config.json": None}, "has no config.json"),
        ({"evil.py": b"x"}, "not one of the files that weights consist of"),
        ({"../../vocab.txt": b"x"}, "not one of the files that weights consist of"),
        ({"config.json": b'{"model_type": "x", "auto_map": {}}'}, "auto_map"),
        ({"config.json": b"[]"}, "config.json is not a JSON object"),
        ({"config.json": b"{"}, "config.json is not JSON"),
        ({"config.json": b"{}"}, "model_type"),
        ({"model.safetensors": b"\x80\x04" + b"x" * 50}, "is not a safetensors file"),
        ({"a/config.json": b"{}"}, "not one of the files that weights consist of"),
        ({"added_tokens.json": b"{}"}, "in another order than by name"),
    ],
)
def test_an_archive_that_is_not_allowed_leaves_nothing_in_the_store(
    change: dict[str, bytes | None], said: str, tmp_path: Path
):
    files = {name: content for name, content in {**FILES, **change}.items() if content is not None}
    with pytest.raises(DatasetError, match=said):
        stored(tar(files), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_was_cut_off_or_links_leaves_nothing_in_the_store(tmp_path: Path):
    whole = tar(FILES).getvalue()
    for cut in (700, 1700, 100):
        with pytest.raises(DatasetError, match=r"not a complete archive|has no "):
            stored(io.BytesIO(whole[:cut]), tmp_path)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        link = tarfile.TarInfo("config.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    out.seek(0)
    with pytest.raises(DatasetError, match="not one of the files that weights consist of"):
        stored(out, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_a_session_needs_are_not_removed():
    requests = {"a": {"base_model": f"weights:{ID}"}, "b": {"base_model": "mine/1"}, "c": {}}
    assert sessions_with_file(f"{ID}/{ID}.weights", requests) == ["a"]


def test_what_is_uploaded_as_weights_is_looked_at():
    assert problem_with_content(tar(FILES).getvalue(), ".weights") is None
    for content in (b"", b"{}", tar({"x.py": b""}).getvalue()):
        assert "not an archive of weights" in str(problem_with_content(content, ".weights"))


def asked(**more: Any) -> Any:
    return parse_request({**NER, **more})


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, "small"),
        ({"base_model": "mine/3"}, "small"),
        ({"base_model": f"weights:{ID}"}, "transformer"),
        ({"base_model": HUB}, "transformer"),
        ({"base_model": "mine/3", "parameters": {"architecture": "transformer"}}, "transformer"),
        ({"base_model": "mine/3", "parameters": {"architecture": "small"}}, "small"),
    ],
)
def test_what_is_trained_and_where_follows_from_the_request(more: dict[str, Any], wanted: str):
    request = asked(**more)
    told = (request.model, request.parameters, request.base_model)
    assert architecture(*told) == wanted
    found = entry(*told)
    assert found is not None
    assert found.image == (TRANSFORMERS_IMAGE if wanted == "transformer" else OUR_IMAGE)
    assert catalogue().trained_by(workload_fingerprint(request)) == found


def test_other_weights_are_another_workload():
    one, other = asked(base_model=f"weights:{ID}"), asked(base_model=f"weights:{ID[:-1]}8")
    assert workload_fingerprint(one) != workload_fingerprint(other)
    assert workload_fingerprint(asked()) == workload_fingerprint(asked(base_model="mine/3"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"parameters": {"architecture": "transformer"}}, "parameters.architecture: a transformer starts from weights"),
        ({"parameters": {"architecture": "large"}}, "parameters.architecture: must be one of"),
        (
            {"base_model": f"weights:{ID}", "parameters": {"architecture": "small"}},
            "base_model: weights are a transformer's",
        ),
        ({"base_model": f"weights:{ID}", "parameters": {"dropout": 0.1}}, "unknown for a transformer for named_entity"),
        ({"parameters": {"epochs": 3}}, "unknown for named_entity_recognition, which takes architecture"),
        ({"base_model": f"weights:{ID}", "script": f"{ID}/{ID}.py"}, "script: a script trains no transformer"),
        ({"base_model": "weights:short"}, "base_model: must be 'name/3'"),
        (
            {"base_model": "hf://org/bert@main"},
            "'hf://org/name@<40 hex digits of a commit>' (got 'hf://org/bert@main')",
        ),
        ({"base_model": HUB.replace("org", "..")}, "base_model: must be 'name/3'"),
        ({"base_model": HUB, "parameters": {"architecture": "small"}}, "base_model: weights are a transformer's"),
        (
            {"model": "collaborative_filtering", "base_model": f"weights:{ID}"},
            "base_model: collaborative_filtering is not trained from weights",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_field(more: dict[str, Any], said: str):
    with pytest.raises(RequestError) as caught:
        asked(**more)
    (problem,) = caught.value.problems
    assert said in problem


def test_weights_are_a_file_of_the_store_and_their_own_base(tmp_path: Path):
    request = asked(base_model=f"weights:{ID}")
    assert (f"{ID}/{ID}.weights") in dict(map(reversed, datasets.references(request)))  # type: ignore[arg-type]
    problems = datasets.check(request, tmp_path.as_uri(), ("file",))
    assert any("base_model: there is no such weights: store it with `make weights DIR=...`" in one for one in problems)
    found = find_base(None, f"weights:{ID}")  # type: ignore[arg-type]
    assert (found.reference, found.uri, found.architecture) == (f"weights:{ID}", f"weights:{ID}", "transformer")


def test_only_prep_has_a_way_out_to_fetch_weights_of_a_hub(monkeypatch: pytest.MonkeyPatch):
    for name in ("client", "fence", "create_session_volume"):
        monkeypatch.setattr(pipeline.engine, name, lambda *_: [])
    monkeypatch.setattr(pipeline, "Registry", object)
    request = asked(base_model=HUB)
    session = pipeline.make_session("d", "r", request)
    assert (session["network"], session["base"]) == (settings().egress_network, HUB)
    assert pipeline.make_session("d", "r", asked(base_model=f"weights:{ID}"))["network"] == "none"
    (said,) = world.hub_problems(request, "")
    assert said.startswith("base_model: this stack fetches from no hub: set TARMAC_HUB_URL in env/stack.env")
    assert world.hub_problems(request, "https://hub.example") == []
    assert world.hub_problems(asked(base_model=f"weights:{ID}"), "") == []
