"""Fine-tuning a tiny transformer with random weights, which is made here: from stored weights to a registered model."""

import hashlib
import io
import json
import signal
import tarfile
from pathlib import Path
from typing import Any

import base58
import pytest
from conftest import Session, predicted_elsewhere
from hub_server import BASE, running_hub
from test_checkpoint import ALWAYS, interrupt, model_of

from tarmac_trainer import models
from tarmac_trainer.data import weights
from tarmac_trainer.runtime.errors import DataError
from tarmac_trainer.text.entities import Sentence

torch = pytest.importorskip("torch", reason="this image has no PyTorch")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PLAIN = "ada bob lives in paris rome works at acme . good bad film a the very ##s ##ly"
VOCABULARY = [*SPECIAL, *PLAIN.split(" ")]

SENTENCES = [
    ("ada lives in paris .", "B-person O O B-place O"),
    ("bob works at acme .", "B-person O O B-group O"),
    ("ada works in rome .", "B-person O O B-place O"),
    ("the film .", "O O O"),
]
SMALLEST = {"epochs": 40, "learn_rate": 0.01, "batch_size": 4, "evaluations": 1, "patience": 40, "max_tokens": 16}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a BERT of 2 layers, as a hub has them."""
    import transformers

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    transformers.BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    return folder


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if weights.NAMES.fullmatch(path.name)}


def put(session: Session, content: bytes) -> str:
    """Store weights; returns what a request names them by."""
    weights_id = base58.b58encode(hashlib.sha256(content).digest()).decode()
    (session.store / weights_id).mkdir(exist_ok=True)
    (session.store / weights_id / f"{weights_id}.weights").write_bytes(content)
    return f"weights:{weights_id}"


def lines(rows: list[tuple[str, str]], key: str = "named_entity") -> str:
    return "".join(json.dumps({"sentence": text, key: tags.split()}) + "\n" for text, tags in rows)


def begin(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    base: str,
    data: str,
    model: str = "named_entity_recognition",
    **parameters: Any,
) -> None:
    reference = session.put(data)
    session.request(
        {"d": {"train": reference, "eval": reference}},
        model=model,
        base_model=base,
        parameters={**SMALLEST, **parameters},
    )
    monkeypatch.setenv("TARMAC_BASE_MODEL", base)


@pytest.mark.usefixtures("mlruns")
def test_entities_are_learned_saved_and_told_by_one_line_in_another_process(
    session: Session, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin(session, monkeypatch, put(session, archive(files_of(tiny))), lines(SENTENCES))
    prepared = session.run("prep").result
    assert prepared["parameters"]["architecture"] == "transformer"
    trained = session.run("train").result
    assert trained["best_score"] == 1
    assert trained["parameters"]["epochs"] == 40
    assert session.run("eval").result["metrics"]["f1"] == 1
    saved = session.run("save").result
    told = predicted_elsewhere(saved["model_uri"], [{"sentence": "bob lives in rome ."}, {"sentence": "ada"}], tmp_path)
    assert told[0]["named_entity"] == ["B-person", "O", "O", "B-place", "O"]
    assert told[1]["named_entity"] == ["B-person"]


def test_equal_requests_give_equal_models(make_session: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for name in ("one", "other"):
        session = make_session(name)
        begin(session, monkeypatch, put(session, archive(files_of(tiny))), lines(SENTENCES), epochs=3, accumulate=2)
        session.run("prep")
        assert session.run("train").code == 0
        digests.append(hashlib.sha256((session.folder / "model" / "model.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("model", "data", "score"),
    [
        (
            "sentiment_analysis_binary",
            '{"sentence": "a good film", "sentiment": {"binary": 1}}\n{"sentence": "bad , the film is very very very '
            'very very very very very very very very very bad", "sentiment": {"binary": 0}}\n',
            "macro_f1",
        ),
        ("part_of_speech_tagging", lines([("ada lives .", "N V S"), ("bob works .", "N V S")], "pos"), "accuracy"),
        (
            "relation_extraction",
            "".join(
                json.dumps(
                    {
                        "sentence": "ada works at acme in paris .",
                        "relations": [{"sub": {"entity": "ada"}, "obj": {"entity": other}, "relation": told}],
                    }
                )
                + "\n"
                for other, told in (("acme", "at"), ("paris", "no_relation"))
            ),
            "micro_f1",
        ),
        ("keyphrase_extraction", '{"sentence": "ada works at acme", "keyphrases": ["acme"]}\n', "f1"),
        (
            "text_classification",
            "".join(
                json.dumps({"sentence": text, "labels": told}) + "\n"
                for text, told in (("ada works", ["work"]), ("ada lives", ["home", "work"]), ("the film", []))
            ),
            "micro_f1",
        ),
    ],
)  # fmt: skip
def test_the_other_kinds_learn(
    model: str, data: str, score: str, session: Session, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(session, monkeypatch, put(session, archive(files_of(tiny))), data, model)
    assert session.run("prep").code == 0
    trained = session.run("train")
    assert trained.result["best_score"] == 1
    assert session.run("eval").result["metrics"][score] == 1
    if model == "sentiment_analysis_binary":  # the other texts are shorter
        assert "1 of 2 train texts are longer than that: their beginning is read" in trained.out


def test_a_registered_transformer_is_trained_on_and_keeps_its_labels(
    make_session: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch, mlruns: None
) -> None:
    first = make_session("first")
    begin(first, monkeypatch, put(first, archive(files_of(tiny))), lines(SENTENCES))
    for step in ("prep", "train"):
        assert first.run(step).code == 0
    uri = first.run("save").result["model_uri"]
    second = make_session("second")
    begin(second, monkeypatch, "mine/1", lines(SENTENCES[:1]), architecture="transformer", epochs=1, learn_rate=1e-7)
    monkeypatch.setenv("TARMAC_BASE_MODEL", uri)
    assert second.run("prep").code == 0
    # One update that is next to nothing: what it knows is what it knew.
    assert second.run("train").result["best_score"] == 1
    kept = models.get("named_entity_recognition", "transformer").load(second.folder / "model").labels
    assert "B-group" in kept
    request = json.loads((second.folder / "request.json").read_text())
    second.request(**{**request, "parameters": {}})
    assert "set parameters.architecture to 'transformer'" in second.run("prep").error["message"]


@pytest.mark.parametrize("words", [1, 5, 40, 400])
def test_each_word_of_a_long_sentence_has_a_tag(words: int, tiny: Path, tmp_path: Path) -> None:
    from tarmac_trainer.transformer import network

    made = network.start(tiny, network.TAGS, ["B-x", "O"], 16)
    (tags,) = made.tag_all([["ada", "\u200b", "good" * 50, "x"][: max(1, words)] * (words // 4 or 1)])  # type: ignore[attr-defined]
    assert set(tags) <= {"B-x", "O"}


def test_held_out_lines_are_given_back(session: Session, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = put(session, archive(files_of(tiny)))
    rows = [(f"{text} {'good ' * at}", f"{tags} {'O ' * at}") for text, tags in SENTENCES for at in range(6)]
    reference = session.put(lines(rows))
    session.request({"d": {"train": reference, "eval": None}}, model="named_entity_recognition", base_model=base,
                    parameters={**SMALLEST, "epochs": 2})  # fmt: skip
    monkeypatch.setenv("TARMAC_BASE_MODEL", base)
    assert session.run("prep").code == 0
    result = session.run("train").result
    assert result["trained_again_on"] == 24
    assert result["chosen"]["updates"] == result["best_step"]


def test_labels_are_told_by_the_threshold_that_was_chosen_when_it_is_trained_again(
    session: Session, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = put(session, archive(files_of(tiny)))
    told = (("ada works", ["work"]), ("ada lives", ["home", "work"]), ("the film", []), ("bob lives", ["home"]))
    rows = [{"sentence": f"{text} {'good ' * at}", "labels": some} for text, some in told for at in range(6)]
    reference = session.put("".join(json.dumps(row) + "\n" for row in rows))
    session.request({"d": {"train": reference}}, model="text_classification", base_model=base,
                    parameters={**SMALLEST, "epochs": 1, "learn_rate": 1e-4})  # fmt: skip
    monkeypatch.setenv("TARMAC_BASE_MODEL", base)
    assert session.run("prep").code == 0
    result = session.run("train").result
    assert result["trained_again_on"] == 24
    threshold = result["chosen"]["threshold"]
    assert threshold != 0.5, "after one round next to nothing is known"
    kind = models.get("text_classification", "transformer")
    predictor = kind.load(session.folder / "model")
    assert vars(predictor.rule) == {"threshold": threshold, "least": 0, "most": 2}
    assert predictor.tell_likely(["ada works", "the film"]).shape == (2, 2)
    assert session.run("eval").result["metrics"]["micro_f1"] == pytest.approx(result["best_score"])


STOPPED_WHILE_SCORING = """
import os, signal
from tarmac_trainer.transformer import network
told, scorings = network.Tuned.told, []
def stopped(self, rows):
    scorings.append(None)
    if len(scorings) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    yield from told(self, rows)
network.Tuned.told = stopped
"""
"""For the driver of test_checkpoint."""


@pytest.mark.parametrize(
    ("refit", "number", "settings", "at"),
    [
        ("always", signal.SIGKILL, ALWAYS, (7, 2)),
        ("never", signal.SIGTERM, STOPPED_WHILE_SCORING, None),
    ],
    ids=["killed-while-it-is-repeated", "stopped-while-it-is-scored"],
)
def test_a_transformer_that_is_trained_on_is_the_one_of_a_training_that_was_not_interrupted(
    make_session: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch, refit: str, number: int, settings: str, at: Any
) -> None:
    rows = [(f"{text} {'good ' * at}", f"{tags} {'O ' * at}") for text, tags in SENTENCES for at in range(6)]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one, other = make_session("one"), make_session("other")
    for session in (one, other):
        base, reference = put(session, archive(files_of(tiny))), session.put(lines(rows))
        parameters = {**SMALLEST, "epochs": 6, "learn_rate": 2e-3, "accumulate": 2, "refit": refit}
        session.request({"d": {"train": reference, "eval": None}}, model="named_entity_recognition", base_model=base,
                        parameters=parameters)  # fmt: skip
        monkeypatch.setenv("TARMAC_BASE_MODEL", base)
        assert session.run("prep").code == 0
    wanted = one.run("train").result
    assert wanted["best_step"] == 12, "it is still to come where it is interrupted"
    out = interrupt(other, number, at, settings)
    assert ("a checkpoint is written: the next attempt goes on from step" in out) == (number == signal.SIGTERM)
    found = other.run("train").result
    assert model_of(other) == model_of(one)
    same = ("best_step", "steps", "best_score", "curve", "chosen", "trained_again_on")
    assert {key: found.get(key) for key in same} == {key: wanted.get(key) for key in same}
    assert found["resumed"]["step"] > 0


def test_lines_that_a_gpu_does_not_hold_at_once_are_computed_in_pieces_for_the_same_updates(
    make_session: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    from tarmac_trainer.transformer import network

    # With dropout the draws would be others.
    config = json.loads((tiny / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    content = archive({**files_of(tiny), "config.json": json.dumps(config).encode()})
    loss = network.TunedTagger.loss

    def short_of_memory(tuned: Any, batch: Any) -> Any:
        # Of two pieces of two lines the first one, with the short line, still fits.
        if len(batch) > 2 or (len(batch) == 2 and len({len(one.ids) for one in batch}) == 1):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB.")
        return loss(tuned, batch)

    weights_of, said = [], ""
    for name, computes in (("one", loss), ("other", short_of_memory)):
        session = make_session(name)
        begin(session, monkeypatch, put(session, content), lines(SENTENCES), epochs=2, learn_rate=1e-3)
        assert session.run("prep").code == 0
        monkeypatch.setattr(network.TunedTagger, "loss", computes)
        outcome = session.run("train")
        said = outcome.out
        assert outcome.result["steps"] == 2
        weights_of.append(load_file(session.folder / "model" / "model.safetensors"))
    assert said.count("lines are computed at once from here on, for the same updates") == 2  # 2, then 1, and no more
    assert all(torch.allclose(one, weights_of[1][name], atol=1e-4) for name, one in weights_of[0].items())


def saved_bytes(network: Any, lines_at_once: int, tokens: int) -> int:
    """What PyTorch keeps of the lines until the gradients are there, the weights left out."""
    weights_of = {table.untyped_storage().data_ptr() for table in (*network.parameters(), *network.buffers())}
    kept: dict[int, Any] = {}

    def keep(table: Any) -> Any:
        kept[table.untyped_storage().data_ptr()] = table
        return table

    ids = torch.full((lines_at_once, tokens), 7)
    mask = torch.ones_like(ids)
    mask[0, tokens // 2 :] = 0
    network.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda table: table):
        logits = network(input_ids=ids, attention_mask=mask).logits
        torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), ids.view(-1) % logits.shape[-1])
    return sum(table.untyped_storage().nbytes() for place, table in kept.items() if place not in weights_of)


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Albert", "DebertaV2", "ModernBert"])
def test_what_is_computed_of_memory_is_what_pytorch_keeps(kind: str, tmp_path: Path) -> None:
    import transformers

    from tarmac_trainer.runtime.device import CUDA_CONTEXT_BYTES
    from tarmac_trainer.transformer import need

    named = ("dim", "n_layers", "n_heads", "hidden_dim")
    if kind != "DistilBert":
        named = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = getattr(transformers, f"{kind}Config")(
        **dict(zip(named, (256, 3, 8, 1024), strict=True)),
        vocab_size=300,
        max_position_embeddings=256,
        num_labels=9,
        **({"relative_attention": True, "pos_att_type": ["p2c", "c2p"]} if kind == "DebertaV2" else {}),
        **({"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1} if kind == "Albert" else {}),
        **({name: 0 for name in ("pad_token_id", "cls_token_id", "sep_token_id")} if kind == "ModernBert" else {}),
    )
    network = transformers.AutoModelForTokenClassification.from_config(config)
    network.save_pretrained(tmp_path)
    numbers = need.numbers_of(tmp_path)
    assert numbers == network.num_parameters()
    described = json.loads((tmp_path / "config.json").read_text())
    for at_once, tokens in ((8, 64), (4, 256)):
        found = need.need(described, numbers, lines=at_once, tokens=tokens, labels=9)
        assert found is not None
        kept = found.bytes - CUDA_CONTEXT_BYTES - numbers * need.BYTES_OF_A_NUMBER
        assert 0.97 < kept / saved_bytes(network, at_once, tokens) < 1.15
    other = need.need({**described, "model_type": "unheard-of"}, numbers, lines=4, tokens=256, labels=9)
    assert other is not None
    assert other.bytes >= found.bytes
    assert need.need({"model_type": "bert"}, numbers, lines=4, tokens=256, labels=9) is None


def test_prep_tells_what_a_training_on_a_gpu_will_hold(
    session: Session, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = put(session, archive(files_of(tiny)))
    begin(session, monkeypatch, base, lines(SENTENCES))
    assert "gpu_need" not in session.run("prep").result
    request = json.loads((session.folder / "request.json").read_text())
    session.request(**{**request, "gpu": True})
    outcome = session.run("prep")
    told = outcome.result["gpu_need"]
    # The longest of four lines is shorter than 16 tokens could be, were each letter one.
    assert "4 lines of 16 tokens in 2 layers" in told["why"]
    assert 512 * 2**20 < told["bytes"] < 514 * 2**20
    assert f"it will hold about 513 MiB of a GPU: {told['why']}" in outcome.out


def test_weights_of_a_hub_are_fine_tuned(session: Session, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_hub(files_of(tiny)) as hub:
        monkeypatch.setenv("TARMAC_HUB_URL", hub.url)
        begin(session, monkeypatch, BASE, lines(SENTENCES), epochs=1)
        assert session.run("prep").result["parameters"]["architecture"] == "transformer"
    # The hub is gone.
    assert session.run("train").result["steps"] == 1


WRONG: dict[str, tuple[dict[str, bytes | None], str]] = {
    "a pickle": ({"pytorch_model.bin": b"x"}, "'pytorch_model.bin', which is not one of the files"),
    "a way out": ({"../config.json": b"{}"}, "'../config.json', which is not one of the files"),
    "no network": ({"config.json": None}, "no config.json"),
    "no weights": ({"model.safetensors": None}, "no .safetensors file"),
    "no tokenizer": ({"tokenizer.json": None, "vocab.txt": None}, "no tokenizer.json and no vocab.txt"),
    "code": ({"config.json": b'{"model_type": "bert", "auto_map": {"AutoModel": "evil.Model"}}'}, "auto_map"),
    "a tokenizer with code": ({"tokenizer_config.json": b'{"auto_map": {}}'}, "tokenizer_config.json names code"),
    "no kind": ({"config.json": b"{}"}, 'no "model_type"'),
    "a broken json": ({"config.json": b"{"}, "config.json is not JSON"),
    "a pickle by another name": ({"model.safetensors": b"\x80\x04\x95" + b"x" * 99}, "is not a safetensors file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_weights_is_refused(
    case: str, session: Session, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, said = WRONG[case]
    content = {name: one for name, one in {**files_of(tiny), **change}.items() if one is not None}
    begin(session, monkeypatch, put(session, archive(content)), lines(SENTENCES))
    failed = session.run("prep")
    assert failed.code == 2
    assert said in failed.error["message"]
    assert not (session.folder / "base").exists()


def test_links_and_what_is_there_twice_are_refused(tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo("config.json")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        out.seek(0)
        with pytest.raises(DataError, match="is a link, a folder or a device"):
            weights.unpack(out, tmp_path / "out")
    with pytest.raises(DataError, match="twice"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("config.json"))
            tar.addfile(tarfile.TarInfo("config.json"))
        out.seek(0)
        weights.unpack(out, tmp_path / "out")
    with pytest.raises(DataError, match="are not a tar archive"):
        weights.unpack(io.BytesIO(b"x" * 5000), tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config.json": b'{"model_type": "no-such-network"}'}, "it is not a transformer that can be fine-tuned"),
        ({"model.safetensors": (2).to_bytes(8, "little") + b"{}"}, "are not those of the network"),
        ({"model.safetensors": (9**6).to_bytes(8, "little") + b"{}"}, "it is not a transformer that can be fine-tuned"),
    ],
)
def test_weights_that_cannot_be_loaded_are_said_in_a_sentence(
    change: dict[str, bytes], said: str, session: Session, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(session, monkeypatch, put(session, archive({**files_of(tiny), **change})), lines(SENTENCES))
    assert session.run("prep").code == 0
    failed = session.run("train")
    assert failed.code == 2
    assert said in failed.error["message"]
    assert len(failed.error["message"]) < 500


def test_out_of_gpu_memory_is_told_with_numbers() -> None:
    from tarmac_trainer.runtime import device
    from tarmac_trainer.runtime.errors import GpuMemoryError

    class Pool:
        def total_bytes(self) -> int:
            return 3 * 2**30

    where = device.Device("cuda", limit_bytes=4 * 2**30, pool=Pool())
    with pytest.raises(GpuMemoryError) as caught, where.guarded():
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 79.10 GiB."
        )
    assert caught.value.needed_bytes == int(4.5 * 2**30) + device.CUDA_CONTEXT_BYTES
    with pytest.raises(GpuMemoryError), where.guarded():
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    with pytest.raises(RuntimeError, match="CUBLAS_STATUS_EXECUTION_FAILED"), where.guarded():
        raise RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED")


def test_spans_that_are_read_give_the_tags_that_are_learned() -> None:
    from tarmac_trainer.models.fine_tuned import TunedEntities

    assert TunedEntities().tags(Sentence(("a", "b"), ((0, 2, "x"),))) == ["B-x", "I-x"]
